"""From the text of a `.cu` file to functions that can be called: translate, compile, cache, load."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SCHEDULES = ("forward", "reverse", "random")

# Compiler flags of the whole library, then those of the kernel's own file and the link.
MODES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "plain": (("-O2",), ()),
    "asan": (
        (
            "-O1",
            "-fno-omit-frame-pointer",
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=undefined",
            "-DHOST_CUDA_ASAN",
        ),
        (),
    ),
    "tsan": (("-O1", "-DHOST_CUDA_TSAN"), ("-fsanitize=thread",)),
}
COMMON = ("-std=c++20", "-g", "-fPIC", "-fvisibility=hidden", "-pthread", "-Wall", "-Wno-unknown-pragmas")

_SHARED = re.compile(
    r"__shared__\s+((?:__align__\(\s*\d+\s*\)\s*)?)([\w:]+(?:\s+[\w:]+)*?)\s+(\w+)\s*((?:\[[^\]]*\]\s*)*);"
)
_KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)

MAX_PARAMETERS = 64


class LaunchFailed(RuntimeError):
    """A kernel deadlocked, diverged at a barrier or broke another rule; the text names line and thread."""


class HostFunction:
    """One kernel of a loaded module."""

    def __init__(self, library: ctypes.CDLL, name: str, schedule: str, seed: int) -> None:
        self.name, self.schedule, self.seed = name, schedule, seed
        self._library = library
        self._kernel = getattr(library, f"host_cuda_call_{name}")
        sizes = (ctypes.c_int * MAX_PARAMETERS)()
        count = getattr(library, f"host_cuda_sizes_{name}")(sizes, MAX_PARAMETERS)
        self._sizes = list(sizes[:count])

    def __call__(self, grid: Sequence[int], block: Sequence[int], arguments: Sequence[object]) -> None:
        """Run all blocks; arrays are passed by address, NumPy scalars by value.

        Raises
            TypeError: another number of arguments or another scalar width than the kernel declares; on a
                device this would be silent.
            LaunchFailed: see there.
        """
        if len(arguments) != len(self._sizes):
            raise TypeError(f"{self.name} takes {len(self._sizes)} arguments, not {len(arguments)}")
        values = [
            _value(self.name, argument, size) for argument, size in zip(arguments, self._sizes, strict=True)
        ]
        pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(value) for value in values])
        failed = self._library.host_cuda_launch(
            self._kernel,
            pointers,
            _dimensions(grid),
            _dimensions(block),
            SCHEDULES.index(self.schedule),
            ctypes.c_uint(self.seed),
        )
        if failed:
            raise LaunchFailed(f"{self.name}: {self._library.host_cuda_error().decode()}")


class HostModule:
    """The kernels of one `.cu` text, run in one schedule."""

    def __init__(self, library: ctypes.CDLL, schedule: str, seed: int = 0) -> None:
        assert schedule in SCHEDULES
        self._library, self._schedule, self._seed = library, schedule, seed

    def get_function(self, name: str) -> HostFunction:
        return HostFunction(self._library, name, self._schedule, self._seed)


def load(
    text: str,
    options: Sequence[str] = (),
    *,
    schedule: str = "forward",
    seed: int = 0,
    mode: str = "plain",
    name: str = "kernel.cu",
) -> HostModule:
    """The module of a `.cu` text; only its -D options are used. `name` stands in messages of the compiler
    and of the sanitizers, with the text's own line numbers.

    Raises
        subprocess.CalledProcessError: g++ refuses the text; its messages are on stderr.
    """
    defines = tuple(option for option in options if option.startswith("-D"))
    return HostModule(_library(text, defines, mode, name), schedule, seed)


def why_not(mode: str = "plain") -> str | None:
    """Why kernels cannot run here in `mode`, or None where they can."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return f"the host executor runs on x86-64 Linux, this is {platform.machine()} {platform.system()}"
    if shutil.which("g++") is None:
        return "no g++: kernels cannot be compiled for the host"
    if mode != "plain" and runtime_of(mode) is None:
        return f"g++ has no runtime library for {mode}"
    return None


