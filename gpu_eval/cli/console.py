"""What everything on a terminal shares: the two streams, errors, numbers, and the formats json and csv."""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpu_eval.cli.fitted import Footnotes
from gpu_eval.errors import GpuEvalError, SplitProblems
from gpu_eval.results import interval_words
from gpu_eval.results.run import ScoredRun


def err() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def out() -> Console:
    console = Console(highlight=False)
    if console.is_terminal or os.environ.get("COLUMNS", "").isdigit():
        return console
    # A pipe has no width of its own; 80 columns would leave half of the tables out.
    return Console(highlight=False, width=140)


def say(text: str) -> None:
    """A line for the person, kept out of standard output."""
    err().print(Text(text))


def show_error(error: GpuEvalError) -> None:
    err().print(Text("error: ", style="bold red") + Text(str(error)))


def show_problems(problems: SplitProblems, limit: int) -> None:
    """The table of everything that is wrong with a split."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal and not os.environ.get("COLUMNS", "").isdigit():
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


def show_notes(run: ScoredRun) -> None:
    """What a reader must know before believing the scores of any run: notes, warnings, what is missing."""
    for note in run.facts["notes"]:
        say(f"note: {note}")
    for warning in run.warnings:
        say(f"warning: {warning}")
    _show_incomplete(run.facts, run.void_means)


def show_doubts(run: ScoredRun) -> None:
    """What looks like a mix-up, before anything else."""
    for doubt in run.doubts:
        err().print(Text(f"DOUBT: {doubt}", style="bold yellow"))


def _show_incomplete(facts: Mapping[str, Any], void: str) -> None:
    """Loudly, how many images of the split are not in the scores, or are there as `void` says."""
    if facts["images_failed"] or facts["images_void"]:
        err().print(
            Text(
                f"INCOMPLETE: {facts['images_failed']} of {facts['images']} images are not in these scores, "
                f"{facts['images_void']} are {void} (--on-error {facts['on_error']})",
                style="bold yellow",
            )
        )


def footer(run: ScoredRun) -> Text:
    """How many images were scored, how fast, by whom, and where the report is."""
    facts = run.facts
    seconds = facts["seconds"]["scoring"]
    fresh = facts["images"] - facts["images_resumed"]
    speed = f", {fresh / seconds:,.0f} images/s" if fresh and seconds else ""
    engine = facts["engine"]["name"]
    scored = f"{facts['images_scored']} of {facts['images']} images{speed} on {engine}"
    told = Text(f"{scored}; report in {run.folder}\n{interval_words.of_run(run)}")
    if run.doubts:  # of a long table, the end is what is seen
        told += Text(
            "\nDOUBT: this looks like a mix-up, not like a bad model; see above", style="bold yellow"
        )
    return told


def show_table(table: pa.Table, output: str) -> None:
    """The answer to a query."""
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    if output == "json":  # of columns that share a name, an object keeps the last
        print_json(without_nan([dict(zip(table.column_names, row, strict=True)) for row in rows]))
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
    out().print(shown)


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str("" if value is None else value)


def print_json(value: object) -> None:
    print(json.dumps(value, default=str, indent=2, allow_nan=False))


def without_nan(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """JSON knows no NaN: null stands for it."""
    return [
        {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
        for row in rows
    ]


def print_csv(rows: Sequence[dict[str, Any]], columns: Iterable[str] | None = None) -> None:
    writer = csv.DictWriter(sys.stdout, list(columns or rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def ratio(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"


def between(low: float | None, high: float | None, sign: str = "") -> str:
    if low is None or high is None or math.isnan(low):
        return "-"
    digits = 4 if sign else 3
    return f"[{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


def interval(
    low: float | None, high: float | None, reason: str | None, footnotes: Footnotes, sign: str = ""
) -> str:
    """The bounds of a score, or the footnote that says why there are none."""
    return footnotes.mark(reason) if reason else between(low, high, sign)


def bounded(row: Mapping[str, Any], name: str, footnotes: Footnotes | None) -> str:
    """A score with its bounds, or with the footnote that says why there are none; alone without footnotes."""
    score = "NaN" if math.isnan(row[name]) else f"{row[name]:.4f}"
    if footnotes is None:
        return score
    return f"{score} {interval(row[f'{name}_low'], row[f'{name}_high'], row[f'{name}_reason'], footnotes)}"


def with_how(
    rows: Sequence[dict[str, Any]], how: Mapping[str, Any] | None, doubts: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows for CSV, which has no other place to say how intervals came about, and what is doubted."""
    told = how or {}
    added = {
        "interval_method": told.get("method"), "units": told.get("units"), "doubts": "; ".join(doubts) or None
    }  # fmt: skip
    return [{**row, **added} for row in rows]


def counted(number: int, what: str) -> str:
    """ "1 image", "2 images"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def signed(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:+.4f}"
