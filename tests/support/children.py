"""What processes that a test starts are given: this checkout on their path, and a Ctrl-C that they hear."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def child_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """That of this process with `more`, whose PYTHONPATH comes first and then the checkout."""
    more = more or {}
    path = os.pathsep.join([*filter(None, [more.get("PYTHONPATH")]), str(ROOT)])
    return {**os.environ, **more, "PYTHONPATH": path}


def hear_ctrl_c() -> None:
    """To be called in the child: what runs in a shell's background inherits that SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
