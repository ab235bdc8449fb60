"""Two runs of the same images side by side: what differs, and whether noise alone could do it.

Both runs lose the same unit in turn, so that what makes a drive hard for both cancels out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gpu_eval.errors import OptionError
from gpu_eval.metrics import uncertainty
from gpu_eval.metrics.uncertainty import Difference
from gpu_eval.results import units as run_units
from gpu_eval.results.comparability import check_same_gt, check_same_kind, check_same_rules, in_common
from gpu_eval.results.images import ScoredImages
from gpu_eval.results.run import ScoredRun


@dataclass(frozen=True, eq=False)
class Comparison:
    """The second run against the first; every difference is B - A.

    `kind` is "semantic" or "instance". `scores`, `classes` and `images` are pyarrow tables
    (`run_folder.schema.Compared`); `images` has every compared image at every level, or under every protocol,
    those that moved most first. `image_count` images were compared, `left_out` are in one run only
    (`common`), and `missing` of the split have no score in the first and in the second run. `doubts` are what
    looks like a mix-up in each. `intervals` says how intervals and p-values came about: method, units,
    remark, confidence.
    """

    kind: str
    run_a: str
    run_b: str
    image_count: int
    left_out: int
    missing: tuple[int, int]
    doubts: tuple[Sequence[str], Sequence[str]]
    intervals: Mapping[str, Any]
    scores: pa.Table
    classes: pa.Table
    images: pa.Table

    def __repr__(self) -> str:
        row, name = self.scores.to_pylist()[0], self.scores.column_names[1]
        what = row[name].upper() if isinstance(row[name], str) else f"{name} {row[name]}"
        told = f"[{row['low']:+.4f}, {row['high']:+.4f}], p = {row['p']:.3g}"
        if row["reason"] is not None:
            told = f"no interval and no p ({row['reason']})"
        return (
            f"<Comparison of {self.run_b} with {self.run_a}: {what} {row['protocol']} "
            f"{row['difference']:+.4f} {told}, {self.image_count} images>"
        )

    def main_row(self, protocol: str | None = None) -> dict[str, Any]:
        """The row of the main score, by default under the first protocol. Raises OptionError for another."""
        rows: list[dict[str, Any]] = self.scores.to_pylist()
        for row in rows:
            if row["protocol"] == (protocol or rows[0]["protocol"]):
                return row
        raise OptionError("the runs have no such protocol", found=protocol)

    def difference(
        self,
        level: int | None = None,
        protocol: str | None = None,
        *,
        measure: str | None = None,
        scored: int | str | None = None,
    ) -> float:
        """The score of the second run less that of the first; default: the main score, first protocol.

        That is the mIoU of a `level` (default: the finest) or, of instances, the `measure` "ap" or "ap50"; of
        any task it may be given as `scored`.
        NaN where a run has none. Raises OptionError for a level, measure or protocol the runs do not have.
        """
        rows = self.scores.to_pylist()
        what = self.scores.column_names[1]
        wanted = {"level": level, "measure": measure}
        scored = scored or wanted.pop(what, None) or rows[0][what]
        protocol = protocol or rows[0]["protocol"]
        for row in rows:
            if (row[what], row["protocol"]) == (scored, protocol) and not any(wanted.values()):
                return float(row["difference"])
        found = ", ".join(f"{name} {value}" for name, value in wanted.items() if value)
        raise OptionError(
            f"the runs have no such {what} and protocol", found=found or f"{what} {scored}, {protocol}"
        )


def compare(
    run_a: ScoredRun,
    run_b: ScoredRun,
    *,
    common: bool = False,
    units: run_units.Wanted = run_units.DEFAULT,
    confidence: float = uncertainty.CONFIDENCE,
) -> Comparison:
    """Compare the second run with the first, on the images both have scored.

    `units` are those of the intervals, as in `results.units`.

    Raises
        OptionError: runs of two tasks; units that do not fit the images.
        IncomparableRuns: labels, protocols, resolution, area or ground truth differ; the images differ and
            `common` does not allow it; no image is common.
        CorruptRun: a run cannot be read.
    """
    check_same_kind([run_a, run_b])
    check_same_rules(run_a, run_b)
    a, b = run_a.image_counts(), run_b.image_counts()
    names = (str(run_a.folder), str(run_b.folder))
    missing = (len(a.missing), len(b.missing))
    at_a, at_b = in_common(a, b, names, common)
    left_out = len(a.keys) + len(b.keys) - 2 * at_a.size
    check_same_gt(a, b, (at_a, at_b), names)
    a, b = a.take(at_a), b.take(at_b)
    chosen = run_units.units_of(a, units)
    parts_a, parts_b = a.parts(chosen), b.parts(chosen)
    tables = run_a.tables.compared
    scores: list[tuple[Any, ...]] = []
    classes: list[tuple[Any, ...]] = []
    for key in parts_a:
        found = uncertainty.differences(parts_a[key], parts_b[key], chosen, confidence)
        scores.append((*key, *_columns(found.mean)))
        corrected = uncertainty.holm(np.array([part.p for part in found.parts])).tolist()
        classes += [
            (*key, *named, *_columns(part), p)
            for named, part, p in zip(run_a.classes_of(key[1]), found.parts, corrected, strict=True)
        ]
    return Comparison(
        run_a.kind,
        *names,
        image_count=len(a.keys),
        left_out=left_out,
        missing=missing,
        doubts=(run_a.doubts, run_b.doubts),
        intervals=run_units.describe(chosen, confidence),
        scores=_table(scores, tables.scores),
        classes=_table(classes, tables.classes),
        images=_images(a, b, tables.images),
    )


def _table(rows: Sequence[tuple[Any, ...]], columns: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(columns.names, row, strict=True)) for row in rows], schema=columns)


def _columns(found: Difference) -> tuple[float | str | None, ...]:
    """Both scores and `run_folder.schema.DIFFERENCE`."""
    return (
        found.a,
        found.b,
        found.difference,
        found.low,
        found.high,
        found.p,
        found.detectable,
        found.reason,
    )


def _images(a: ScoredImages, b: ScoredImages, columns: pa.Schema) -> pa.Table:
    """Every compared image by each of its scores, the largest change first; those without one come last."""
    parts = []
    scores_b = b.image_scores()
    for scored, of_a in a.image_scores().items():
        of_b = scores_b[scored]
        order = np.argsort(-np.abs(of_b - of_a), kind="stable")  # NaN comes last
        values = [
            np.array(a.keys, dtype=object)[order],
            np.full(order.size, scored, object),
            of_a[order],
            of_b[order],
            (of_b - of_a)[order],
        ]
        arrays = [pa.array(v, field.type) for v, field in zip(values, columns, strict=True)]
        parts.append(pa.Table.from_arrays(arrays, schema=columns))
    return pa.concat_tables(parts)