@cache
def runtime_of(mode: str) -> str | None:
    """The sanitizer's shared library, to be preloaded into Python."""
    found = subprocess.run(
        ["g++", f"-print-file-name=lib{mode}.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return str(Path(found).resolve()) if os.path.isabs(found) else None


def translate(text: str, name: str) -> str:
    """C++ for g++: shared arrays become references into the block's memory, kernels get a door for ctypes.

    Raises
        ValueError: a shared declaration that the executor does not understand.
    """
    counter = iter(range(10**6))

    def declare(match: re.Match[str]) -> str:
        alignment, element, variable, extents = match.groups()
        lines = "\n" * match[0].count("\n")
        return (
            f"auto& {variable} = host_cuda::shared_array<host_cuda::Aligned<{_bytes(alignment)}, "
            f"std::type_identity_t<{element}{extents.strip()}>>>({next(counter)}).it;{lines}"
        )

    translated = _SHARED.sub(declare, text)
    if "__shared__" in _COMMENT.sub("", translated):
        raise ValueError(f"{name}: a __shared__ declaration is not of the form `__shared__ type name[size];`")
    kernels = _KERNEL.findall(_COMMENT.sub("", text))
    doors = "".join(f"HOST_CUDA_EXPORT({kernel})\n" for kernel in kernels)
    return f'#line 1 "{name}"\n{translated}\n{doors}'


def _bytes(alignment: str) -> str:
    digits = re.search(r"\d+", alignment)
    return digits[0] if digits else "0"


@cache
def _library(text: str, defines: tuple[str, ...], mode: str, name: str) -> ctypes.CDLL:
    """Compiled once per text, constants and mode; the runtime, which takes longer, once per mode."""
    whole, kernel_only = MODES[mode]
    source = translate(text, name)
    header, runtime = (HERE / file for file in ("device.h", "runtime.cpp"))
    compiler = ["g++", *COMMON, *whole]

    def make_runtime(_: Path, target: Path) -> None:
        _run([*compiler, "-c", str(runtime), "-o", str(target)])

    def make_library(work: Path, target: Path) -> None:
        (work / "kernel.cpp").write_text(source, encoding="utf-8")
        kernel, kernel_object = str(work / "kernel.cpp"), str(work / "kernel.o")
        runtime_object = str(_cached(".o", [*map(_text, (header, runtime)), *compiler], make_runtime))
        include = ["-include", str(header)]
        _run([*compiler, *kernel_only, *defines, *include, "-c", kernel, "-o", kernel_object])
        _run([*compiler, *kernel_only, "-shared", kernel_object, runtime_object, "-o", str(target)])

    ingredients = [source, *map(_text, (header, runtime)), *compiler, *kernel_only, *defines]
    library = ctypes.CDLL(str(_cached(".so", ingredients, make_library)))
    library.host_cuda_error.restype = ctypes.c_char_p
    return library


def _cached(suffix: str, ingredients: Sequence[str], make: Callable[[Path, Path], None]) -> Path:
    """The file that `make(folder for its work, target)` makes of the ingredients, made once.

    It appears at once and whole, so that processes that make it side by side do no harm.
    """
    key = hashlib.sha256("\0".join([*ingredients, _compiler()]).encode()).hexdigest()[:24]
    kept = _cache_folder() / f"{key}{suffix}"
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            target = Path(folder) / f"made{suffix}"
            make(Path(folder), target)
            os.replace(target, kept)
    return kept


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def _compiler() -> str:
    return subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout


@cache
def _cache_folder() -> Path:
    """A folder of this user that outlives the session; others must not be able to put libraries there."""
    folder = Path(tempfile.gettempdir()) / f"gpu-eval-host-cuda-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
        return Path(tempfile.mkdtemp(prefix="gpu-eval-host-cuda-"))
    return folder


def _value(kernel: str, argument: object, size: int) -> ctypes.Array[ctypes.c_char] | ctypes.c_void_p:
    if isinstance(argument, np.ndarray):
        if size != ctypes.sizeof(ctypes.c_void_p):
            raise TypeError(f"{kernel}: an array where the kernel takes {size} bytes")
        return ctypes.c_void_p(argument.ctypes.data)
    if not isinstance(argument, np.generic) or argument.nbytes != size:
        raise TypeError(
            f"{kernel}: {argument!r} ({type(argument).__name__}) where the kernel takes {size} bytes"
        )
    return (ctypes.c_char * size).from_buffer_copy(argument.tobytes())


def _dimensions(sizes: Sequence[int]) -> ctypes.Array[ctypes.c_uint]:
    return (ctypes.c_uint * 3)(*(*sizes, 1, 1, 1)[:3])
