"""CuPy on a machine without a device: memory is NumPy's, kernels run in the host executor.

`HostCupy()` is a module: as much of `cupy` as the project uses, by CuPy's own rules where they are easily
broken (a stream is entered on its own device only, host arrays are no kernel arguments, no device array
becomes a NumPy array by itself). Put it into `sys.modules`, or the folder `tests/support/host_site` on the
path of a process.

Work on a stream is done as late as CUDA may do it, when somebody waits for it, or with `eager` as early, when
it is queued. Between the two, whoever reads a result too early, frees or changes host memory too early, or
writes it too late, gets garbage: it fills memory when it is new and when it is free again.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_eval.engines.cuda.cupy_device import CupyDevice
from tests.support.host_cuda import build
from tests.support.host_cupy_objects import (
    Array,
    CompileException,
    CUDADriverError,
    CUDARuntimeError,
    Device,
    Event,
    Memory,
    OutOfMemoryError,
    Pinned,
    Pool,
    RawModule,
    Stream,
    elapsed,
)

GIB = 1 << 30


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
        self._alive: list[weakref.ref[Memory]] = []
        self._graveyard: list[Pinned] = []
        self._modules: dict[tuple[str, tuple[str, ...]], build.HostModule] = {}
        self._here = threading.local()
        self._null_streams = [Stream(self, device) for device in range(len(self.abilities))]
        self._default_pool = Pool(self)

        self.ndarray = _bound(Array, self)
        self.RawModule = _bound(RawModule, self)
        self.cuda = SimpleNamespace(
            Device=_bound(Device, self),
            Event=_bound(Event, self),
            MemoryPool=_bound(Pool, self),
            compiler=SimpleNamespace(CompileException=CompileException),
            driver=SimpleNamespace(CUDADriverError=CUDADriverError),
            Stream=self._stream,
            alloc_pinned_memory=lambda size: Pinned(self, size),
            get_current_stream=self.current_stream,
            get_elapsed_time=elapsed,
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
        with Device(self, values.__dlpack_device__()[1]):
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

    def current_stream(self) -> Stream:
        """The stream of this thread on its device."""
        entered = self.entered()
        return entered[-1] if entered else self._null_streams[self.current_device]

    def entered(self) -> list[Stream]:
        """The streams that this thread has entered on its device, the innermost last."""
        if not hasattr(self._here, "streams"):
            self._here.streams = [[] for _ in self.abilities]
        streams: list[Stream] = self._here.streams[self.current_device]
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

    def take(self, size: int) -> Memory:
        self.check()
        if self.allocated() + size > self.free:
            self.refused += 1
            raise OutOfMemoryError(f"Out of memory allocating {size} bytes of {self.free}.")
        memory = Memory(self, size)
        self._alive.append(weakref.ref(memory))
        return memory

    def _stream(self, *, non_blocking: bool) -> Stream:
        assert non_blocking  # others wait for the null stream, which is not modelled
        return Stream(self, self.current_device)

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

    return _AsBase(made.__name__, (made,), {"__init__": begin})


class _AsBase(type):
    """Instances of the base class are instances of the class too, whoever made them."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.__mro__[1])
