"""NVIDIA's runtime compiler through ctypes: kernels to machine code for any architecture, with no driver.

The library comes with the wheel `nvidia-cuda-nvrtc-cu12` (or -cu13); nothing else of CUDA is needed.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Where the wheels keep the library below `nvidia/`.
FOLDERS = ("cuda_nvrtc/lib", "cu13/lib")

_FUNCTION = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\d+)'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


class CompileFailed(RuntimeError):
    """nvrtc refuses the text; the message is its log."""


@dataclass(frozen=True)
class Usage:
    """What ptxas says of one kernel: registers per thread, the others in bytes (shared per block)."""

    registers: int
    shared: int
    stack: int
    spill_stores: int
    spill_loads: int


@cache
def library() -> ctypes.CDLL | None:
    """nvrtc, or None where no wheel holds it."""
    spec = importlib.util.find_spec("nvidia")
    for root in spec.submodule_search_locations or () if spec else ():
        for folder in FOLDERS:
            for path in sorted((Path(root) / folder).glob("libnvrtc.so.*")):
                if "alt" not in path.name:
                    return ctypes.CDLL(str(path))
    return None


def version(nvrtc: ctypes.CDLL) -> tuple[int, int]:
    """(major, minor) of the CUDA release the library belongs to."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(nvrtc, nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


def architectures(nvrtc: ctypes.CDLL) -> list[int]:
    """The compute capabilities it compiles for, e.g. 90 for 9.0."""
    count = ctypes.c_int()
    _check(nvrtc, nvrtc.nvrtcGetNumSupportedArchs(ctypes.byref(count)))
    supported = (ctypes.c_int * count.value)()
    _check(nvrtc, nvrtc.nvrtcGetSupportedArchs(supported))
    return list(supported)


def compile_kernels(
    nvrtc: ctypes.CDLL, text: str, options: Sequence[str], architecture: int
) -> tuple[bytes, dict[str, Usage]]:
    """The cubin (an ELF file) of a `.cu` text, and what each kernel in it uses.

    Raises
        CompileFailed: also for warnings, of which the kernels have none.
    """
    program = ctypes.c_void_p()
    _check(nvrtc, nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None))
    try:
        flags = [f"--gpu-architecture=sm_{architecture}", "--ptxas-options=-v", *options]
        array = (ctypes.c_char_p * len(flags))(*[flag.encode() for flag in flags])
        failed = nvrtc.nvrtcCompileProgram(program, len(flags), array)
        log = _text(nvrtc, program, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog).decode()
        if failed or "warning" in log:
            raise CompileFailed(f"sm_{architecture}: {log}")
        cubin = _text(nvrtc, program, nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return cubin, parse_log(log)


def parse_log(log: str) -> dict[str, Usage]:
    """What each entry function uses, from the log of `ptxas -v`."""
    usages = {}
    starts = [*_FUNCTION.finditer(log)]
    for start, end in zip(starts, [match.start() for match in starts[1:]] + [len(log)], strict=True):
        part = log[start.end() : end]
        registers, spills, shared = (pattern.search(part) for pattern in (_REGISTERS, _SPILLS, _SHARED))
        assert registers is not None, log
        assert spills is not None, log
        stack, stores, loads = map(int, spills.groups())
        usages[start[1]] = Usage(int(registers[1]), int(shared[1]) if shared else 0, stack, stores, loads)
    return usages


def _text(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, size_of: object, read: object) -> bytes:
    size = ctypes.c_size_t()
    _check(nvrtc, size_of(program, ctypes.byref(size)))  # type: ignore[operator]
    buffer = ctypes.create_string_buffer(size.value)
    _check(nvrtc, read(program, buffer))  # type: ignore[operator]
    return buffer.raw


def _check(nvrtc: ctypes.CDLL, result: int) -> None:
    if result:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise CompileFailed(nvrtc.nvrtcGetErrorString(result).decode())
