"""A lane: one stream with the memory of one batch at a time, and what its steps cost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_eval.engines.cuda.device import Bytes, Device, DeviceArray, Event
from gpu_eval.engines.cuda.kernels import padded

# Buffers grow by this much more than asked for, so that the next batch, a little larger, fits too.
SLACK = 8


class Stopwatch:
    """Seconds by stage: read (files and headers, summed over threads), copy and kernel (on the device)."""

    STAGES = ("read", "copy", "kernel")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = dict.fromkeys(self.STAGES, 0.0)

    def add(self, stage: str, seconds: float) -> None:
        with self._lock:
            self._seconds[stage] += seconds

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - begun)

    def take(self) -> dict[str, float]:
        """The seconds since the last call."""
        with self._lock:
            taken, self._seconds = self._seconds, dict.fromkeys(self.STAGES, 0.0)
        return taken


@dataclass(frozen=True)
class Placed:
    """An array's place in the upload of a batch."""

    at: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def on(self, slab: DeviceArray) -> DeviceArray:
        """The array in the slab it was uploaded to."""
        size = int(np.prod(self.shape)) * self.dtype.itemsize
        return slab[self.at : self.at + size].view(self.dtype).reshape(self.shape)


class Lane:
    """The pinned and the device memory of a batch, grown on demand and kept, and the stream it works on.

    A batch is put together in `staging`, goes to the device in one copy (`send`) and comes back in one
    (`fetch`). From `begin` on the lane belongs to one batch, until what `wait` gave has been used.
    """

    def __init__(self, device: Device, stopwatch: Stopwatch) -> None:
        self.device = device
        self.stopwatch = stopwatch
        self.stream = device.stream()
        self.staging: Bytes = np.zeros(0, np.uint8)
        self._used = 0
        self._fetched: Bytes = np.zeros(0, np.uint8)
        self._results = 0
        self._buffers: dict[str, DeviceArray] = {}
        self._events: list[tuple[str, Event]] = []

    # --- the host's side ------------------------------------------------------------------------

    def begin(self, size: int) -> Bytes:
        """The first `size` bytes of the staging memory, for files."""
        self._used = size
        if self.staging.size < size:
            self.staging = np.zeros(0, np.uint8)
            self.staging = self.device.pinned(size + size // SLACK + 4096)
        return self.staging[:size]

    def put(self, array: npt.NDArray[Any]) -> Placed:
        """Put an array behind what is staged. The staging memory may move: views of it are of no use then."""
        at = padded(self._used)
        self._used = at + array.nbytes
        if self.staging.size < self._used:
            larger = self.device.pinned(self._used + self._used // SLACK)
            kept = self.staging[:at]  # the memory may end within the padding
            larger[: kept.size] = kept
            self.staging = larger
        self.staging[at : self._used] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return Placed(at, array.dtype, array.shape)

    @property
    def staged(self) -> int:
        """Bytes that `send` will copy: the place of whatever is to follow them in a slab."""
        return padded(self._used)

    # --- the device's side ----------------------------------------------------------------------

    def buffer(self, name: str, size: int) -> DeviceArray:
        """`size` bytes of device memory of any content, the same ones under the same name.

        Raises OutOfDeviceMemory; the old buffer of that name is gone then.
        """
        if name not in self._buffers or self._buffers[name].size < size:
            self._buffers.pop(name, None)
            with self.stream:
                self._buffers[name] = self.device.allocate(padded(size + size // SLACK))
        return self._buffers[name][:size]

    def free(self) -> None:
        """Give all device memory back."""
        self._buffers.clear()

    def send(self, slab: DeviceArray) -> None:
        """Copy what is staged to the begin of a slab."""
        self.mark("copy")
        self.device.upload(self.staging[: self._used], slab[: self._used])

    def fetch(self, source: DeviceArray) -> None:
        """Copy results back; `wait` gives them."""
        self.mark("copy")
        if self._fetched.size < source.size:
            self._fetched = self.device.pinned(source.size + source.size // SLACK)
        self.device.download(source, self._fetched[: source.size])
        self._results = source.size
        self.mark("")

    def mark(self, stage: str) -> None:
        """What is put on the stream from here on belongs to `stage`; "" to none."""
        self._events.append((stage, self.device.record()))

    def wait(self) -> Bytes:
        """The bytes of the last `fetch`, once everything before it is done; kept until the next one."""
        self._events[-1][1].synchronize()
        for (stage, event), (_, following) in zip(self._events, self._events[1:], strict=False):
            if stage:
                self.stopwatch.add(stage, self.device.seconds(event, following))
        self._events.clear()
        return self._fetched[: self._results]

    def settle(self) -> None:
        """Wait for whatever was begun; for batches that are given up."""
        begun, self._events = self._events, []
        if begun:
            with self.stream:
                self.device.record().synchronize()
