"""The hot loops of the CPU engine: PNG bytes in, counts out, without a Python object in between.

A label map is piecewise constant, so nearly every filtered byte is zero and nearly every pixel equals
its left neighbour. The kernels look at 64 bytes at a time (`simd`), turn "which bytes are not zero" or
"which pixels differ from their left neighbour" into a bit mask, and do scalar work per set bit only.
Of a map only two rows exist unfiltered at any time; a row of both maps is counted while it is in L1.

Conventions
- `rows` is one scratch buffer with four row slots (gt above, gt, pred above, pred), each with `PAD`
  zero bytes before it and at least 64 bytes after it; `raw` has 64 readable bytes after its end.
- A cell of the joint count is `gt_lut[value] + pred_lut[value]`: the gt table is premultiplied.
- `columns[x]` is the number of target columns left of source column x, so a run of source columns
  a..b-1 weighs `columns[b] - columns[a]`: nearest resizing without resizing (see `inputs.nearest`).
- Inner functions get addresses instead of arrays (see `simd`).
- int64 throughout. Numba turns a mix of int64 and uint64 into float64.
"""

# mypy cannot see through Numba's decorators.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

import numpy as np
from numba import njit

from gpu_eval.engines.simd import (
    PAD,
    add,
    add_to_word,
    address,
    below,
    blend,
    byte,
    call_crc32,
    call_inflate,
    differ,
    load,
    lowest,
    nonzero,
    set_byte,
    splat,
    store,
    word,
)

# Results of `count_pair` and `count_resized`.
OK, BAD_GT, BAD_PRED = 0, 1, 2

# Columns of the table that `scan` fills.
SIMPLE, HEIGHT, WIDTH, PAYLOAD = 0, 1, 2, 3
SCAN_COLUMNS = 4

# Chunk types as big-endian integers.
_IHDR, _PLTE, _IDAT, _IEND = 0x49484452, 0x504C5445, 0x49444154, 0x49454E44


def _jit(function):
    return njit(nogil=True, cache=True, boundscheck=False, error_model="numpy")(function)


def rows_size(width: int) -> int:
    """Bytes of the `rows` scratch for maps of up to `width` columns."""
    return 4 * (width + 2 * PAD) + 2 * PAD


@_jit
def _slot(width):
    return width + 2 * PAD


# --- PNG chunks ---------------------------------------------------------------------------------


@_jit
def _u32(data, at):
    return (
        (byte(data, at) << 24) | (byte(data, at + 1) << 16) | (byte(data, at + 2) << 8) | byte(data, at + 3)
    )


@_jit
def _is_letters(kind):
    """Whether the four bytes of a chunk type are ASCII letters."""
    for shift in range(0, 32, 8):
        letter = (kind >> shift) & 0xDF  # upper case
        if letter < 65 or letter > 90:
            return False
    return True


@_jit
def scan(slab_array, offsets, max_pixels, crc32, table):
    """Walk the chunks of every file in a slab and say which of them the fast path takes.

    slab_array: uint8, file i is slab_array[offsets[i]:offsets[i+1]]; table: int64 (files, SCAN_COLUMNS).
    SIMPLE is 1 for a clean 8-bit grey or palette PNG without interlacing; anything else, broken files
    included, is 0 and left to `inputs.png`, which knows what to say about it.
    """
    slab = address(slab_array)
    for i in range(offsets.size - 1):
        table[i, SIMPLE] = 0
        at, end = offsets[i], offsets[i + 1]
        if end - at < 57 or _u32(slab, at) != 0x89504E47 or _u32(slab, at + 4) != 0x0D0A1A0A:
            continue
        at += 8
        if _u32(slab, at) != 13 or _u32(slab, at + 4) != _IHDR:
            continue
        width, height = _u32(slab, at + 8), _u32(slab, at + 12)
        depth, colour = byte(slab, at + 16), byte(slab, at + 17)
        methods = byte(slab, at + 18) | byte(slab, at + 19) | byte(slab, at + 20)
        if depth != 8 or (colour != 0 and colour != 3) or methods != 0:
            continue
        if width == 0 or height == 0 or width > max_pixels or height > max_pixels // width:
            continue
        payload = np.int64(0)
        last = np.int64(0)
        chunks_of_pixels = np.int64(0)
        palette = colour == 0
        done = False
        clean = True
        while clean and not done:
            if at + 12 > end:
                clean = False
                break
            size, kind = _u32(slab, at), _u32(slab, at + 4)
            if at + 12 + size > end:
                clean = False
                break
            critical = (kind >> 29) & 1 == 0
            if critical:
                known = kind in (_IDAT, _IEND, _PLTE) or (kind == _IHDR and last == 0)
                crc = _u32(slab, at + 8 + size)
                clean = known and call_crc32(crc32, slab, at + 4, size + 4) == crc
            else:
                clean = _is_letters(kind)
            palette = palette or kind == _PLTE
            if kind == _IDAT:
                clean = clean and (chunks_of_pixels == 0 or last == _IDAT)
                chunks_of_pixels += 1
                payload += size
            done = kind == _IEND
            last = kind
            at += 12 + size
        # Deflate expands at most 1032 times, so a header cannot make us allocate for nothing.
        if clean and palette and payload > 0 and height * (width + 1) <= payload * 1032 + 1032:
            table[i, SIMPLE] = 1
            table[i, HEIGHT] = height
            table[i, WIDTH] = width
            table[i, PAYLOAD] = payload


