"""What the CUDA engine needs of a device; `cupy_device` has the one of CuPy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gpu_eval.engines.cuda import kernels
from gpu_eval.errors import DeviceFailed

Bytes = npt.NDArray[np.uint8]

# A `cupy.ndarray`: it can be sliced, viewed as another dtype and reshaped.
DeviceArray = Any


class OutOfDeviceMemory(MemoryError):
    """An allocation failed; less work at a time may fit."""


class Event(Protocol):
    """A point in a stream's work."""

    def synchronize(self) -> None:
        """Wait until the work before it is done."""


class Device(Protocol):
    """Memory, streams and kernels of one device.

    Copies, `zero`, kernels and `record` are put on the current stream, that of the innermost `with`, in
    order, and do not wait. Host memory that is copied from or to must not change until they are done.
    """

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """What all of this raises, at once or later, when the device fails. Nothing works from then on."""

    def describe(self) -> str:
        """One line: the device's name and memory, versions."""

    def free_memory(self) -> int:
        """Bytes that could be allocated now."""

    def allocate(self, size: int) -> DeviceArray:
        """uint8, shape (size,), at a multiple of 16, of any content. Raises OutOfDeviceMemory."""

    def pinned(self, size: int) -> Bytes:
        """Host memory that copies need no detour for. Raises OutOfDeviceMemory."""

    def stream(self) -> AbstractContextManager[object]:
        """A new stream, entered any number of times, by one thread at a time."""

    def upload(self, host: npt.NDArray[Any], target: DeviceArray) -> None:
        """Copy to the device; both are contiguous and of one size in bytes."""

    def download(self, source: DeviceArray, host: npt.NDArray[Any]) -> None:
        """Copy to the host; both are contiguous and of one size in bytes."""

    def zero(self, target: DeviceArray) -> None:
        """Fill a contiguous array with zeros."""

    def module(self, source: kernels.Source) -> kernels.Module:
        """The compiled kernels of a source; compiled once."""

    def record(self) -> Event:
        """Where the current stream is now."""

    def seconds(self, begin: Event, end: Event) -> float:
        """Seconds of device time between two points of a stream that are both done."""

    def close(self) -> None:
        """Free all memory."""


@contextmanager
def failures_told(device: Device) -> Iterator[None]:
    """Say in one line that the device failed. Raises DeviceFailed."""
    try:
        yield
    except device.failures as error:
        raise DeviceFailed(
            "the CUDA device failed",
            found=first_line(error),
            fix="see nvidia-smi and the system's log; --resume finishes a run in a new process, with "
            "--engine cpu without the device",
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
