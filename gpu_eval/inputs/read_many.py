"""Many files read by one call that does not hold Python's lock.

Reading a label map from the page cache takes some six microseconds, and Python's lock changes hands three
times in them: threads that read side by side then wait for each other and for whoever computes. Numba calls
the C library here, and Python is back when all files are read.
"""

# mypy cannot see through Numba's decorators.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from numba import njit

from gpu_eval.c_functions import INT, POINTER, SIZE, c_function

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

# `struct iovec` is an address and a size; two of them and the byte that is too much.
_IOVECS = 5


_open = c_function(INT, POINTER, INT)
_readv = c_function(SIZE, INT, POINTER, INT)
_close = c_function(INT, INT)
_memcpy = c_function(POINTER, POINTER, POINTER, SIZE)


@njit(nogil=True, cache=True)
def _read(paths, flags, target, offsets, functions, as_listed):
    """Read files to their spans, mark those that gave exactly as many bytes, and count the others."""
    iovecs = np.empty(_IOVECS, np.int64)
    name, odd = 0, 0
    for i in range(as_listed.size):
        size = offsets[i + 1] - offsets[i]
        found = np.int64(-1)
        handle = _open(functions[0], paths.ctypes.data + name, flags)
        if handle >= 0:
            iovecs[0], iovecs[1] = target.ctypes.data + offsets[i], size
            iovecs[2], iovecs[3] = iovecs.ctypes.data + 8 * (_IOVECS - 1), 1
            found = _readv(functions[1], handle, iovecs.ctypes.data, 2)
            _close(functions[2], handle)
        as_listed[i] = found == size
        odd += found != size
        while paths[name] != 0:
            name += 1
        name += 1
    return odd


@cache
def _functions() -> Ints:
    """Addresses of open, readv, close and memcpy."""
    library = ctypes.CDLL(None)
    named = (library.open, library.readv, library.close, library.memcpy)
    return np.array([ctypes.cast(function, ctypes.c_void_p).value for function in named], np.int64)


def read_files(paths: Sequence[bytes], offsets: Ints, target: Bytes) -> list[int]:
    """Read file i to target[offsets[i] : offsets[i + 1]]; which ones did not give exactly so many bytes.

    Those are missing, unreadable, shorter or longer, or the read was interrupted; their spans may hold
    anything. No path holds a zero byte.
    """
    names = np.frombuffer(b"\0".join(paths) + b"\0", np.uint8)
    as_listed = np.empty(len(paths), np.bool_)
    odd = _read(names, os.O_RDONLY | os.O_CLOEXEC, target, offsets, _functions(), as_listed)
    return np.flatnonzero(~as_listed).tolist() if odd else []


@njit(nogil=True, cache=True)
def _copy(source, begins, target, offsets, functions):
    for i in range(begins.size):
        if begins[i] >= 0:
            to, begin = target.ctypes.data + offsets[i], source.ctypes.data + begins[i]
            _memcpy(functions[3], to, begin, offsets[i + 1] - offsets[i])


def copy_spans(source: Bytes, begins: Ints, target: Bytes, offsets: Ints) -> None:
    """Copy the bytes from source[begins[i]] on to target[offsets[i] : offsets[i + 1]].

    Nothing for a begin below 0. All others lie within `source`.
    """
    _copy(source, begins, target, offsets, _functions())
