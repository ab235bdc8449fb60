"""PNG bytes to rows of pixels without a Python object in between: what the kernels of all tasks share.

A label map is piecewise constant, so nearly every filtered byte is zero. The filters look at 64 bytes at
a time (`simd`), turn "which bytes are not zero" into a bit mask, and do scalar work per set bit only.

Conventions
- A scratch buffer of rows has slots of `slot(size)` bytes, the first at `PAD`: a row has `PAD` zero bytes
  before it and at least 64 bytes after it. `raw`, filtered rows as they were inflated, has 64 readable
  bytes after its end.
- Inner functions get addresses instead of arrays (see `simd`).
- int64 throughout. Numba turns a mix of int64 and uint64 into float64.
"""

# mypy cannot see through Numba's decorators.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

import numpy as np
from numba import njit

from gpu_eval.c_functions import INT, POINTER, SIZE, UINT, c_function
from gpu_eval.engines.simd import (
    PAD,
    add,
    address,
    below,
    blend,
    byte,
    differ,
    load,
    lowest,
    nonzero,
    set_byte,
    splat,
    store,
)

# Columns of the table that `scan` fills.
FORM, HEIGHT, WIDTH, PAYLOAD = 0, 1, 2, 3
SCAN_COLUMNS = 4

# Forms of clean PNGs without interlacing; of OTHER ones, broken files included, nothing else is known.
OTHER, GREY_8, PALETTE_8, GREY_16, GREY_1 = 0, 1, 2, 3, 4

# libdeflate_crc32, and libdeflate_zlib_decompress with no place for the size that came out (libdeflate.h).
_crc32 = c_function(UINT, UINT, POINTER, SIZE)
_decompress = c_function(INT, POINTER, POINTER, SIZE, POINTER, SIZE, POINTER)

# Chunk types as big-endian integers.
_IHDR, _PLTE, _IDAT, _IEND = 0x49484452, 0x504C5445, 0x49444154, 0x49454E44


def jit(function):
    return njit(nogil=True, cache=True, boundscheck=False, error_model="numpy")(function)


def rows_size(slots: int, row_bytes: int) -> int:
    """Bytes of a scratch buffer with this many slots for rows of up to `row_bytes` bytes."""
    return slots * (row_bytes + 2 * PAD) + 2 * PAD


@jit
def slot(row_bytes):
    """Bytes from the begin of one row slot to the next."""
    return row_bytes + 2 * PAD


@jit
def stride(form, width):
    """Bytes of a row in the file, without its filter byte."""
    if form == GREY_16:
        return 2 * width
    if form == GREY_1:
        return (width + 7) // 8
    return width


# --- PNG chunks ---------------------------------------------------------------------------------


@jit
def _u32(data, at):
    return (
        (byte(data, at) << 24) | (byte(data, at + 1) << 16) | (byte(data, at + 2) << 8) | byte(data, at + 3)
    )


@jit
def _is_letters(kind):
    """Whether the four bytes of a chunk type are ASCII letters."""
    for shift in range(0, 32, 8):
        letter = (kind >> shift) & 0xDF  # upper case
        if letter < 65 or letter > 90:
            return False
    return True


@jit
def _form(colour, depth):
    if colour == 0:
        return GREY_8 if depth == 8 else GREY_16 if depth == 16 else GREY_1 if depth == 1 else OTHER
    return PALETTE_8 if colour == 3 and depth == 8 else OTHER


