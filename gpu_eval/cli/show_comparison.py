"""Several runs on a terminal: differences of two, and the leaderboard."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.text import Text

from gpu_eval import registry
from gpu_eval.cli.comparison_words import ComparisonWords
from gpu_eval.cli.console import (
    counted,
    interval,
    out,
    print_csv,
    print_json,
    ratio,
    show_table,
    signed,
    with_how,
    without_nan,
)
from gpu_eval.cli.fitted import Column, Footnotes, show_fitted
from gpu_eval.results import interval_words, leaderboard_files
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
        rows: list[dict[str, Any]] = []
        for facts in laid:
            runs = {"run_a": facts["run_a"], "run_b": facts["run_b"]}
            doubts = [doubt for of_run in facts["doubts"] for doubt in of_run]
            rows += with_how([runs | row for row in facts["scores"]], facts["intervals"], doubts)
        print_csv(rows)
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
    names = ("kind", "run_a", "run_b", "image_count", "left_out", "missing", "doubts", "intervals")
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
    console, footnotes = out(), Footnotes()
    console.print(Text(f"A  {result.run_a}\nB  {result.run_b}"))
    for name, doubts in zip("AB", result.doubts, strict=True):
        for doubt in doubts:
            console.print(Text(f"DOUBT in {name}: {doubt}", style="bold yellow"))
    words = _words(result, facts.get("level"), facts["protocol"])
    what = result.scores.column_names[1]
    title = f"{words.score}, protocol {facts['protocol']}"
    _show_differences(console, title, what, facts["scores"], result, footnotes)
    classes = [row for row in facts["classes"] if words.measure in (None, row.get("measure"))]
    classes = [row for row in classes if _scores(row) != (None, None)]
    classes.sort(key=lambda row: -abs(row["difference"]) if row["difference"] is not None else 1.0)
    title = f"{words.classes}, largest difference first"
    _show_differences(console, title, "class_name", classes, result, footnotes)
    for note in footnotes:
        console.print(Text(note))
    columns = [Column("image", text=True), *(Column(name) for name in ("A", "B", "B - A"))]
    rows = [
        [Text(text) for text in (row["key"], *map(ratio, _scores(row)), signed(row["difference"]))]
        for row in facts["images"]
    ]
    show_fitted(console, f"images that moved most, {words.images}", columns, rows)
    left_out = f", {result.left_out:,} in one run only left out" if result.left_out else ""
    how = interval_words.of_comparison(result)
    console.print(Text(f"{counted(result.image_count, 'image')} compared{left_out}; {how}"))
    smallest = facts["scores"][0]["detectable"]
    if smallest:
        console.print(Text(f"a difference of {smallest:.4f} would be found in 80 of 100 such splits"))
    if any(result.missing):
        console.print(Text(_incomplete(result, ("A", "B")), style="bold yellow"))
    given = [row for row in classes if row["p"] is not None]
    # Equal predictions have p 1 whatever is drawn: they are no test that could go wrong.
    tests = sum(row["low"] < row["high"] for row in given)
    if tests > 1:
        threshold = 1 - result.intervals["confidence"]
        console.print(
            Text(
                f"p Holm allows for all {len(given)} p's of classes together and decides what is marked; of "
                f"the plain p's, about {threshold * tests:.1f} would be below {threshold:.2g} if both runs "
                "were equally good\n"
            )
        )


def _incomplete(result: Comparison, names: tuple[str, str]) -> str:
    """How many images of the split each run has no score of, of runs that lack any."""
    missing = zip(result.missing, names, strict=True)
    told = ", ".join(f"{count:,} in {name}" for count, name in missing if count)
    return f"INCOMPLETE: images of the split without a score: {told}"


def why_it_fails(
    result: Comparison, protocol: str | None, allowed: float, *, significant: bool, common: bool
) -> str | None:
    """What a gate says of a later run that may not pass; None of one that may.

    Runs that lack images may not without `common`, nor may a run whose difference is not known. With
    `significant` one that is worse may if the test of "no difference" does not reject; without a p it may
    not.
    """
    if any(result.missing) and not common:
        told = _incomplete(result, (result.run_a, result.run_b))
        return f"{told}; --common lets the gate judge by the images that both have"
    row = result.main_row(protocol)
    change = row["difference"]
    score = registry.TASKS[result.kind].score
    if math.isnan(change):
        return f"NOT JUDGED: {result.run_b} and {result.run_a} have no difference in {score}: {row['reason']}"
    if -change <= allowed:
        return None
    if significant and row["reason"] is None and row["p"] > 1 - result.intervals["confidence"]:
        return None
    told = f"WORSE: {result.run_b} is {change:+.4f} {score} against {result.run_a}"
    told = f"{told}, allowed {-allowed:g}" if allowed else f"{told}, allowed 0"
    if not significant:
        return told
    if row["reason"] is not None:
        return f"{told}; no p: {row['reason']}"
    p = _probability(row["p"])
    return f"{told}, p {p[0]} {p[1:]}" if p.startswith("<") else f"{told}, p = {p}"


def _scores(row: Mapping[str, Any]) -> tuple[float | None, ...]:
    """The scores of the two runs."""
    return tuple(value for name, value in row.items() if name.endswith(("_a", "_b")))


def _show_differences(
    console: Console,
    title: str,
    what: str,
    rows: Sequence[dict[str, Any]],
    result: Comparison,
    footnotes: Footnotes,
) -> None:
    confidence = result.intervals["confidence"]
    corrected = any("p_holm" in row for row in rows)
    columns = [
        Column(what.removesuffix("_name"), text=True),
        *(Column(name, spare=1) for name in ("A", "B")),
        Column("B - A"),
        Column(f"{confidence:.0%} interval"),
        # The corrected p decides what is marked.
        *((Column("p", spare=2), Column("p Holm")) if corrected else (Column("p"),)),
        Column("", text=True),
    ]
    shown = []
    for row in rows:
        p = row["p_holm"] if corrected else row["p"]
        marked = Text()
        if p is not None and p <= 1 - confidence:
            better = row["difference"] > 0
            marked = Text("B better", style="green") if better else Text("B worse", style="red")
        cells = (
            row[what].upper() if what == "measure" else str(row[what]),
            *map(ratio, _scores(row)),
            signed(row["difference"]),
            interval(row["low"], row["high"], row["reason"], footnotes, "+"),
            *(_probability(row[name]) for name in ("p", "p_holm") if name in row),
        )
        shown.append([*map(Text, cells), marked])
    show_fitted(console, title, columns, shown)


def _probability(p: float | None) -> str:
    return "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def show_board(table: pa.Table, output: str) -> None:
    if output != "table":
        show_table(table, output)
        return
    head, rows = leaderboard_files.lay_out(table, short=True)
    sorted_by = leaderboard_files.sorted_title(table)
    spare = {"fingerprints": 4, "provenance": 3, "images": 1, "sizes": 2}
    if all(row["classes_in_mean"] == row["classes"] for row in table.to_pylist()):
        spare["classes"] = 4  # a mean over all classes needs no mark
    else:
        spare["classes"] = 0
    columns = [
        Column(
            name,
            text=name in leaderboard_files.TEXTS,
            # Of the scores the one that the board is sorted by stays.
            spare=spare.get(name, 0 if name in ("rank", "range", "method", "doubts", sorted_by) else 2),
        )
        for name in head
    ]
    footnotes = Footnotes()
    shown = []
    for row in rows:
        below = [cell.small or (footnotes.mark(cell.reason) if cell.reason else "") for cell in row.cells]
        lines = (
            "\n".join(filter(None, pair)) for pair in zip([c.text for c in row.cells], below, strict=True)
        )
        shown.append([Text(line) for line in lines])
    console = out()
    styles = [None if row.kind == "ranked" else "dim" for row in rows]
    show_fitted(console, "leaderboard", columns, shown, styles=styles)
    for note in (*footnotes, *leaderboard_files.notes(table)):
        console.print(Text(note))
