"""`python -m bench scaling`: unit costs of what grows with a split, and a simulation of a very large one.

The costs are measured here, on one machine. The simulation is events on a heap: drivers (each with its own
Dask scheduler) hand out shards to their workers, one at a time; workers score, write, fail and come back. It
answers what no single machine can show: how many drivers a thousand GPUs need, and what breaks first.
"""

from __future__ import annotations

import heapq
import json
import math
import random
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.output import write_json
from gpu_eval.inputs.pairs import pair_up
from gpu_eval.inputs.source import Entry
from gpu_eval.labels import load_labels
from gpu_eval.results import semantic_images
from gpu_eval.run_folder import manifest, parts
from gpu_eval.run_folder import semantic_schema as schema
from gpu_eval.run_folder import semantic_tables as tables
from gpu_eval.run_folder.semantic_tables import ImageRow
from gpu_eval.storage import write_table
from gpu_eval.tasks import semantic

# In the order of writing.
PART_TABLES = tuple(schema.tables().parts)

SUFFIX = "_gtFine_labellevel3Ids.png"
IMAGES = 1_000_000_000
HOUR = 3600.0


@dataclass(frozen=True)
class Costs:
    """Seconds and bytes per unit; see `measure` for what each is."""

    pair_s: float
    pair_bytes: float
    fingerprint_s: float
    manifest_bytes: float
    manifest_read_s: float
    part_write_s: float
    part_bytes: float
    part_check_s: float
    image_reduce_s: float


def measure(pairs: int = 100_000, part_count: int = 40, shard_size: int = 512) -> Costs:
    """Costs of listing and pairing, of the manifest, and of parts, on this machine's disk."""
    before = _resident()
    started = time.perf_counter()
    names = [f"{number // 1000:06d}/{number:09d}{SUFFIX}" for number in range(pairs)]
    sides = [
        [Entry(name, 30_000, str(1_700_000_000_000_000_000 + i)) for i, name in enumerate(names)]
        for _ in "gp"
    ]
    split = pair_up(*sides, gt_suffix=SUFFIX, pred_suffix=SUFFIX, gt_location="gt", pred_location="pred")
    pair_s = (time.perf_counter() - started) / pairs
    pair_bytes = (_resident() - before) / pairs
    table = semantic.to_manifest(split.pairs)
    fingerprint_s = _timed(lambda: parts.fingerprint(table, {})) / pairs
    with tempfile.TemporaryDirectory(prefix="gpu-eval-bench-") as name:
        folder = Path(name)
        path = folder / manifest.FILE
        write_table(path, table, rows_per_group=manifest.ROWS_PER_GROUP)
        manifest_bytes = path.stat().st_size / pairs
        middle = pairs // 2
        manifest_read_s = min(
            _timed(lambda: semantic.to_pairs(manifest.read(folder, middle, middle + shard_size)))
            for _ in range(3)
        )
        labels = load_labels("idd")
        rng = np.random.default_rng(0)
        matrices = [_matrix(rng, labels.n_classes + 1) for _ in range(shard_size)]
        begun = time.perf_counter()
        for number in range(part_count):
            first = number * shard_size
            rows = [_row(first + i, names[first + i]) for i in range(shard_size)]
            part = tables.part(rows, list(matrices), labels)
            parts.commit(folder, number, {n: part[n] for n in PART_TABLES}, "f")
        part_write_s = (time.perf_counter() - begun) / part_count
        part_bytes = sum(file.stat().st_size for file in folder.rglob("part-*")) / part_count
        numbers = range(part_count)
        checked = _timed(lambda: [parts.is_committed(folder, n, PART_TABLES, "f") for n in numbers])
        facts = {"images": part_count * shard_size, "decides": {"shard_size": shard_size}}
        reduced = _timed(lambda: semantic_images.read(folder, facts, labels))
    return Costs(
        pair_s=pair_s,
        pair_bytes=pair_bytes,
        fingerprint_s=fingerprint_s,
        manifest_bytes=manifest_bytes,
        manifest_read_s=manifest_read_s,
        part_write_s=part_write_s,
        part_bytes=part_bytes,
        part_check_s=checked / part_count,
        image_reduce_s=reduced / (part_count * shard_size),
    )


def _matrix(rng: np.random.Generator, size: int) -> Any:
    """A matrix with as many non-zero cells as a street scene has: some 150 of 729."""
    cells = np.where(rng.random((size, size)) < 0.2, rng.integers(1, 5000, (size, size)), 0)
    return cells.astype(np.int64)


