"""The contestants of `python -m bench cpu`: what each tool's own user would run, on one thread.

Every `count` reads all pairs of a workload from disk and returns the total joint count, int64, shape
(27, 27), rows gt, columns prediction, index 26 void. The floor inflates and counts nothing.
"""

from __future__ import annotations

import ctypes
import functools
import types
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from bench import ours
from bench.workload import CLASS_OF, HEIGHT, VOID, WIDTH, Workload

Confusion = npt.NDArray[np.int64]
N = 27


@dataclass(frozen=True)
class Contestant:
    """`count` is None where the tool is not installed, and `missing` names the module that was not found."""

    key: str
    label: str
    count: Callable[[Workload], Confusion | None] | None
    missing: str | None = None


def line_up() -> list[Contestant]:
    """Everyone, installed or not. Sets the thread counts of torch and OpenCV to 1."""
    return [
        Contestant("ours", "gpu-eval, 1 thread", lambda w: ours.score_pairs(w.gts, w.preds, 1)),
        Contestant("ours_2", "gpu-eval, 2 threads", lambda w: ours.score_pairs(w.gts, w.preds, 2)),
        Contestant("floor", "floor: libdeflate inflate of both maps, nothing else", _inflate_only),
        Contestant("pillow", "Pillow + numpy.bincount, lookup tables", _pillow(_count_by_tables)),
        Contestant("pillow_tuned", "Pillow + numpy.bincount, tuned", _pillow(_count_by_minimum)),
        _contestant("opencv", "OpenCV imread + numpy.bincount, tuned", _opencv_bincount),
        _contestant(
            "cityscapes",
            "cityscapesScripts evaluatePair, compiled counter "
            "(Numba loop in place of the .pyx that the sdist lacks)",
            _cityscapes,
        ),
        _contestant(
            "torchmetrics", "torchmetrics MulticlassConfusionMatrix, decode by Pillow", _torchmetrics
        ),
    ]


def _contestant(key: str, label: str, make: Callable[[], Callable[[Workload], Confusion]]) -> Contestant:
    try:
        return Contestant(key, label, make())
    except ImportError as error:
        return Contestant(key, label, None, missing=error.name or str(error))


# --- the floor ----------------------------------------------------------------------------------


@functools.cache
def libdeflate() -> ctypes.CDLL:
    """The libdeflate inside the `deflate` package, which exports its C functions."""
    import deflate

    library = ctypes.CDLL(deflate._deflate.__file__)
    library.libdeflate_alloc_decompressor.restype = ctypes.c_void_p
    size, pointer = ctypes.c_size_t, ctypes.c_void_p
    library.libdeflate_zlib_decompress.argtypes = [pointer, ctypes.c_char_p, size, pointer, size, pointer]
    return library


@functools.cache
def floor_state() -> tuple[ctypes.c_void_p, npt.NDArray[np.uint8]]:
    return ctypes.c_void_p(libdeflate().libdeflate_alloc_decompressor()), np.zeros(
        (2, HEIGHT * (WIDTH + 1)), dtype=np.uint8
    )


def _inflate_only(workload: Workload) -> None:
    """Inflate every zlib stream from memory into the same two buffers: no files, no PNG, no counting."""
    inflate = libdeflate().libdeflate_zlib_decompress
    state, buffers = floor_state()
    targets = [buffers[0].ctypes.data, buffers[1].ctypes.data]
    size = buffers.shape[1]
    for number, stream in enumerate(workload.payloads):
        if inflate(state, stream, len(stream), targets[number & 1], size, None) != 0:
            raise ValueError(f"stream {number} does not inflate")


# --- decode, then count -------------------------------------------------------------------------


_GT_TABLE = CLASS_OF.astype(np.uint16) * np.uint16(N)
_PRED_TABLE = CLASS_OF.astype(np.uint16)


def _count_by_tables(gt: npt.NDArray[np.uint8], pred: npt.NDArray[np.uint8]) -> Confusion:
    """As a competent user writes it, n * gt + pred by lookup, one bincount; shape (729,)."""
    return np.bincount((_GT_TABLE[gt] + _PRED_TABLE[pred]).ravel(), minlength=N * N)


def _count_by_minimum(gt: npt.NDArray[np.uint8], pred: npt.NDArray[np.uint8]) -> Confusion:
    """The fastest of five spellings tried (NOTES.md): every value above 25 is void, so no table is needed."""
    joint = np.minimum(gt, VOID).astype(np.uint16) * N + np.minimum(pred, VOID)
    return np.bincount(joint.ravel(), minlength=N * N)