@jit
def scan(slab_array, offsets, max_pixels, crc32, table):
    """Walk the chunks of every file in a slab and say which of them the fast path takes.

    slab_array: uint8, file i is slab_array[offsets[i]:offsets[i+1]]; table: int64 (files, SCAN_COLUMNS).
    A file of form OTHER is left to `inputs.png`, which knows what to say about it.
    """
    slab = address(slab_array)
    for i in range(offsets.size - 1):
        table[i, FORM] = OTHER
        at, end = offsets[i], offsets[i + 1]
        if end - at < 57 or _u32(slab, at) != 0x89504E47 or _u32(slab, at + 4) != 0x0D0A1A0A:
            continue
        at += 8
        if _u32(slab, at) != 13 or _u32(slab, at + 4) != _IHDR:
            continue
        width, height = _u32(slab, at + 8), _u32(slab, at + 12)
        depth, colour = byte(slab, at + 16), byte(slab, at + 17)
        methods = byte(slab, at + 18) | byte(slab, at + 19) | byte(slab, at + 20)
        form = _form(colour, depth)
        if form == OTHER or methods != 0:
            continue
        if width == 0 or height == 0 or width > max_pixels or height > max_pixels // width:
            continue
        payload = np.int64(0)
        last = np.int64(0)
        chunks_of_pixels = np.int64(0)
        palette = form != PALETTE_8
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
                clean = known and _crc32(crc32, 0, slab + at + 4, size + 4) == crc
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
        raw_size = height * (stride(form, width) + 1)
        if clean and palette and payload > 0 and raw_size <= payload * 1032 + 1032:
            table[i, FORM] = form
            table[i, HEIGHT] = height
            table[i, WIDTH] = width
            table[i, PAYLOAD] = payload


@jit
def inflate(slab_array, begin, payload, scratch, raw, size, decompressor, decompress):
    """Inflate the IDAT payload of the scanned file at slab_array[begin:] into raw[:size].

    Chunks are first gathered into `scratch` unless there is only one. Returns libdeflate's result: 0 for
    success with exactly `size` bytes out, 1 for bad data (a wrong Adler-32 included), 2 for a stream that
    ends short, 3 for one that holds more.
    """
    slab, target = address(slab_array), address(raw)
    at = begin + 8
    gathered = np.int64(0)
    while True:
        length, kind = _u32(slab, at), _u32(slab, at + 4)
        if kind == _IDAT:
            if length == payload:
                return _decompress(decompress, decompressor, slab + at + 8, payload, target, size, 0)
            scratch[gathered : gathered + length] = slab_array[at + 8 : at + 8 + length]
            gathered += length
            if gathered == payload:
                return _decompress(decompress, decompressor, address(scratch), payload, target, size, 0)
        at += 12 + length


# --- filters (PNG specification, section 9) -----------------------------------------------------


@jit
def _paeth(a, b, c):
    """The Paeth predictor: a = left, b = above, c = above left."""
    pa = abs(b - c)
    pb = abs(a - c)
    pc = abs(a + b - c - c)
    b_or_c = b if pb <= pc else c
    return a if (pa <= pb and pa <= pc) else b_or_c


@jit
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


@jit
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


@jit
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


@jit
def unfilter(kind, raw, start, rows, up, out, size):
    """Undo filter `kind`, 0 to 4, of `size` bytes at raw[start:] into rows[out:]; rows[up:] is the row above.

    What stands left of the bytes counts as zero, in both rows. Up to 63 bytes after them are overwritten.
    """
    if kind == 0:
        for x in range(0, size, 64):
            store(rows, out + x, load(raw, start + x))
    elif kind == 1:
        _unfilter_sub(raw, start, rows, out, size)
    elif kind == 2:
        for x in range(0, size, 64):
            store(rows, out + x, add(load(raw, start + x), load(rows, up + x)))
    elif kind == 3:
        _unfilter_average(raw, start, rows, up, out, size)
    else:
        _unfilter_paeth(raw, start, rows, up, out, size)


@jit
def unfilter_row(raw, start, rows, up, out, size):
    """As `unfilter`, for a row at raw[start:] that begins with its filter byte.

    Returns False for a filter type that does not exist.
    """
    kind = byte(raw, start)
    if kind > 4:
        return False
    unfilter(kind, raw, start + 1, rows, up, out, size)
    return True
