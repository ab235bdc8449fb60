"""The overhead of a Dask cluster over one process, per shard and per image, with real label maps."""

from __future__ import annotations

import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import gpu_eval
from bench import workload
from gpu_eval.runs.cluster_options import ClusterOptions, client_of

# Images per shard, and how many images are scored: enough shards to see one, few enough to wait for.
SHARD_SIZES = {1: 384, 16: 1024, 256: 2048, 1024: 4096}


def measure(repeat: int) -> list[dict[str, Any]]:
    """A row per number of workers and shard size; prints as it goes.

    One worker of one thread stands against one process with one thread, two against one with two. Seconds
    are those of scoring and writing, without listing and without the tables of the whole run.
    """
    rows = []
    with tempfile.TemporaryDirectory(prefix="gpu-eval-bench-") as name:
        folder = Path(name)
        splits = {n: workload.link_many(folder / f"split-{n}", n) for n in set(SHARD_SIZES.values())}
        for workers in (1, 2):
            with ExitStack() as stack:
                cluster = stack.enter_context(client_of(ClusterOptions(workers=workers)))
                assert cluster is not None
                for shard_size, images in SHARD_SIZES.items():
                    gts, preds = splits[images]
                    here = _Contestant(gts, preds, folder / "here", shard_size, threads=workers, client=None)
                    there = _Contestant(
                        gts, preds, folder / "there", shard_size, threads=None, client=cluster.client
                    )
                    for contestant in (here, there):
                        contestant.run()  # kernels are loaded, files are in the page cache
                    # In turns, so that a noisy minute is everybody's.
                    seconds = [(here.run(), there.run()) for _ in range(repeat)]
                    rows.append(_row(workers, shard_size, images, seconds))
    return rows


class _Contestant:
    """Scores one split again and again; the sums must stay the same."""

    def __init__(
        self, gts: Path, preds: Path, out: Path, shard_size: int, *, threads: int | None, client: Any
    ) -> None:
        self._paths = (gts, preds)
        self._options = {
            "out": out, "shard_size": shard_size, "threads": threads, "client": client, "overwrite": True,
            "intervals": False, "engine": "cpu",
        }  # fmt: skip
        self._total: Any = None

    def run(self) -> float:
        run = gpu_eval.score(*self._paths, **self._options)  # type: ignore[arg-type]
        if self._total is None:
            self._total = run.confusion()
        if not np.array_equal(self._total, run.confusion()):
            raise RuntimeError("a repeated run gives other numbers")
        return float(run.facts["seconds"]["scoring"])


def _row(workers: int, shard_size: int, images: int, seconds: list[tuple[float, float]]) -> dict[str, Any]:
    shards = -(-images // shard_size)
    here, there = (statistics.median(column) for column in zip(*seconds, strict=True))
    extra = statistics.median(one - other for other, one in seconds)
    row = {
        "workers": workers,
        "shard_size": shard_size,
        "images": images,
        "in_process_s": here,
        "cluster_s": there,
        "overhead_ms_per_shard": extra / shards * 1e3,
        "overhead_us_per_image": extra / images * 1e6,
        "all_s": seconds,
    }
    print(
        f"{workers} worker{'s' if workers > 1 else ' '}  {shard_size:5d} images a shard: "
        f"in process {here:6.2f} s, cluster {there:6.2f} s, "
        f"{row['overhead_ms_per_shard']:+8.2f} ms per shard, {row['overhead_us_per_image']:+8.1f} us an image"
    )
    return row
