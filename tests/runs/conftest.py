"""A split of twelve images and its run by one process, which tests of whole runs read and do not change."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.scoring import score
from tests.support.semantic_split import TinySplit, make_split

IMAGES = 12


@pytest.fixture(scope="session")
def dozen(tmp_path_factory: pytest.TempPathFactory) -> TinySplit:
    return make_split(tmp_path_factory.mktemp("dozen"), pairs=IMAGES)


@pytest.fixture(scope="session")
def alone(dozen: TinySplit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process, a shard an image, which every other run of these must equal."""
    out = tmp_path_factory.mktemp("alone") / "run"
    score(dozen, out, shard_size=1)
    return out
