"""What the README shows is true: its Python passes a strict type checker, and CI calls its test command."""

from __future__ import annotations

import re
from pathlib import Path

from mypy import api

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# What its examples take for granted.
GIVEN = """
from typing import Any
loader: Any
model: Any
"""


def test_its_python_passes_mypy_strict(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 2
    example = tmp_path / "example.py"
    example.write_text(GIVEN + "\n".join(blocks))
    told, complaints, status = api.run(
        ["--strict", "--config-file", str(ROOT / "pyproject.toml"), str(example)]
    )
    assert status == 0, told + complaints


def test_ci_calls_its_test_command() -> None:
    command = re.search(r"&& (python -m pytest[^#\n]*?) *#", README)
    assert command is not None
    assert f"\n{command[1]}\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