@_jit
def inflate(slab_array, begin, payload, scratch, raw, size, decompressor, decompress):
    """Inflate the IDAT payload of the scanned file at slab_array[begin:] into raw[:size].

    Chunks are first gathered into `scratch` unless there is only one. Returns libdeflate's result: 0
    only when exactly `size` bytes came out and the Adler-32 fits.
    """
    slab, target = address(slab_array), address(raw)
    at = begin + 8
    gathered = np.int64(0)
    while True:
        length, kind = _u32(slab, at), _u32(slab, at + 4)
        if kind == _IDAT:
            if length == payload:
                return call_inflate(decompress, decompressor, slab + at + 8, payload, target, size)
            scratch[gathered : gathered + length] = slab_array[at + 8 : at + 8 + length]
            gathered += length
            if gathered == payload:
                return call_inflate(decompress, decompressor, address(scratch), payload, target, size)
        at += 12 + length


# --- filters (PNG specification, section 9) -----------------------------------------------------


@_jit
def _paeth(a, b, c):
    """The Paeth predictor: a = left, b = above, c = above left."""
    pa = abs(b - c)
    pb = abs(a - c)
    pc = abs(a + b - c - c)
    b_or_c = b if pb <= pc else c
    return a if (pa <= pb and pa <= pc) else b_or_c


@_jit
def _unfilter_sub(raw, start, rows, out, width):
    a = np.int64(0)
    for x in range(0, width, 64):
        residual = nonzero(load(raw, start + x)) & below(width - x)
        row = splat(a)
        while residual != 0:
            k = lowest(residual)
            a = (a + byte(raw, start + x + k)) & 255
            row = blend(np.int64(-1) << k, splat(a), row)
            residual &= residual - 1
        store(rows, out + x, row)


@_jit
def _unfilter_average(raw, start, rows, up, out, width):
    a = np.int64(0)
    for x in range(0, width, 64):
        b = load(rows, up + x)
        residual = nonzero(load(raw, start + x)) & below(width - x)
        if residual == 0 and differ(b, splat(a)) == 0:
            store(rows, out + x, b)  # the mean of equals
            continue
        for k in range(min(64, width - x)):
            a = (byte(raw, start + x + k) + ((a + byte(rows, up + x + k)) >> 1)) & 255
            set_byte(rows, out + x + k, a)


@_jit
def _unfilter_paeth(raw, start, rows, up, out, width):
    """Paeth by events.

    With a zero residual the predictor is the pixel itself, and two cases need no arithmetic:
    where a == c it is b, so the row follows the row above until the next residual;
    where b == c it is a, so the row repeats its left pixel until the next residual or edge above.
    Everything between two such events is one masked blend.
    """
    a = np.int64(0)
    c = np.int64(0)
    for x in range(0, width, 64):
        b = load(rows, up + x)
        residual = nonzero(load(raw, start + x)) & below(width - x)
        if residual == 0 and a == c:
            store(rows, out + x, b)
            a = byte(rows, up + x + 63)
            c = a
            continue
        edges = residual | (differ(b, load(rows, up + x - 1)) & below(width - x))
        row = b
        fill = np.int64(-1)  # positions from the last event on
        todo = np.int64(-1)  # positions after the last event
        while True:
            k = lowest((edges if a != c else residual) & todo)
            row = blend(below(k) & fill if a != c else np.int64(0), splat(a), row)
            above_left = byte(rows, up + x + k - 1)
            a = above_left if a == c else a
            c = above_left
            if k == 64:
                break
            above = byte(rows, up + x + k)
            a = (byte(raw, start + x + k) + _paeth(a, above, c)) & 255
            c = above
            fill = np.int64(-1) << k
            todo = fill ^ (np.int64(1) << k)
        store(rows, out + x, row)


