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

from gpu_eval.errors import IncomparableRuns, OptionError
from gpu_eval.metrics import bootstrap
from gpu_eval.report import schema
from gpu_eval.report.counts import ImageCounts
from gpu_eval.report.run import Run

# Image names in an error message.
_EXAMPLES = 3


@dataclass(frozen=True, eq=False)
class Comparison:
    """The second run against the first; every difference is B - A.

    `levels`, `classes` and `images` are pyarrow tables (`schema.COMPARED_*`); `images` has every compared
    image at every level, those that moved most first. `image_count` images were compared, `left_out` are in
    one run only (`common`). `resamples` is 0 where there were fewer than two units.
    """

    run_a: str
    run_b: str
    image_count: int
    left_out: int
    units: str
    unit_count: int
    resamples: int
    confidence: float
    seed: int
    levels: pa.Table
    classes: pa.Table
    images: pa.Table

    def __repr__(self) -> str:
        row = self.levels.to_pylist()[0]
        return (
            f"<Comparison of {self.run_b} with {self.run_a}: level {row['level']} {row['protocol']} "
            f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}], p = {row['p']:.3g}, "
            f"{self.image_count} images>"
        )

    def difference(self, level: int | None = None, protocol: str | None = None) -> float:
        """mIoU of the second run less that of the first; default: finest level, first protocol.

        NaN where a run has none. Raises OptionError for a level or protocol the runs do not have.
        """
        rows = self.levels.to_pylist()
        level, protocol = level or rows[0]["level"], protocol or rows[0]["protocol"]
        for row in rows:
            if (row["level"], row["protocol"]) == (level, protocol):
                return float(row["difference"])
        raise OptionError("the runs have no such level and protocol", found=f"level {level}, {protocol}")


def compare(
    run_a: Run,
    run_b: Run,
    *,
    common: bool = False,
    resamples: int = bootstrap.RESAMPLES,
    confidence: float = bootstrap.CONFIDENCE,
    seed: int = bootstrap.SEED,
) -> Comparison:
    """Compare the second run with the first, on the images both have scored.

    Raises
        IncomparableRuns: labels, protocols, resolution or ground truth differ; the images differ and
            `common` does not allow it; no image is common.
        CorruptRun: a run cannot be read.
    """
    check_same_rules(run_a, run_b)
    a, b = run_a.image_counts(), run_b.image_counts()
    names = (str(run_a.folder), str(run_b.folder))
    at_a, at_b = _common(a, b, names, common)
    left_out = len(a.keys) + len(b.keys) - 2 * at_a.size
    a, b = a.take(at_a), b.take(at_b)
    check_same_gt(a, b, names)
    (samples_a, units), (samples_b, _) = (side.resampled(resamples, seed) for side in (a, b))
    scores_a, scores_b = a.scores(), b.scores()
    levels: list[dict[str, Any]] = []
    classes: list[dict[str, Any]] = []
    for protocol in run_a.labels.protocols:
        for level in run_a.labels.levels:
            key = protocol, level.number
            place = {"protocol": protocol, "level": level.number}
            miou, iou = (
                _differences(
                    scores_a[key][i], scores_b[key][i], samples_a[key][i], samples_b[key][i], confidence
                )
                for i in (0, 1)
            )
            levels += [
                {**place, "miou_a": float(scores_a[key][0]), "miou_b": float(scores_b[key][0]), **row}
                for row in miou
            ]
            classes += [
                {
                    **place,
                    "class_id": i,
                    "class_name": name,
                    "iou_a": float(scores_a[key][1][i]),
                    "iou_b": float(scores_b[key][1][i]),
                    **iou[i],
                }
                for i, name in enumerate(level.names)
            ]
    return Comparison(
        *names,
        image_count=len(a.keys),
        left_out=left_out,
        units=units.kind,
        unit_count=units.count,
        resamples=resamples if units.count > 1 else 0,
        confidence=confidence,
        seed=seed,
        levels=pa.Table.from_pylist(levels, schema=schema.COMPARED_LEVELS),
        classes=pa.Table.from_pylist(classes, schema=schema.COMPARED_CLASSES),
        images=_images(run_a, run_b, a.keys),
    )


