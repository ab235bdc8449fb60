"""Several runs on a terminal: differences of two, and the leaderboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table
from rich.text import Text

from gpu_eval import registry
from gpu_eval.cli.console import between, out, print_csv, print_json, ratio, show_table, signed, without_nan
from gpu_eval.cli.words import ComparisonWords
from gpu_eval.results import leaderboard_files
from gpu_eval.results.compare import Comparison

# Rows of the table of images that moved most.
IMAGES_SHOWN = 10


def show_comparisons(
    results: Sequence[Comparison], output: str, *, level: int | None, protocol: str | None
) -> None:
    """Differences of every level or measure, of the classes, and the images that moved most."""
    laid = [_laid_out(result, level, protocol) for result in results]
    if output == "json":
        print_json(laid if len(laid) > 1 else laid[0])
    elif output == "csv":
        runs = [{"run_a": facts["run_a"], "run_b": facts["run_b"]} for facts in laid]
        print_csv([run | row for run, facts in zip(runs, laid, strict=True) for row in facts["scores"]])
    else:
        for result, facts in zip(results, laid, strict=True):
            _show_comparison(result, facts)


def _laid_out(result: Comparison, level: int | None, protocol: str | None) -> dict[str, Any]:
    """What is shown of a comparison, without NaN: of levels the one asked for, of measures all."""
    _words(result, level, protocol or "")  # refuses a level that the task does not have
    first = result.scores.to_pylist()[0]
    level, protocol = level or first.get("level"), protocol or first["protocol"]
    result.difference(level, protocol)  # refuses what the runs do not have
    wanted = {"protocol": protocol, "level": level}
    names = (
        "kind", "run_a", "run_b", "image_count", "left_out", "units", "unit_count", "resamples", "confidence",
    )  # fmt: skip
    return {
        **{name: getattr(result, name) for name in names},
        **{name: value for name, value in wanted.items() if value is not None},
        "scores": without_nan(_where(result.scores, {"protocol": protocol})),
        "classes": without_nan(_where(result.classes, wanted)),
        "images": without_nan(_where(result.images, wanted, IMAGES_SHOWN)),
    }


def _words(result: Comparison, level: int | None, protocol: str) -> ComparisonWords:
    words = registry.module("cli", result.kind).comparison_words(level, protocol)
    assert isinstance(words, ComparisonWords)
    return words


def _where(table: pa.Table, wanted: Mapping[str, Any], limit: int | None = None) -> list[dict[str, Any]]:
    """The first rows with the wanted values, as far as the table has such columns."""
    for name in set(wanted) & set(table.column_names):
        table = table.filter(pc.equal(table[name], wanted[name]))
    rows: list[dict[str, Any]] = table.slice(0, limit).to_pylist()
    return rows


def _show_comparison(result: Comparison, facts: dict[str, Any]) -> None:
    console = out()
    console.print(Text(f"A  {result.run_a}\nB  {result.run_b}"))
    words = _words(result, facts.get("level"), facts["protocol"])
    what = result.scores.column_names[1]
    title = f"{words.score}, protocol {facts['protocol']}"
    console.print(_difference_table(title, what, facts["scores"], result))
    classes = [row for row in facts["classes"] if words.measure in (None, row.get("measure"))]
    classes = [row for row in classes if _scores(row) != (None, None)]
    classes.sort(key=lambda row: -abs(row["difference"]) if row["difference"] is not None else 1.0)
    title = f"{words.classes}, largest difference first"
    console.print(_difference_table(title, "class_name", classes, result))
    table = Table(
        title=f"images that moved most, {words.images}",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("image", overflow="fold")
    for name in ("A", "B", "B - A"):
        table.add_column(name, justify="right")
    for row in facts["images"]:
        table.add_row(Text(row["key"]), *map(ratio, _scores(row)), signed(row["difference"]))
    console.print(table)
    left_out = f", {result.left_out} in one run only left out" if result.left_out else ""
    drawn = f"; {result.resamples:,} paired resamples of {result.unit_count:,} {result.units}"
    console.print(Text(f"{result.image_count:,} images compared{left_out}{drawn}"))
    if len(classes) > 1:
        chance = (1 - result.confidence) * len(classes)
        console.print(
            Text(f"of {len(classes)} classes alike in both, chance alone would mark about {chance:.1f}\n")
        )


def _scores(row: Mapping[str, Any]) -> tuple[float | None, ...]:
    """The scores of the two runs."""
    return tuple(value for name, value in row.items() if name.endswith(("_a", "_b")))


def _difference_table(title: str, what: str, rows: Sequence[dict[str, Any]], result: Comparison) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(what.removesuffix("_name"))
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
            Text(row[what].upper() if what == "measure" else str(row[what])),
            *map(ratio, _scores(row)),
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
    head, rows = leaderboard_files.lay_out(table, short=True)
    shown = Table(title="leaderboard", title_justify="left", title_style="bold")
    for name in head:
        left = name in leaderboard_files.TEXTS
        shown.add_column(name, justify="left" if left else "right", overflow="fold")
    for row in rows:
        cells = (Text(c.text + (f"\n{c.small}" if c.small else "")) for c in row.cells)
        shown.add_row(*cells, style=None if row.kind == "ranked" else "dim")
    console = out()
    console.print(shown)
    for note in leaderboard_files.notes(table):
        console.print(Text(note))
