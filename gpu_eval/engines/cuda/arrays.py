"""The joint count of label arrays that are on a device already, in place, on the current stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_eval.engines.cuda import kernels as launch
from gpu_eval.engines.cuda.device import Device, DeviceArray
from gpu_eval.engines.cuda.kernels import MapPlace
from gpu_eval.engines.engine import ScoreTask

Ints = npt.NDArray[np.int64]

# Pixels of one job: well below the 2^32 that the kernel's counters hold.
MOST_PIXELS = 1 << 30

# Columns of an array that has none of its own.
FLAT_WIDTH = 2048


@dataclass(frozen=True)
class DeviceLabels:
    """Labels in device memory: `rows` of `width` labels, their begins `stride` bytes apart.

    `memory` is a uint8 array that begins with the first label. `dtype` is an integer type of up to 8 bytes.
    """

    memory: DeviceArray
    dtype: np.dtype[np.integer]
    rows: int
    width: int
    stride: int


def flat_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """How a contiguous array is counted: (rows, width, labels that are left over behind them)."""
    size = int(np.prod(shape))
    width = shape[-1] if len(shape) > 1 and size else min(size, FLAT_WIDTH)
    return (size // width, width, size % width) if width else (0, 0, 0)


def count_labels(
    device: Device, gt: DeviceLabels, pred: DeviceLabels, task: ScoreTask, left_over: int = 0
) -> Ints:
    """Joint count of two label arrays of one shape, as `Engine.confusion` gives it.

    `left_over` labels follow the last row of both. Waits for the result, so that the arrays may change then.
    """
    classes = task.n_classes + 2
    jobs = _jobs(gt, pred, left_over)
    if not jobs:
        return np.zeros((classes, classes), np.int64)
    gt_table, pred_table = (
        _table(table, labels, classes) for table, labels in ((task.gt_table, gt), (task.pred_table, pred))
    )
    kernel = launch.confusion_kernel(gt.dtype.itemsize, pred.dtype.itemsize)
    staged = np.concatenate([np.array(jobs, np.int64).view(np.uint8).reshape(-1), gt_table, pred_table])
    uploaded = device.allocate(staged.size)
    device.upload(staged, uploaded)
    job_bytes = staged.size - 1024
    cell_bytes = 8 * len(jobs) * classes**2
    cells = device.allocate(cell_bytes)
    device.zero(cells)
    none = uploaded[:0].view(np.int32)
    launch.confusion(
        device.module(kernel.source),
        gt.memory,
        pred.memory,
        uploaded[:job_bytes].view(np.int64).reshape(len(jobs), launch.PAIR_FIELDS),
        none,
        uploaded[job_bytes : job_bytes + 512].view(np.uint16),
        uploaded[job_bytes + 512 :].view(np.uint16),
        none,
        none,
        cells.view(np.int64).reshape(len(jobs), classes, classes),
        bands=launch.bands(len(jobs), max(gt.rows, 1)),
        kernel=kernel,
    )
    counted = np.zeros((len(jobs), classes, classes), np.int64)
    device.download(cells, counted)
    device.record().synchronize()
    total: Ints = counted.sum(axis=0)
    return total


def _jobs(gt: DeviceLabels, pred: DeviceLabels, left_over: int) -> list[tuple[int, ...]]:
    """Bands of rows that the kernel's counters hold, and the left-over labels as a row of their own."""
    rows_at_once = max(MOST_PIXELS // max(gt.width, 1), 1)
    jobs = [
        launch.pair_job(_at_row(gt, row), _at_row(pred, row), min(rows_at_once, gt.rows - row), gt.width)
        for row in range(0, gt.rows, rows_at_once)
    ]
    if left_over:
        jobs.append(launch.pair_job(_at_row(gt, gt.rows), _at_row(pred, pred.rows), 1, left_over))
    return jobs


def _at_row(labels: DeviceLabels, row: int) -> MapPlace:
    return MapPlace(row * labels.stride, labels.stride)


def _table(table: npt.NDArray[np.uint16], labels: DeviceLabels, classes: int) -> npt.NDArray[np.uint8]:
    """The bytes of a class table. The kernel sees int8 as uint8, so negative labels get their class here."""
    if labels.dtype == np.int8:
        table = table.copy()
        table[128:] = classes - 1
    return np.ascontiguousarray(table, np.uint16).view(np.uint8)
