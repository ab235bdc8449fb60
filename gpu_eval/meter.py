"""Confusion matrices of arrays in memory: for validation loops and notebooks."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_eval.doctor.arrays import Sample, told
from gpu_eval.engines import array_words, colours
from gpu_eval.engines.array_words import Seen
from gpu_eval.engines.cuda.arrays import confusion_on_device, is_on_device
from gpu_eval.engines.semantic import (
    SemanticJob,
    fold_outside,
    joint_count,
    make_job,
    outside,
    to_classes,
)
from gpu_eval.errors import DoubtWarning, OptionError
from gpu_eval.labels import Labels, as_labels
from gpu_eval.metrics import semantic
from gpu_eval.metrics.semantic import LevelScore

Integers = npt.NDArray[np.integer[Any]]


def confusion_matrix(
    gt: Any,
    pred: Any,
    *,
    labels: Labels = "idd",
    gt_encoding: str | None = None,
    pred_encoding: str | None = None,
) -> npt.NDArray[np.int64]:
    """The confusion matrix of two integer arrays of one shape (any shape: a map, a batch of maps).

    Shape (n + 1, n + 1), rows gt, columns prediction, last index void; values outside the encoding
    count as void. `gt` and `pred` are NumPy arrays or whatever `numpy.asarray` takes without a copy,
    CPU tensors of torch among them; bool counts as 0 and 1, uint8 is counted at full speed. A side whose
    encoding is `colour` has one more axis, of red, green and blue. Or both are in CUDA memory: CuPy arrays,
    CUDA tensors of torch, anything with DLPack or `__cuda_array_interface__`; they are counted there, in
    place if contiguous, after what their library's current stream has been given, and waited for.

    Raises OptionError for shapes that differ, for dtypes that are not integers, for one-hot arrays and
    pictures, and for arrays that NumPy cannot see, each with what mends it; EngineUnavailable for arrays in
    CUDA memory where the CUDA engine cannot serve.
    """
    meter = ConfusionMeter(labels, gt_encoding=gt_encoding, pred_encoding=pred_encoding)
    meter.update(gt, pred)
    return meter.confusion


class ConfusionMeter:
    """Adds up confusion matrices over a validation loop.

        meter = gpu_eval.ConfusionMeter("idd")
        for image, gt in loader:
            meter.update(gt, model(image).argmax(1))
        meter.miou(level=3)

    The state is `confusion`, one int64 matrix (n + 1, n + 1), rows gt, columns prediction, last index
    void: it can be added, pickled and merged over processes. `outside` counts the (gt, pred) pixels
    outside the encodings, which are in the matrix as void.

    Values that look like a mix-up of ids, judged from a little of the first arrays in host memory, are told
    by a `DoubtWarning` as soon as a score is asked for; `doubts` has them too.
    """

    def __init__(
        self, labels: Labels = "idd", *, gt_encoding: str | None = None, pred_encoding: str | None = None
    ) -> None:
        self.labels = as_labels(labels)
        self._job = make_job(self.labels, gt_encoding=gt_encoding, pred_encoding=pred_encoding)
        self._encodings = tuple(name or self.labels.default_encoding for name in (gt_encoding, pred_encoding))
        self.reset()

    def reset(self) -> None:
        """Forget everything counted."""
        size = self.labels.n_classes + 1
        self.confusion: npt.NDArray[np.int64] = np.zeros((size, size), np.int64)
        self.outside = (0, 0)
        self._seen = Sample()

    def update(self, gt: Any, pred: Any) -> None:
        """Count two integer arrays of one shape; see `confusion_matrix` for what they may be."""
        if is_on_device(gt) or is_on_device(pred):
            joint = confusion_on_device(gt, pred, self._job)
        else:
            gt, pred = _labels(gt, pred, self._job)
            joint = _count(gt, pred, self._job)
            if not self._job.in_colour:
                self._seen.look(gt, pred)
        gt_outside, pred_outside = outside(joint)
        self.outside = (self.outside[0] + int(gt_outside), self.outside[1] + int(pred_outside))
        self.confusion += fold_outside(joint)

    def merge_state(self, meters: Iterable[ConfusionMeter]) -> None:
        """Add the counts of other meters of the same label space, of other workers for example."""
        for meter in meters:
            if meter.labels.digest() != self.labels.digest():
                raise OptionError(
                    "meters of different label spaces", found=meter.labels.name, expected=self.labels.name
                )
            self.confusion += meter.confusion
            self.outside = (self.outside[0] + meter.outside[0], self.outside[1] + meter.outside[1])
            self._seen.add(meter._seen)

    @property
    def doubts(self) -> tuple[str, ...]:
        """What looks like a mix-up of ids, not like a bad model; empty if nothing does."""
        found = self._seen.doubts(self.labels, *self._encodings)
        return tuple(told(doubt, "ConfusionMeter") for doubt in found)

    def compute(self, protocol: str = "idd") -> tuple[LevelScore, ...]:
        """The scores of every level, finest first. Raises OptionError for an unknown protocol."""
        self._warn()
        return semantic.score(self.confusion, self.labels, protocol)

    def miou(self, level: int | None = None, protocol: str = "idd") -> float:
        """The mean IoU of a level (default: the finest)."""
        number = self.labels.levels[0].number if level is None else self.labels.level(level).number
        self._warn()
        scores = semantic.score(self.confusion, self.labels, protocol)
        return next(score.miou for score in scores if score.level == number)

    def _warn(self) -> None:
        for doubt in self.doubts:
            warnings.warn(doubt, DoubtWarning, stacklevel=3)


def _labels(gt: Any, pred: Any, job: SemanticJob) -> tuple[Integers, Integers]:
    """Both arguments as integers of one shape. Raises OptionError, which says what would make them so."""
    tables = {"gt": job.gt_table, "pred": job.pred_table}
    sides = []
    for given, other, name, in_colour in (
        (gt, pred, "gt", job.gt_in_colour),
        (pred, gt, "pred", job.pred_in_colour),
    ):
        if array_words.is_masked(given):
            void = np.flatnonzero(tables[name] == job.n_classes)
            raise array_words.masked(given, name, int(void[-1]) if void.size else None)
        try:
            array = np.asarray(given)
        except (TypeError, ValueError, RuntimeError) as error:
            raise array_words.unseen(given, other, name, job.n_classes, error) from error
        if in_colour and job.palette is not None:
            array = array_words.colour_channels(array, name)
            array = colours.to_classes(array, name, job.palette, is_gt=name == "gt")
            sides.append(array_words.seen(name, array, array))
        else:
            sides.append(array_words.seen(name, given, array))
    gt_side, pred_side = sides
    array_words.check_types(gt_side, pred_side, job.n_classes)
    array_words.check_shapes(gt_side, pred_side, job.n_classes, palette=job.palette)

    def outside(side: Seen) -> float:
        classes = to_classes(_integers(side), tables[side.name], job.n_classes)
        return float((classes > job.n_classes).mean())

    array_words.check_pictures(gt_side, pred_side, job.n_classes, outside, palette=job.palette)
    return _integers(gt_side), _integers(pred_side)


def _integers(side: Seen) -> Integers:
    assert side.values is not None
    return side.values.view(np.uint8) if side.is_bool else side.values


def _count(gt: Integers, pred: Integers, job: SemanticJob) -> npt.NDArray[np.int64]:
    """The joint count of integers of any width; those that fit a byte are counted at full speed."""
    shape = (-1, gt.shape[-1] if gt.ndim else 1) if gt.size else (0, 0)
    gt_bytes, pred_bytes = _as_bytes(gt), _as_bytes(pred)
    if gt_bytes is not None and pred_bytes is not None:
        from gpu_eval.engines.cpu.arrays import count_arrays  # loads Numba

        return count_arrays(gt_bytes.reshape(shape), pred_bytes.reshape(shape), job)
    n = job.n_classes
    return joint_count(to_classes(gt, job.gt_table, n), to_classes(pred, job.pred_table, n), n)


def _as_bytes(values: Integers) -> npt.NDArray[np.uint8] | None:
    """The same values as uint8; None where they do not fit."""
    if values.dtype == np.uint8:
        return values.view(np.uint8)
    if values.size and (values.min() < 0 or values.max() > 255):
        return None
    return values.astype(np.uint8)
