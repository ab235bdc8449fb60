"""CuPy on a machine without a device: memory is NumPy's, kernels run in the host executor.

`HostCupy()` is a module: as much of `cupy` as the project uses, by CuPy's own rules where they are easily
broken (a stream is entered on its own device only, host arrays are no kernel arguments, no device array
becomes a NumPy array by itself). Put it into `sys.modules`, or the folder `tests/support/host_site` on the
path of a process.

Work on a stream is done as late as CUDA may do it, when somebody waits for it, or with `eager` as early, when
it is queued. Between the two, whoever reads a result too early, frees or changes host memory too early, or
writes it too late, gets garbage: `GARBAGE` fills memory when it is new and when it is free again.
"""

from __future__ import annotations

import ctypes
import re
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_eval.engines.cuda.engine import CupyDevice
from tests.support.host_cuda import build

GARBAGE = 0xA5
GIB = 1 << 30

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


class HostCupy(ModuleType):
    """A `cupy` whose devices are of the compute capabilities `abilities`, with `free` bytes each.

    `schedule` and `mode` are the host executor's. `driver` and `built_for` are CUDA versions as CUDA writes
    them; `no_device` and `no_nvrtc` are texts of errors. `free` may be changed at any time.

    From launch number `fails_at` on (from 1) the device has failed, as CUDA has it: what touches it raises,
    the launch itself only when it is done. `on_failure` is called then.

    Counts: `uploads` to a device, `launches`, allocations `refused` for want of memory.
    """

    def __init__(
        self,
        *,
        abilities: Sequence[str] = ("90",),
        free: int = GIB,
        schedule: str = "forward",
        mode: str = "plain",
        eager: bool = False,
        driver: int = 13000,
        built_for: int = 13000,
        no_device: str | None = None,
        no_nvrtc: str | None = None,
        fails_at: int | None = None,
        on_failure: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__("cupy")
        self.__spec__ = ModuleSpec("cupy", None)
        self.__version__ = "14.2.0"
        self.free, self.eager = free, eager
        self.abilities = tuple(abilities)
        self.uploads = self.launches = self.refused = 0
        self.fails_at, self._on_failure = fails_at, on_failure
        self._failed = False
        self._schedule, self._mode = schedule, mode
        self._driver, self._built_for = driver, built_for
        self._no_device, self._no_nvrtc = no_device, no_nvrtc
        self._alive: list[weakref.ref[_Memory]] = []
        self._graveyard: list[_Pinned] = []
        self._modules: dict[tuple[str, tuple[str, ...]], build.HostModule] = {}
        self._here = threading.local()
        self._null_streams = [_Stream(self, device) for device in range(len(self.abilities))]
        self._default_pool = _Pool(self)

        self.ndarray = _bound(Array, self)
        self.RawModule = _bound(_RawModule, self)
        self.cuda = SimpleNamespace(
            Device=_bound(_Device, self),
            Event=_bound(_Event, self),
            MemoryPool=_bound(_Pool, self),
            compiler=SimpleNamespace(CompileException=CompileException),
            driver=SimpleNamespace(CUDADriverError=CUDADriverError),
            Stream=self._stream,
            alloc_pinned_memory=lambda size: _Pinned(self, size),
            get_current_stream=self.current_stream,
            get_elapsed_time=_elapsed,
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            nvrtc=SimpleNamespace(getVersion=self._nvrtc_version),
            runtime=SimpleNamespace(
                CUDARuntimeError=CUDARuntimeError,
                driverGetVersion=lambda: self._driver,
                runtimeGetVersion=lambda: self._built_for,
                getDevice=lambda: self.current_device,
                getDeviceCount=self._device_count,
                getDeviceProperties=self._properties,
                memGetInfo=lambda: (self.free - self.allocated(), GIB),
            ),
        )

    # --- arrays ---------------------------------------------------------------------------------

    def asarray(self, values: Any, dtype: npt.DTypeLike = None) -> Array:
        """A device array, copied on the current stream if `values` is in host memory."""
        if isinstance(values, Array):
            return values
        host = np.array(values, dtype, order="C")
        array = Array(self, host.shape, host.dtype)
        target = array.host
        self.current_stream().put(lambda: np.copyto(target, host))
        return array

    def asnumpy(self, array: Array) -> npt.NDArray[Any]:
        """The array in host memory, after the work of the current stream, and of no other one."""
        return array.get()

    def ascontiguousarray(self, array: Array) -> Array:
        copy = Array(self, array.shape, array.dtype)
        source, target = array.host, copy.host
        self.current_stream().put(lambda: np.copyto(target, source))
        return copy

    def zeros(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike = float) -> Array:
        return self.asarray(np.zeros(shape, dtype))

    def from_dlpack(self, values: Any) -> Array:
        """The array that `values` gives when it is told the current stream of its device."""
        with _Device(self, values.__dlpack_device__()[1]):
            shared = values.__dlpack__(stream=self.current_stream().ptr)
        assert isinstance(shared, Array)
        return shared

    # --- devices, streams, memory ---------------------------------------------------------------

    @property
    def current_device(self) -> int:
        """The device of this thread."""
        number: int = getattr(self._here, "device", 0)
        return number

    @current_device.setter
    def current_device(self, number: int) -> None:
        if not 0 <= number < len(self.abilities):
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self._here.device = number

    def current_stream(self) -> _Stream:
        """The stream of this thread on its device."""
        entered = self.entered()
        return entered[-1] if entered else self._null_streams[self.current_device]

    def entered(self) -> list[_Stream]:
        """The streams that this thread has entered on its device, the innermost last."""
        if not hasattr(self._here, "streams"):
            self._here.streams = [[] for _ in self.abilities]
        streams: list[_Stream] = self._here.streams[self.current_device]
        return streams

    def allocated(self) -> int:
        """Bytes of device memory that are in use."""
        alive = [(reference, memory) for reference in self._alive if (memory := reference()) is not None]
        self._alive = [reference for reference, _ in alive]
        return sum(memory.size for _, memory in alive)

    def fail(self) -> None:
        """The device is gone from here on."""
        self._failed = True
        self._on_failure()

    def check(self) -> None:
        """What every call of CUDA does first."""
        if self._failed:
            raise CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered", 700)

    def take(self, size: int) -> _Memory:
        self.check()
        if self.allocated() + size > self.free:
            self.refused += 1
            raise OutOfMemoryError(f"Out of memory allocating {size} bytes of {self.free}.")
        memory = _Memory(self, size)
        self._alive.append(weakref.ref(memory))
        return memory

    def _stream(self, *, non_blocking: bool) -> _Stream:
        assert non_blocking  # others wait for the null stream, which is not modelled
        return _Stream(self, self.current_device)

    # --- what `available` asks ------------------------------------------------------------------

    def _device_count(self) -> int:
        if self._no_device is not None:
            raise CUDARuntimeError(self._no_device)
        return len(self.abilities)

    def _nvrtc_version(self) -> tuple[int, int]:
        if self._no_nvrtc is not None:
            raise RuntimeError(self._no_nvrtc)
        return (13, 0)

    def _properties(self, number: int) -> dict[str, Any]:
        ability = self.abilities[number]
        return {
            "name": b"Host executor",
            "totalGlobalMem": GIB,
            "major": int(ability[:-1]),
            "minor": int(ability[-1]),
        }


@contextmanager
def installed(cupy: ModuleType | None) -> Iterator[None]:
    """Whoever imports CuPy gets this module; None: it is not installed."""
    before = sys.modules.get("cupy")
    sys.modules["cupy"] = cupy  # type: ignore[assignment]
    try:
        yield
    finally:
        if before is None:
            del sys.modules["cupy"]
        else:
            sys.modules["cupy"] = before


def device_of(cupy: HostCupy, number: int | None = None) -> CupyDevice:
    """The product's own device on this CuPy."""
    with installed(cupy):
        return CupyDevice(number)


def _bound(made: Callable[..., Any], cupy: HostCupy) -> Any:
    """A class whose first argument is the module, as a class of that module: `isinstance` works with it."""

    def begin(self: Any, *arguments: Any, **options: Any) -> None:
        made.__init__(self, cupy, *arguments, **options)  # type: ignore[misc]

    name = made.__name__.lstrip("_")
    return _AsBase(name, (made,), {"__init__": begin})


class _AsBase(type):
    """Instances of the base class are instances of the class too, whoever made them."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.__mro__[1])


class _Device:
    def __init__(self, cupy: HostCupy, number: int) -> None:
        self._cupy, self.id = cupy, number
        self._before: list[int] = []

    @property
    def compute_capability(self) -> str:
        return self._cupy.abilities[self.id]

    def __enter__(self) -> _Device:
        self._before.append(self._cupy.current_device)
        self._cupy.current_device = self.id
        return self

    def __exit__(self, *error: object) -> None:
        self._cupy.current_device = self._before.pop()


class _Stream:
    """Work in order; done up to a point when somebody waits for that point."""

    def __init__(self, cupy: HostCupy, device: int) -> None:
        self._cupy, self.device_id = cupy, device
        self.ptr = id(self)
        self._queue: deque[Callable[[], object]] = deque()
        self._queued = self._done = 0
        self._lock = threading.RLock()

    def __enter__(self) -> _Stream:
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


class _Event:
    def __init__(self, cupy: HostCupy, *, block: bool) -> None:
        self._cupy = cupy
        assert block  # else waiting threads would burn the cores that readers need
        self._stream: _Stream | None = None
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


def _elapsed(begin: _Event, end: _Event) -> float:
    """Milliseconds."""
    if begin.at is None or end.at is None:
        raise CUDARuntimeError("cudaErrorNotReady: device not ready")
    return (end.at - begin.at) * 1e3


class _Memory:
    """Device memory of exactly so many bytes, so that a sanitizer sees the first one beyond."""

    def __init__(self, cupy: HostCupy, size: int) -> None:
        self.size, self.device_id = size, cupy.current_device
        self.host: Bytes = np.full(size, GARBAGE, np.uint8)
        assert self.host.ctypes.data % 16 == 0
        # As CuPy's pools do, give it back to the stream that it was taken on.
        host, stream = self.host, cupy.current_stream()
        weakref.finalize(self, stream.put_back, host).atexit = False


class _Pinned(bytearray):
    """Host memory; garbage as soon as it is free."""

    def __init__(self, cupy: HostCupy, size: int) -> None:
        super().__init__(bytes([GARBAGE]) * size)
        self._graveyard = cupy._graveyard

    def __del__(self) -> None:
        self[:] = bytes([GARBAGE]) * len(self)
        self._graveyard.append(self)  # addresses of it that are still queued stay readable


class _Pool:
    def __init__(self, cupy: HostCupy) -> None:
        self._cupy = cupy

    def malloc(self, size: int) -> _Pointer:
        return _Pointer(self._cupy, self._cupy.take(size), 0)

    def free_all_blocks(self) -> None:
        pass


class _Pointer:
    """`cupy.cuda.MemoryPointer`."""

    def __init__(self, cupy: HostCupy, memory: _Memory, offset: int) -> None:
        self._cupy, self.mem, self.offset = cupy, memory, offset
        self.ptr = memory.host.ctypes.data + offset

    def bytes(self, size: int) -> Bytes:
        part = self.mem.host[self.offset : self.offset + size]
        assert part.size == size, "beyond the end of device memory"
        return part

    def copy_from_host_async(self, address: int, size: int, stream: _Stream) -> None:
        self._cupy.uploads += 1
        target = self._on(stream, size)
        stream.put(lambda: np.copyto(target, _host_bytes(address, size)))

    def copy_to_host_async(self, address: int, size: int, stream: _Stream) -> None:
        source = self._on(stream, size)
        stream.put(lambda: np.copyto(_host_bytes(address, size), source))

    def copy_from_device_async(self, other: _Pointer, size: int) -> None:
        stream = self._cupy.current_stream()
        target, source = self._on(stream, size), other._on(stream, size)
        stream.put(lambda: np.copyto(target, source))

    def memset_async(self, value: int, size: int, stream: _Stream) -> None:
        target = self._on(stream, size)
        stream.put(lambda: target.fill(value))

    def _on(self, stream: _Stream, size: int) -> Bytes:
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
        cupy: HostCupy,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike = float,
        memptr: _Pointer | None = None,
    ) -> None:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._cupy = cupy
        self.data = memptr if memptr is not None else _Pointer(cupy, cupy.take(max(size, 1)), 0)
        self.host: npt.NDArray[Any] = self.data.bytes(size).view(dtype).reshape(shape)

    def _like(self, host: npt.NDArray[Any]) -> Array:
        """An array of the same memory."""
        array = Array.__new__(Array)
        begin = self.data.mem.host.ctypes.data
        array._cupy, array.host = self._cupy, host
        array.data = _Pointer(self._cupy, self.data.mem, host.ctypes.data - begin if host.size else 0)
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
    def device(self) -> _Device:
        return _Device(self._cupy, self.data.mem.device_id)

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


class _RawModule:
    """Kernels for the host executor, compiled on first use."""

    def __init__(self, cupy: HostCupy, *, code: str, options: tuple[str, ...]) -> None:
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


def _argument(cupy: HostCupy, argument: Any) -> Any:
    if isinstance(argument, Array):
        _check_device("a kernel", cupy.current_device, "memory", argument.data.mem.device_id)
        return argument.host
    if isinstance(argument, np.generic):
        return argument
    raise TypeError(f"Unsupported type {type(argument)}")