@_jit
def _unfilter_row(raw, start, rows, up, out, width):
    """Undo the filter of the row at raw[start:] into rows[out:]; rows[up:] is the row above.

    Returns False for a filter type that does not exist. Up to 63 bytes after the row are overwritten.
    """
    kind = byte(raw, start)
    start += 1
    if kind == 0:
        for x in range(0, width, 64):
            store(rows, out + x, load(raw, start + x))
    elif kind == 1:
        _unfilter_sub(raw, start, rows, out, width)
    elif kind == 2:
        for x in range(0, width, 64):
            store(rows, out + x, add(load(raw, start + x), load(rows, up + x)))
    elif kind == 3:
        _unfilter_average(raw, start, rows, up, out, width)
    elif kind == 4:
        _unfilter_paeth(raw, start, rows, up, out, width)
    else:
        return False
    return True


# --- counting -----------------------------------------------------------------------------------


@_jit
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


@_jit
def count_pair(gt_raw, pred_raw, height, width, row_weights, columns, gt_lut, pred_lut, scratch, cells):
    """Unfilter and count two filtered maps of one size; adds to `cells`.

    row_weights: int64 (height,), how many target rows come from each source row.
    """
    slot = _slot(width)
    scratch[: 4 * slot + 2 * PAD] = 0
    gts, preds, rows, counts = address(gt_raw), address(pred_raw), address(scratch), address(cells)
    starts, gt_classes, pred_classes = address(columns), address(gt_lut), address(pred_lut)
    gt_up, gt, pred_up, pred = PAD, PAD + slot, PAD + 2 * slot, PAD + 3 * slot
    for y in range(height):
        start = y * (width + 1)
        if not _unfilter_row(gts, start, rows, gt_up, gt, width):
            return BAD_GT
        if not _unfilter_row(preds, start, rows, pred_up, pred, width):
            return BAD_PRED
        weight = row_weights[y]
        if weight != 0:
            _count_row(rows, gt, pred, width, starts, weight, gt_classes, pred_classes, counts)
        gt_up, gt = gt, gt_up
        pred_up, pred = pred, pred_up
    return OK


@_jit
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


@_jit
def count_arrays(gt, pred, columns, gt_lut, pred_lut, scratch, cells):
    """Count two uint8 arrays of shape (height, width); adds to `cells`."""
    height, width = gt.shape
    slot = _slot(width)
    rows, counts = address(scratch), address(cells)
    starts, gt_classes, pred_classes = address(columns), address(gt_lut), address(pred_lut)
    for y in range(height):
        scratch[PAD : PAD + width] = gt[y]
        scratch[PAD + slot : PAD + slot + width] = pred[y]
        _count_row(rows, PAD, PAD + slot, width, starts, 1, gt_classes, pred_classes, counts)


@_jit
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


@_jit
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


@_jit
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
    slot = _slot(max(gt_width, pred_width))
    scratch[: 4 * slot + 2 * PAD] = 0
    gt_raw, pred_raw, rows = address(gt_filtered), address(pred_filtered), address(scratch)
    gt_up, gt, pred_up, pred = PAD, PAD + slot, PAD + 2 * slot, PAD + 3 * slot
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
                if not _unfilter_row(gt_raw, gt_y * (gt_width + 1), rows, gt_up, gt, gt_width):
                    return BAD_GT
            gt_runs = _list_runs(rows, gt, gt_width, gt_columns, gt_lut, begins[0], values[0])
        if pred_next != pred_y:
            while pred_y < pred_next:
                pred_y += 1
                pred_up, pred = pred, pred_up
                if not _unfilter_row(pred_raw, pred_y * (pred_width + 1), rows, pred_up, pred, pred_width):
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
