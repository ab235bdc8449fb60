"""A device of NumPy arrays whose kernels run in the host executor, and a source of failures."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_eval.engines import launch
from gpu_eval.engines.device import Bytes, OutOfDeviceMemory
from tests.support.host_cuda import build

GARBAGE = 0xA5

# The host executor runs one kernel at a time.
_EXECUTOR = threading.Lock()


class HostEvent:
    def __init__(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass


class HostDevice:
    """Everything is done at once, in a schedule and sanitizer mode; allocations above `free` bytes fail.

    `free` may be set while it is in use. `refused` counts the allocations that failed, `uploads` and
    `launches` what their names say. New memory holds garbage.
    """

    def __init__(self, *, free: int = 1 << 30, schedule: str = "forward", mode: str = "plain") -> None:
        self.free, self.schedule, self.mode = free, schedule, mode
        self.refused = self.uploads = self.launches = 0
        self._alive: list[weakref.ref[Bytes]] = []
        self._modules: dict[str, build.HostModule] = {}

    def describe(self) -> str:
        return "host executor"

    def free_memory(self) -> int:
        return self.free

    def allocated(self) -> int:
        """Bytes that are allocated and in use."""
        alive = [(reference, array) for reference in self._alive if (array := reference()) is not None]
        self._alive = [reference for reference, _ in alive]
        return sum(array.nbytes for _, array in alive)

    def allocate(self, size: int) -> Bytes:
        if self.allocated() + size > self.free:
            self.refused += 1
            raise OutOfDeviceMemory(f"{size} bytes of {self.free}")
        array = _memory(size)
        self._alive.append(weakref.ref(array))
        return array

    def pinned(self, size: int) -> Bytes:
        return _memory(size)

    def stream(self) -> AbstractContextManager[object]:
        return nullcontext()

    def upload(self, host: npt.NDArray[Any], target: Bytes) -> None:
        self.uploads += 1
        assert target.flags.c_contiguous
        target.view(np.uint8).reshape(-1)[:] = host.reshape(-1).view(np.uint8)

    def download(self, source: Bytes, host: npt.NDArray[Any]) -> None:
        assert host.flags.c_contiguous
        host.reshape(-1).view(np.uint8)[:] = source.reshape(-1).view(np.uint8)

    def zero(self, target: Bytes) -> None:
        target[:] = 0

    def module(self, source: launch.Source) -> launch.Module:
        key = f"{source.file}{sorted(source.defines.items())}"
        if key not in self._modules:
            self._modules[key] = build.load(
                source.text(),
                source.options(),
                schedule=self.schedule,
                mode=self.mode,
                name=f"kernels/{source.file}",
            )
        return _Counted(self._modules[key], self)

    def record(self) -> HostEvent:
        return HostEvent()

    def seconds(self, begin: HostEvent, end: HostEvent) -> float:
        return end.at - begin.at

    def close(self) -> None:
        pass


class _Counted:
    """A module that counts launches."""

    def __init__(self, module: build.HostModule, device: HostDevice) -> None:
        self._module, self._device = module, device

    def get_function(self, name: str, /) -> Callable[..., None]:
        function = self._module.get_function(name)

        def launched(*arguments: Any) -> None:
            self._device.launches += 1
            with _EXECUTOR:
                function(*arguments)

        return launched


def _memory(size: int) -> Bytes:
    """Exactly so many bytes, so that a sanitizer sees the first one beyond."""
    memory = np.full(size, GARBAGE, np.uint8)
    assert memory.ctypes.data % 16 == 0
    return memory
