"""The command as a process that is slow enough to be hit in the middle, and waiting for its parts."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

# Both tasks of the engine take 0.4 s more per shard.
COMMAND = """
import sys, time
from gpu_eval.cli import main
from gpu_eval.engines.cpu.engine import CpuEngine

def slow(method):
    def slowed(self, *arguments):
        time.sleep(0.4)
        return method(self, *arguments)
    return slowed

CpuEngine.score, CpuEngine.overlaps = slow(CpuEngine.score), slow(CpuEngine.overlaps)
main(sys.argv[1:], prog_name="gpu-eval")
"""


def start_slow(*words: object) -> subprocess.Popen[bytes]:
    """`gpu-eval` with these words, 0.4 s per shard."""
    command = [sys.executable, "-c", COMMAND, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=hear_ctrl_c)


def hear_ctrl_c() -> None:
    """For a child process: what runs in a shell's background inherits that SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for_parts(folder: Path, count: int, process: subprocess.Popen[bytes]) -> list[Path]:
    """The committed parts, as soon as there are at least `count`."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        parts = sorted((folder / "images").glob("part-*.parquet"))
        if len(parts) >= count:
            return parts
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError(f"no {count} parts in {folder} after two minutes")
