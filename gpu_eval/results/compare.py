"""Two runs of the same images side by side: what differs, and whether noise alone could do it.

Both runs are resampled with the same draws, so that what makes an image hard for both cancels out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gpu_eval.errors import OptionError
from gpu_eval.metrics import bootstrap
from gpu_eval.results.comparability import check_same_gt, check_same_kind, check_same_rules, in_common
from gpu_eval.results.images import ScoredImages
from gpu_eval.results.run import ScoredRun


@dataclass(frozen=True, eq=False)
class Comparison:
    """The second run against the first; every difference is B - A.

    `kind` is "semantic" or "instance". `scores`, `classes` and `images` are pyarrow tables
    (`run_folder.schema.Compared`); `images` has every compared image at every level, or under every protocol,
    those that moved most first. `image_count` images were compared, `left_out` are in one run only
    (`common`). `resamples` is 0 where there were fewer than two units.
    """

    kind: str
    run_a: str
    run_b: str
    image_count: int
    left_out: int
    units: str
    unit_count: int
    resamples: int
    confidence: float
    seed: int
    scores: pa.Table
    classes: pa.Table
    images: pa.Table

    def __repr__(self) -> str:
        row, name = self.scores.to_pylist()[0], self.scores.column_names[1]
        what = row[name].upper() if isinstance(row[name], str) else f"{name} {row[name]}"
        return (
            f"<Comparison of {self.run_b} with {self.run_a}: {what} {row['protocol']} "
            f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}], p = {row['p']:.3g}, "
            f"{self.image_count} images>"
        )

    def difference(
        self, level: int | None = None, protocol: str | None = None, *, measure: str | None = None
    ) -> float:
        """The score of the second run less that of the first; default: the main score, first protocol.

        That is the mIoU of a `level` (default: the finest) or, of instances, the `measure` "ap" or "ap50".
        NaN where a run has none. Raises OptionError for a level, measure or protocol the runs do not have.
        """
        rows = self.scores.to_pylist()
        what = self.scores.column_names[1]
        wanted = {"level": level, "measure": measure}
        scored, protocol = wanted.pop(what, None) or rows[0][what], protocol or rows[0]["protocol"]
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
    resamples: int = bootstrap.RESAMPLES,
    confidence: float = bootstrap.CONFIDENCE,
    seed: int = bootstrap.SEED,
) -> Comparison:
    """Compare the second run with the first, on the images both have scored.

    Raises
        OptionError: one run is of label maps, the other of instances.
        IncomparableRuns: labels, protocols, resolution, area or ground truth differ; the images differ and
            `common` does not allow it; no image is common.
        CorruptRun: a run cannot be read.
    """
    check_same_kind([run_a, run_b])
    check_same_rules(run_a, run_b)
    a, b = run_a.image_counts(), run_b.image_counts()
    names = (str(run_a.folder), str(run_b.folder))
    at_a, at_b = in_common(a, b, names, common)
    left_out = len(a.keys) + len(b.keys) - 2 * at_a.size
    a, b = a.take(at_a), b.take(at_b)
    check_same_gt(a, b, names)
    (samples_a, units), (samples_b, _) = (side.resampled(resamples, seed) for side in (a, b))
    scores_a, scores_b = a.scores(), b.scores()
    tables = run_a.tables.compared
    scores: list[tuple[Any, ...]] = []
    classes: list[tuple[Any, ...]] = []
    for key in scores_a:
        mean, per_class = (
            _differences(scores_a[key][i], scores_b[key][i], samples_a[key][i], samples_b[key][i], confidence)
            for i in (0, 1)
        )
        scores += [(*key, *row) for row in mean]
        classes += [
            (*key, *named, *row) for named, row in zip(run_a.classes_of(key[1]), per_class, strict=True)
        ]
    return Comparison(
        run_a.kind,
        *names,
        image_count=len(a.keys),
        left_out=left_out,
        units=units.kind,
        unit_count=units.count,
        resamples=resamples if units.count > 1 else 0,
        confidence=confidence,
        seed=seed,
        scores=_table(scores, tables.scores),
        classes=_table(classes, tables.classes),
        images=_images(a, b, tables.images),
    )


def _table(rows: Sequence[tuple[Any, ...]], columns: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(columns.names, row, strict=True)) for row in rows], schema=columns)


def _differences(
    a: npt.NDArray[np.float64],
    b: npt.NDArray[np.float64],
    samples_a: npt.NDArray[np.float64],
    samples_b: npt.NDArray[np.float64],
    confidence: float,
) -> list[tuple[float, ...]]:
    """Both scores and `run_folder.schema.DIFFERENCE`, per score: () or (n,), samples (resamples, ...)."""
    differences = samples_b - samples_a
    low, high = bootstrap.interval(differences, confidence)
    columns = (a, b, b - a, low, high, bootstrap.p_value(differences))
    return [tuple(map(float, row)) for row in zip(*map(np.atleast_1d, columns), strict=True)]


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
