"""Confusion matrices of arrays in memory: for validation loops and notebooks."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_eval.doctor.arrays import Sample, told
from gpu_eval.engines.cuda.arrays import confusion_on_device, is_on_device
from gpu_eval.engines.semantic import (
    SemanticJob,
    different_shapes,
    fold_outside,
    joint_count,
    make_job,
    no_labels,
    outside,
    to_classes,
)
from gpu_eval.errors import DoubtWarning, OptionError
from gpu_eval.labels import Labels, as_labels
from gpu_eval.metrics import semantic
from gpu_eval.metrics.semantic import LevelScore


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
    CPU tensors of torch among them; uint8 is counted at full speed. Or both are in CUDA memory: CuPy arrays,
    CUDA tensors of torch, anything with DLPack or `__cuda_array_interface__`; they are counted there, in
    place if contiguous, after what their library's current stream has been given, and waited for.

    Raises OptionError for shapes that differ, for dtypes that are not integers and for arrays that
    NumPy cannot see; EngineUnavailable for arrays in CUDA memory where the CUDA engine cannot serve.
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
            gt, pred = _as_integers(gt, "gt"), _as_integers(pred, "pred")
            joint = _count(gt, pred, self._job)
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


def _as_integers(values: Any, name: str) -> npt.NDArray[np.integer[Any]]:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise OptionError(
            f"{name} is not an array that NumPy can see", found=f"{type(values).__name__}: {error}",
            expected="an integer array in host memory", fix="move it there first, with .cpu() for torch",
        ) from error  # fmt: skip
    if not np.issubdtype(array.dtype, np.integer):
        raise no_labels(name, array.dtype)
    return array


def _count(
    gt: npt.NDArray[np.integer[Any]], pred: npt.NDArray[np.integer[Any]], job: SemanticJob
) -> npt.NDArray[np.int64]:
    """The joint count of integers of any width; those that fit a byte are counted at full speed."""
    if gt.shape != pred.shape:
        raise different_shapes(gt.shape, pred.shape)
    shape = (-1, gt.shape[-1] if gt.ndim else 1) if gt.size else (0, 0)
    gt_bytes, pred_bytes = _as_bytes(gt), _as_bytes(pred)
    if gt_bytes is not None and pred_bytes is not None:
        from gpu_eval.engines.cpu.arrays import count_arrays  # loads Numba

        return count_arrays(gt_bytes.reshape(shape), pred_bytes.reshape(shape), job)
    n = job.n_classes
    return joint_count(to_classes(gt, job.gt_table, n), to_classes(pred, job.pred_table, n), n)


def _as_bytes(values: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint8] | None:
    """The same values as uint8; None where they do not fit."""
    if values.dtype == np.uint8:
        return values.view(np.uint8)
    if values.size and (values.min() < 0 or values.max() > 255):
        return None
    return values.astype(np.uint8)
