"""How the command line looks: tables, notes, errors and progress, through rich.

Only `cli` uses this file; it holds the printing that `cli` would otherwise be full of.
"""

from __future__ import annotations

import csv
import json
import math
import sys
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from gpu_eval.api import Progress as RunProgress
from gpu_eval.engines.engine import EngineStatus
from gpu_eval.errors import GpuEvalError, SplitProblems
from gpu_eval.metrics.semantic import PROTOCOLS
from gpu_eval.report import board
from gpu_eval.report.compare import Comparison
from gpu_eval.report.run import Run

# Seconds between lines of progress where standard error is not a terminal.
LINE_INTERVAL = 5.0


def _err() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def _out() -> Console:
    # A pipe has no width of its own; 80 columns would fold the tables.
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=140)


def say(text: str) -> None:
    """A line for the person, kept out of standard output."""
    _err().print(Text(text))


def show_error(error: GpuEvalError) -> None:
    _err().print(Text("error: ", style="bold red") + Text(str(error)))


def show_problems(problems: SplitProblems, limit: int) -> None:
    """The table of everything that is wrong with a split."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console = Console(stderr=True, highlight=False, width=200)
    table = Table(title=f"{len(problems.problems)} problems", title_justify="left")
    for column in ("problem", "file", "found", "expected", "what to do"):
        wide = column == "file" and console.width >= 160
        table.add_column(column, overflow="fold", min_width=56 if wide else None)
    for problem in problems.problems[:limit]:
        cells = (problem.message, problem.file, problem.found, problem.expected, problem.fix)
        table.add_row(*(Text(cell or "") for cell in cells))
    console.print(table)
    if len(problems.problems) > limit:
        say(f"... and {len(problems.problems) - limit} more; run.json lists them")


def show_notes(run: Run) -> None:
    """What a reader of the scores must know before believing them."""
    facts = run.facts
    for note in facts["notes"]:
        say(f"note: {note}")
    for warning in facts["warnings"]:
        say(f"warning: {warning}")
    if facts["warning_count"] > len(facts["warnings"]):
        say(f"warning: {facts['warning_count']} images have warnings; see the column `warning` of images")
    for side in ("gt", "pred"):
        if facts[f"{side}_outside"]:
            say(
                f"warning: {facts[f'{side}_outside']} {side} pixels are outside the encoding, counted as void"
            )
    if facts["decoders"]["pillow"]:
        say(f"note: {facts['decoders']['pillow']} images took the slow way, Pillow (16-bit, interlaced, ...)")
    if facts["images_failed"] or facts["images_void"]:
        _err().print(
            Text(
                f"INCOMPLETE: {facts['images_failed']} of {facts['images']} images are not in these scores, "
                f"{facts['images_void']} are counted as predicted void (--on-error {facts['on_error']})",
                style="bold yellow",
            )
        )


def show_run(run: Run, output: str, *, level: int | None = None, protocol: str | None = None) -> None:
    """Headline scores of every level and protocol, then the classes of one level."""
    number = run.labels.levels[0].number if level is None else run.labels.level(level).number
    run.miou(number, protocol or run.labels.protocols[0])  # refuses a protocol the run does not have
    levels = [row for row in run.levels.to_pylist() if protocol in (None, row["protocol"])]
    classes = [
        row
        for row in run.classes.to_pylist()
        if row["level"] == number and protocol in (None, row["protocol"])
    ]
    if output == "json":
        _json({"run": str(run.folder), "levels": _without_nan(levels), "classes": _without_nan(classes)})
        return
    if output == "csv":
        _csv(levels if level is None else classes)
        return
    console = _out()
    console.print(_headline(run, levels))
    console.print(_class_table(run, number, classes))
    facts = run.facts
    seconds = facts["seconds"]["scoring"]
    fresh = facts["images"] - facts["images_resumed"]
    speed = f", {fresh / seconds:,.0f} images/s" if fresh and seconds else ""
    console.print(
        Text(
            f"{facts['images_scored']} of {facts['images']} images{speed} on {facts['engine']['name']}; "
            f"report in {run.folder}"
        )
    )


def _headline(run: Run, levels: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="mIoU", title_justify="left", title_style="bold")
    table.add_column("protocol")
    for level in run.labels.levels:
        table.add_column(f"level {level.number} ({len(level.names)} classes)", justify="right")
    table.add_column("rules", overflow="fold")
    for protocol in dict.fromkeys(row["protocol"] for row in levels):
        of_level = {row["level"]: row for row in levels if row["protocol"] == protocol}
        table.add_row(
            protocol, *(_mean(of_level[v.number]) for v in run.labels.levels), Text(PROTOCOLS[protocol])
        )
    return table


def _mean(row: dict[str, Any]) -> str:
    if math.isnan(row["miou"]):
        return f"NaN ({row['classes'] - row['classes_in_mean']} absent)"
    absent = row["classes"] - row["classes_in_mean"]
    between = "" if math.isnan(row["miou_low"]) else f" [{row['miou_low']:.3f}, {row['miou_high']:.3f}]"
    return f"{row['miou']:.4f}{between}" + (f"\n({row['classes_in_mean']} present)" if absent else "")


def _class_table(run: Run, level: int, rows: Sequence[dict[str, Any]]) -> Table:
    protocols = list(dict.fromkeys(row["protocol"] for row in rows))
    table = Table(title=f"classes of level {level}", title_justify="left", title_style="bold")
    table.add_column("class")
    for protocol in protocols:
        table.add_column(f"IoU {protocol}", justify="right")
    drawn = run.facts["intervals"]
    if drawn:
        table.add_column(f"{drawn['confidence']:.0%} interval", justify="right")
    for name in ("precision", "recall", "TP px", "FP px", "FN px"):
        table.add_column(name, justify="right")
    names = run.labels.level(level).names
    for i, name in enumerate(names):
        of_class = {row["protocol"]: row for row in rows if row["class_id"] == i}
        first = of_class[protocols[0]]
        table.add_row(
            Text(name),
            *(_ratio(of_class[protocol]["iou"]) for protocol in protocols),
            *([_between(first["iou_low"], first["iou_high"])] if drawn else []),
            _ratio(first["precision"]),
            _ratio(first["recall"]),
            *(f"{first[count]:,}" for count in ("tp", "fp", "fn")),
        )
    return table


def _ratio(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"


def _between(low: float | None, high: float | None, sign: str = "") -> str:
    if low is None or high is None or math.isnan(low):
        return "-"
    digits = 4 if sign else 3
    return f"[{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


# Rows of the table of images that moved most.
IMAGES_SHOWN = 10


def show_comparisons(
    results: Sequence[Comparison], output: str, *, level: int | None, protocol: str | None
) -> None:
    """Differences of every level, of the classes of one level, and the images that moved most."""
    laid = [_laid_out(result, level, protocol) for result in results]
    if output == "json":
        _json(laid if len(laid) > 1 else laid[0])
    elif output == "csv":
        runs = [{"run_a": facts["run_a"], "run_b": facts["run_b"]} for facts in laid]
        _csv([run | row for run, facts in zip(runs, laid, strict=True) for row in facts["levels"]])
    else:
        for result, facts in zip(results, laid, strict=True):
            _show_comparison(result, facts)


def _laid_out(result: Comparison, level: int | None, protocol: str | None) -> dict[str, Any]:
    """What is shown of a comparison, without NaN."""
    rows = result.levels.to_pylist()
    level, protocol = level or rows[0]["level"], protocol or rows[0]["protocol"]
    result.difference(level, protocol)  # refuses what the runs do not have
    levels = [row for row in rows if row["protocol"] == protocol]
    classes = [
        row for row in result.classes.to_pylist() if row["level"] == level and row["protocol"] == protocol
    ]
    images = result.images.filter(pc.equal(result.images["level"], level)).slice(0, IMAGES_SHOWN).to_pylist()
    names = ("run_a", "run_b", "image_count", "left_out", "units", "unit_count", "resamples", "confidence")
    return {
        **{name: getattr(result, name) for name in names},
        "protocol": protocol,
        "level": level,
        "levels": _without_nan(levels),
        "classes": _without_nan(classes),
        "images": _without_nan(images),
    }


def _show_comparison(result: Comparison, facts: dict[str, Any]) -> None:
    console = _out()
    console.print(Text(f"A  {result.run_a}\nB  {result.run_b}"))
    title = f"mIoU, protocol {facts['protocol']}"
    console.print(_difference_table(title, "level", facts["levels"], "miou", result))
    classes = [row for row in facts["classes"] if (row["iou_a"], row["iou_b"]) != (None, None)]
    classes.sort(key=lambda row: -abs(row["difference"]) if row["difference"] is not None else 1.0)
    title = f"classes of level {facts['level']}, largest difference first"
    console.print(_difference_table(title, "class", classes, "iou", result))
    table = Table(
        title=f"images that moved most, mIoU at level {facts['level']}, protocol idd",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("image", overflow="fold")
    for name in ("A", "B", "B - A"):
        table.add_column(name, justify="right")
    for row in facts["images"]:
        cells = (_ratio(row["miou_a"]), _ratio(row["miou_b"]), _signed(row["difference"]))
        table.add_row(Text(row["key"]), *cells)
    console.print(table)
    left_out = f", {result.left_out} in one run only left out" if result.left_out else ""
    drawn = f"; {result.resamples:,} paired resamples of {result.unit_count:,} {result.units}"
    console.print(Text(f"{result.image_count:,} images compared{left_out}{drawn}"))
    if len(classes) > 1:
        chance = (1 - result.confidence) * len(classes)
        console.print(
            Text(f"of {len(classes)} classes alike in both, chance alone would mark about {chance:.1f}\n")
        )


def _difference_table(
    title: str, what: str, rows: Sequence[dict[str, Any]], score: str, result: Comparison
) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(what)
    for name in ("A", "B", "B - A", f"{result.confidence:.0%} interval", "p"):
        table.add_column(name, justify="right")
    table.add_column("")
    for row in rows:
        verdict = Text()
        if row["low"] is not None and row["low"] > 0:
            verdict = Text("B better", style="green")
        elif row["high"] is not None and row["high"] < 0:
            verdict = Text("B worse", style="red")
        table.add_row(
            Text(row["class_name"] if what == "class" else str(row["level"])),
            _ratio(row[f"{score}_a"]),
            _ratio(row[f"{score}_b"]),
            _signed(row["difference"]),
            Text(_between(row["low"], row["high"], "+")),
            "-" if row["p"] is None else f"{row['p']:.3f}",
            verdict,
        )
    return table


def _signed(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:+.4f}"


def show_board(table: pa.Table, output: str) -> None:
    if output != "table":
        show_table(table, output)
        return
    head, rows = board.lay_out(table, short=True)
    shown = Table(title="leaderboard", title_justify="left", title_style="bold")
    for name in head:
        right = name in ("rank", "tier", "images") or name.startswith(("mIoU", "AP"))
        shown.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in rows:
        cells = (Text(c.text + (f"\n{c.small}" if c.small else "")) for c in row.cells)
        shown.add_row(*cells, style=None if row.kind == "ranked" else "dim")
    console = _out()
    console.print(shown)
    for note in board.notes(table):
        console.print(Text(note))


def show_table(table: pa.Table, output: str) -> None:
    """The answer to a query."""
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    if output == "json":  # of columns that share a name, an object keeps the last
        _json(_without_nan([dict(zip(table.column_names, row, strict=True)) for row in rows]))
        return
    if output == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows([table.column_names, *rows])
        return
    shown = Table()
    for name in table.column_names:
        shown.add_column(Text(name), overflow="fold")
    for row in rows:
        shown.add_row(*(Text(_cell(value)) for value in row))
    _out().print(shown)


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str("" if value is None else value)


def _json(value: object) -> None:
    print(json.dumps(value, default=str, indent=2, allow_nan=False))


def _without_nan(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """JSON knows no NaN: null stands for it."""
    return [
        {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
        for row in rows
    ]


def _csv(rows: Sequence[dict[str, Any]], columns: Iterable[str] | None = None) -> None:
    writer = csv.DictWriter(sys.stdout, list(columns or rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def show_engines(statuses: Sequence[EngineStatus]) -> None:
    table = Table(title="engines", title_justify="left")
    for column in ("engine", "serves here", "why"):
        table.add_column(column, overflow="fold")
    for status in statuses:
        table.add_row(status.name, "yes" if status.available else "no", Text(status.why))
    _out().print(table)


class ProgressLine:
    """A bar with images/s and time left on a terminal, a plain line every few seconds elsewhere."""

    def __init__(self) -> None:
        self._console = _err()
        self._bar: Progress | None = None
        self._told = time.monotonic()

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, progress: RunProgress) -> None:
        fresh = progress.done - progress.resumed
        speed = fresh / progress.seconds if progress.seconds > 0 else 0.0
        if self._console.is_terminal:
            self._draw(progress, speed)
        elif progress.done == progress.resumed and progress.resumed:
            say(f"resumed: {progress.done} of {progress.total} images were scored before")
        elif time.monotonic() - self._told >= LINE_INTERVAL:
            self._told = time.monotonic()
            left = (progress.total - progress.done) / speed if speed else math.inf
            say(f"{progress.done}/{progress.total} images, {speed:,.0f} images/s, {left:,.0f} s left")

    def _draw(self, progress: RunProgress, speed: float) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("scoring"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total} images"),
                TextColumn("{task.fields[speed]}"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=progress.total, speed="")
        self._bar.update(self._task, completed=progress.done, speed=f"{speed:,.0f} images/s")
