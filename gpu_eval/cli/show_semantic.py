"""A semantic run on a terminal: what to know before believing it, then its scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from gpu_eval.cli.console import (
    between,
    footer,
    out,
    print_csv,
    print_json,
    ratio,
    say,
    show_incomplete,
    without_nan,
)
from gpu_eval.cli.words import ComparisonWords
from gpu_eval.metrics.semantic import PROTOCOLS
from gpu_eval.results.semantic_run import Run


def comparison_words(level: int | None, protocol: str) -> ComparisonWords:  # noqa: ARG001
    """How a comparison at this level is headed."""
    return ComparisonWords("mIoU", f"classes of level {level}", f"mIoU at level {level}, protocol idd")


def notes(run: Run) -> None:
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
    show_incomplete(facts, "counted as predicted void")


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
        print_json({"run": str(run.folder), "levels": without_nan(levels), "classes": without_nan(classes)})
        return
    if output == "csv":
        print_csv(levels if level is None else classes)
        return
    console = out()
    console.print(_headline(run, levels))
    console.print(_class_table(run, number, classes))
    console.print(footer(run))


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
            *(ratio(of_class[protocol]["iou"]) for protocol in protocols),
            *([between(first["iou_low"], first["iou_high"])] if drawn else []),
            ratio(first["precision"]),
            ratio(first["recall"]),
            *(f"{first[count]:,}" for count in ("tp", "fp", "fn")),
        )
    return table
