"""What `host_cupy` is made of: streams, events, memory, arrays and kernels, after CuPy's own.

`cupy`, the first argument of all of them, is the `HostCupy` that they belong to.
"""

from __future__ import annotations

import ctypes
import re
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.support.host_cuda import build

GARBAGE = 0xA5

# The host executor runs one kernel at a time.
_EXECUTOR = threading.Lock()
_FILE = re.compile(r'^#line 1 "(.*)"$', re.MULTILINE)

Bytes = npt.NDArray[np.uint8]


class CUDARuntimeError(RuntimeError):
    """`cupy.cuda.runtime.CUDARuntimeError`."""

    def __init__(self, text: str, status: int = 999) -> None:
        super().__init__(text)
        self.status = status


class CUDADriverError(RuntimeError):
    """`cupy.cuda.driver.CUDADriverError`."""


class CompileException(Exception):
    """`cupy.cuda.compiler.CompileException`."""


class OutOfMemoryError(MemoryError):
    """`cupy.cuda.memory.OutOfMemoryError`."""


class Device:
    def __init__(self, cupy: Any, number: int) -> None:
        self._cupy, self.id = cupy, number
        self._before: list[int] = []

    @property
    def compute_capability(self) -> str:
        return self._cupy.abilities[self.id]

    def __enter__(self) -> Device:
        self._before.append(self._cupy.current_device)
        self._cupy.current_device = self.id
        return self

    def __exit__(self, *error: object) -> None:
        self._cupy.current_device = self._before.pop()


