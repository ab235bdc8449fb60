"""Where the zlib streams of scanned PNGs lie, found without a Python loop over chunks."""

# mypy cannot see through Numba's decorators.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

import numpy as np
from numba import njit

_IDAT = 0x49444154

# Columns of the table of segments.
SOURCE, TARGET, LENGTH = 0, 1, 2
SEGMENT_COLUMNS = 3


@njit(nogil=True, cache=True, boundscheck=False, error_model="numpy")
def find_streams(slab, begins, payloads, streams, segments):
    """Fill `streams` with the places of the zlib streams of these files; return the number of segments.

    slab: uint8. begins, payloads: int64 (files,), where a file that `scan` took begins and the bytes of all
    its IDAT chunks; payload 0: not looked at. streams: int64 (files,): the place of the first byte in the
    slab where there is one IDAT chunk; else -1 - t, where t counts the bytes of streams that are to be
    made contiguous. segments: int64 (room, SEGMENT_COLUMNS): one row per chunk of those, TARGET in the count
    of t. Rows beyond `room` are counted and not written: call again with more.
    """
    count = np.int64(0)
    gathered = np.int64(0)
    for i in range(begins.size):
        if payloads[i] == 0:
            continue
        at = begins[i] + 8
        missing = payloads[i]
        streams[i] = -1 - gathered
        while missing > 0:
            length, kind = np.int64(0), np.int64(0)
            for k in range(4):
                length = (length << 8) | np.int64(slab[at + k])
                kind = (kind << 8) | np.int64(slab[at + 4 + k])
            if kind == _IDAT:
                if length == payloads[i]:
                    streams[i] = at + 8
                    break
                if length > 0:
                    if count < segments.shape[0]:
                        segments[count, SOURCE] = at + 8
                        segments[count, TARGET] = gathered
                        segments[count, LENGTH] = length
                    count += 1
                    gathered += length
                    missing -= length
            at += 12 + length
    return count
