"""The joint count of label arrays that are on a device already, in place; `cpu/arrays` is the same in memory.

Cheap to import: CuPy is, when there is an array on a device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_eval.engines import array_words
from gpu_eval.engines.cuda import kernels
from gpu_eval.engines.cuda.cupy_device import CupyDevice, import_cupy, usable_devices
from gpu_eval.engines.cuda.device import Device, DeviceArray, failures_told
from gpu_eval.engines.cuda.kernels import MapPlace
from gpu_eval.engines.semantic import Confusion, SemanticJob
from gpu_eval.errors import OptionError

# DLPack's numbers of memory that a CUDA device can read (dlpack.h): kDLCUDA, kDLCUDAManaged.
_ON_CUDA = (2, 13)

# Pixels of one job: well below the 2^32 that the kernel's counters hold.
MOST_PIXELS = 1 << 30

# Columns of an array that has none of its own.
FLAT_WIDTH = 2048


def is_on_device(values: Any) -> bool:
    """Whether an array is in CUDA memory: CuPy's, torch's, or of any library that says so, by DLPack or
    `__cuda_array_interface__`. Imports nothing."""
    if hasattr(values, "__dlpack_device__"):
        return int(values.__dlpack_device__()[0]) in _ON_CUDA
    return hasattr(values, "__cuda_array_interface__")


def confusion_on_device(gt: Any, pred: Any, job: SemanticJob) -> Confusion:
    """Joint count of two arrays of one shape that are on one CUDA device, of whatever integer types.

    Shape (n_classes + 2, n_classes + 2), rows gt, columns prediction; the last two indices are void and
    outside.

    Arrays whose rows are contiguous are counted where they are, on CuPy's current stream of that device,
    after what the arrays' own library has put on its own. The result is waited for.

    Raises OptionError for arrays of other types or shapes, or on two devices, and EngineUnavailable where
    the kernels do not run on that device.
    """
    cupy = import_cupy()
    usable_devices(cupy)
    _check_place(gt, "gt", in_colour=job.gt_in_colour)
    _check_place(pred, "pred", in_colour=job.pred_in_colour)
    # Before CuPy sees them, which has no name for some floats.
    array_words.check_types(array_words.seen("gt", gt), array_words.seen("pred", pred), job.n_classes)
    arrays = [_as_cupy(cupy, side) for side in (gt, pred)]
    seen = array_words.seen("gt", arrays[0]), array_words.seen("pred", arrays[1])
    array_words.check_types(*seen, job.n_classes)
    array_words.check_shapes(*seen, job.n_classes, palette=job.palette)
    arrays = [array.view(np.uint8) if array.dtype.kind == "b" else array for array in arrays]
    numbers = [int(array.device.id) for array in arrays]
    if numbers[0] != numbers[1]:
        raise OptionError(
            "gt and pred are on two devices", found=f"CUDA devices {numbers[0]} and {numbers[1]}",
            expected="gt and pred in one place", fix="move one to the other's device",
        )  # fmt: skip
    left_over = flat_shape(arrays[0].shape)[2]
    device = _device(numbers[0])
    with failures_told(device), arrays[0].device:
        sides = [_labels(cupy, array) for array in arrays]
        return count_labels(device, sides[0], sides[1], job, left_over)


@cache
def _device(number: int) -> CupyDevice:
    """One device of each number for all arrays of the process, since kernels are compiled by each."""
    return CupyDevice(number)


def _check_place(values: Any, name: str, *, in_colour: bool) -> None:
    """Raise OptionError for memory that is not on a device, and for colours, which are not read there."""
    if not is_on_device(values):
        raise OptionError(
            f"{name} is not on the device", found=f"{type(values).__name__} in host memory",
            expected="gt and pred in one place", fix="move it to the other's device, with .cuda() for torch",
        )  # fmt: skip
    if in_colour:
        raise OptionError(
            "colours are not read on a device", found=f"{name} in CUDA memory", expected="host memory",
            fix="gt.cpu(), pred.cpu() moves them there, with .get() for CuPy",
        )  # fmt: skip


def _as_cupy(cupy: Any, values: Any) -> Any:
    """The same memory as a CuPy array, ordered after its library's current stream."""
    if isinstance(values, cupy.ndarray):
        return values
    return cupy.from_dlpack(values) if hasattr(values, "__dlpack__") else cupy.asarray(values)


