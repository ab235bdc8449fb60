"""`python -m bench report`: what people wait for after the pixels are counted.

Run folders of made-up matrices as large as a test split and as a large one: sparse as street scenes are
(60 non-zero cells an image), twelve frames a drive. Every measured stage runs in a process of its own, so
that its peak memory is its own.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.output import write_json
from gpu_eval import api
from gpu_eval.labels import load_labels
from gpu_eval.labels.instance_space import load_instances
from gpu_eval.metrics import uncertainty
from gpu_eval.metrics import units as kinds
from gpu_eval.metrics.average_precision_units import delete_one
from gpu_eval.metrics.matching import InstanceTable, outcomes
from gpu_eval.results import compare, leaderboard
from gpu_eval.results import units as run_units
from gpu_eval.results.semantic_run import Run
from gpu_eval.run_folder import folder as run_folder
from gpu_eval.run_folder import parts, semantic_schema
from gpu_eval.run_folder import semantic_tables as tables
from gpu_eval.run_folder.schema import FORMAT_VERSION
from gpu_eval.run_folder.semantic_tables import ImageRow
from gpu_eval.scheduling.shards import cut

SHARD = 512
PER_DRIVE = 12
CELLS = 60
PREDICTIONS = 10
INTERVALS_GOAL_S = 0.12
GOAL_IMAGES = 4038


def run(*, sizes: list[int], repeat: int, out: Path | None) -> int:
    """Print and write time and memory of each stage; 1 where the goal of the first is not reached."""
    about = machine.describe()
    print(machine.headline(about))
    results = []
    with tempfile.TemporaryDirectory(prefix="gpu-eval-bench-") as name:
        for images in sizes:
            runs = [Path(name) / f"{images}-{which}" for which in "ab"]
            # Elsewhere: Linux charges a process with what its parent held when it was started.
            with multiprocessing.get_context("spawn").Pool(2) as pool:
                pool.starmap(_write, [(folder, images, which) for which, folder in enumerate(runs)])
            for title, stage in STAGES.items():
                times, peak = _measure(stage, runs, repeat)
                results.append(
                    {
                        "images": images,
                        "stage": title,
                        "all_s": times,
                        "min_s": min(times),
                        "median_s": statistics.median(times),
                        "peak_mb": peak,
                    }
                )
                print(
                    f"{images:>8,} images  {title:<44} min {min(times):7.3f} s  "
                    f"median {statistics.median(times):7.3f} s  peak {peak:6.0f} MB"
                )
    goals = [r for r in results if r["images"] == GOAL_IMAGES and r["stage"] == next(iter(STAGES))]
    reached = all(result["median_s"] < INTERVALS_GOAL_S for result in goals)
    if goals:
        print(
            f"goal, intervals of {GOAL_IMAGES:,} images in drives of {PER_DRIVE} in under "
            f"{INTERVALS_GOAL_S} s: {'reached' if reached else 'NOT reached'}"
        )
    write_json(
        out,
        {"benchmark": "report", "machine": about, "results": results},
    )
    return 0 if reached else 1


def _intervals(runs: list[Path], units: str) -> Callable[[], object]:
    counted = Run(runs[0]).image_counts()
    chosen = run_units.units_of(counted, units)

    def stage() -> None:
        for scores in (counted.parts(chosen), counted.accuracies(chosen)):
            for one in scores.values():
                uncertainty.intervals(one, chosen)

    return stage


def _intervals_images(runs: list[Path]) -> Callable[[], object]:
    return _intervals(runs, "images")


def _intervals_drives(runs: list[Path]) -> Callable[[], object]:
    return _intervals(runs, "drives")


def _intervals_precision(runs: list[Path]) -> Callable[[], object]:
    images = int(Run(runs[0]).facts["images"])
    judged = outcomes(_instances(images), load_instances("idd"), "autonue")
    units = kinds.named([str(i // PER_DRIVE) for i in range(images)], "drives")

    def stage() -> None:
        found = delete_one(judged, units)
        for one in (found.parts(), found.parts(at_half=True)):
            uncertainty.intervals(one, units)

    return stage


def _read(runs: list[Path]) -> Callable[[], object]:
    return lambda: Run(runs[0]).image_counts()


def _compare(runs: list[Path]) -> Callable[[], object]:
    return lambda: compare.compare(Run(runs[0]), Run(runs[1]))


def _leaderboard(runs: list[Path]) -> Callable[[], object]:
    return lambda: leaderboard.leaderboard([Run(folder) for folder in runs])


def _html(runs: list[Path]) -> Callable[[], object]:
    return lambda: api.write_html(runs[0])


# What is measured: a function that prepares, untimed, and gives back what is timed. The first has the goal.
STAGES: dict[str, Callable[[list[Path]], Callable[[], object]]] = {
    "intervals of all scores, units are drives": _intervals_drives,
    "intervals of all scores, units are images": _intervals_images,
    f"intervals of AP, {PREDICTIONS} predictions an image": _intervals_precision,
    "reading the parts back": _read,
    "compare of two runs, reading included": _compare,
    "leaderboard of two runs, reading included": _leaderboard,
    "HTML report without pictures": _html,
}


def _measure(
    stage: Callable[[list[Path]], Callable[[], object]], runs: list[Path], repeat: int
) -> tuple[list[float], float]:
    """Seconds of each repeat and the peak resident set in MB (10^6 bytes), in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_timed, (stage, runs, repeat))


