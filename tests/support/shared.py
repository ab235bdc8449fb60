"""Where the golden data of the project's workshop lies; the suite passes without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SHARED: Path = Path(__file__).resolve().parents[3] / "shared" / "data"

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no golden data at {SHARED}")


def shared_json(name: str) -> Any:
    """The parsed file under the shared data folder, e.g. "golden/semantic/expected.json"."""
    return json.loads((SHARED / name).read_text(encoding="utf-8"))
