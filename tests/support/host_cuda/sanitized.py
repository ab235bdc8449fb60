"""Runs a function of a test file with its kernels compiled under a sanitizer, in a process of its own.

    run_sanitized("asan", "tests.kernels.test_inflate_kernel:small_inputs")

The function takes one argument, a `Target`, and asserts as a test does. A sanitizer's runtime has to be
there before Python starts, hence LD_PRELOAD and the process.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.support.host_cuda import build
from tests.support.host_cuda.targets import HostTarget

ROOT = Path(__file__).resolve().parents[3]

# The address space layout of newer kernels does not fit the TSan of GCC 12; setarch -R turns it off.
BAD_LAYOUT = "unexpected memory mapping"

ENVIRONMENT = {
    # Python and NumPy leave memory to the end of the process on purpose.
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=66",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "exitcode=66:report_thread_leaks=0:report_signal_unsafe=0",
    "OPENBLAS_NUM_THREADS": "1",
}


def run_sanitized(
    mode: str, function: str, *, schedule: str = "forward", expect: str | None = None, timeout: float = 240
) -> str:
    """Run "module:function" under "asan" (with UBSan) or "tsan"; return what it and the sanitizer printed.

    Without `expect` the run must be clean; with it, the sanitizer must have found something and its report
    must contain `expect`. Skips where the sanitizer cannot run.
    """
    reason = build.why_not(mode) or _why_not_here(mode)
    if reason:
        pytest.skip(reason)
    done = _python(mode, ["-m", __name__, mode, schedule, function], timeout)
    output = done.stdout + done.stderr
    if BAD_LAYOUT in output:
        pytest.skip(f"{mode} does not run here: {BAD_LAYOUT}")
    if expect is None:
        assert done.returncode == 0, output
        assert "WARNING: ThreadSanitizer" not in output
    else:
        assert done.returncode != 0, output
        assert expect in output, output
    return output


@cache
def _why_not_here(mode: str) -> str | None:
    """Why Python does not start under this sanitizer, or None."""
    done = _python(mode, ["-c", "import numpy"], 120)
    if done.returncode == 0:
        return None
    return f"Python does not start under {mode}: {(done.stderr or done.stdout).strip()[:200]}"


def _python(mode: str, arguments: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
    variables = {**ENVIRONMENT, "LD_PRELOAD": str(build.runtime_of(mode))}
    command = ["env", *(f"{name}={value}" for name, value in variables.items()), sys.executable, *arguments]
    done = _run(command, timeout)
    setarch = shutil.which("setarch")
    if BAD_LAYOUT in done.stderr and setarch:
        done = _run([setarch, "-R", *command], timeout)
    return done


def _run(command: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)


def main(mode: str, schedule: str, function: str) -> None:
    module, _, name = function.partition(":")
    getattr(importlib.import_module(module), name)(HostTarget(schedule, mode=mode))


if __name__ == "__main__":
    main(*sys.argv[1:])