def _labels(cupy: Any, array: Any) -> DeviceLabels:
    """A CuPy array as rows of labels: in place if its rows are contiguous, else a contiguous copy."""
    rows, width, _ = flat_shape(array.shape)
    size = array.dtype.itemsize
    stride, span = width * size, array.nbytes
    if array.ndim == 2 and rows and array.strides[1] == size and array.strides[0] >= stride:
        stride = array.strides[0]
        span = (rows - 1) * stride + width * size
    elif not array.flags.c_contiguous:
        array = cupy.ascontiguousarray(array)
    memory = cupy.ndarray((span,), np.uint8, memptr=array.data)
    return DeviceLabels(memory, array.dtype, rows, width, stride)


# --- any device ----------------------------------------------------------------------------------


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
    device: Device, gt: DeviceLabels, pred: DeviceLabels, job: SemanticJob, left_over: int = 0
) -> Confusion:
    """Joint count of two label arrays of one shape, as `confusion_on_device` gives it.

    `left_over` labels follow the last row of both. Waits for the result, so that the arrays may change then.
    """
    classes = job.n_classes + 2
    jobs = _jobs(gt, pred, left_over)
    if not jobs:
        return np.zeros((classes, classes), np.int64)
    gt_table, pred_table = (
        _table(table, labels, classes) for table, labels in ((job.gt_table, gt), (job.pred_table, pred))
    )
    kernel = kernels.confusion_kernel(gt.dtype.itemsize, pred.dtype.itemsize)
    staged = np.concatenate([np.array(jobs, np.int64).view(np.uint8).reshape(-1), gt_table, pred_table])
    uploaded = device.allocate(staged.size)
    device.upload(staged, uploaded)
    job_bytes = staged.size - 1024
    cell_bytes = 8 * len(jobs) * classes**2
    cells = device.allocate(cell_bytes)
    device.zero(cells)
    none = uploaded[:0].view(np.int32)
    kernels.confusion(
        device.module(kernel.source),
        gt.memory,
        pred.memory,
        uploaded[:job_bytes].view(np.int64).reshape(len(jobs), kernels.PAIR_FIELDS),
        none,
        uploaded[job_bytes : job_bytes + 512].view(np.uint16),
        uploaded[job_bytes + 512 :].view(np.uint16),
        none,
        none,
        cells.view(np.int64).reshape(len(jobs), classes, classes),
        bands=kernels.bands(len(jobs), max(gt.rows, 1)),
        kernel=kernel,
    )
    counted = np.zeros((len(jobs), classes, classes), np.int64)
    device.download(cells, counted)
    device.record().synchronize()
    total: Confusion = counted.sum(axis=0)
    return total


def _jobs(gt: DeviceLabels, pred: DeviceLabels, left_over: int) -> list[tuple[int, ...]]:
    """Bands of rows that the kernel's counters hold, and the left-over labels as a row of their own."""
    rows_at_once = max(MOST_PIXELS // max(gt.width, 1), 1)
    jobs = [
        kernels.pair_job(_at_row(gt, row), _at_row(pred, row), min(rows_at_once, gt.rows - row), gt.width)
        for row in range(0, gt.rows, rows_at_once)
    ]
    if left_over:
        jobs.append(kernels.pair_job(_at_row(gt, gt.rows), _at_row(pred, pred.rows), 1, left_over))
    return jobs


def _at_row(labels: DeviceLabels, row: int) -> MapPlace:
    return MapPlace(row * labels.stride, labels.stride)


def _table(table: npt.NDArray[np.uint16], labels: DeviceLabels, classes: int) -> npt.NDArray[np.uint8]:
    """The bytes of a class table. The kernel sees int8 as uint8, so negative labels get their class here."""
    if labels.dtype == np.int8:
        table = table.copy()
        table[128:] = classes - 1
    return np.ascontiguousarray(table, np.uint16).view(np.uint8)
