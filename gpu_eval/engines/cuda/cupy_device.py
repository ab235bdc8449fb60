"""A CUDA device by CuPy, or in a line why there is none. The only file that imports CuPy."""

from __future__ import annotations

import importlib.util
import threading
from contextlib import AbstractContextManager, ExitStack, suppress
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_eval.engines.cuda import kernels
from gpu_eval.engines.cuda.device import Bytes, DeviceArray, Event, OutOfDeviceMemory, first_line
from gpu_eval.errors import EngineUnavailable

# The oldest compute capability that the kernels are compiled for, as CuPy writes it: 7.5.
OLDEST = 75

INSTALL = "pip install 'gpu-eval[cuda12]' or 'gpu-eval[cuda13]', as the driver's CUDA version says"

# cudaErrorMemoryAllocation (driver_types.h).
_OUT_OF_MEMORY = 2


def available() -> tuple[bool, str, int]:
    """Whether the CUDA engine serves here, on what or why not in one line, and on how many devices."""
    try:
        cupy = import_cupy()
        devices = usable_devices(cupy)
    except EngineUnavailable as error:
        return False, str(error), 0
    names = [_name(cupy.cuda.runtime.getDeviceProperties(device)) for device in devices]
    return True, f"{', '.join(names)}; CuPy {cupy.__version__}", len(devices)


def import_cupy() -> ModuleType:
    """CuPy. Raises EngineUnavailable, which says what to install."""
    if importlib.util.find_spec("cupy") is None:
        raise EngineUnavailable("CuPy is not installed", fix=INSTALL)
    try:
        import cupy
    except ImportError as error:
        raise EngineUnavailable(
            "CuPy does not import", found=first_line(error), fix=f"reinstall: {INSTALL}"
        ) from error
    module: ModuleType = cupy
    return module


def usable_devices(cupy: ModuleType) -> list[int]:
    """The devices that the kernels run on. Raises EngineUnavailable, which says what is in the way."""
    runtime = cupy.cuda.runtime
    try:
        driver, built_for = runtime.driverGetVersion(), runtime.runtimeGetVersion()
        if driver == 0:
            raise EngineUnavailable("there is no NVIDIA driver", fix="install one, or use --engine cpu")
        if driver // 1000 < built_for // 1000:
            raise EngineUnavailable(
                "CuPy is built for a newer CUDA than the driver knows",
                found=f"CUDA {driver // 1000}",
                expected=f"CUDA {built_for // 1000}",
                fix=f"pip install 'gpu-eval[cuda{driver // 1000}]' in its place, or update the driver",
            )
        count = runtime.getDeviceCount()
        abilities = [int(cupy.cuda.Device(device).compute_capability) for device in range(count)]
    except runtime.CUDARuntimeError as error:
        raise EngineUnavailable(
            "no CUDA device can be used", found=first_line(error), fix="see nvidia-smi, or use --engine cpu"
        ) from error
    if count == 0:
        raise EngineUnavailable("there is no CUDA device", fix="use --engine cpu")
    try:
        cupy.cuda.nvrtc.getVersion()
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineUnavailable(
            "NVIDIA's runtime compiler is missing", found=first_line(error), fix=INSTALL
        ) from error
    usable = [device for device, ability in enumerate(abilities) if ability >= OLDEST]
    if not usable:
        best = max(abilities)
        raise EngineUnavailable(
            "the CUDA device is too old",
            found=f"compute capability {best // 10}.{best % 10}",
            expected=f"{OLDEST // 10}.{OLDEST % 10} or newer",
            fix="use --engine cpu",
        )
    return usable


def _name(properties: dict[str, Any]) -> str:
    memory = properties["totalGlobalMem"] / 2**30
    capability = f"{properties['major']}.{properties['minor']}"
    return f"{properties['name'].decode()} ({memory:.0f} GiB, compute capability {capability})"