def check_same_rules(run_a: Run, run_b: Run) -> None:
    """Raises IncomparableRuns where labels, protocols or resolution differ, and says which."""
    described = [run.facts["labels"] for run in (run_a, run_b)]
    rules = [
        ("label spaces", [(d["name"], d["levels"]) for d in described], [d["name"] for d in described]),
        ("protocols", [d["protocols"] for d in described], [", ".join(d["protocols"]) for d in described]),
        ("resolutions", *[[_resolution(run) for run in (run_a, run_b)]] * 2),
    ]
    for what, (one, other), (shown, shown_other) in rules:
        if one != other:
            raise IncomparableRuns(
                f"the runs have different {what}",
                file=str(run_b.folder),
                found=shown_other if shown_other != shown else f"another table named {shown}",
                expected=f"{shown}, as {run_a.folder}",
                fix="score both with the same options",
            )


def _resolution(run: Run) -> str:
    """The (height, width) all maps were scored at, as people write it."""
    size = run.facts["decides"]["resolution"]
    return str(size) if isinstance(size, str) else f"{size[1]}x{size[0]}"


def check_same_gt(a: ImageCounts, b: ImageCounts, names: tuple[str, str]) -> None:
    """Raises IncomparableRuns unless each image has the same pixels of each gt class in both.

    `a` and `b` hold the same images in the same order. What counts is the content, so a copy of the ground
    truth with other dates or another compression is the same.
    """
    other = np.flatnonzero((a.gt != b.gt).any(axis=1))
    if other.size:
        raise IncomparableRuns(
            "the runs were scored against different ground truth",
            file=names[1],
            found=f"{other.size} of {len(a.keys)} images differ from {names[0]}: "
            + _some([a.keys[i] for i in other]),
            fix="score both against the same ground truth",
        )


def _common(
    a: ImageCounts, b: ImageCounts, names: tuple[str, str], allowed: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where the images of both stand in each, in the order of the first."""
    place = {key: i for i, key in enumerate(b.keys)}
    both = [(i, place[key]) for i, key in enumerate(a.keys) if key in place]
    if len(both) == len(a.keys) == len(b.keys) or (both and allowed):
        index = np.array(both, np.int64)
        return index[:, 0], index[:, 1]
    if not both:
        raise IncomparableRuns(
            "the runs have no image in common",
            file=names[1],
            found=_some(b.keys),
            expected=f"{_some(a.keys)}, as {names[0]}",
        )
    only = [sorted(set(one.keys) - set(other.keys)) for one, other in ((a, b), (b, a))]
    found = [
        f"{len(keys)} only in {name}: {_some(keys)}" for keys, name in zip(only, names, strict=True) if keys
    ]
    raise IncomparableRuns(
        "the runs have scored different images",
        file=names[1],
        found="; ".join(found),
        expected=f"the same {len(a.keys)} images as {names[0]}",
        fix=f"--common compares the {len(both)} images that both have",
    )


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:_EXAMPLES]) + (", ..." if len(keys) > _EXAMPLES else "")


def _differences(
    a: npt.NDArray[np.float64],
    b: npt.NDArray[np.float64],
    samples_a: npt.NDArray[np.float64],
    samples_b: npt.NDArray[np.float64],
    confidence: float,
) -> list[dict[str, float]]:
    """The columns `schema._DIFFERENCE` of each score: shape () or (n,), its samples (resamples, ...)."""
    differences = samples_b - samples_a
    low, high = bootstrap.interval(differences, confidence)
    columns = (b - a, low, high, bootstrap.p_value(differences))
    return [
        dict(zip(("difference", "low", "high", "p"), map(float, row), strict=True))
        for row in zip(*map(np.atleast_1d, columns), strict=True)
    ]


def _images(run_a: Run, run_b: Run, keys: Sequence[str]) -> pa.Table:
    """Every common image at every level, the largest change first; those without a mean come last."""
    places = [{key: i for i, key in enumerate(run.images["key"].to_pylist())} for run in (run_a, run_b)]
    parts = []
    for level in run_a.labels.levels:
        a, b = (
            run.images[f"miou_level{level.number}"].to_numpy()[[place[key] for key in keys]]
            for run, place in zip((run_a, run_b), places, strict=True)
        )
        order = np.argsort(-np.abs(b - a), kind="stable")  # NaN comes last
        values = [
            np.array(keys, dtype=object)[order],
            np.full(order.size, level.number, np.int8),
            a[order],
            b[order],
            (b - a)[order],
        ]
        parts.append(pa.Table.from_arrays([pa.array(v) for v in values], schema=schema.COMPARED_IMAGES))
    return pa.concat_tables(parts)
