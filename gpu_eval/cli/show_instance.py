"""An instance run on a terminal: AP and AP50 under both protocols, then its classes."""

from __future__ import annotations

from collections.abc import Sequence
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
    if run.facts["decoders"]["pillow"]:
        say(f"note: {run.facts['decoders']['pillow']} files took the slow way, Pillow (palettes, RGB, ...)")
    show_notes(run)


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
        rows = {"scores": without_nan(scores), "classes": without_nan(classes)}
        print_json({"run": str(run.folder), "doubts": run.doubts, "intervals": run.intervals, **rows})
        return
    if output == "csv":
        print_csv(with_how(classes, run.intervals, run.doubts))
        return
    console, footnotes = out(), Footnotes()
    _show_headline(console, run, scores, footnotes)
    _show_classes(console, run, classes, footnotes)
    for note in footnotes:
        console.print(Text(note))
    console.print(footer(run))


def _show_headline(
    console: Console, run: InstanceRun, scores: Sequence[dict[str, Any]], footnotes: Footnotes
) -> None:
    marked = footnotes if run.intervals else None
    columns = [Column("protocol", text=True), Column("AP"), Column("AP 50 %")]
    columns.append(Column("classes with gt", spare=1))
    rows = [
        [
            Text(row["protocol"]),
            *(Text(bounded(row, name, marked)) for name in ("ap", "ap50")),
            Text(f"{row['classes_in_mean']} of {row['classes']}"),
        ]
        for row in scores
    ]
    if not fits(columns, rows, console.width):
        rows = [[*row[:1], *(Text(c.plain.replace(" ", "\n", 1)) for c in row[1:3]), row[3]] for row in rows]
    show_fitted(console, "average precision", columns, rows)
    for row in scores:
        console.print(Text(f"{row['protocol']}: {PROTOCOLS[row['protocol']]}"))


def _show_classes(
    console: Console, run: InstanceRun, classes: Sequence[dict[str, Any]], footnotes: Footnotes
) -> None:
    protocols = list(dict.fromkeys(row["protocol"] for row in classes))
    at_half = {
        (row["protocol"], row["class_id"]): row
        for row in run.average_precision.to_pylist()
        if row["threshold"] == 0.5
    }
    told = run.intervals
    columns = [Column("class", text=True)]
    for i, protocol in enumerate(protocols):
        columns.append(Column(f"AP {protocol}"))
        if told:
            columns.append(Column(f"{told['confidence']:.0%} interval\n{protocol}", spare=4 if i else 0))
        columns.append(Column(f"AP50 {protocol}", spare=1 if i else 0))
    columns += [Column(name, spare=2) for name in ("gt", "predictions")]
    columns += [Column(name, spare=3) for name in ("TP", "FP", "FN")]
    rows = []
    for first in (row for row in classes if row["protocol"] == protocols[0]):
        of_class = {row["protocol"]: row for row in classes if row["class_id"] == first["class_id"]}
        counts = at_half[protocols[0], first["class_id"]]
        cells = [first["class_name"]]
        for protocol in protocols:
            row = of_class[protocol]
            cells.append(ratio(row["ap"]))
            if told:
                cells.append(interval(row["ap_low"], row["ap_high"], row["ap_reason"], footnotes))
            cells.append(ratio(row["ap50"]))
        cells += [f"{first[name]:,}" for name in ("gt", "predictions")]
        cells += [f"{counts[name]:,}" for name in ("tp", "fp", "fn")]
        rows.append([Text(cell) for cell in cells])
    # The classes table, which is what JSON has, knows no TP.
    left_out = show_fitted(console, "classes", columns, rows, elsewhere="wider terminals")
    if "TP" not in left_out:
        console.print(Text(f"TP, FP, FN at 50 % overlap, protocol {protocols[0]}", style="dim"))
