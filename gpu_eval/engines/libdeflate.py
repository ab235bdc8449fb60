"""The libdeflate inside the `deflate` wheel: its functions by address, for calls from Numba."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

from gpu_eval.errors import EngineUnavailable


@dataclass(frozen=True)
class Libdeflate:
    """Addresses of `libdeflate_crc32` and `libdeflate_zlib_decompress`, and the decompressors they need."""

    library: ctypes.CDLL
    crc32: int
    decompress: int
    version: str  # of the wheel

    def new_decompressor(self) -> int:
        return int(self.library.libdeflate_alloc_decompressor())

    def free_decompressor(self, decompressor: int) -> None:
        self.library.libdeflate_free_decompressor(decompressor)


@cache
def load_libdeflate() -> Libdeflate:
    """Raises EngineUnavailable where the wheel hides the symbols of its libdeflate."""
    import deflate

    extension = deflate._deflate.__file__
    library = ctypes.CDLL(extension)
    try:
        library.libdeflate_alloc_decompressor.restype = ctypes.c_void_p
        library.libdeflate_alloc_decompressor.argtypes = []
        library.libdeflate_free_decompressor.restype = None
        library.libdeflate_free_decompressor.argtypes = [ctypes.c_void_p]
        crc32, decompress = library.libdeflate_crc32, library.libdeflate_zlib_decompress
    except AttributeError as error:
        raise EngineUnavailable(
            "the CPU engine cannot reach libdeflate",
            file=extension,
            found=str(error),
            expected="exported libdeflate_* functions, as in the Linux and macOS wheels of `deflate`",
            fix="install the `deflate` wheel from PyPI instead of building it with hidden symbols",
        ) from error
    return Libdeflate(library, _address(crc32), _address(decompress), version("deflate"))


def _address(function: ctypes._NamedFuncPointer) -> int:
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)
