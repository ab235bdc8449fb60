"""The hot loops of instance scoring on the CPU: which pixels of each mask lie on which gt value.

Most of a mask is zero, above and below the instance and beside it. A row is touched only between the first
and the last 64 bytes in which its residuals or the row above are not zero; everything else is zero
whatever the filter, and nothing is written for it. What is not zero are a few runs a row, and each is
walked along the gt's runs of that row.

Conventions
- The gt is a list of runs: int64, the column after the run's last times 2^16 plus the gt value, row by
  row. `starts`, int64 (height, words): the run that holds the first column of each 64 columns of a row.
- `rows` is one scratch buffer with `ROWS` row slots (see `png_kernels`).
- Addresses and int64 as in `png_kernels`.
"""

# mypy cannot see through Numba's decorators.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc, arg-type"
from __future__ import annotations

import numpy as np

from gpu_eval.engines.png_kernels import (
    FORM,
    GREY_1,
    GREY_8,
    GREY_16,
    HEIGHT,
    PAYLOAD,
    WIDTH,
    inflate,
    jit,
    slot,
    stride,
    unfilter,
    unfilter_row,
)
from gpu_eval.engines.simd import (
    PAD,
    add_to_word,
    address,
    below,
    byte,
    differ,
    load,
    lowest,
    nonzero,
    set_byte,
    splat,
    store,
    word,
)

# Result of `list_runs` for a filter type that does not exist.
BAD = -1

# A gt row as low and as high bytes, each with the row above it and with its residuals.
ROWS = 6

# Values of a 16-bit gt.
VALUES = 1 << 16