def _pillow(
    joint_count: Callable[[npt.NDArray[np.uint8], npt.NDArray[np.uint8]], Confusion],
) -> Callable[[Workload], Confusion]:
    def count(workload: Workload) -> Confusion:
        total = np.zeros(N * N, dtype=np.int64)
        for gt, pred in zip(workload.gts, workload.preds, strict=True):
            total += joint_count(np.asarray(Image.open(gt)), np.asarray(Image.open(pred)))
        return total.reshape(N, N)

    return count


def _opencv_bincount() -> Callable[[Workload], Confusion]:
    import cv2

    cv2.setNumThreads(1)

    def count(workload: Workload) -> Confusion:
        total = np.zeros(N * N, dtype=np.int64)
        for gt, pred in zip(workload.gts, workload.preds, strict=True):
            gt_map = cv2.imread(str(gt), cv2.IMREAD_UNCHANGED)
            total += _count_by_minimum(gt_map, cv2.imread(str(pred), cv2.IMREAD_UNCHANGED))
        return total.reshape(N, N)

    return count


def _torchmetrics() -> Callable[[Workload], Confusion]:
    import torch
    from torchmetrics.classification import MulticlassConfusionMatrix

    torch.set_num_threads(1)

    def count(workload: Workload) -> Confusion:
        metric = MulticlassConfusionMatrix(num_classes=N, validate_args=False)
        for gt, pred in zip(workload.gts, workload.preds, strict=True):
            # uint8 is enough: the metric widens to int64 itself before it multiplies.
            gt_map, pred_map = (
                torch.from_numpy(np.minimum(np.asarray(Image.open(path)), VOID)) for path in (gt, pred)
            )
            metric.update(pred_map, gt_map)
        return metric.compute().numpy().astype(np.int64)

    return count


# --- cityscapesScripts --------------------------------------------------------------------------


def _cityscapes() -> Callable[[Workload], Confusion]:
    """The tool's own `evaluatePair` with its options for instances and pixel accuracy off.

    Level-3 ids 0..25 and void as 26 are all Cityscapes ids (0..33), so its matrix holds our counts
    under other names; only 255 would lie outside, hence the copies of the ground truth with 26 for
    255. `evaluatePair` counts in Cython where the extension was built; `addToConfusionMatrix` is not
    in the sdist, so a compiled loop of the same shape stands in for it. Without it the script sorts
    two million integers per pair with `np.unique` and takes several times as long.
    """
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as script  # noqa: N813

    if not script.CSUPPORT:
        script.addToConfusionMatrix = types.SimpleNamespace(cEvaluatePair=_c_evaluate_pair)
        script.CSUPPORT = True
    arguments = script.CArgs()
    arguments.evalInstLevelScore = False
    arguments.evalPixelAccuracy = False

    def count(workload: Workload) -> Confusion:
        matrix = script.generateMatrix(arguments)
        for gt, pred in zip(workload.remapped_gts, workload.preds, strict=True):
            script.evaluatePair(str(pred), str(gt), matrix, {}, {}, arguments)
        if matrix[N:].any() or matrix[:, N:].any():
            raise ValueError("cityscapesScripts counted ids that the workload does not hold")
        return matrix[:N, :N].astype(np.int64)

    return count


def _c_evaluate_pair(
    prediction: npt.NDArray[np.uint8],
    ground_truth: npt.NDArray[np.uint8],
    matrix: npt.NDArray[np.ulonglong],
    _eval_labels: list[int],
) -> npt.NDArray[np.ulonglong]:
    _counter()(prediction, ground_truth, matrix)
    return matrix


@functools.cache
def _counter() -> Callable[..., None]:
    from numba import njit

    @njit(boundscheck=False)
    def add_to_confusion_matrix(prediction, ground_truth, matrix):  # type: ignore[no-untyped-def]
        cells = matrix.ravel()
        pred, gt = prediction.ravel(), ground_truth.ravel()
        side = np.uint64(matrix.shape[1])
        for i in range(pred.size):
            # Unsigned, so that Numba does not test for negative indices: the loop that C would be.
            cells[np.uint64(gt[i]) * side + np.uint64(pred[i])] += np.uint64(1)

    return add_to_confusion_matrix
