"""mIoU of someone's own confusion matrices, with an interval, and compared with another's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_eval.errors import OptionError
from gpu_eval.labels import Labels, LabelSpace, as_labels
from gpu_eval.metrics import semantic, uncertainty, unit_names
from gpu_eval.metrics import units as unit_kinds
from gpu_eval.metrics.confusion import Counts
from gpu_eval.metrics.semantic_sums import iou_parts
from gpu_eval.metrics.uncertainty import Difference, Interval, Parts
from gpu_eval.metrics.units import Units

# Matrices at a time.
_CHUNK = 4096
# Every sum that is formed is of some of the cells, so it fits into int64 where all of them together do.
_MOST_PIXELS = 2**63 - 1


def miou_interval(
    confusions: Counts,
    labels: Labels = "idd",
    level: int | None = None,
    protocol: str | None = None,
    units: Sequence[str] | Sequence[int] | npt.NDArray[Any] | None = None,
    confidence: float = uncertainty.CONFIDENCE,
) -> Interval:
    """The mIoU of all images together and its interval.

    `confusions` are integers (images, n + 1, n + 1), rows gt, columns prediction, void last. `units` names
    the drive, city or sequence of each image, by a string or an integer; without it every image is taken to
    be independent of the others, which frames of one drive are not. Default: the finest level, the labels'
    first protocol.

    Raises OptionError for matrices of another shape or kind, with negative counts or with more pixels than
    int64 holds, for an unknown level or protocol, for units that are not one name per image, and for a
    confidence that is none.
    """
    space = as_labels(labels)
    confusions = _matrices("confusions", confusions, space)
    of_image = _units(units, len(confusions))
    return uncertainty.intervals(
        _parts(confusions, of_image, space, level, protocol), of_image, confidence
    ).mean


def compare_confusions(
    a: Counts,
    b: Counts,
    labels: Labels = "idd",
    level: int | None = None,
    protocol: str | None = None,
    units: Sequence[str] | Sequence[int] | npt.NDArray[Any] | None = None,
    confidence: float = uncertainty.CONFIDENCE,
) -> Difference:
    """The mIoU of `b` less that of `a`, on the same images in the same order; see `miou_interval`.

    Raises OptionError as there, and where the ground truth of an image differs between the two.
    """
    space = as_labels(labels)
    a, b = (_matrices(name, side, space) for name, side in (("a", a), ("b", b)))
    if len(a) != len(b):
        raise OptionError("not the same images", found=f"{len(b):,} matrices", expected=f"{len(a):,}")
    for first in range(0, len(a), _CHUNK):
        some = slice(first, first + _CHUNK)
        other = np.flatnonzero((a[some].sum(axis=2) != b[some].sum(axis=2)).any(axis=1))
        if other.size:
            raise OptionError(
                "the ground truth differs", found=f"image {first + other[0]}", expected="equal sums of rows"
            )
    of_image = _units(units, len(a))
    first_run, second_run = (_parts(side, of_image, space, level, protocol) for side in (a, b))
    return uncertainty.differences(first_run, second_run, of_image, confidence).mean


def _parts(
    confusions: Counts, units: Units, space: LabelSpace, level: int | None, protocol: str | None
) -> Parts:
    protocol = protocol or space.protocols[0]
    number = space.level(level).number
    classes = len(space.level(level).names)
    tp_sum, gt_sum, union_sum = (np.zeros((units.count, classes), np.int64) for _ in range(3))
    for first in range(0, max(len(confusions), 1), _CHUNK):
        some = slice(first, first + _CHUNK)
        tp, fp, fn = semantic.counts(confusions[some].astype(np.int64), space, protocol, number)
        of_image = units.of_image[some]
        for total, counts in ((tp_sum, tp), (gt_sum, tp + fn), (union_sum, tp + fp + fn)):
            np.add.at(total, of_image, counts)
    return iou_parts(tp_sum, gt_sum, union_sum, protocol)


def _units(names: object, images: int) -> Units:
    if names is None:
        return unit_kinds.images(images)
    return unit_kinds.named(unit_names.in_order(names, images))


def _matrices(name: str, given: object, space: LabelSpace) -> Counts:
    """What was given as the argument `name`, as an array whose sums int64 holds."""
    size = space.n_classes + 1
    try:
        confusions = np.asarray(given)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # lists of unequal lengths; a GPU's arrays
        confusions = np.empty((), object)
    fine = confusions.ndim == 3 and confusions.shape[1:] == (size, size)
    if not (fine and confusions.dtype.kind in "iu"):
        shown = f"{confusions.dtype} {confusions.shape}" if confusions.ndim else type(given).__name__
        raise OptionError(
            f"{name}: no confusion matrices of these labels",
            found=shown,
            expected=f"integers (images, {size}, {size}): {space.n_classes} classes and void",
        )
    if confusions.size and int(confusions.min()) < 0:
        raise OptionError(f"{name}: a confusion matrix with negative counts", found=str(confusions.min()))
    pixels = _pixels(confusions)
    if pixels > _MOST_PIXELS:
        raise OptionError(
            f"{name}: more pixels than can be counted",
            found=f"{pixels:,}",
            expected=f"at most {_MOST_PIXELS:,} in all images together",
        )
    return confusions


def _pixels(confusions: Counts) -> int:
    """The sum of all counts, which are not negative, or more than it where it is small: it cannot wrap."""
    bound = confusions.size * int(confusions.max(initial=0))
    if bound <= _MOST_PIXELS:
        return bound
    total = 0
    for first in range(0, len(confusions), _CHUNK):
        counts = confusions[first : first + _CHUNK].astype(np.uint64)
        # Halves of 32 bits: sums of 2**32 of them fit.
        total += (int((counts >> np.uint64(32)).sum()) << 32) + int((counts & np.uint64(2**32 - 1)).sum())
    return total
