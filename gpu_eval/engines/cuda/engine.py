"""The CUDA engine: encoded files go to the device, small counts come back.

Batches of images go through the lanes of one device (`batches`); how those of a task are counted is in the
file of the task's name. Images that the kernels do not take, or stumble over, go to a CPU engine: results and
errors are its own then.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from gpu_eval import registry
from gpu_eval.engines.cpu.engine import CpuEngine
from gpu_eval.engines.cuda.batches import LANES, Batches, Lanes, Limits, run_batches
from gpu_eval.engines.cuda.cupy_device import CupyDevice
from gpu_eval.engines.cuda.device import Device, failures_told
from gpu_eval.engines.cuda.lane import Lane, Stopwatch
from gpu_eval.engines.engine import Image, Job, Result
from gpu_eval.inputs.sources import Source


class CudaEngine:
    """Counts on one device, with `threads` host threads for reading and for what is left to the CPU.

    `threads` is the cores this process may use, `device` the first usable CUDA device, and `limits` what
    fits its memory, unless given. Raises EngineUnavailable where there is no device; counting raises
    DeviceFailed where it fails, for which no image is to blame.
    """

    name = "cuda"

    def __init__(
        self, threads: int | None = None, *, device: Device | None = None, limits: Limits | None = None
    ) -> None:
        self._device: Device = CupyDevice() if device is None else device
        self._cpu = CpuEngine(threads)
        self._stopwatch = Stopwatch()
        self._limits = limits or Limits(self._device)
        self._made = [Lane(self._device, self._stopwatch) for _ in range(LANES)]
        self._lanes = Lanes()
        for lane in self._made:
            self._lanes.put(lane)
        readers = self._cpu.threads
        self._readers = (
            ThreadPoolExecutor(readers, thread_name_prefix="gpu-eval-read") if readers > 1 else None
        )

    def describe(self) -> str:
        return f"{self._device.describe()}; {self._cpu.threads} threads"

    def count(
        self, job: Job[Image, Result], images: Sequence[Image], gts: Source, preds: Source
    ) -> list[Result]:
        task = registry.module("engines/cuda", job.task)
        batches: Batches[Image, Result] = task.batches(
            job, images, gts, preds, limits=self._limits, readers=self._readers
        )
        with failures_told(self._device):
            run_batches(self._lanes, batches.start)
        results, left = batches.results, batches.left
        if left:
            counted = self._cpu.count(job, [images[i] for i in left], gts, preds)
            results.update(zip(left, counted, strict=True))
        return [results[i] for i in range(len(images))]

    def take_seconds(self) -> dict[str, float]:
        """`copy` and `kernel` are device time of both streams, which overlap; `decode` is the CPU's, of the
        images that were left to it."""
        left = self._cpu.take_seconds()
        taken = self._stopwatch.take()
        return {**taken, "read": taken["read"] + left["read"], "decode": left["decode"]}

    def close(self) -> None:
        if self._readers is not None:
            self._readers.shutdown(cancel_futures=True)
        self._cpu.close()
        for lane in self._made:
            lane.free()
        self._device.close()
