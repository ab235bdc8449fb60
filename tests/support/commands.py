"""The command line from a test: in this process, in one of its own, and slow enough to be stopped midway."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from click.testing import CliRunner, Result

from gpu_eval.cli.commands import main
from tests.support.children import child_environment, hear_ctrl_c
from tests.support.faults import FAULTS
from tests.support.toy_work import wait_for

# Tests that want a narrow terminal say so.
os.environ.pop("COLUMNS", None)


def gpu_eval_command(*words: object) -> Result:
    """What `gpu-eval` with these words does, in this process."""
    return CliRunner().invoke(main, [str(word) for word in words])


def command_line(*words: object) -> list[str]:
    return [sys.executable, "-m", "gpu_eval", *map(str, words)]


def gpu_eval_process(
    *words: object, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What `gpu-eval` with these words does, in a process that has `environment` beside that of this one."""
    return subprocess.run(
        command_line(*words),
        env=child_environment(environment),
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def start_slow(*words: object, seconds: float = 0.4) -> subprocess.Popen[bytes]:
    """`gpu-eval` with these words; each shard takes `seconds` more."""
    return subprocess.Popen(
        command_line(*words),
        env=child_environment({"PYTHONPATH": FAULTS, "GPU_EVAL_SLOW": str(seconds)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=hear_ctrl_c,
    )


def wait_for_parts(folder: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    """Until there are `count` committed parts, which the process writes."""

    def there() -> bool:
        found = len(list((folder / "images").glob("part-*.parquet"))) >= count
        assert found or process.poll() is None, process.communicate()
        return found

    wait_for(there, 120)
