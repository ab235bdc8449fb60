"""A right `score` command, and the run that it makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import gpu_eval_command
from tests.support.semantic_split import TinySplit


@pytest.fixture
def arguments(split: TinySplit, tmp_path: Path) -> list[object]:
    """A right `score` command."""
    return ["score", split.gts, split.preds, "-o", tmp_path / "run", "--res", "native"]


@pytest.fixture
def scored(arguments: list[object], tmp_path: Path) -> Path:
    assert gpu_eval_command(*arguments).exit_code == 0
    return tmp_path / "run"