class CupyDevice:
    """A CUDA device with a memory pool of its own: the first one that the kernels run on, unless told which.

    It need not be the current device of the threads that use it. Raises EngineUnavailable if there is none.
    """

    def __init__(self, number: int | None = None) -> None:
        self._cupy: Any = import_cupy()
        usable = usable_devices(self._cupy)
        if number is not None and number not in usable:
            raise EngineUnavailable(
                f"CUDA device {number} is too old or does not exist",
                expected=f"one of {', '.join(map(str, usable))}",
                fix="move the arrays to another device",
            )
        self._id = usable[0] if number is None else number
        cuda = self._cupy.cuda
        self.failures: tuple[type[Exception], ...] = (
            cuda.runtime.CUDARuntimeError,
            cuda.driver.CUDADriverError,
            cuda.compiler.CompileException,
        )
        self._pool = cuda.MemoryPool()
        self._modules: dict[tuple[str, tuple[str, ...]], kernels.Module] = {}
        self._lock = threading.Lock()

    def describe(self) -> str:
        name = _name(self._cupy.cuda.runtime.getDeviceProperties(self._id))
        return f"{name}; CuPy {self._cupy.__version__}"

    def free_memory(self) -> int:
        with self._cupy.cuda.Device(self._id):
            return int(self._cupy.cuda.runtime.memGetInfo()[0])

    def allocate(self, size: int) -> DeviceArray:
        try:
            with self._cupy.cuda.Device(self._id):
                memory = self._pool.malloc(max(size, 1))
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            raise OutOfDeviceMemory(first_line(error)) from error
        return self._cupy.ndarray((size,), np.uint8, memptr=memory)

    def pinned(self, size: int) -> Bytes:
        try:
            memory = self._cupy.cuda.alloc_pinned_memory(max(size, 1))
        except self._cupy.cuda.runtime.CUDARuntimeError as error:
            if error.status != _OUT_OF_MEMORY:
                raise
            raise OutOfDeviceMemory(first_line(error)) from error
        return np.frombuffer(memory, np.uint8, size)

    def stream(self) -> AbstractContextManager[object]:
        return _Stream(self._cupy, self._id)

    def upload(self, host: npt.NDArray[Any], target: DeviceArray) -> None:
        stream = self._cupy.cuda.get_current_stream()
        target.data.copy_from_host_async(host.ctypes.data, host.nbytes, stream)

    def download(self, source: DeviceArray, host: npt.NDArray[Any]) -> None:
        stream = self._cupy.cuda.get_current_stream()
        source.data.copy_to_host_async(host.ctypes.data, host.nbytes, stream)

    def zero(self, target: DeviceArray) -> None:
        target.data.memset_async(0, target.nbytes, self._cupy.cuda.get_current_stream())

    def module(self, source: kernels.Source) -> kernels.Module:
        key = (source.file, source.options())
        with self._lock:
            if key not in self._modules:
                self._modules[key] = self._cupy.RawModule(code=source.text(), options=source.options())
            return self._modules[key]

    def record(self) -> Event:
        event = self._cupy.cuda.Event(block=True)  # waiting threads sleep: readers need the core
        event.record()
        made: Event = event
        return made

    def seconds(self, begin: Event, end: Event) -> float:
        return float(self._cupy.cuda.get_elapsed_time(begin, end)) / 1e3

    def close(self) -> None:
        self._modules.clear()
        with suppress(*self.failures), self._cupy.cuda.Device(self._id):
            self._pool.free_all_blocks()


class _Stream(AbstractContextManager[None]):
    """A stream of a device, which is made the current one with it: CuPy refuses a stream of any other."""

    def __init__(self, cupy: Any, device: int) -> None:
        self._cupy, self._device = cupy, device
        with cupy.cuda.Device(device):
            self._stream = cupy.cuda.Stream(non_blocking=True)
        self._entered: list[ExitStack] = []

    def __enter__(self) -> None:
        with ExitStack() as stack:
            stack.enter_context(self._cupy.cuda.Device(self._device))
            stack.enter_context(self._stream)
            self._entered.append(stack.pop_all())

    def __exit__(self, *error: object) -> None:
        self._entered.pop().close()