class Stream:
    """Work in order; done up to a point when somebody waits for that point."""

    def __init__(self, cupy: Any, device: int) -> None:
        self._cupy, self.device_id = cupy, device
        self.ptr = id(self)
        self._queue: deque[Callable[[], object]] = deque()
        self._queued = self._done = 0
        self._lock = threading.RLock()

    def __enter__(self) -> Stream:
        if self.device_id != self._cupy.current_device:
            raise RuntimeError(
                f"The device that the stream is created on ({self.device_id}) does not match with the "
                f"current device ({self._cupy.current_device})"
            )
        self._cupy.entered().append(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._cupy.entered().pop()

    def put(self, work: Callable[[], object]) -> int:
        """Queue work; the number that `run_to` takes."""
        self._cupy.check()
        with self._lock:
            self._queue.append(work)
            self._queued += 1
            if self._cupy.eager:
                self.run_to(self._queued)
            return self._queued

    def put_back(self, memory: Bytes) -> None:
        """Memory that was taken on this stream is free: in the order of its work."""
        with suppress(CUDARuntimeError):
            self.put(lambda: memory.fill(GARBAGE))

    def run_to(self, number: int) -> None:
        with self._lock:
            while self._done < number:
                self._cupy.check()
                self._done += 1
                self._queue.popleft()()

    def synchronize(self) -> None:
        self.run_to(self._queued)


class Event:
    def __init__(self, cupy: Any, *, block: bool) -> None:
        self._cupy = cupy
        assert block  # else waiting threads would burn the cores that readers need
        self._stream: Stream | None = None
        self._number = 0
        self.at: float | None = None

    def record(self) -> None:
        self._stream, self.at = self._cupy.current_stream(), None
        self._number = self._stream.put(self._stamp)

    def _stamp(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        if self._stream is not None:
            self._stream.run_to(self._number)


def elapsed(begin: Event, end: Event) -> float:
    """Milliseconds."""
    if begin.at is None or end.at is None:
        raise CUDARuntimeError("cudaErrorNotReady: device not ready")
    return (end.at - begin.at) * 1e3


class Memory:
    """Device memory of exactly so many bytes, so that a sanitizer sees the first one beyond."""

    def __init__(self, cupy: Any, size: int) -> None:
        self.size, self.device_id = size, cupy.current_device
        self.host: Bytes = np.full(size, GARBAGE, np.uint8)
        assert self.host.ctypes.data % 16 == 0
        # As CuPy's pools do, give it back to the stream that it was taken on.
        host, stream = self.host, cupy.current_stream()
        weakref.finalize(self, stream.put_back, host).atexit = False


class Pinned(bytearray):
    """Host memory; garbage as soon as it is free."""

    def __init__(self, cupy: Any, size: int) -> None:
        super().__init__(bytes([GARBAGE]) * size)
        self._graveyard = cupy._graveyard

    def __del__(self) -> None:
        self[:] = bytes([GARBAGE]) * len(self)
        self._graveyard.append(self)  # addresses of it that are still queued stay readable


class Pool:
    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy

    def malloc(self, size: int) -> Pointer:
        return Pointer(self._cupy, self._cupy.take(size), 0)

    def free_all_blocks(self) -> None:
        pass


class Pointer:
    """`cupy.cuda.MemoryPointer`."""

    def __init__(self, cupy: Any, memory: Memory, offset: int) -> None:
        self._cupy, self.mem, self.offset = cupy, memory, offset
        self.ptr = memory.host.ctypes.data + offset

    def bytes(self, size: int) -> Bytes:
        part = self.mem.host[self.offset : self.offset + size]
        assert part.size == size, "beyond the end of device memory"
        return part

    def copy_from_host_async(self, address: int, size: int, stream: Stream) -> None:
        self._cupy.uploads += 1
        target = self._on(stream, size)
        stream.put(lambda: np.copyto(target, _host_bytes(address, size)))

    def copy_to_host_async(self, address: int, size: int, stream: Stream) -> None:
        source = self._on(stream, size)
        stream.put(lambda: np.copyto(_host_bytes(address, size), source))

    def copy_from_device_async(self, other: Pointer, size: int) -> None:
        stream = self._cupy.current_stream()
        target, source = self._on(stream, size), other._on(stream, size)
        stream.put(lambda: np.copyto(target, source))

    def memset_async(self, value: int, size: int, stream: Stream) -> None:
        target = self._on(stream, size)
        stream.put(lambda: target.fill(value))

    def _on(self, stream: Stream, size: int) -> Bytes:
        _check_device("a stream", stream.device_id, "memory", self.mem.device_id)
        return self.bytes(size)


def _host_bytes(address: int, size: int) -> Bytes:
    return (
        np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        if size
        else np.empty(0, np.uint8)
    )


def _check_device(one: str, number: int, other: str, of_other: int) -> None:
    """Where CUDA would fail with an illegal access, or reach over to the other device if it can."""
    if number != of_other:
        raise CUDARuntimeError(f"{one} of device {number} with {other} of device {of_other}")


class Array:
    """`cupy.ndarray`; `host` is its memory, for queued work only."""

    def __init__(
        self,
        cupy: Any,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike = float,
        memptr: Pointer | None = None,
    ) -> None:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._cupy = cupy
        self.data = memptr if memptr is not None else Pointer(cupy, cupy.take(max(size, 1)), 0)
        self.host: npt.NDArray[Any] = self.data.bytes(size).view(dtype).reshape(shape)

    def _like(self, host: npt.NDArray[Any]) -> Array:
        """An array of the same memory."""
        array = Array.__new__(Array)
        begin = self.data.mem.host.ctypes.data
        array._cupy, array.host = self._cupy, host
        array.data = Pointer(self._cupy, self.data.mem, host.ctypes.data - begin if host.size else 0)
        return array

    def __getitem__(self, key: Any) -> Array:
        return self._like(self.host[key])

    def view(self, dtype: npt.DTypeLike) -> Array:
        return self._like(self.host.view(dtype))

    def reshape(self, *shape: Any) -> Array:
        assert self.host.flags.c_contiguous  # another one would be copied
        return self._like(self.host.reshape(*shape))

    def get(self) -> npt.NDArray[Any]:
        stream, found = self._cupy.current_stream(), np.empty(self.shape, self.dtype)
        source = self.host
        stream.run_to(stream.put(lambda: np.copyto(found, source)))
        return found

    @property
    def device(self) -> Device:
        return Device(self._cupy, self.data.mem.device_id)

    def __array__(self, *arguments: object, **options: object) -> npt.NDArray[Any]:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, self.data.mem.device_id)

    dtype = property(lambda self: self.host.dtype)
    shape = property(lambda self: self.host.shape)
    strides = property(lambda self: self.host.strides)
    size = property(lambda self: self.host.size)
    nbytes = property(lambda self: self.host.nbytes)
    ndim = property(lambda self: self.host.ndim)
    flags = property(lambda self: self.host.flags)


class RawModule:
    """Kernels for the host executor, compiled on first use."""

    def __init__(self, cupy: Any, *, code: str, options: tuple[str, ...]) -> None:
        assert isinstance(options, tuple)
        self._cupy, self._code, self._options = cupy, code, options

    def get_function(self, name: str) -> Callable[..., None]:
        cupy, key = self._cupy, (self._code, self._options)
        with _EXECUTOR:
            if key not in cupy._modules:
                cupy._modules[key] = build.load(
                    self._code,
                    self._options,
                    schedule=cupy._schedule,
                    mode=cupy._mode,
                    name=_FILE.findall(self._code)[-1],
                )
        function = cupy._modules[key].get_function(name)

        def launch(grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
            assert isinstance(grid, tuple)
            assert isinstance(block, tuple)
            values = [_argument(cupy, argument) for argument in arguments]
            cupy.launches += 1
            number = cupy.launches

            def run() -> None:
                if cupy.fails_at is not None and number >= cupy.fails_at:
                    cupy.fail()
                    cupy.check()
                with _EXECUTOR:
                    function(grid, block, values)

            cupy.current_stream().put(run)

        return launch


def _argument(cupy: Any, argument: Any) -> Any:
    if isinstance(argument, Array):
        _check_device("a kernel", cupy.current_device, "memory", argument.data.mem.device_id)
        return argument.host
    if isinstance(argument, np.generic):
        return argument
    raise TypeError(f"Unsupported type {type(argument)}")
