"""`python -m bench statistics`: do intervals cover what they say, and do equal models stay equal?

Splits are made up again and again (`bench/simulated_splits.py`), scored by the bootstrap of version 0.1.0
(`before`) and by `gpu_eval.metrics.uncertainty` (`after`), and held against the truth. A share of n
repetitions has a Monte Carlo error of sqrt(share (1 - share) / n), which stands beside it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench import bootstrap_before as before
from bench import machine
from bench import simulated_splits as simulated
from bench.output import write_json
from bench.simulated_splits import EQUAL, FEW, FLAT, HARD, UNEQUAL, Instances, Labels, Population
from gpu_eval.metrics import average_precision_units as ap_units
from gpu_eval.metrics import confusion as cm
from gpu_eval.metrics import uncertainty
from gpu_eval.metrics import units as unit_kinds
from gpu_eval.metrics.average_precision import average_precision
from gpu_eval.metrics.confusion import Counts, Ratios
from gpu_eval.metrics.matching import Outcomes, outcomes
from gpu_eval.metrics.ranks import rank_ranges
from gpu_eval.metrics.semantic_sums import iou_parts
from gpu_eval.metrics.uncertainty import Difference, Interval, Parts
from gpu_eval.metrics.units import Units

COVERS = (0.93, 0.97)
FEW_COVER = (0.93, 1.0)
ALARMS = (0.0, 0.06)
ALARMS_BOTH = (0.02, 0.06)
SPLITS = (0.0, 0.05)
POWER = (0.75, 0.85)

# Common, middling and rare: what a class row shows.
SHOWN = (0, 4, 8)


@dataclass
class Row:
    """One line of the table: how often it happened, `before` and `after`; NaN where no method spoke."""

    title: str
    score: str
    population: str
    units: str
    goal: tuple[float, float]
    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "row": self.title,
            "score": self.score,
            "population": self.population,
            "units": self.units,
            "goal": list(self.goal),
        }
        for name, hits in (("before", self.before), ("after", self.after)):
            said = [hit for hit in hits if not math.isnan(hit)]
            row[name] = {
                "share": sum(said) / len(said) if said else None,
                "error": _error(said),
                "repetitions": len(hits),
                "without_interval": len(hits) - len(said),
            }
        share, error = row["after"]["share"], row["after"]["error"]
        low, high = self.goal
        # Two Monte Carlo errors outside of the goal is a miss, closer may be chance.
        row["reached"] = share is None or bool(low - 2 * error <= share <= high + 2 * error)
        row["within"] = share is None or bool(low <= share <= high)
        return row


def run(*, repetitions: int, only: Sequence[str], out: Path | None) -> int:
    """Print and write every row; 1 where a row of the new method is beyond chance outside of its goal.

    `only` names the groups to measure (default: all); rows of others that `out` holds stay as they are, each
    with the commit that measured it.
    """
    about = machine.describe()
    print(machine.headline(about))
    kept = json.loads(out.read_text(encoding="utf-8"))["results"] if only and out and out.exists() else []
    wanted = only or list(GROUPS)
    results = [row for row in kept if row["group"] not in wanted]
    begin = time.perf_counter()
    print(f"{'':42}{'score':16}{'units':14}{'before':>16}{'after':>16}   goal")
    for group in wanted:
        # The resamples of AP take a hundred times as long.
        times = min(repetitions, max(400, repetitions // 4)) if group.startswith("ap") else repetitions
        for row in (row for rows in GROUPS[group](times) for row in rows):
            told = {"group": group, **row.told(), "commit": about["commit"]}
            results.append(told)
            verdict = "" if told["within"] else "outside" if told["reached"] else "MISSED"
            print(
                f"{row.title[:41]:42}{row.score[:15]:16}{row.units:14}{_share(told['before']):>16}"
                f"{_share(told['after']):>16}   {row.goal[0]}-{row.goal[1]} {verdict:8}[{row.population}]",
                flush=True,
            )
    results.sort(key=lambda row: list(GROUPS).index(row["group"]))
    missed = [row for row in results if not row["reached"]]
    print(f"{len(results) - len(missed)} of {len(results)} rows reached, {time.perf_counter() - begin:.0f} s")
    write_json(
        out,
        {
            "benchmark": "statistics",
            "machine": about,
            "before": "percentile bootstrap of 0.1.0, 2,000 resamples, drives from eight on",
            "after": uncertainty.METHOD,
            "results": results,
        },
    )
    return 1 if missed else 0


def _error(hits: Sequence[float]) -> float | None:
    """Of the share of hits; two hits and two misses are added, so that 0 of 20 is not without error."""
    if not hits:
        return None
    share = (sum(hits) + 2) / (len(hits) + 4)
    return math.sqrt(share * (1 - share) / (len(hits) + 4))


def _share(told: dict[str, Any]) -> str:
    if told["share"] is None:
        return "no interval"
    return f"{told['share']:.3f} +-{told['error']:.3f}"


def _cover(repetitions: int) -> Iterator[list[Row]]:
    for population in (EQUAL, UNEQUAL, HARD, FLAT):
        truth = _iou_truth(population)
        counts = (5, 20, 200) if population is FLAT else (2, 4, 7, 8, 10, 15, 20, 30, 60, 180)
        for units in counts:
            yield _coverage(population, units, truth, repetitions)


def _ap_cover(repetitions: int) -> Iterator[list[Row]]:
    for population in (EQUAL, UNEQUAL):
        truth = _ap_truth(population)
        for drives in (4, 8, 12, 30):
            yield _ap_coverage(population, drives, truth, repetitions)


def _alarms(repetitions: int) -> Iterator[list[Row]]:
    for population in (EQUAL, UNEQUAL, FLAT):
        for units in (2, 3, 5, 10, 20) if population is FLAT else (2, 7, 8, 15, 40):
            yield _false_alarms(population, units, repetitions)


def _ap_alarms(repetitions: int) -> Iterator[list[Row]]:
    for population in (EQUAL, UNEQUAL):
        for drives in (4, 12, 30):
            yield _ap_false_alarms(population, drives, repetitions)


def _few(repetitions: int) -> Iterator[list[Row]]:
    for population in FEW:
        for drives in (40, 180):
            yield _false_alarms(population, drives, repetitions)
            yield _boards(population, drives, repetitions)


def _repeat(seed: Sequence[int], repetitions: int) -> Iterator[np.random.Generator]:
    for repetition in range(repetitions):
        yield np.random.default_rng([*seed, repetition])


def _units(drive: Counts, population: Population) -> Units:
    count = int(drive.max()) + 1
    return Units(_kind(population), drive, count)


def _units_before(drive: Counts, population: Population) -> Counts:
    return np.arange(drive.size) if population is FLAT else before.units(drive)


def _kind(population: Population) -> str:
    return unit_kinds.IMAGES if population is FLAT else unit_kinds.DRIVES


def _parts(labels: Labels, units: Units, model: int = 0) -> Parts:
    tp, gt, union = (units.sums(counts) for counts in (labels.tp[model], labels.gt, labels.union[model]))
    return iou_parts(tp, gt, union, "idd")


def _covered(found: Interval, truth: float) -> float:
    return math.nan if found.reason else float(found.low <= truth <= found.high)


def _alarm(found: Difference) -> float:
    return math.nan if found.reason else float(found.p < 0.05)


def _iou_truth(population: Population) -> Ratios:
    """IoU of each class over 40,000 drives."""
    tp, union = (np.zeros(simulated.CLASSES, np.int64) for _ in range(2))
    for rng in _repeat([0], 40):
        some = simulated.label_maps(rng, population, 1000)
        tp += some.tp[0].sum(axis=0)
        union += some.union[0].sum(axis=0)
    return cm.ratio(tp, union)


def _coverage(population: Population, drives: int, truth: Ratios, repetitions: int) -> list[Row]:
    goal = COVERS if drives >= 8 else FEW_COVER
    units = f"{drives} {_kind(population)}"
    miou = Row("95 % interval covers", "mIoU", population.name, units, goal)
    classes = [Row("95 % interval covers", f"IoU of class {c}", population.name, units, goal) for c in SHOWN]
    for rng in _repeat([1, drives], repetitions):
        labels = simulated.label_maps(rng, population, drives)
        found = uncertainty.intervals(
            parts := _parts(labels, of := _units(labels.drive, population)), of, uncertainty.CONFIDENCE
        )
        # What intervals speak of is the mean over the classes that the split has.
        mean = float(truth[~np.isnan(parts.value)].mean())
        samples, of_classes = before.mean_iou(
            labels.tp[0], labels.union[0], _units_before(labels.drive, population)
        )
        miou.after.append(_covered(found.mean, mean))
        low, high = before.interval(samples)
        miou.before.append(float(low <= mean <= high))
        low, high = before.interval(of_classes)
        for row, c in zip(classes, SHOWN, strict=True):
            row.after.append(_covered(found.parts[c], truth[c]))
            row.before.append(math.nan if np.isnan(low[c]) else float(low[c] <= truth[c] <= high[c]))
    return [miou, *classes]


def _judged(split: Instances) -> list[Outcomes]:
    return [outcomes(table, split.space, "autonue") for table in split.tables]


def _ap_truth(population: Population) -> Ratios:
    """AP of each class over 6,000 drives."""
    split = simulated.instances(np.random.default_rng([2]), population, 6000)
    return average_precision(_judged(split)[0]).class_ap


def _ap_coverage(population: Population, drives: int, truth: Ratios, repetitions: int) -> list[Row]:
    rows = [
        Row("95 % interval covers", score, population.name, f"{drives} drives", COVERS)
        for score in ("AP", "AP of class 0")
    ]
    common = split_class(12)
    for rng in _repeat([3, drives], repetitions):
        split = simulated.instances(rng, population, drives)
        judged = _judged(split)[0]
        of = _units(split.drive, population)
        parts = ap_units.delete_one(judged, of).parts()
        found = uncertainty.intervals(parts, of)
        mean = float(truth[~np.isnan(parts.value)].mean())
        samples, of_classes = before.average_precision(judged, before.units(split.drive))
        for row, after, sampled, true in (
            (rows[0], found.mean, samples, mean),
            (rows[1], found.parts[common], of_classes[:, common], truth[common]),
        ):
            low, high = before.interval(sampled)
            row.before.append(float(low <= true <= high))
            row.after.append(_covered(after, true))
    return rows


def split_class(label: int) -> int:
    """The index of a raw label id among the classes of instances."""
    return simulated.INSTANCES.ids.index(label)


def _false_alarms(population: Population, drives: int, repetitions: int) -> list[Row]:
    units = f"{drives} {_kind(population)}"
    goal = ALARMS if population in (FLAT, *FEW) else ALARMS_BOTH
    miou = Row("equal models differ", "mIoU", population.name, units, goal)
    classes = [Row("equal models differ", f"IoU of class {c}", population.name, units, ALARMS) for c in SHOWN]
    for rng in _repeat([4, drives], repetitions):
        labels = simulated.label_maps(rng, population, drives, 2)
        of = _units(labels.drive, population)
        found = uncertainty.differences(_parts(labels, of), _parts(labels, of, 1), of)
        of_before = _units_before(labels.drive, population)
        (a, of_a), (b, of_b) = (before.mean_iou(labels.tp[m], labels.union[m], of_before) for m in range(2))
        miou.after.append(_alarm(found.mean))
        miou.before.append(float(before.p_value(b - a) < 0.05))
        p = before.p_value(of_b - of_a)
        for row, c in zip(classes, SHOWN, strict=True):
            row.after.append(_alarm(found.parts[c]))
            row.before.append(math.nan if np.isnan(p[c]) else float(p[c] < 0.05))
    return [miou, *classes]


def _ap_false_alarms(population: Population, drives: int, repetitions: int) -> list[Row]:
    row = Row("equal models differ", "AP", population.name, f"{drives} drives", ALARMS)
    for rng in _repeat([5, drives], repetitions):
        split = simulated.instances(rng, population, drives, 2)
        judged = _judged(split)
        of = _units(split.drive, population)
        a, b = (ap_units.delete_one(one, of).parts() for one in judged)
        row.after.append(_alarm(uncertainty.differences(a, b, of).mean))
        a_samples, b_samples = (before.average_precision(one, before.units(split.drive))[0] for one in judged)
        row.before.append(float(before.p_value(b_samples - a_samples) < 0.05))
    return [row]


def _rare(occurs: int, repetitions: int) -> list[Row]:
    row = Row("equal models differ in a rare class", "class IoU", "200 images", f"{occurs} images", ALARMS)
    of = unit_kinds.images(200)
    for rng in _repeat([6, occurs], repetitions):
        labels = simulated.rare_class(rng, 200, occurs)
        found = uncertainty.differences(_parts(labels, of), _parts(labels, of, 1), of).parts[0]
        row.after.append(_alarm(found))
        a, b = (before.mean_iou(labels.tp[m], labels.union[m], of.of_image)[0] for m in range(2))
        row.before.append(float(before.p_value(b - a) < 0.05))
    return [row]


def _boards(population: Population, drives: int, repetitions: int, models: int = 20) -> list[Row]:
    row = Row(f"{models} equal models are told apart", "mIoU", population.name, f"{drives} drives", SPLITS)
    for rng in _repeat([7, drives], repetitions):
        labels = simulated.label_maps(rng, population, drives, models)
        of = _units(labels.drive, population)
        runs = [_parts(labels, of, m) for m in range(models)]
        row.after.append(float(rank_ranges(runs).better.any()))
        of_before = before.units(labels.drive)
        samples = [before.mean_iou(labels.tp[m], labels.union[m], of_before)[0] for m in range(models)]
        row.before.append(float(before.tiers(samples, [run.mean for run in runs]) > 1))
    return [row]


def _power(population: Population, drives: int, repetitions: int) -> list[Row]:
    """Whether a true difference of the median of what `detectable` says is found in 80 of 100 splits."""
    row = Row("detectable difference is found", "mIoU", population.name, f"{drives} drives", POWER)
    found = []
    for rng in _repeat([4, drives], repetitions):
        labels = simulated.label_maps(rng, population, drives, 2)
        of = _units(labels.drive, population)
        found.append(uncertainty.differences(_parts(labels, of), _parts(labels, of, 1), of).mean)
    shift = float(np.median([one.detectable for one in found]))
    for one in found:
        row.after.append(float(abs(one.difference + shift) > (one.high - one.low) / 2))
        row.before.append(math.nan)
    return [row]


# What is measured, by the name that `--only` takes.
GROUPS: dict[str, Callable[[int], Iterator[list[Row]]]] = {
    "coverage": _cover,
    "ap-coverage": _ap_cover,
    "alarms": _alarms,
    "ap-alarms": _ap_alarms,
    "few": _few,
    "rare": lambda n: (_rare(occurs, n) for occurs in (1, 2, 3, 5)),
    "boards": lambda n: (_boards(UNEQUAL, drives, n) for drives in (15, 60, 180)),
    "power": lambda n: (_power(UNEQUAL, drives, n) for drives in (8, 40)),
}
