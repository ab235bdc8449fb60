"""Where the golden data of the project's workshop lies; the suite passes without it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SHARED: Path = Path(__file__).resolve().parents[3] / "shared" / "data"

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no golden data at {SHARED}")


def shared_json(name: str) -> Any:
    """The parsed file under the shared data folder, e.g. "golden/semantic/expected.json"."""
    return json.loads((SHARED / name).read_text(encoding="utf-8"))


def golden_cases(folder: str, wanted: Callable[[Any], bool] = lambda _: True) -> list[str]:
    """The names of the cases under golden/`folder`; none where there is no golden data."""
    if not SHARED.is_dir():
        return []
    cases = shared_json(f"golden/{folder}/expected.json")["cases"]
    return [name for name, case in cases.items() if wanted(case)]
