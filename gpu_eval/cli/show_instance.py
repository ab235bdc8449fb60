"""An instance run on a terminal: AP and AP50 under both protocols, then its classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from gpu_eval.cli.console import footer, out, print_csv, print_json, ratio, say, show_incomplete, without_nan
from gpu_eval.cli.words import ComparisonWords
from gpu_eval.errors import OptionError
from gpu_eval.metrics.matching import PROTOCOLS
from gpu_eval.results.instance_run import InstanceRun


def comparison_words(level: int | None, protocol: str) -> ComparisonWords:
    """How a comparison is headed. Raises OptionError for a `level`."""
    if level is not None:
        raise OptionError("runs of instances have no levels", found=f"--level {level}")
    of_images = f"F1 at 50 % overlap, protocol {protocol}"
    return ComparisonWords("average precision", "classes, AP", of_images, measure="ap")


def notes(run: InstanceRun) -> None:
    """What a reader of the scores must know before believing them."""
    for note in run.facts["notes"]:
        say(f"note: {note}")
    if run.facts["decoders"]["pillow"]:
        say(f"note: {run.facts['decoders']['pillow']} files took the slow way, Pillow (palettes, RGB, ...)")
    show_incomplete(run.facts, "counted as without predictions")


def show(run: InstanceRun, output: str, *, level: int | None = None, protocol: str | None = None) -> None:
    """Headline scores of both protocols, then the classes. Raises OptionError for a `level`."""
    if level is not None:
        raise OptionError("a run of instances has no levels", found=f"--level {level}")
    if protocol is not None:
        run.check_protocol(protocol)
    scores, classes = (
        [row for row in table.to_pylist() if protocol in (None, row["protocol"])]
        for table in (run.scores, run.classes)
    )
    if output == "json":
        print_json({"run": str(run.folder), "scores": without_nan(scores), "classes": without_nan(classes)})
        return
    if output == "csv":
        print_csv(classes)
        return
    console = out()
    console.print(_headline(scores))
    console.print(_class_table(run, classes))
    console.print(footer(run))


def _headline(scores: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="average precision", title_justify="left", title_style="bold")
    table.add_column("protocol")
    for name in ("AP", "AP 50 %", "classes with gt"):
        table.add_column(name, justify="right")
    table.add_column("rules", overflow="fold")
    for row in scores:
        table.add_row(
            row["protocol"],
            ratio(row["ap"]),
            ratio(row["ap50"]),
            f"{row['classes_in_mean']} of {row['classes']}",
            Text(PROTOCOLS[row["protocol"]]),
        )
    return table


def _class_table(run: InstanceRun, classes: Sequence[dict[str, Any]]) -> Table:
    protocols = list(dict.fromkeys(row["protocol"] for row in classes))
    at_half = {
        (row["protocol"], row["class_id"]): row
        for row in run.average_precision.to_pylist()
        if row["threshold"] == 0.5
    }
    table = Table(title="classes", title_justify="left", title_style="bold")
    table.add_column("class")
    for protocol in protocols:
        table.add_column(f"AP {protocol}", justify="right")
        table.add_column(f"AP50 {protocol}", justify="right")
    for name in ("gt", "predictions", "TP", "FP", "FN"):
        table.add_column(name, justify="right")
    for first in (row for row in classes if row["protocol"] == protocols[0]):
        of_class = {row["protocol"]: row for row in classes if row["class_id"] == first["class_id"]}
        counts = at_half[protocols[0], first["class_id"]]
        table.add_row(
            Text(first["class_name"]),
            *(ratio(of_class[protocol][name]) for protocol in protocols for name in ("ap", "ap50")),
            f"{first['gt']:,}",
            f"{first['predictions']:,}",
            *(f"{counts[name]:,}" for name in ("tp", "fp", "fn")),
        )
    table.caption = f"TP, FP, FN at 50 % overlap, protocol {protocols[0]}"
    table.caption_justify = "left"
    return table