def _row(image: int, name: str) -> ImageRow:
    return ImageRow(
        image_id=image, key=name.removesuffix(SUFFIX), drive=name.split("/")[0], gt_file=name, pred_file=name,
        gt_height=1080, gt_width=1920, pred_height=1080, pred_width=1920, decoder="cuda", status="ok",
        errors=[],
        warning=None, gt_outside=0, pred_outside=0,
    )  # fmt: skip


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _resident() -> int:
    """The highest resident set of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass(frozen=True)
class Plan:
    """A run to simulate; seconds and images. `task_s` is what a driver and its scheduler spend on a shard.

    A worker of one thread writes its part before it scores the next shard, one of two threads meanwhile.
    """

    images: int
    workers: int
    drivers: int
    shard_size: int
    images_per_s: float
    task_s: float
    write_s: float
    threads: int = 2
    jitter: float = 0.1
    worker_mtbf_s: float = 1000 * HOUR
    restart_s: float = 60.0
    window: int = 3


def simulate(plan: Plan, seed: int = 0) -> dict[str, float]:
    """Wall seconds, the share of them that workers score in, and the share that drivers are busy.

    Each driver has every `drivers`-th shard and its share of the workers. It serves one shard at a time:
    taking in a result and handing out the next. A worker has `window` shards at hand, so it waits only if its
    driver is behind.
    """
    rng = random.Random(seed)
    shards = math.ceil(plan.images / plan.shard_size)
    ends, busy, scoring, lost = [], 0.0, 0.0, 0
    for driver in range(plan.drivers):
        mine = shards // plan.drivers + (driver < shards % plan.drivers)
        workers = plan.workers // plan.drivers + (driver < plan.workers % plan.drivers)
        todo = mine
        free_at = 0.0  # when the driver can serve again
        queue = [0] * workers  # shards at hand, that in work included
        idle: list[int] = []
        events: list[tuple[float, int]] = []
        end = 0.0

        def begin(worker: int, at: float, events: list[tuple[float, int]] = events) -> None:
            nonlocal scoring, lost
            scored = plan.shard_size / plan.images_per_s * rng.lognormvariate(0.0, plan.jitter)
            took = scored + plan.write_s if plan.threads == 1 else max(scored, plan.write_s)
            if rng.random() < took / plan.worker_mtbf_s:
                lost += 1
                took = rng.random() * took + plan.restart_s + took
            scoring += plan.shard_size / plan.images_per_s
            heapq.heappush(events, (at + took, worker))

        for _ in range(plan.window):
            for worker in range(workers):
                if todo == 0:
                    break
                free_at += plan.task_s
                todo -= 1
                queue[worker] += 1
                if queue[worker] == 1:
                    begin(worker, free_at)
        while events:
            now, worker = heapq.heappop(events)
            queue[worker] -= 1
            if queue[worker]:
                begin(worker, now)
            else:
                idle.append(worker)
            free_at = max(free_at, now) + plan.task_s
            busy += plan.task_s
            end = max(end, free_at)
            if todo:
                todo -= 1
                fewest = idle.pop() if idle else worker
                queue[fewest] += 1
                if queue[fewest] == 1:
                    begin(fewest, free_at)
        ends.append(end)
    wall = max(ends)
    return {
        "shards": shards,
        "wall_s": wall,
        "scoring_share": scoring / (wall * plan.workers),
        "driver_busy": busy / (wall * plan.drivers),
        "workers_lost": lost,
    }


def run(*, task_s: float | None, images_per_s: float, workers: int, out: Path | None) -> int:
    about = machine.describe()
    print(machine.headline(about))
    costs = measure()
    for name, value in asdict(costs).items():
        unit = "bytes" if name.endswith("bytes") else "us"
        print(f"  {name.rpartition('_')[0]:<16} {value if unit == 'bytes' else value * 1e6:>10.1f} {unit}")
    if task_s is None:
        task_s = _measured_task()
    print(f"  driver and scheduler per shard: {task_s * 1e3:.2f} ms")
    rows = []
    print(f"\n{IMAGES:,} pairs, {workers} workers, {images_per_s:,.0f} pairs/s each (assumed, not measured)")
    heads = f"{'shard':>8} {'drivers':>8} {'threads':>8} {'shards':>10} {'wall':>9} {'scoring':>8}"
    print(f"{heads} {'drivers busy':>13}")
    cases = [(size, drivers, 2) for size in (512, 4096, 16384, 65536) for drivers in (1, 4, 16)]
    for shard_size, drivers, threads in [*cases, (16384, 16, 1)]:
        plan = Plan(
            IMAGES, workers, drivers, shard_size, images_per_s, task_s,
            write_s=costs.part_write_s * shard_size / 512, threads=threads,
        )  # fmt: skip
        result = simulate(plan)
        rows.append({**asdict(plan), **result})
        print(
            f"{shard_size:>8} {drivers:>8} {threads:>8} {result['shards']:>10,} {result['wall_s']:>7,.0f} s"
            f" {result['scoring_share']:>7.0%} {result['driver_busy']:>12.0%}"
        )
    ahead = {
        "listing_and_pairing_s": IMAGES * costs.pair_s,
        "fingerprint_s": IMAGES * costs.fingerprint_s,
        "driver_memory_gb": IMAGES * costs.pair_bytes / 1e9,
        "manifest_gb": IMAGES * costs.manifest_bytes / 1e9,
        "parts_gb": IMAGES / 512 * costs.part_bytes / 1e9,
        "reduction_s": IMAGES * costs.image_reduce_s,
    }
    print("\nwhat one driver would spend on the whole split besides scoring:")
    for name, value in ahead.items():
        print(f"  {name:<24} {value:>12,.0f}")
    write_json(
        out,
        {"benchmark": "scaling", "machine": about, "costs": asdict(costs), "task_s": task_s,
         "simulated": rows, "one_driver": ahead},
    )  # fmt: skip
    return 0


def _measured_task() -> float:
    """Seconds per trivial shard of the largest run of `python -m bench cluster`."""
    path = machine.ROOT / "bench" / "results" / "cluster.json"
    return float(json.loads(path.read_text(encoding="utf-8"))["trivial"][-1]["ms_per_shard"]) / 1e3
