"""The hot loop of looking at label maps one by one: an inflated map in, how often each byte occurs out.

Conventions are those of `semantic_kernels`; `rows` has two slots, the row above and the row.
"""

# mypy cannot see through Numba's decorators.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

import numpy as np

from gpu_eval.engines import png_kernels
from gpu_eval.engines.png_kernels import (
    FORM,
    GREY_8,
    HEIGHT,
    PALETTE_8,
    PAYLOAD,
    WIDTH,
    inflate,
    jit,
    slot,
    unfilter_row,
)
from gpu_eval.engines.simd import PAD, add_to_word, address, below, byte, differ, load, lowest

# Results of `count_files`: only of OK ones the counts mean something.
LEFT, OK = 0, 1

ROWS = 2


def rows_size(width: int) -> int:
    """Bytes of the `rows` scratch for maps of up to `width` columns."""
    return png_kernels.rows_size(ROWS, width)


@jit
def _count_row(rows, row, width, counts):
    """Count one row: a step per place where the map changes."""
    begin = np.int64(0)
    value = byte(rows, row)
    inside = np.int64(-2)  # the first pixel begins a run whatever stands before it
    for x in range(0, width, 64):
        edges = differ(load(rows, row + x), load(rows, row + x - 1)) & below(width - x) & inside
        inside = np.int64(-1)
        while edges != 0:
            k = x + lowest(edges)
            add_to_word(counts, value, k - begin)
            begin = k
            value = byte(rows, row + k)
            edges &= edges - 1
    add_to_word(counts, value, width - begin)


@jit
def _count_map(raw_array, height, width, scratch, counts_array):
    """Unfilter and count a map; False for a filter type that does not exist."""
    step = slot(width)
    scratch[: ROWS * step + 2 * PAD] = 0
    raw, rows, counts = address(raw_array), address(scratch), address(counts_array)
    up, row = PAD, PAD + step
    for y in range(height):
        if not unfilter_row(raw, y * (width + 1), rows, up, row, width):
            return False
        _count_row(rows, row, width, counts)
        up, row = row, up
    return True


@jit
def count_files(slab, offsets, scans, payload, raw, scratch, decompressor, decompress, counts, statuses):
    """Inflate and count scanned files of any sizes in one call; the buffers fit the largest.

    counts: int64 (files, 256), zeros. statuses: int64 (files,): OK, or LEFT for files that `inputs.png` must
    look at, because the kernels do not take them or stumble over them.
    """
    for i in range(statuses.size):
        statuses[i] = LEFT
        form = scans[i, FORM]
        if form != GREY_8 and form != PALETTE_8:
            continue
        height, width = scans[i, HEIGHT], scans[i, WIDTH]
        size = height * (width + 1)
        length = scans[i, PAYLOAD]
        if inflate(slab, offsets[i], length, payload, raw, size, decompressor, decompress) != 0:
            continue
        if _count_map(raw, height, width, scratch, counts[i]):
            statuses[i] = OK
