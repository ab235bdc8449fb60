"""Several runs on a terminal: differences of two, and the leaderboard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table
from rich.text import Text

from gpu_eval.report import board
from gpu_eval.report.compare import Comparison
from gpu_eval.terminal.console import (
    between,
    out,
    print_csv,
    print_json,
    ratio,
    show_table,
    signed,
    without_nan,
)

# Rows of the table of images that moved most.
IMAGES_SHOWN = 10


def show_comparisons(
    results: Sequence[Comparison], output: str, *, level: int | None, protocol: str | None
) -> None:
    """Differences of every level, of the classes of one level, and the images that moved most."""
    laid = [_laid_out(result, level, protocol) for result in results]
    if output == "json":
        print_json(laid if len(laid) > 1 else laid[0])
    elif output == "csv":
        runs = [{"run_a": facts["run_a"], "run_b": facts["run_b"]} for facts in laid]
        print_csv([run | row for run, facts in zip(runs, laid, strict=True) for row in facts["levels"]])
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
        "levels": without_nan(levels),
        "classes": without_nan(classes),
        "images": without_nan(images),
    }


def _show_comparison(result: Comparison, facts: dict[str, Any]) -> None:
    console = out()
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
        cells = (ratio(row["miou_a"]), ratio(row["miou_b"]), signed(row["difference"]))
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
            ratio(row[f"{score}_a"]),
            ratio(row[f"{score}_b"]),
            signed(row["difference"]),
            Text(between(row["low"], row["high"], "+")),
            "-" if row["p"] is None else f"{row['p']:.3f}",
            verdict,
        )
    return table


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
    console = out()
    console.print(shown)
    for note in board.notes(table):
        console.print(Text(note))
