"""The CUDA engine: encoded files go to the device, one matrix per image comes back. The only user of CuPy.

`CupyDevice` is the device; what happens on it is `pipeline_pairs`, `pipeline_overlaps` and `pipeline_arrays`.
Images that the kernels do not take, or stumble over, go to a CPU engine: results and errors are its own then.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpu_eval.engines.counts import different_shapes
from gpu_eval.engines.cuda import kernels as launch
from gpu_eval.engines.cuda.device import Bytes, Device, DeviceArray, Event, OutOfDeviceMemory
from gpu_eval.engines.engine import Confusion, ImageOverlaps, ImageResult, ScoreTask
from gpu_eval.errors import DeviceFailed, EngineUnavailable, OptionError
from gpu_eval.inputs.instance_split import InstanceImage
from gpu_eval.inputs.pairs import Pair
from gpu_eval.inputs.sources import Source

if TYPE_CHECKING:
    from gpu_eval.engines.cpu.engine import CpuEngine
    from gpu_eval.engines.cuda.arrays import DeviceLabels
    from gpu_eval.engines.cuda.batches import Lanes, Limits

# The oldest compute capability that the kernels are compiled for, as CuPy writes it: 7.5.
OLDEST = 75

INSTALL = "pip install 'gpu-eval[cuda12]' or 'gpu-eval[cuda13]', as the driver's CUDA version says"

# cudaErrorMemoryAllocation (driver_types.h).
_OUT_OF_MEMORY = 2

# DLPack's numbers of memory that a CUDA device can read (dlpack.h): kDLCUDA, kDLCUDAManaged.
_ON_CUDA = (2, 13)


def available() -> tuple[bool, str, int]:
    """Whether the CUDA engine serves here, on what or why not in one line, and on how many devices."""
    try:
        cupy = _import_cupy()
        devices = _devices(cupy)
    except EngineUnavailable as error:
        return False, str(error), 0
    names = [_name(cupy.cuda.runtime.getDeviceProperties(device)) for device in devices]
    return True, f"{', '.join(names)}; CuPy {cupy.__version__}", len(devices)


def _import_cupy() -> ModuleType:
    """CuPy. Raises EngineUnavailable, which says what to install."""
    if importlib.util.find_spec("cupy") is None:
        raise EngineUnavailable("CuPy is not installed", fix=INSTALL)
    try:
        import cupy
    except ImportError as error:
        raise EngineUnavailable(
            "CuPy does not import", found=_line(error), fix=f"reinstall: {INSTALL}"
        ) from error
    module: ModuleType = cupy
    return module


def _devices(cupy: ModuleType) -> list[int]:
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
            "no CUDA device can be used", found=_line(error), fix="see nvidia-smi, or use --engine cpu"
        ) from error
    if count == 0:
        raise EngineUnavailable("there is no CUDA device", fix="use --engine cpu")
    try:
        cupy.cuda.nvrtc.getVersion()
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineUnavailable(
            "NVIDIA's runtime compiler is missing", found=_line(error), fix=INSTALL
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


def _line(error: BaseException) -> str:
    """The first line of an error's text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _name(properties: dict[str, Any]) -> str:
    memory = properties["totalGlobalMem"] / 2**30
    capability = f"{properties['major']}.{properties['minor']}"
    return f"{properties['name'].decode()} ({memory:.0f} GiB, compute capability {capability})"


class CupyDevice:
    """A CUDA device with a memory pool of its own: the first one that the kernels run on, unless told which.

    It need not be the current device of the threads that use it. Raises EngineUnavailable if there is none.
    """

    def __init__(self, number: int | None = None) -> None:
        self._cupy: Any = _import_cupy()
        usable = _devices(self._cupy)
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
        self._modules: dict[tuple[str, tuple[str, ...]], launch.Module] = {}
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
            raise OutOfDeviceMemory(_line(error)) from error
        return self._cupy.ndarray((size,), np.uint8, memptr=memory)

    def pinned(self, size: int) -> Bytes:
        try:
            memory = self._cupy.cuda.alloc_pinned_memory(max(size, 1))
        except self._cupy.cuda.runtime.CUDARuntimeError as error:
            if error.status != _OUT_OF_MEMORY:
                raise
            raise OutOfDeviceMemory(_line(error)) from error
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

    def module(self, source: launch.Source) -> launch.Module:
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