def words(width: int) -> int:
    """Entries of `starts` per row."""
    return -(-width // 64)


# --- the gt as runs -----------------------------------------------------------------------------


@jit
def _list_row(rows, low, high, width, runs, capacity, known, starts, histogram):
    """Append the runs of one row given as low and high bytes; returns how many there are then.

    `known` runs were there before. Runs beyond the capacity are counted, not written.
    """
    begin = np.int64(0)
    value = byte(rows, high) << 8 | byte(rows, low)
    inside = np.int64(-2)  # the first pixel begins a run whatever stands before it
    for x in range(0, width, 64):
        starts[x // 64] = known
        edges = differ(load(rows, low + x), load(rows, low + x - 1))
        edges |= differ(load(rows, high + x), load(rows, high + x - 1))
        edges &= below(width - x) & inside
        inside = np.int64(-1)
        while edges != 0:
            k = x + lowest(edges)
            if known < capacity:
                runs[known] = k << 16 | value
            known += 1
            histogram[value] += k - begin
            begin = k
            value = byte(rows, high + k) << 8 | byte(rows, low + k)
            edges &= edges - 1
    if known < capacity:
        runs[known] = width << 16 | value
    histogram[value] += width - begin
    return known + 1


@jit
def _split(raw, start, rows, high, low, width):
    """Put the high and the low bytes of big-endian samples at raw[start:] into rows of their own."""
    for x in range(width):
        set_byte(rows, high + x, byte(raw, start + 2 * x))
    for x in range(width):
        set_byte(rows, low + x, byte(raw, start + 2 * x + 1))


@jit
def list_runs(raw_array, height, width, form, scratch, runs, starts, histogram):
    """The runs of a filtered gt of form GREY_16, GREY_8 or PALETTE_8.

    Fills runs, starts and histogram, int64 (VALUES,), pixels of each value. Returns how many runs there are;
    where that is more than `runs` holds, list them again. BAD for a filter type that does not exist.

    The high and the low bytes of 16-bit samples never mix in a filter, which looks two bytes back, so each
    is a row of bytes of its own.
    """
    size = slot(width)
    scratch[: ROWS * size + 2 * PAD] = 0
    raw, rows = address(raw_array), address(scratch)
    low_up, low, high_up, high = PAD, PAD + size, PAD + 2 * size, PAD + 3 * size
    low_raw, high_raw = PAD + 4 * size, PAD + 5 * size
    row_bytes = stride(form, width)
    histogram[:] = 0
    known = np.int64(0)
    for y in range(height):
        start = y * (row_bytes + 1)
        if form == GREY_16:
            kind = byte(raw, start)
            if kind > 4:
                return BAD
            _split(raw, start + 1, rows, high_raw, low_raw, width)
            unfilter(kind, rows, high_raw, rows, high_up, high, width)
            unfilter(kind, rows, low_raw, rows, low_up, low, width)
        elif not unfilter_row(raw, start, rows, low_up, low, width):
            return BAD
        known = _list_row(rows, low, high, width, runs, runs.size, known, starts[y], histogram)
        low_up, low = low, low_up
        high_up, high = high, high_up
    return known


@jit
def list_array_runs(values, scratch, runs, starts, histogram):
    """As `list_runs`, for a decoded gt: uint16, shape (height, width)."""
    height, width = values.shape
    rows = address(scratch)
    low, high = PAD, PAD + slot(width)
    histogram[:] = 0
    known = np.int64(0)
    for y in range(height):
        for x in range(width):
            scratch[low + x] = values[y, x] & 255
            scratch[high + x] = values[y, x] >> 8
        known = _list_row(rows, low, high, width, runs, runs.size, known, starts[y], histogram)
    return known


# --- masks --------------------------------------------------------------------------------------


@jit
def _first_word(raw, start, size):
    """Where the first 64 bytes begin that are not all zero; `size` if there are none."""
    for x in range(0, size, 64):
        if nonzero(load(raw, start + x)) & below(size - x) != 0:
            return x
    return size


@jit
def _last_word(raw, start, first, size):
    """Where the last 64 bytes after those at `first` end that are not all zero, or those at `first`."""
    x = (size - 1) // 64 * 64
    while x > first and nonzero(load(raw, start + x)) & below(size - x) == 0:
        x -= 64
    return min(x + 64, size)


@jit
def _count_run(begin, end, runs, starts, index, cells):
    """Count columns begin..end-1 of a mask row along the gt's runs of that row."""
    run = word(starts, begin >> 6)
    while word(runs, run) >> 16 <= begin:
        run += 1
    while begin < end:
        gt = word(runs, run)
        stop = min(gt >> 16, end)
        add_to_word(cells, word(index, gt & 0xFFFF), stop - begin)
        begin = stop
        run += 1


@jit
def _ones(rows, at):
    """Mask of the 64 packed pixels in 8 bytes: leftmost in the lowest bit, so each byte's bits are turned.

    Numba runs on little-endian machines only.
    """
    bits = word(rows + at, 0)
    bits = (bits >> 1) & 0x5555555555555555 | (bits & 0x5555555555555555) << 1
    bits = (bits >> 2) & 0x3333333333333333 | (bits & 0x3333333333333333) << 2
    return (bits >> 4) & 0x0F0F0F0F0F0F0F0F | (bits & 0x0F0F0F0F0F0F0F0F) << 4


@jit
def _count_row(rows, row, packed, first, last, width, runs, starts, index, cells):
    """Count the pixels of a mask row that are not zero; all of them are between the bytes first and last.

    first is a multiple of 64. Returns where the first 64 bytes begin and the last end that are not all zero.
    """
    scale = 8 if packed else 1
    row_bytes = (width + 7) // 8 if packed else width
    begin = np.int64(-1)
    carry = np.int64(0)
    used, free = row_bytes, np.int64(0)
    for x in range(first * scale, min(last * scale, width), 64):
        inside = _ones(rows, row + x // 8) if packed else nonzero(load(rows, row + x))
        inside &= below(row_bytes * scale - x)
        if inside != 0:
            at = x // scale // 64 * 64
            used = min(used, at)
            free = min(at + 64, row_bytes)
        inside &= below(width - x)  # the last byte of packed pixels may hold more bits than there are pixels
        edges = inside ^ (inside << 1 | carry)
        carry = (inside >> 63) & 1
        while edges != 0:
            k = x + lowest(edges)
            if begin < 0:
                begin = k
            else:
                _count_run(begin, k, runs, starts, index, cells)
                begin = np.int64(-1)
            edges &= edges - 1
    if begin >= 0:
        _count_run(begin, min(last * scale, width), runs, starts, index, cells)
    return used, free


@jit
def _count_mask(raw, height, width, packed, scratch, runs, starts, index, cells):
    """Unfilter and count one mask of a byte or, packed, of a bit per pixel; adds to `cells`.

    Returns False for a filter type that does not exist.
    """
    row_bytes = (width + 7) // 8 if packed else width
    size = slot((row_bytes + 7) // 8 * 8)  # so that `_ones` reads at multiples of 8
    scratch[: 2 * size + 2 * PAD] = 0
    rows = address(scratch)
    up, out = PAD, PAD + size
    # Between which bytes the row above is not zero, and what stands in `out` from the row above that.
    up_first, up_last = row_bytes, np.int64(0)
    out_first, out_last = row_bytes, np.int64(0)
    for y in range(height):
        start = y * (row_bytes + 1) + 1
        kind = byte(raw, start - 1)
        if kind > 4:
            return False
        first = _first_word(raw, start, row_bytes)
        if first == row_bytes and up_first == row_bytes:
            continue
        last = _last_word(raw, start, first, row_bytes) if first < row_bytes else np.int64(0)
        first, last = min(first, up_first), max(last, up_last)
        for x in range(out_first, out_last, 64):
            store(rows, out + x, splat(0))
        unfilter(kind, raw, start + first, rows, up + first, out + first, last - first)
        if last < row_bytes and byte(rows, out + last - 1) != 0 and (kind == 1 or kind >= 3):
            # These filters carry a left pixel on where residuals and row above are zero.
            last = row_bytes
            unfilter(kind, raw, start + first, rows, up + first, out + first, last - first)
        out_first, out_last = up_first, up_last
        gt = starts + y * ((width + 63) // 64) * 8
        up_first, up_last = _count_row(rows, out, packed, first, last, width, runs, gt, index, cells)
        up, out = out, up
    return True


@jit
def count_masks(
    slab,
    offsets,
    scans,
    height,
    width,
    payload,
    raw,
    scratch,
    decompressor,
    decompress,
    runs,
    starts,
    index,
    cells,
    counted,
):
    """Inflate and count the scanned masks of a slab that are 8-bit or 1-bit grey and of this size.

    Masks of another size are passed over; `engines/instance.mask_of_another_size` is what is said of them.

    index: int64 (VALUES,), a gt value's column in cells, int64 (masks, columns). Sets counted, uint8
    (masks,), to 1 for the masks that were; cells of the others mean nothing.
    """
    for i in range(counted.size):
        counted[i] = 0
        form = scans[i, FORM]
        if form not in (GREY_8, GREY_1) or scans[i, HEIGHT] != height or scans[i, WIDTH] != width:
            continue
        size = height * (stride(form, width) + 1)
        if inflate(slab, offsets[i], scans[i, PAYLOAD], payload, raw, size, decompressor, decompress) != 0:
            continue
        counted[i] = _count_mask(
            address(raw),
            height,
            width,
            form == GREY_1,
            scratch,
            address(runs),
            address(starts),
            address(index),
            address(cells[i]),
        )


@jit
def count_array(mask, scratch, runs, starts, index, cells):
    """Count a decoded mask: uint8, shape (height, width); adds to cells, int64 (columns,)."""
    height, width = mask.shape
    rows = address(scratch)
    for y in range(height):
        scratch[PAD : PAD + width] = mask[y]
        gt = address(starts[y])
        _count_row(rows, PAD, False, 0, width, width, address(runs), gt, address(index), address(cells))
