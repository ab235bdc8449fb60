"""The joint count of label arrays that are in memory already; `cuda/arrays` is the same on a device."""

from __future__ import annotations

import threading

import numpy as np

from gpu_eval.engines.cpu import semantic_kernels as kernels
from gpu_eval.engines.cpu.workspace import Bytes, grown
from gpu_eval.engines.semantic import Confusion, SemanticJob


class _Scratch(threading.local):
    """The rows that a thread counts, kept between calls."""

    rows: Bytes = np.zeros(0, np.uint8)


_scratch = _Scratch()


def count_arrays(gt: Bytes, pred: Bytes, job: SemanticJob) -> Confusion:
    """Joint count of two raw maps, uint8, of one shape (height, width).

    Shape (n_classes + 2, n_classes + 2), rows gt, columns prediction; the last two indices are
    void and outside. `semantic.joint_count` is the readable form.
    """
    classes = job.n_classes + 2
    gt_lut, pred_lut = kernels.luts(job.gt_table, job.pred_table, classes)
    cells = np.zeros(classes**2, np.int64)
    height, width = gt.shape
    if height and width:
        rows = _scratch.rows = grown(_scratch.rows, kernels.rows_size(width))
        columns = np.arange(width + 1, dtype=np.int64)
        gt, pred = (np.require(side, np.uint8, ("C", "W")) for side in (gt, pred))
        kernels.count_arrays(gt, pred, columns, gt_lut, pred_lut, rows, cells)
    return cells.reshape(classes, classes)
