"""How intervals came about, for people; and where there are none, why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpu_eval.metrics.uncertainty import MIN_UNITS
from gpu_eval.metrics.units import FEW
from gpu_eval.results.compare import Comparison
from gpu_eval.results.run import ScoredRun
from gpu_eval.results.units import sentence


def of_run(run: ScoredRun) -> str:
    """Of a run: the method, or why no score of it has an interval."""
    reasons = [
        run.score_of(column.scored, protocol).reason
        for protocol in run.protocols
        for column in run.board_columns.values()
    ]
    names = [name for name in run.classes.column_names if name.endswith("_reason")]
    told = _told(
        run.intervals, reasons, [reason for name in names for reason in run.classes[name].to_pylist()]
    )
    return told + worth(run)


def worth(run: ScoredRun) -> str:
    """That the units of a run say as little of its first score as fewer equal ones would; "" where not."""
    main = next(iter(run.board_columns.values()))
    equal = run.score_of(main.scored, run.protocols[0]).df + 1
    if run.intervals is None or not equal < min(FEW, run.intervals["unit_count"] / 2):
        return ""
    kind = run.intervals["unit_kind"]
    return (
        f"; for {main.title} they are worth {equal:.1f} equal {kind}: a class is in few of them, or few "
        "outweigh the rest"
    )


def of_comparison(result: Comparison) -> str:
    """Of two runs: the method, or why no difference has an interval."""
    if result.intervals["unit_count"] < MIN_UNITS:  # equal predictions have bounds even so: 0 and 0
        return f"no intervals: {result.intervals['units']}: no other to compare with"
    tables = result.scores, result.classes
    return _told(result.intervals, *(table["reason"].to_pylist() for table in tables))


def of_board(how: Sequence[Mapping[str, Any]], reasons: Sequence[str | None]) -> str:
    """Of the runs of a board, `how` their intervals came about, which may have different numbers of units.

    `reasons` are why their scores have no interval, None where they have one.
    """
    fewest = min(how, key=lambda told: told["unit_count"])
    most = max(told["unit_count"] for told in how)
    if most > fewest["unit_count"]:
        units = f"{fewest['unit_count']:,}-{most:,} {fewest['unit_kind']}, as each run has them"
        fewest = {**fewest, "units": units}
    return _told(fewest, reasons, ())


def _told(how: Mapping[str, Any] | None, means: Sequence[str | None], parts: Sequence[str | None]) -> str:
    """`means` are why the scores have no interval, `parts` why those of the classes have none."""
    if how is not None and means and all(means) and all(parts):
        return f"no intervals: {means[0]}"
    return sentence(how)