@contextmanager
def _told(device: Device) -> Iterator[None]:
    """Say in one line that the device failed. Raises DeviceFailed."""
    try:
        yield
    except device.failures as error:
        raise DeviceFailed(
            "the CUDA device failed",
            found=_line(error),
            fix="see nvidia-smi and the system's log; --resume finishes a run in a new process, with "
            "--engine cpu without the device",
        ) from error


class CudaEngine:
    """Scores on one device, with `threads` host threads for reading and for what is left to the CPU.

    `threads` is the cores this process may use, `device` the first usable CUDA device, and `limits` what
    fits its memory, unless given. Raises EngineUnavailable where there is no device; scoring raises
    DeviceFailed where it fails, for which no image is to blame.
    """

    name = "cuda"

    def __init__(
        self, threads: int | None = None, *, device: Device | None = None, limits: Limits | None = None
    ) -> None:
        from gpu_eval.engines.cpu.engine import CpuEngine
        from gpu_eval.engines.cuda.batches import LANES, Lanes, Limits
        from gpu_eval.engines.cuda.lane import Lane, Stopwatch

        self._device: Device = CupyDevice() if device is None else device
        self._cpu: CpuEngine = CpuEngine(threads)
        self._stopwatch = Stopwatch()
        self._limits = limits or Limits(self._device)
        self._made = [Lane(self._device, self._stopwatch) for _ in range(LANES)]
        self._lanes: Lanes = Lanes()
        for lane in self._made:
            self._lanes.put(lane)
        readers = self._cpu.threads
        self._arrays_stream, self._arrays_lock = self._device.stream(), threading.Lock()
        self._readers = (
            ThreadPoolExecutor(readers, thread_name_prefix="gpu-eval-read") if readers > 1 else None
        )

    def describe(self) -> str:
        return f"{self._device.describe()}; {self._cpu.threads} threads"

    def close(self) -> None:
        if self._readers is not None:
            self._readers.shutdown(cancel_futures=True)
        self._cpu.close()
        for lane in self._made:
            lane.free()
        self._device.close()

    def take_seconds(self) -> dict[str, float]:
        """`copy` and `kernel` are device time of both streams, which overlap; `decode` is the CPU's, of the
        images that were left to it."""
        left = self._cpu.take_seconds()
        taken = self._stopwatch.take()
        return {**taken, "read": taken["read"] + left["read"], "decode": left["decode"]}

    def score(self, pairs: Sequence[Pair], gts: Source, preds: Source, task: ScoreTask) -> list[ImageResult]:
        from gpu_eval.engines.cuda.batches import drive
        from gpu_eval.engines.cuda.semantic import PairScoring

        scoring = PairScoring(pairs, gts, preds, task, limits=self._limits, readers=self._readers)
        with _told(self._device):
            drive(self._lanes, scoring.start)
        left = scoring.left
        if left:
            results = self._cpu.score([pairs[i] for i in left], gts, preds, task)
            scoring.results.update(zip(left, results, strict=True))
        return [scoring.results[i] for i in range(len(pairs))]

    def overlaps(self, images: Sequence[InstanceImage], gts: Source, preds: Source) -> list[ImageOverlaps]:
        from gpu_eval.engines.cuda.batches import drive
        from gpu_eval.engines.cuda.instance import OverlapScoring

        scoring = OverlapScoring(images, gts, preds, limits=self._limits, readers=self._readers)
        with _told(self._device):
            drive(self._lanes, scoring.start)
        left = scoring.left
        if left:
            results = self._cpu.overlaps([images[i] for i in left], gts, preds)
            scoring.results.update(zip(left, results, strict=True))
        return [scoring.results[i] for i in range(len(images))]

    def confusion(self, gt: npt.NDArray[np.uint8], pred: npt.NDArray[np.uint8], task: ScoreTask) -> Confusion:
        from gpu_eval.engines.cuda.arrays import DeviceLabels, count_labels

        height, width = gt.shape
        if not gt.size:
            return np.zeros((task.n_classes + 2,) * 2, np.int64)
        held = [np.ascontiguousarray(side, np.uint8) for side in (gt, pred)]  # until the copies are done
        with _told(self._device), self._arrays_lock, self._arrays_stream:
            sides = []
            for side in held:
                memory = self._device.allocate(side.size)
                self._device.upload(side, memory)
                sides.append(DeviceLabels(memory, np.dtype(np.uint8), height, width, width))
            return count_labels(self._device, sides[0], sides[1], task)


