"""The hot loops of semantic scoring on the CPU: inflated pairs in, joint counts out.

A label map is piecewise constant, so nearly every pixel equals its left neighbour. The kernels look at
64 pixels at a time (`simd`), turn "which pixels differ from their left neighbour" into a bit mask, and do
scalar work per set bit only. Of a map only two rows exist unfiltered at any time (`png_kernels`); a row of
both maps is counted while it is in L1.

Conventions
- `rows` is one scratch buffer with `ROWS` row slots: gt above, gt, pred above, pred (see `png_kernels`).
- A cell of the joint count is `gt_lut[value] + pred_lut[value]`: the gt table is premultiplied.
- `columns[x]` is the number of target columns left of source column x, so a run of source columns
  a..b-1 weighs `columns[b] - columns[a]`: nearest resizing without resizing (see `engines.resize`).
- Addresses and int64 as in `png_kernels`.
"""

# mypy cannot see through Numba's decorators.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gpu_eval.engines import png_kernels
from gpu_eval.engines.png_kernels import HEIGHT, PAYLOAD, WIDTH, inflate, jit, slot, unfilter_row
from gpu_eval.engines.simd import PAD, add_to_word, address, below, byte, differ, load, lowest, word

# Results of `count_pair` and `count_resized`.
OK, BAD_GT, BAD_PRED = 0, 1, 2

ROWS = 4


def rows_size(width: int) -> int:
    """Bytes of the `rows` scratch for maps of up to `width` columns."""
    return png_kernels.rows_size(ROWS, width)


