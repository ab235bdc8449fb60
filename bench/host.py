"""`python -m bench host`: the host's side of the CUDA engine, with a device that takes no time.

What is left is what no device makes faster: listing, reading, checking chunks, jobs, results, Parquet. It
bounds what a device can reach on this machine. The counts that come back are real ones, of the CPU engine, so
that the tables are as large as they would be.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

import gpu_eval
from bench import machine, workload
from bench.gpu import list_pairs, pack, timed_row
from bench.output import write_json
from gpu_eval.engines.cpu.engine import CpuEngine
from gpu_eval.engines.cuda import cupy_device, kernels
from gpu_eval.engines.cuda import engine as cuda
from gpu_eval.engines.cuda.device import Bytes, Event
from gpu_eval.engines.cuda.engine import CudaEngine
from gpu_eval.engines.semantic import make_job
from gpu_eval.inputs.sources import open_source
from gpu_eval.labels import load_labels

DISTINCT = 16


class _Done:
    def synchronize(self) -> None:
        pass


class IdleDevice:
    """A `Device` on which nothing takes time; downloads bring `cells`, int64 (pairs, n, n), over and over."""

    def __init__(self, cells: npt.NDArray[np.int64]) -> None:
        self._pair_bytes = cells[0].nbytes
        self._cells = np.tile(cells, (-(-1024 // len(cells)), 1, 1)).reshape(-1).view(np.uint8)

    failures = ()

    def describe(self) -> str:
        return "a device that takes no time"

    def free_memory(self) -> int:
        return 64 << 30

    def allocate(self, size: int) -> Bytes:
        return np.empty(size, np.uint8)  # never touched, so no memory is taken

    def pinned(self, size: int) -> Bytes:
        return np.zeros(size, np.uint8)

    def stream(self) -> AbstractContextManager[object]:
        return nullcontext()

    def upload(self, host: npt.NDArray[Any], target: Bytes) -> None:
        pass

    def download(self, source: Bytes, host: npt.NDArray[Any]) -> None:
        """The results of a batch: a matrix per pair, then a status of 0 per map."""
        size = source.size // (self._pair_bytes + 8) * self._pair_bytes
        host[:size] = self._cells[:size]
        host[size:] = 0

    def zero(self, target: Bytes) -> None:
        pass

    def module(self, source: kernels.Source) -> kernels.Module:  # noqa: ARG002
        return self

    def get_function(self, name: str, /) -> Callable[..., None]:  # noqa: ARG002
        return lambda *_: None

    def record(self) -> Event:
        return _Done()

    def seconds(self, begin: Event, end: Event) -> float:  # noqa: ARG002
        return 0.0

    def close(self) -> None:
        pass


def run(*, pairs: int, repeat: int, out: Path | None) -> int:
    """Print and write pairs per second of the engine alone and of whole runs, from a folder and a tar."""
    console = Console(width=None if Console().is_terminal else 160)
    about = machine.describe()
    console.print(machine.headline(about), markup=False)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="gpu-eval-bench-") as name:
        folder = Path(name)
        roots = workload.link_many(folder, pairs, min(DISTINCT, pairs))
        for place, locations in (("folder", roots), ("tar", tuple(pack(root) for root in roots))):
            for threads in sorted({1, len(os.sched_getaffinity(0))}):
                rows += _measure(place, locations, folder / "run", threads, repeat)
    table = Table(title="the host's side of the CUDA engine, with a device that takes no time")
    for heading in ("what", "from", "threads", "s", "pairs/s"):
        table.add_column(heading, justify="left" if heading in ("what", "from") else "right")
    for row in rows:
        figures = str(row["threads"]), f"{row['median_s']:.3f}", f"{row['pairs_per_s']:,.0f}"
        table.add_row(row["what"], row["from"], *figures)
    console.print(table)
    write_json(out, {"benchmark": "host", "machine": about, "repeat": repeat, "rows": rows})
    return 0


def _measure(
    place: str, locations: tuple[Path, ...], out: Path, threads: int, repeat: int
) -> list[dict[str, Any]]:
    job = make_job(load_labels("idd"), resolution=(workload.HEIGHT, workload.WIDTH))
    gts, preds = (open_source(location) for location in locations)
    pairs = list_pairs(gts, preds)
    cpu = CpuEngine(threads)
    confusions = [result.confusion for result in cpu.count(job, pairs[:DISTINCT], gts, preds)]
    cells = np.zeros((len(confusions), *[job.n_classes + 2] * 2), np.int64)
    cells[:, :-1, :-1] = confusions
    device = IdleDevice(cells)
    engine = CudaEngine(threads, device=device)
    first = engine.count(job, pairs, gts, preds)[0].confusion
    if not np.array_equal(first, confusions[0]):
        raise ValueError("the engine does not give what its device has counted")
    count = partial(engine.count, job, pairs, gts, preds)
    rows = [timed_row({"what": "engine", "from": place, "threads": threads}, len(pairs), count, repeat)]
    engine.close()
    cpu.close()
    gts.close()
    preds.close()

    def whole() -> None:
        gpu_eval.score(*locations, out=out, engine="cuda", threads=threads, overwrite=True)

    with (
        mock.patch.object(cuda, "CupyDevice", return_value=device),
        mock.patch.object(cupy_device, "available", return_value=(True, device.describe(), 1)),
    ):
        whole()
        rows.append(
            timed_row({"what": "whole run", "from": place, "threads": threads}, len(pairs), whole, repeat)
        )
    return rows
