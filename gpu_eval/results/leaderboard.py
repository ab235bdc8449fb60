"""Runs of one split in order of their score, and which of them noise alone could reorder.

A tier begins with the best run that is in none yet and takes in the runs below whose paired bootstrap
interval of the difference to it contains 0, as far as the first that does not. Only complete runs
are ranked: leaving out hard images must not pay. (`--on-error void` makes a run complete by counting what is
missing as missed.)
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import pyarrow as pa

from gpu_eval.errors import OptionError
from gpu_eval.metrics import bootstrap
from gpu_eval.metrics.confusion import Ratios
from gpu_eval.results.comparability import check_same_kind, check_same_rules, check_same_split
from gpu_eval.results.images import ScoredImages
from gpu_eval.results.run import ScoredRun

# The benchmark's own boards as they stood when they were copied; see published/SOURCE.md.
PUBLISHED = {
    "autonue_semantic.csv": "AutoNUE pixel-level board",
    "autonue_instance.csv": "AutoNUE instance-level board",
}
PUBLISHED_LABELS = "idd"

# Columns of a board, and what they are called in those files.
_PUBLISHED_SCORES = {**{f"miou_level{n}": f"miou_l{n}" for n in (3, 2, 1)}, "ap": "ap", "ap50": "ap50"}

# Key of the board's schema metadata: the column it is sorted by.
SORTED_BY = b"gpu_eval.sorted_by"


def leaderboard(
    runs: Sequence[ScoredRun],
    *,
    published: bool = False,
    sort: str | None = None,
    protocol: str | None = None,
    resamples: int = bootstrap.RESAMPLES,
    confidence: float = bootstrap.CONFIDENCE,
    seed: int = bootstrap.SEED,
) -> pa.Table:
    """The board, best first: one row per run and, if `published`, per row of the benchmark's own boards.

    `sort` is L<level>, AP or AP50 (default: the finest level; of instances AP), `protocol` one of the runs'
    (default: the first). Columns: `run_folder.schema.board`. Published rows have neither rank nor tier: they
    were not scored here. A board of instances has only those with an AP.

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
    protocol = protocol or one.protocols[0]
    one.check_protocol(protocol)
    labels = one.facts["labels"]["name"]
    if published and labels != PUBLISHED_LABELS:
        raise OptionError("there are no published rows", found=f"runs of {labels}", expected=PUBLISHED_LABELS)
    board: list[dict[str, Any]] = []
    samples: dict[str, Ratios] = {}
    first: ScoredImages | None = None
    for run in runs:
        check_same_rules(one, run)
        counted = run.image_counts()
        first = first or counted
        check_same_split(first, counted, (str(one.folder), str(run.folder)))
        drawn, _ = counted.resampled(resamples, seed, [protocol])
        scores = counted.scores()
        row = _row(run, counted, protocol)
        for scored, name in one.board_columns.values():
            means = drawn[protocol, scored][0]
            low, high = bootstrap.interval(means, confidence)
            row |= {
                name: float(scores[protocol, scored][0]),
                f"{name}_low": float(low),
                f"{name}_high": float(high),
            }
            if name == column:
                samples[row["run"]] = means
        board.append(row)
    if published:
        # Those with a score that the board has a column for.
        shown = set(one.tables.board.names) & set(_PUBLISHED_SCORES)
        board += [row for row in _published() if any(row[name] is not None for name in shown)]
    board.sort(key=lambda row: _order(row, column))
    _rank(board, samples, column, confidence)
    return pa.Table.from_pylist(
        [{name: _null(value) for name, value in row.items()} for row in board],
        schema=one.tables.board.with_metadata({SORTED_BY: column}),
    )


def _sort_column(run: ScoredRun, sort: str | None) -> str:
    columns = {name: column for name, (_, column) in run.board_columns.items()}
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
        "tier": None,
        **facts["entry"],
        "ap": None,
        "ap50": None,
        "source": "scored",
        "published_rank": None,
        "protocol": protocol,
        "images_scored": facts["images_scored"],
        "images": facts["images"],
        "completeness": facts["images_scored"] / facts["images"],
        "images_void": facts["images_void"],
        "gt_fingerprint": counted.gt_fingerprint,
        "pred_fingerprint": counted.pred_fingerprint,
        "version": facts["decides"]["version"],
        "engine": facts["engine"]["name"],
        "run": str(run.folder),
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
    value = _null(row[column])
    return _is_incomplete(row), value is None, -(value or 0.0), row["run"]


def _is_incomplete(row: dict[str, Any]) -> bool:
    return row["source"] == "scored" and bool(row["images_scored"] < row["images"])


def _rank(board: list[dict[str, Any]], samples: dict[str, Ratios], column: str, confidence: float) -> None:
    """Fill in `rank` (equal scores share one) and `tier` of the complete runs; `board` is sorted."""
    ranked = [
        row
        for row in board
        if row["source"] == "scored" and not _is_incomplete(row) and _null(row[column]) is not None
    ]
    leader: dict[str, Any] | None = None
    tier = 0
    for i, row in enumerate(ranked):
        same = i > 0 and row[column] == ranked[i - 1][column]
        row["rank"] = ranked[i - 1]["rank"] if same else i + 1
        if leader is None or not _tied(samples[leader["run"]], samples[row["run"]], confidence):
            leader, tier = row, tier + 1
        row["tier"] = tier


def _tied(leader: Ratios, other: Ratios, confidence: float) -> bool:
    """Whether the interval of the difference contains 0; without one (a single image), they are tied."""
    low, high = bootstrap.interval(leader - other, confidence)
    return not bool(low > 0 or high < 0)


def _null(value: Any) -> Any:
    """NaN is null on a board: some readers of CSV and JSON know no NaN."""
    return None if isinstance(value, float) and np.isnan(value) else value
