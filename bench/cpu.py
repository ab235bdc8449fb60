"""`python -m bench cpu`: equality first, then milliseconds per pair, then the goals."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench import machine, rivals, workload
from bench.output import write_json
from bench.rivals import Contestant
from bench.workload import Workload

SHORTEST_S = 0.6


@dataclass(frozen=True)
class Goal:
    """`slow` must take at least (`least`) or at most (`most`) so many times as long as `fast`."""

    text: str
    slow: str
    fast: str
    least: float | None = None
    most: float | None = None


GOALS = (
    Goal(">= 12x cityscapesScripts", slow="cityscapes", fast="ours", least=12.0),
    Goal(">= 18x Pillow + bincount", slow="pillow", fast="ours", least=18.0),
    Goal(">= 18x the tuned Pillow + bincount", slow="pillow_tuned", fast="ours", least=18.0),
    Goal("<= 3x the floor", slow="ours", fast="floor", most=3.0),
    Goal("2 threads >= 1.8x", slow="ours", fast="ours_2", least=1.8),
)


@dataclass
class Timing:
    """Wall milliseconds per pair, one figure per repeat, and the cores that were busy meanwhile."""

    wall: list[float] = field(default_factory=list)
    cores: list[float] = field(default_factory=list)


def run(*, pairs: int, repeat: int, seed: int, writer: str, out: Path) -> int:
    """Returns the exit code: 1 if two contestants disagree about the workload, 0 otherwise."""
    console = Console(width=None if Console().is_terminal else 160)
    report: dict[str, Any] = {
        "benchmark": "cpu",
        "unit": "ms per pair, wall, images in the page cache",
        "repeat": repeat,
        "machine": machine.describe(),
        "workloads": [],
    }
    console.print(machine.headline(report["machine"]))
    contestants = rivals.line_up()
    for name in workload.WRITERS if writer == "both" else [writer]:
        with tempfile.TemporaryDirectory(prefix="gpu-eval-bench-") as folder:
            try:
                split = workload.build(Path(folder), name, pairs, seed)
            except ImportError as error:
                console.print(f"\nwritten by {name}: {error.name} is not installed")
                continue
            disagreement = _disagreement(contestants, split)
            if disagreement:
                console.print(f"[bold red]not timed: {disagreement}")
                return 1
            timings = measure(contestants, split, repeat)
        goals = [_judge(goal, timings) for goal in GOALS]
        _show(console, split, contestants, timings, goals)
        report["workloads"].append(
            {
                "workload": split.describe(),
                "contestants": [_entry(c, timings) for c in contestants],
                "goals": goals,
            }
        )
    write_json(out, report)
    console.print(f"\nwritten: {out}")
    return 0


def _disagreement(contestants: list[Contestant], split: Workload) -> str | None:
    """Who counted something else than the first contestant; None if all agree. Warms everything up, too."""
    expected = None
    for contestant in contestants:
        if contestant.count is None:
            continue
        total = contestant.count(split)
        if total is None:  # the floor counts nothing
            continue
        if expected is None:
            expected = total
            pixels = split.facts.pairs * split.facts.height * split.facts.width
            if total.shape != (27, 27) or int(total.sum()) != pixels:
                return f"{contestant.label} counted {int(total.sum())} pixels of {pixels}"
        elif not np.array_equal(total, expected):
            cells = int(np.count_nonzero(total != expected))
            return f"{contestant.label} and {contestants[0].label} differ in {cells} cells"
    return None


def measure(contestants: list[Contestant], split: Workload, repeat: int) -> dict[str, Timing]:
    """Each repeat lets everyone score the whole split, each time beginning with another one.

    So a slow minute of a shared machine hits all alike, and ratios can be taken within a repeat. The
    fast ones go over the split several times, so that no figure stands on less than `SHORTEST_S`:
    an operating system may take tens of milliseconds to move a second thread to an idle core.
    """
    present: list[tuple[str, Callable[[Workload], Any]]] = [
        (c.key, c.count) for c in contestants if c.count is not None
    ]
    timings = {key: Timing() for key, _ in present}
    passes = {key: _passes(count, split) for key, count in present}
    for number in range(repeat):
        first = number % len(present)
        for key, count in present[first:] + present[:first]:
            wall, busy = time.perf_counter(), time.process_time()
            for _ in range(passes[key]):
                count(split)
            wall, busy = time.perf_counter() - wall, time.process_time() - busy
            timings[key].wall.append(wall * 1e3 / (split.facts.pairs * passes[key]))
            timings[key].cores.append(busy / wall)
    return timings


def _passes(count: Callable[[Workload], Any], split: Workload) -> int:
    begin = time.perf_counter()
    count(split)
    return max(1, math.ceil(SHORTEST_S / (time.perf_counter() - begin)))


def ratio(timings: dict[str, Timing], slow: str, fast: str) -> float | None:
    """Median over the repeats of the ratio within a repeat; None if one of the two was not there."""
    if slow not in timings or fast not in timings:
        return None
    return statistics.median(s / f for s, f in zip(timings[slow].wall, timings[fast].wall, strict=True))


def _judge(goal: Goal, timings: dict[str, Timing]) -> dict[str, Any]:
    measured = ratio(timings, goal.slow, goal.fast)
    if measured is None:
        return {"goal": goal.text, "measured": None, "of_minima": None, "reached": None}
    if goal.least is not None:
        reached = measured >= goal.least
    else:
        reached = goal.most is not None and measured <= goal.most
    minima = min(timings[goal.slow].wall) / min(timings[goal.fast].wall)
    return {
        "goal": goal.text,
        "measured": round(measured, 3),
        "of_minima": round(minima, 3),
        "reached": reached,
    }


def _entry(contestant: Contestant, timings: dict[str, Timing]) -> dict[str, Any]:
    timing = timings.get(contestant.key)
    entry: dict[str, Any] = {"key": contestant.key, "label": contestant.label}
    if timing is None:
        return {**entry, "installed": False, "missing": contestant.missing}
    return {
        **entry,
        "installed": True,
        "min_ms": round(min(timing.wall), 4),
        "median_ms": round(statistics.median(timing.wall), 4),
        "all_ms": [round(x, 4) for x in timing.wall],
        "busy_cores": round(statistics.median(timing.cores), 3),
        "ratio_to_ours": ratio(timings, contestant.key, "ours"),
        "ratio_to_floor": ratio(timings, contestant.key, "floor"),
    }


def _show(
    console: Console,
    split: Workload,
    contestants: list[Contestant],
    timings: dict[str, Timing],
    goals: list[dict[str, Any]],
) -> None:
    facts = split.facts
    table = Table(
        title=f"\n{facts.pairs} pairs of 1080p label maps written by {facts.writer}, "
        f"{facts.mean_file_bytes / 1000:.1f} kB per file, "
        f"{facts.gt_edges_per_row} (gt) and {facts.pred_edges_per_row} (pred) edges per row; ms per pair"
    )
    table.add_column("contestant")
    for column in ("min", "median", "to ours", "to floor", "busy cores"):
        table.add_column(column, justify="right", no_wrap=True)
    for contestant in contestants:
        entry = _entry(contestant, timings)
        if not entry["installed"]:
            table.add_row(contestant.label, "not installed", "", "", "", "")
            continue
        table.add_row(
            contestant.label,
            f"{entry['min_ms']:.3f}",
            f"{entry['median_ms']:.3f}",
            f"{entry['ratio_to_ours']:.2f}x",
            f"{entry['ratio_to_floor']:.2f}x",
            f"{entry['busy_cores']:.2f}",
        )
    console.print(table)
    for goal in goals:
        if goal["measured"] is None:
            verdict = "cannot be told: a contestant is not installed"
        else:
            verdict = f"{goal['measured']:.2f}x (of minima {goal['of_minima']:.2f}x), "
            verdict += "reached" if goal["reached"] else "NOT reached"
        console.print(f"  {goal['goal']:<34} {verdict}", highlight=False)
