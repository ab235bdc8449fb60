"""Numba kernels of the CPU engine."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

import numpy as np
from numba import njit

from gpu_eval.engines.simd import (
    PAD,
    add,
    below,
    blend,
    byte,
    call_crc32,
    call_inflate,
    differ,
    load,
    lowest,
    nonzero,
    splat,
    store,
)


def jit(function):
    return njit(nogil=True, cache=True, boundscheck=False, error_model="numpy")(function)


@jit
def _paeth(a, b, c):
    pa = abs(b - c)
    pb = abs(a - c)
    pc = abs(a + b - c - c)
    bc = b if pb <= pc else c
    return a if (pa <= pb and pa <= pc) else bc


@jit
def unfilter_row(raw, start, rows, up, out, width):
    kind = byte(raw, start)
    source = start + 1
    if kind == 0:
        for x in range(0, width, 64):
            store(rows, out + x, load(raw, source + x))
    elif kind == 2:
        for x in range(0, width, 64):
            store(rows, out + x, add(load(raw, source + x), load(rows, up + x)))
    elif kind == 1:
        a = np.int64(0)
        for x in range(0, width, 64):
            events = nonzero(load(raw, source + x)) & below(width - x)
            row = splat(a)
            while events != 0:
                k = lowest(events)
                a = (a + byte(raw, source + x + k)) & 255
                row = blend(np.int64(-1) << k, splat(a), row)
                events &= events - 1
            store(rows, out + x, row)
    elif kind == 4:
        a = np.int64(0)
        c = np.int64(0)
        for x in range(0, width, 64):
            b = load(rows, up + x)
            residual = nonzero(load(raw, source + x)) & below(width - x)
            if residual == 0 and a == c:
                store(rows, out + x, b)
                a = byte(rows, up + x + 63)
                c = a
                continue
            edges = residual | (differ(b, load(rows, up + x - 1)) & below(width - x))
            row = b
            todo = np.int64(-1)
            fill = np.int64(-1)
            while True:
                k = lowest((edges if a != c else residual) & todo)
                row = blend((below(k) & fill) if a != c else 0, splat(a), row)
                last = byte(rows, up + x + k - 1)
                a = last if a == c else a
                c = last
                if k == 64:
                    break
                b_k = byte(rows, up + x + k)
                a = (byte(raw, source + x + k) + _paeth(a, b_k, c)) & 255
                c = b_k
                fill = np.int64(-1) << k
                todo = fill & ~(np.int64(1) << k)
            store(rows, out + x, row)
    elif kind == 3:
        a = np.int64(0)
        for x in range(0, width, 64):
            b = load(rows, up + x)
            residual = nonzero(load(raw, source + x)) & below(width - x)
            if residual == 0 and differ(b, splat(a)) == 0:
                store(rows, out + x, b)
                continue
            for k in range(min(64, width - x)):
                a = (byte(raw, source + x + k) + ((a + byte(rows, up + x + k)) >> 1)) & 255
                rows[out + x + k] = a
    else:
        return False
    return True


@jit
def count_row(rows, gt, pred, width, columns, weight, gt_lut, pred_lut, cells):
    begin = columns[0]
    cell = gt_lut[rows[gt]] + pred_lut[rows[pred]]
    inside = np.int64(-2)
    for x in range(0, width, 64):
        edges = differ(load(rows, gt + x), load(rows, gt + x - 1))
        edges |= differ(load(rows, pred + x), load(rows, pred + x - 1))
        edges &= below(width - x) & inside
        inside = np.int64(-1)
        while edges != 0:
            k = x + lowest(edges)
            end = columns[k]
            cells[cell] += (end - begin) * weight
            begin = end
            cell = gt_lut[byte(rows, gt + k)] + pred_lut[byte(rows, pred + k)]
            edges &= edges - 1
    cells[cell] += (columns[width] - begin) * weight


@jit
def count_pair(gt_raw, pred_raw, height, width, row_weights, columns, gt_lut, pred_lut, rows, cells):
    stride = width + 2 * PAD + 64
    gt_up, gt_out, pred_up, pred_out = PAD, PAD + stride, PAD + 2 * stride, PAD + 3 * stride
    rows[: 4 * stride] = 0
    for y in range(height):
        start = y * (width + 1)
        if not unfilter_row(gt_raw, start, rows, gt_up, gt_out, width):
            return 1
        if not unfilter_row(pred_raw, start, rows, pred_up, pred_out, width):
            return 2
        if row_weights[y] != 0:
            count_row(rows, gt_out, pred_out, width, columns, row_weights[y], gt_lut, pred_lut, cells)
        gt_up, gt_out = gt_out, gt_up
        pred_up, pred_out = pred_out, pred_up
    return 0