# --- arrays that are on a device already ---------------------------------------------------------


def confusion_on_device(gt: Any, pred: Any, task: ScoreTask) -> Confusion:
    """Joint count of two integer arrays of one shape that are on one CUDA device; see `Engine.confusion`.

    Arrays whose rows are contiguous are counted where they are, on CuPy's current stream of that device,
    after what the arrays' own library has put on its own. The result is waited for.

    Raises OptionError for arrays of other types or shapes, or on two devices, and EngineUnavailable where
    the kernels do not run on that device.
    """
    from gpu_eval.engines.cuda.arrays import count_labels, flat_shape

    _devices(_import_cupy())
    arrays = [_as_cupy(side, name) for side, name in ((gt, "gt"), (pred, "pred"))]
    numbers = [int(array.device.id) for array in arrays]
    if numbers[0] != numbers[1]:
        raise OptionError(
            "gt and pred are on two devices", found=f"CUDA devices {numbers[0]} and {numbers[1]}",
            expected="gt and pred in one place", fix="move one to the other's device",
        )  # fmt: skip
    if arrays[0].shape != arrays[1].shape:
        raise different_shapes(arrays[0].shape, arrays[1].shape)
    left_over = flat_shape(arrays[0].shape)[2]
    device = _device(numbers[0])
    with _told(device), arrays[0].device:
        sides = [_labels(array) for array in arrays]
        return count_labels(device, sides[0], sides[1], task, left_over)


@cache
def _device(number: int) -> CupyDevice:
    """One device of each number for all arrays of the process, since kernels are compiled by each."""
    return CupyDevice(number)


def is_on_device(values: Any) -> bool:
    """Whether an array is in CUDA memory: CuPy's, torch's, or of any library that says so, by DLPack or
    `__cuda_array_interface__`. Imports nothing."""
    if hasattr(values, "__dlpack_device__"):
        return int(values.__dlpack_device__()[0]) in _ON_CUDA
    return hasattr(values, "__cuda_array_interface__")


def _as_cupy(values: Any, name: str) -> Any:
    """The same memory as a CuPy array, ordered after its library's current stream.

    Raises OptionError for memory that is not on a device and for labels that are no integers.
    """
    import cupy

    if not is_on_device(values):
        raise OptionError(
            f"{name} is not on the device", found=f"{type(values).__name__} in host memory",
            expected="gt and pred in one place", fix="move it to the other's device, with .cuda() for torch",
        )  # fmt: skip
    if isinstance(values, cupy.ndarray):
        array = values
    else:
        array = cupy.from_dlpack(values) if hasattr(values, "__dlpack__") else cupy.asarray(values)
    if array.dtype.kind not in "iu":
        raise OptionError(
            f"{name} is not an array of labels", found=f"dtype {array.dtype}", expected="integers",
            fix="logits need .argmax over the class axis first",
        )  # fmt: skip
    return array


def _labels(array: Any) -> DeviceLabels:
    """A CuPy array as rows of labels: in place if its rows are contiguous, else a contiguous copy."""
    import cupy

    from gpu_eval.engines.cuda.arrays import DeviceLabels, flat_shape

    rows, width, _ = flat_shape(array.shape)
    size = array.dtype.itemsize
    stride, span = width * size, array.nbytes
    if array.ndim == 2 and rows and array.strides[1] == size and array.strides[0] >= stride:
        stride = array.strides[0]
        span = (rows - 1) * stride + width * size
    elif not array.flags.c_contiguous:
        array = cupy.ascontiguousarray(array)
    memory = cupy.ndarray((span,), np.uint8, memptr=array.data)
    return DeviceLabels(memory, array.dtype, rows, width, stride)
