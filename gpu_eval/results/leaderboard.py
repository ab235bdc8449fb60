"""Runs of one split in order of their score, each with the range of ranks that the data allow it.

Ranges hold together for all runs of the board (`metrics.ranks`). Only complete runs are ranked: leaving out
hard images must not pay. (`--on-error void` makes a run complete by counting what is missing as missed.)
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow as pa

from gpu_eval.errors import OptionError
from gpu_eval.labels.words import same_name
from gpu_eval.metrics import uncertainty
from gpu_eval.metrics.ranks import rank_ranges
from gpu_eval.metrics.uncertainty import Parts
from gpu_eval.results import units as run_units
from gpu_eval.results.comparability import check_same_kind, check_same_rules, check_same_split
from gpu_eval.results.images import ScoredImages
from gpu_eval.results.run import ScoredRun
from gpu_eval.run_folder.schema import interval_columns

# The benchmark's own boards as they stood when they were copied; see published/SOURCE.md.
PUBLISHED = {
    "autonue_semantic.csv": "AutoNUE pixel-level board",
    "autonue_instance.csv": "AutoNUE instance-level board",
}
PUBLISHED_LABELS = "idd"

# Of the sizes of a run's predictions, those that a board names.
SIZES_TOLD = 3

# Columns of a board, and what they are called in those files.
_PUBLISHED_SCORES = {**{f"miou_level{n}": f"miou_l{n}" for n in (3, 2, 1)}, "ap": "ap", "ap50": "ap50"}

# Key of the board's schema metadata: the column it is sorted by.
SORTED_BY = b"gpu_eval.sorted_by"
# And how its intervals and ranges came about, as JSON: `runs` has for each scored run what
# `results.units.describe` says; `detectable` is the smallest difference that two runs in the middle of the
# board would show with 80 % power.
INTERVALS = b"gpu_eval.intervals"


def leaderboard(
    runs: Sequence[ScoredRun],
    *,
    published: bool = False,
    sort: str | None = None,
    protocol: str | None = None,
    units: run_units.Wanted = run_units.DEFAULT,
    confidence: float = uncertainty.CONFIDENCE,
) -> pa.Table:
    """The board, best first: one row per run and, if `published`, per row of the benchmark's own boards.

    `sort` is L<level>, AP or AP50 (default: the finest level; of instances AP), `protocol` one of the runs'
    (default: the first). Columns: `run_folder.schema.board`. Published rows have no rank: they were not
    scored here. A board of instances has only those with an AP. `units` are those of the intervals, as in
    `results.units`.

    Raises
        IncomparableRuns: labels, protocols, resolution, area, ground truth or the split's images differ.
        OptionError: no runs, a run twice, runs of both kinds, or a sort or protocol that does not exist.
        CorruptRun: a run cannot be read.
    """
    if not runs:
        raise OptionError("a leaderboard needs at least one run")
    folders = [run.folder.resolve() for run in runs]
    if len(set(folders)) < len(folders):
        raise OptionError("a run is given twice", found=str(max(folders, key=folders.count)))
    check_same_kind(runs)
    one = runs[0]
    column = _sort_column(one, sort)
    protocol = same_name(protocol, one.protocols) or protocol if protocol else one.protocols[0]
    one.check_protocol(protocol)
    labels = one.facts["labels"]["name"]
    if published and labels != PUBLISHED_LABELS:
        raise OptionError("there are no published rows", found=f"runs of {labels}", expected=PUBLISHED_LABELS)
    board: list[dict[str, Any]] = []
    sorted_by: dict[str, Parts] = {}
    first: ScoredImages | None = None
    described: list[dict[str, Any]] = []
    for run in runs:
        check_same_rules(one, run)
        counted = run.image_counts()
        first = first or counted
        check_same_split(first, counted, (str(one.folder), str(run.folder)))
        chosen = run_units.units_of(counted, units)
        row = _row(run, counted, protocol) | _meant(run, column, protocol)
        how = run_units.describe(chosen, confidence)
        described.append(how)
        row |= {"interval_method": how["method"], "units": how["units"]}
        parts = counted.parts(chosen, [protocol])
        for shown in one.board_columns.values():
            scored, name = shown.scored, shown.column
            interval = uncertainty.intervals(parts[protocol, scored], chosen, confidence).mean
            row |= {name: interval.estimate, **interval_columns(name, interval)}
            if name == column and not _is_incomplete(row):
                sorted_by[row["run"]] = parts[protocol, scored]
        board.append(row)
    if published:
        # Those with a score that the board has a column for.
        there = set(one.tables.board.names) & set(_PUBLISHED_SCORES)
        board += [row for row in _published() if any(row[name] is not None for name in there)]
    board.sort(key=lambda row: _order(row, column))
    detectable = _rank(board, sorted_by, column, confidence)
    for row in board:
        row["detectable"] = detectable if row.get("rank") is not None else None
    told = {"runs": described, "detectable": _null(detectable)}
    return pa.Table.from_pylist(
        [{name: _null(value) for name, value in row.items()} for row in board],
        schema=one.tables.board.with_metadata({SORTED_BY: column, INTERVALS: json.dumps(told)}),
    )


def _sort_column(run: ScoredRun, sort: str | None) -> str:
    columns = {name: shown.column for name, shown in run.board_columns.items()}
    columns |= {  # of published rows
        name: column for name, column in (("AP", "ap"), ("AP50", "ap50")) if column in run.tables.board.names
    }
    wanted = (sort or next(iter(columns))).upper()
    if wanted not in columns:
        raise OptionError("cannot sort by that", found=sort, expected=", ".join(columns))
    return columns[wanted]


def _row(run: ScoredRun, counted: ScoredImages, protocol: str) -> dict[str, Any]:
    facts = run.facts
    return {
        "rank": None,
        "rank_first": None,
        "rank_last": None,
        **facts["entry"],
        "source": "scored",
        "published_rank": None,
        "protocol": protocol,
        "images_scored": facts["images_scored"],
        "images": facts["images"],
        "completeness": facts["images_scored"] / facts["images"] if facts["images"] else None,
        "images_void": facts["images_void"],
        "gt_fingerprint": counted.gt_fingerprint,
        "pred_fingerprint": counted.pred_fingerprint,
        "version": facts["decides"]["version"],
        "engine": facts["engine"]["name"],
        "run": str(run.folder),
    }


def _meant(run: ScoredRun, column: str, protocol: str) -> dict[str, Any]:
    """What says whether a score means what the others mean: classes in the mean, sizes, doubts."""
    shown = list(run.board_columns.values())
    scored = next((one.scored for one in shown if one.column == column), shown[0].scored)
    there, classes = run.classes_in_mean(scored, protocol)
    sizes = run.sizes
    return {
        "classes_in_mean": there,
        "classes": classes,
        "sizes": ", ".join(sizes[:SIZES_TOLD]) + (", ..." if len(sizes) > SIZES_TOLD else "") or None,
        "doubts": "; ".join(run.doubts) or None,
    }


def _published() -> list[dict[str, Any]]:
    board = []
    for file, title in PUBLISHED.items():
        text = files("gpu_eval.results").joinpath("published", file).read_text(encoding="utf-8")
        for line in csv.DictReader(text.splitlines()):
            row: dict[str, Any] = {
                "team": line["team"],
                "method": line["method"],
                "source": "published",
                "published_rank": int(line["rank"]) if line["rank"] else None,
                "run": title,
            }
            for name, file_column in _PUBLISHED_SCORES.items():
                row[name] = float(line[file_column]) if line.get(file_column) else None
            board.append(row)
    return board


def _order(row: dict[str, Any], column: str) -> tuple[bool, bool, float, str]:
    """Complete and published rows by score, best first; then rows without one; then incomplete runs."""
    value = _null(row.get(column))
    return _is_incomplete(row), value is None, -(value or 0.0), row["run"]


def _is_incomplete(row: dict[str, Any]) -> bool:
    return row["source"] == "scored" and bool(row["images_scored"] < row["images"])


def _rank(board: list[dict[str, Any]], sorted_by: dict[str, Parts], column: str, confidence: float) -> float:
    """Fill in the ranks of the complete runs (equal scores share one) and their ranges; `board` is sorted.

    Returns the smallest difference that the board could show.
    """
    ranked = [row for row in board if row["run"] in sorted_by and _null(row.get(column)) is not None]
    ranges = rank_ranges([sorted_by[row["run"]] for row in ranked], confidence)
    for i, row in enumerate(ranked):
        same = i > 0 and row[column] == ranked[i - 1][column]
        row["rank"] = ranked[i - 1]["rank"] if same else i + 1
        row["rank_first"], row["rank_last"] = int(ranges.first[i]), int(ranges.last[i])
    return ranges.detectable


def _null(value: Any) -> Any:
    """NaN is null on a board: some readers of CSV and JSON know no NaN."""
    return None if isinstance(value, float) and np.isnan(value) else value
