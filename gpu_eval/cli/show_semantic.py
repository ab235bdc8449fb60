"""A semantic run on a terminal: what to know before believing it, then its scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.text import Text

from gpu_eval.cli.comparison_words import ComparisonWords
from gpu_eval.cli.console import (
    bounded,
    footer,
    interval,
    out,
    print_csv,
    print_json,
    ratio,
    say,
    show_notes,
    with_how,
    without_nan,
)
from gpu_eval.cli.fitted import Column, Footnotes, fits, show_fitted
from gpu_eval.metrics.semantic import PROTOCOLS
from gpu_eval.results.semantic_run import Run


def comparison_words(level: int | None, protocol: str) -> ComparisonWords:  # noqa: ARG001
    """How a comparison at this level is headed."""
    return ComparisonWords("mIoU", f"classes of level {level}", f"mIoU at level {level}, protocol idd")


def notes(run: Run) -> None:
    """What a reader of the scores must know before believing them."""
    facts = run.facts
    if facts["warning_count"] > len(facts["warnings"]):
        say(f"warning: {facts['warning_count']} images have warnings; see the column `warning` of images")
    for side in ("gt", "pred"):
        if facts[f"{side}_outside"]:
            say(
                f"warning: {facts[f'{side}_outside']} {side} pixels are outside the encoding, counted as void"
            )
    if facts["decoders"]["pillow"]:
        say(f"note: {facts['decoders']['pillow']} images took the slow way, Pillow (16-bit, interlaced, ...)")
    show_notes(run)


def show(run: Run, output: str, *, level: int | None = None, protocol: str | None = None) -> None:
    """Headline scores of every level and protocol, then the classes of one level."""
    number = run.labels.levels[0].number if level is None else run.labels.level(level).number
    if protocol is not None:
        run.check_protocol(protocol)
    levels = [row for row in run.levels.to_pylist() if protocol in (None, row["protocol"])]
    classes = [
        row
        for row in run.classes.to_pylist()
        if row["level"] == number and protocol in (None, row["protocol"])
    ]
    if output == "json":
        rows = {"levels": without_nan(levels), "classes": without_nan(classes)}
        print_json({"run": str(run.folder), "doubts": run.doubts, "intervals": run.intervals, **rows})
        return
    if output == "csv":
        print_csv(with_how(levels if level is None else classes, run.intervals, run.doubts))
        return
    console, footnotes = out(), Footnotes()
    _show_headline(console, run, levels, footnotes)
    _show_classes(console, run, number, classes, footnotes)
    for note in footnotes:
        console.print(Text(note))
    console.print(footer(run))


def _show_headline(
    console: Console, run: Run, levels: Sequence[dict[str, Any]], footnotes: Footnotes
) -> None:
    columns = [Column("protocol", text=True)]
    columns += [Column(f"level {v.number} ({len(v.names)} classes)") for v in run.labels.levels]
    marked = footnotes if run.intervals else None
    rows = []
    for protocol in dict.fromkeys(row["protocol"] for row in levels):
        of_level = {row["level"]: row for row in levels if row["protocol"] == protocol}
        means = (_mean(of_level[v.number], marked) for v in run.labels.levels)
        rows.append([Text(protocol), *map(Text, means)])
    if not fits(columns, rows, console.width):
        # Bounds and counts go below.
        columns = [replace(column, name=column.name.replace(" (", "\n(")) for column in columns]
        rows = [[Text(cell.plain.replace(" ", "\n", 1)) for cell in row] for row in rows]
    show_fitted(console, "mIoU", columns, rows)
    for protocol in dict.fromkeys(row["protocol"] for row in levels):
        console.print(Text(f"{protocol}: {PROTOCOLS[protocol]}"))


def _mean(row: dict[str, Any], footnotes: Footnotes | None) -> str:
    absent = row["classes"] - row["classes_in_mean"]
    if not absent:
        return bounded(row, "miou", footnotes)
    said = f"{absent} absent" if math.isnan(row["miou"]) else f"{row['classes_in_mean']} present"
    return f"{bounded(row, 'miou', footnotes)}\n({said})"


def _show_classes(
    console: Console, run: Run, level: int, rows: Sequence[dict[str, Any]], footnotes: Footnotes
) -> None:
    protocols = list(dict.fromkeys(row["protocol"] for row in rows))
    told = run.intervals
    columns = [
        Column("class", text=True),
        *(Column(f"IoU {protocol}") for protocol in protocols),
        *([Column(f"{told['confidence']:.0%} interval")] if told else []),
        *(Column(name, spare=1) for name in ("precision", "recall")),
        *(Column(name, spare=2) for name in ("TP px", "FP px", "FN px")),
    ]
    shown = []
    for i, name in enumerate(run.labels.level(level).names):
        of_class = {row["protocol"]: row for row in rows if row["class_id"] == i}
        first = of_class[protocols[0]]
        bounds = (first["iou_low"], first["iou_high"], first["iou_reason"])
        cells = [
            name,
            *(ratio(of_class[protocol]["iou"]) for protocol in protocols),
            *([interval(*bounds, footnotes)] if told else []),
            ratio(first["precision"]),
            ratio(first["recall"]),
            *(f"{first[count]:,}" for count in ("tp", "fp", "fn")),
        ]
        shown.append([Text(cell) for cell in cells])
    show_fitted(console, f"classes of level {level}", columns, shown)