def _timed(
    stage: Callable[[list[Path]], Callable[[], object]], runs: list[Path], repeat: int
) -> tuple[list[float], float]:
    prepared = stage(runs)
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        prepared()
        times.append(time.perf_counter() - begin)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return times, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _instances(images: int) -> InstanceTable:
    """`PREDICTIONS` per image, seven of ten on a gt instance, and three gt instances for four of them."""
    rng = np.random.default_rng(0)
    preds, gts = PREDICTIONS * images, PREDICTIONS * images * 3 // 4
    gt_image = np.sort(rng.integers(0, images, gts))
    gt_class = rng.choice(load_instances("idd").ids, gts)
    gt_pixels = rng.integers(100, 5000, gts)
    aimed_at = np.sort(rng.integers(0, gts, preds))
    on_gt = np.flatnonzero(rng.random(preds) < 0.7)
    share = rng.beta(6, 2, preds)
    return InstanceTable(
        pred_image=gt_image[aimed_at],
        pred_class=gt_class[aimed_at],
        confidence=rng.random(preds),
        pred_pixels=gt_pixels[aimed_at],
        gt_image=gt_image,
        gt_value=gt_class * 1000 + np.arange(gts) % 900,
        gt_pixels=gt_pixels,
        overlap_pred=on_gt,
        overlap_gt=aimed_at[on_gt],
        overlap_pixels=np.maximum(1, gt_pixels[aimed_at] * share)[on_gt].astype(np.int64),
    )


def _write(folder: Path, images: int, which: int) -> None:
    """A run of `images` images; the ground truth is the same for every `which`."""
    space = load_labels("idd")
    n = space.n_classes
    facts: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "kind": "semantic",
        "complete": False,
        "fingerprint": "bench",
        "decides": {
            "version": "bench",
            "gt_encoding": "level3",
            "pred_encoding": "level3",
            "resolution": [1080, 1920],
            "void_on_error": False,
            "shard_size": SHARD,
        },
        "entry": run_folder.make_entry({}),
        "labels": semantic_schema.describe_labels(space),
        "engine": {"name": "bench", "why": "", "device": ""},
        "created": "2026-01-01T00:00:00+00:00",
        "gts": "gts",
        "preds": "preds",
        "on_error": "stop",
        "notes": [],
        "images": images,
        "images_scored": images,
        "images_void": 0,
        "images_failed": 0,
        "images_resumed": 0,
        "decoders": {"simd": images, "cuda": 0, "pillow": 0},
        "gt_outside": 0,
        "pred_outside": 0,
        "warning_count": 0,
        "warnings": [],
        "problem_count": 0,
        "problems": [],
        "seconds": {"listing": 1.0, "scoring": 1.0},
    }
    run_folder.begin(folder, facts)
    for shard in cut(images, SHARD):
        count = shard.last - shard.first
        rng, errors = (
            np.random.default_rng([shard.number, 0]),
            np.random.default_rng([shard.number, 1, which]),
        )
        matrices = np.zeros((count, n + 1, n + 1), np.int64)
        for matrix in matrices:
            present = rng.choice(n + 1, 14, replace=False)
            matrix[present, present] = rng.multinomial(1920 * 1080, rng.dirichlet(np.full(14, 0.4)))
            gts, preds = errors.choice(present, CELLS - 14), errors.integers(0, n + 1, CELLS - 14)
            for gt, pred in zip(gts, preds, strict=True):
                moved = matrix[gt, gt] // 20
                matrix[gt, gt] -= moved
                matrix[gt, pred] += moved
        rows = [
            _row(shard.first + i, f"{(shard.first + i) // PER_DRIVE:06d}", f"{shard.first + i:07d}")
            for i in range(count)
        ]
        parts.commit(folder, shard.number, tables.part(rows, list(matrices), space), "bench")
    Run.finish(folder, facts, None)


def _row(image_id: int, drive: str, name: str) -> ImageRow:
    known: dict[str, Any] = {
        "image_id": image_id,
        "key": f"{drive}/{name}",
        "drive": drive,
        "gt_file": f"{drive}/{name}_gtFine_labellevel3Ids.png",
        "status": "ok",
    }
    return ImageRow(**{field: known.get(field) for field in ImageRow.__slots__})