def luts(
    gt_table: npt.NDArray[np.uint16], pred_table: npt.NDArray[np.uint16], classes: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Class tables, uint16 (256,), as `gt_lut` and `pred_lut`; `classes` counts void and outside too.

    With them the kernels do at full speed what `engines/semantic` says readably in `to_classes` and
    `joint_count`.
    """
    return gt_table.astype(np.int64) * classes, pred_table.astype(np.int64)


@jit
def _count_row(rows, gt, pred, width, columns, weight, gt_lut, pred_lut, cells):
    """Count one row of two maps of one size: a step per place where either map changes."""
    begin = word(columns, 0)
    cell = word(gt_lut, byte(rows, gt)) + word(pred_lut, byte(rows, pred))
    inside = np.int64(-2)  # the first pixel begins a run whatever stands before it
    for x in range(0, width, 64):
        edges = differ(load(rows, gt + x), load(rows, gt + x - 1))
        edges |= differ(load(rows, pred + x), load(rows, pred + x - 1))
        edges &= below(width - x) & inside
        inside = np.int64(-1)
        while edges != 0:
            k = x + lowest(edges)
            end = word(columns, k)
            add_to_word(cells, cell, (end - begin) * weight)
            begin = end
            cell = word(gt_lut, byte(rows, gt + k)) + word(pred_lut, byte(rows, pred + k))
            edges &= edges - 1
    add_to_word(cells, cell, (word(columns, width) - begin) * weight)


@jit
def count_pair(gt_raw, pred_raw, height, width, row_weights, columns, gt_lut, pred_lut, scratch, cells):
    """Unfilter and count two filtered maps of one size; adds to `cells`.

    row_weights: int64 (height,), how many target rows come from each source row.
    """
    step = slot(width)
    scratch[: 4 * step + 2 * PAD] = 0
    gts, preds, rows, counts = address(gt_raw), address(pred_raw), address(scratch), address(cells)
    starts, gt_classes, pred_classes = address(columns), address(gt_lut), address(pred_lut)
    gt_up, gt, pred_up, pred = PAD, PAD + step, PAD + 2 * step, PAD + 3 * step
    for y in range(height):
        start = y * (width + 1)
        if not unfilter_row(gts, start, rows, gt_up, gt, width):
            return BAD_GT
        if not unfilter_row(preds, start, rows, pred_up, pred, width):
            return BAD_PRED
        weight = row_weights[y]
        if weight != 0:
            _count_row(rows, gt, pred, width, starts, weight, gt_classes, pred_classes, counts)
        gt_up, gt = gt, gt_up
        pred_up, pred = pred, pred_up
    return OK


@jit
def count_alike(
    gt_slab,
    gt_offsets,
    gt_scans,
    pred_slab,
    pred_offsets,
    pred_scans,
    picks,
    row_weights,
    columns,
    gt_lut,
    pred_lut,
    payload,
    gt_raw,
    pred_raw,
    scratch,
    decompressor,
    decompress,
    cells,
    statuses,
):
    """Inflate and count scanned pairs whose maps all have one size, in one call.

    picks: int64 (pairs, 2), indices into the gt's and the predictions' scans. Fills cells, int64
    (pairs, classes * classes), and statuses, int64 (pairs,); cells of a status other than OK mean nothing.
    """
    height, width = gt_scans[picks[0, 0], HEIGHT], gt_scans[picks[0, 0], WIDTH]
    size = height * (width + 1)
    for i in range(picks.shape[0]):
        gt, pred = picks[i, 0], picks[i, 1]
        begin, length = gt_offsets[gt], gt_scans[gt, PAYLOAD]
        statuses[i] = BAD_GT
        if inflate(gt_slab, begin, length, payload, gt_raw, size, decompressor, decompress) != 0:
            continue
        begin, length = pred_offsets[pred], pred_scans[pred, PAYLOAD]
        statuses[i] = BAD_PRED
        if inflate(pred_slab, begin, length, payload, pred_raw, size, decompressor, decompress) != 0:
            continue
        statuses[i] = count_pair(
            gt_raw, pred_raw, height, width, row_weights, columns, gt_lut, pred_lut, scratch, cells[i]
        )


@jit
def count_arrays(gt, pred, columns, gt_lut, pred_lut, scratch, cells):
    """Count two uint8 arrays of shape (height, width); adds to `cells`."""
    height, width = gt.shape
    step = slot(width)
    rows, counts = address(scratch), address(cells)
    starts, gt_classes, pred_classes = address(columns), address(gt_lut), address(pred_lut)
    for y in range(height):
        scratch[PAD : PAD + width] = gt[y]
        scratch[PAD + step : PAD + step + width] = pred[y]
        _count_row(rows, PAD, PAD + step, width, starts, 1, gt_classes, pred_classes, counts)


@jit
def _list_runs(rows, row, width, columns, lut, begins, values):
    """The runs of one row in target columns: begins[i] and lut value; returns how many."""
    runs = np.int64(0)
    begin = columns[0]
    value = lut[byte(rows, row)]
    inside = np.int64(-2)
    for x in range(0, width, 64):
        edges = differ(load(rows, row + x), load(rows, row + x - 1)) & below(width - x) & inside
        inside = np.int64(-1)
        while edges != 0:
            k = x + lowest(edges)
            if columns[k] != begin:  # a run between two sampled columns is nowhere in the target
                begins[runs] = begin
                values[runs] = value
                runs += 1
                begin = columns[k]
            value = lut[byte(rows, row + k)]
            edges &= edges - 1
    if columns[width] != begin:
        begins[runs] = begin
        values[runs] = value
        runs += 1
    begins[runs] = columns[width]
    return runs


@jit
def _count_runs(begins, values, gt_runs, pred_runs, weight, cells):
    """Merge the run lists of a gt row (slot 0) and a pred row (slot 1) of the target."""
    i, j = np.int64(0), np.int64(0)
    at = np.int64(0)
    while i < gt_runs and j < pred_runs:
        gt_end, pred_end = begins[0, i + 1], begins[1, j + 1]
        end = min(gt_end, pred_end)
        cells[values[0, i] + values[1, j]] += (end - at) * weight
        at = end
        i += gt_end == end
        j += pred_end == end


@jit
def count_resized(
    gt_filtered,
    gt_height,
    gt_width,
    gt_rows,
    gt_columns,
    pred_filtered,
    pred_height,
    pred_width,
    pred_rows,
    pred_columns,
    gt_lut,
    pred_lut,
    scratch,
    begins,
    values,
    cells,
):
    """Unfilter and count two filtered maps of any sizes on a common target grid; adds to `cells`.

    gt_rows, pred_rows: int64 (target height,), the source row of every target row, not decreasing.
    begins, values: int64 scratch of shape (2, widest source + 2).
    """
    step = slot(max(gt_width, pred_width))
    scratch[: 4 * step + 2 * PAD] = 0
    gt_raw, pred_raw, rows = address(gt_filtered), address(pred_filtered), address(scratch)
    gt_up, gt, pred_up, pred = PAD, PAD + step, PAD + 2 * step, PAD + 3 * step
    gt_y, pred_y = np.int64(-1), np.int64(-1)
    gt_runs, pred_runs = np.int64(0), np.int64(0)
    weight = np.int64(0)
    for y in range(gt_rows.size):
        gt_next, pred_next = gt_rows[y], pred_rows[y]
        if gt_next == gt_y and pred_next == pred_y:
            weight += 1
            continue
        if weight != 0:
            _count_runs(begins, values, gt_runs, pred_runs, weight, cells)
        weight = np.int64(1)
        if gt_next != gt_y:
            while gt_y < gt_next:
                gt_y += 1
                gt_up, gt = gt, gt_up
                if not unfilter_row(gt_raw, gt_y * (gt_width + 1), rows, gt_up, gt, gt_width):
                    return BAD_GT
            gt_runs = _list_runs(rows, gt, gt_width, gt_columns, gt_lut, begins[0], values[0])
        if pred_next != pred_y:
            while pred_y < pred_next:
                pred_y += 1
                pred_up, pred = pred, pred_up
                if not unfilter_row(pred_raw, pred_y * (pred_width + 1), rows, pred_up, pred, pred_width):
                    return BAD_PRED
            pred_runs = _list_runs(rows, pred, pred_width, pred_columns, pred_lut, begins[1], values[1])
    _count_runs(begins, values, gt_runs, pred_runs, weight, cells)
    # Rows below the last sampled one do not count, but a filter type that does not exist there is an error.
    for y in range(gt_y + 1, gt_height):
        if byte(gt_raw, y * (gt_width + 1)) > 4:
            return BAD_GT
    for y in range(pred_y + 1, pred_height):
        if byte(pred_raw, y * (pred_width + 1)) > 4:
            return BAD_PRED
    return OK
