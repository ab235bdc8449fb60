"""`python -m bench memory` and `startup`: whole commands in processes of their own."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import machine, workload
from bench.output import write_json

PEAK_GOAL_MB = 600.0
HELP_GOAL_S = 0.3
SCORE_GOAL_S = 1.5

CAMVID = machine.ROOT.parent / "shared" / "data" / "camvid"


@dataclass(frozen=True)
class Finished:
    """`peak_mb` (10^6 bytes) is the largest resident set of that one process, not of its children's sum."""

    wall_s: float
    peak_mb: float


def memory(*, pairs: int, out: Path | None) -> int:
    """Peak memory and speed of `gpu-eval score` on `pairs` pairs; 1 if the command fails."""
    about = machine.describe()
    print(machine.headline(about))
    with tempfile.TemporaryDirectory(prefix="gpu-eval-bench-") as name:
        folder = Path(name)
        gts, preds = workload.link_many(folder, pairs)
        try:
            done = gpu_eval(folder / "log", "score", gts, preds, "-o", folder / "run", "--overwrite")
        except CommandFailedError as error:
            print(error)
            return 1
    rate = 2 * pairs / done.wall_s
    print(f"{pairs} pairs of 1080p maps: {done.wall_s:.2f} s, {rate:.0f} images/s, {rate / 2:.0f} pairs/s")
    peak = _against("peak resident set", done.peak_mb, PEAK_GOAL_MB, "MB")
    report = {
        "benchmark": "memory",
        "machine": about,
        "pairs": pairs,
        "wall_s": done.wall_s,
        "images_per_s": rate,
        "peak": peak,
    }
    write_json(out, report)
    return 0


def startup(*, runs: int, out: Path | None) -> int:
    """Wall time of `gpu-eval --help` and of scoring CamVid, after one untimed run; 1 if a command fails."""
    about = machine.describe()
    print(machine.headline(about))
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="gpu-eval-bench-") as name:
        folder = Path(name)
        score = ("score", CAMVID / "gt", CAMVID / "pred", "-o", folder / "run", "--overwrite")
        for title, goal, arguments in (
            ("gpu-eval --help", HELP_GOAL_S, ("--help",)),
            ("gpu-eval score, 231 CamVid pairs", SCORE_GOAL_S, score),
        ):
            if arguments is score and not CAMVID.is_dir():
                print(f"{title}: {CAMVID} is not there")
                continue
            try:
                gpu_eval(folder / "log", *arguments)
                walls = [gpu_eval(folder / "log", *arguments).wall_s for _ in range(runs)]
            except CommandFailedError as error:
                print(error)
                return 1
            entry = _against(f"{title}: min {min(walls):.3f} s, median", statistics.median(walls), goal, "s")
            results.append({"command": title, "all_s": walls, "min_s": min(walls), **entry})
    write_json(out, {"benchmark": "startup", "machine": about, "commands": results})
    return 0


class CommandFailedError(Exception):
    """The command under test did not exit with 0; the message ends with the tail of its output."""


def gpu_eval(log: Path, *arguments: str | Path) -> Finished:
    """Run `gpu-eval` with these arguments, its output in `log`.

    Linux also charges a process with what its parent held while it was started: a peak below this
    process's own size (about 100 MB) cannot be seen.
    """
    command = [sys.executable, "-m", "gpu_eval", *map(str, arguments)]
    with log.open("wb") as stream:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, cwd=machine.ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        tail = log.read_text(errors="replace")[-2000:]
        raise CommandFailedError(f"{' '.join(command)}: exit code {process.returncode}\n{tail}")
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return Finished(wall_s=wall, peak_mb=usage.ru_maxrss * unit / 1e6)


def _against(title: str, measured: float, goal: float, unit: str) -> dict[str, Any]:
    reached = measured <= goal
    print(f"{title} {measured:.3f} {unit}, goal {goal} {unit}: {'reached' if reached else 'NOT reached'}")
    return {"measured": measured, "goal": goal, "unit": unit, "reached": reached}
