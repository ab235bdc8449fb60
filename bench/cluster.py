"""`python -m bench cluster`: what a shard costs on a Dask cluster, and what many of them cost in memory.

Scheduler, worker and driver are processes of their own on loopback, as on a real cluster; the shards are
trivial, so that what is left is the cost of scheduling.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import machine, overhead
from bench.output import write_json
from gpu_eval.scheduling import loop
from gpu_eval.scheduling.dask_cluster import connect
from gpu_eval.scheduling.dask_executor import DaskExecutor
from gpu_eval.scheduling.loop import Executor, InProcessExecutor
from gpu_eval.scheduling.shards import Shard

MEMORY_GOAL_MB = 300.0
FEW = 2000
LOOPBACK = "127.0.0.1"


def run(*, shards: int, window: int, repeat: int, out: Path | None) -> int:
    """Overhead with real label maps, then time per trivial shard and peak memory of driver and scheduler.

    Returns 1 if that memory is over its goal.
    """
    about = machine.describe()
    print(machine.headline(about))
    real = overhead.measure(repeat)
    rows = []
    with tempfile.TemporaryDirectory(prefix="gpu-eval-bench-") as name:
        for executor, count, size in (
            ("in-process", shards, None),
            ("dask", FEW, None),
            ("dask", shards, window),
        ):
            row = _measure(Path(name), executor, count, size)
            rows.append(row)
            print(
                f"{executor:10}  {count:7d} shards, window {row['window']:3d}: "
                f"{row['ms_per_shard']:6.3f} ms per shard, "
                f"driver {row['driver_mb']:.0f} MB, scheduler {row['scheduler_mb']:.0f} MB"
            )
    total = rows[-1]["driver_mb"] + rows[-1]["scheduler_mb"]
    met = total < MEMORY_GOAL_MB
    print(f"driver + scheduler {total:.0f} MB, goal {MEMORY_GOAL_MB:.0f} MB: {'met' if met else 'NOT MET'}")
    write_json(
        out, {"benchmark": "cluster", "machine": about, "real": real, "trivial": rows, "memory_mb": total}
    )
    return 0 if met else 1


def _measure(folder: Path, executor: str, shards: int, window: int | None) -> dict[str, Any]:
    """One run in a fresh driver, on a fresh cluster."""
    with _cluster(folder, wanted=executor == "dask") as (scheduler_file, scheduler):
        command = [sys.executable, "-m", "bench.cluster", str(scheduler_file), str(shards), str(window or 0)]
        done = subprocess.run(command, cwd=machine.ROOT, check=True, capture_output=True, text=True)
        row: dict[str, Any] = json.loads(done.stdout)
        row["scheduler_mb"] = _peak_mb(scheduler.pid) if scheduler else 0.0
    return {"executor": executor, "shards": shards, **row}


@contextmanager
def _cluster(folder: Path, *, wanted: bool) -> Iterator[tuple[Path | None, subprocess.Popen[bytes] | None]]:
    if not wanted:
        yield None, None
        return
    path = folder / "scheduler.json"
    path.unlink(missing_ok=True)
    common = ["--scheduler-file", str(path), "--host", LOOPBACK, "--dashboard-address", f"{LOOPBACK}:0"]
    scheduler = _start(folder, "scheduler", "--port", "0", *common)
    worker = None
    try:
        while not path.exists() or not path.read_text():
            if scheduler.poll() is not None:
                raise RuntimeError((folder / "scheduler.log").read_text())
            time.sleep(0.05)
        worker = _start(folder, "worker", "--nthreads", "1", "--no-nanny", *common)
        yield path, scheduler
    finally:
        for process in (worker, scheduler):
            if process is not None:
                process.kill()
                process.wait()


def _start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with open(folder / f"{arguments[0]}.log", "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments],
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(machine.ROOT)},
        )


def _peak_mb(pid: int | str) -> float:
    """The largest resident set of a living process, in 10^6 bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def first(shard: Shard) -> int:
    return shard.first


def _drive(executor: Executor, shards: int) -> dict[str, Any]:
    """Run trivial shards, which are never a list, and check that each came out once."""
    started = time.perf_counter()
    seen = total = 0
    for done in loop.run((Shard(i, i, i + 1) for i in range(shards)), executor, first):
        seen += 1
        total += done.summary
    seconds = time.perf_counter() - started
    if (seen, total) != (shards, shards * (shards - 1) // 2):
        raise RuntimeError(f"{seen} results of {shards}, sum {total}")
    return {
        "window": executor.window,
        "seconds": round(seconds, 3),
        "ms_per_shard": round(seconds / shards * 1e3, 4),
        "driver_mb": round(_peak_mb("self"), 1),
    }


def _driver(scheduler_file: str, shards: int, window: int) -> dict[str, Any]:
    if scheduler_file == "None":
        return _drive(InProcessExecutor(), shards)
    with connect(scheduler_file=scheduler_file) as client:
        client.wait_for_workers(1, timeout=60)
        _drive(DaskExecutor(client), 10)  # the first tasks import the package on the worker
        return _drive(DaskExecutor(client, window=window or None), shards)


if __name__ == "__main__":
    import bench.cluster as importable  # so that `first` travels by its name, not as __main__'s

    first = importable.first
    json.dump(_driver(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])), sys.stdout)
