"""The CPU engine: libdeflate and the Numba kernels, threads over images.

A thread reads the files of a few images into its own buffers, and spends the rest of the time in kernels that
hold no lock. How the images of a task are counted is in the file of the task's name.

Whatever the kernels do not take (16-bit, interlaced, packed palettes) or stumble over goes to
`inputs.png`, the readable decoder, which either returns the pixels or knows what is wrong with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from gpu_eval import registry
from gpu_eval.engines.cpu.threads import Threads, available_cores
from gpu_eval.engines.engine import Image, Job, Result
from gpu_eval.engines.libdeflate import load_libdeflate
from gpu_eval.errors import EngineUnavailable
from gpu_eval.inputs.sources import Source


def available() -> tuple[bool, str]:
    """Whether the CPU engine serves here, and in what shape."""
    try:
        libdeflate = load_libdeflate()
    except EngineUnavailable as error:
        return False, str(error)
    return True, f"{available_cores()} cores, libdeflate {libdeflate.version}, Numba {version('numba')}"


class CpuEngine:
    """Counts images on the CPU with `threads` threads (default: the cores this process may use)."""

    name = "cpu"

    def __init__(self, threads: int | None = None) -> None:
        self._threads = Threads(threads)

    @property
    def threads(self) -> int:
        return self._threads.count

    def describe(self) -> str:
        return f"{self.threads} threads; {available()[1]}"

    def count(
        self, job: Job[Image, Result], images: Sequence[Image], gts: Source, preds: Source
    ) -> list[Result]:
        task = registry.module("engines/cpu", job.task)
        results: list[Result] = task.count(self._threads, job, images, gts, preds)
        return results

    def take_seconds(self) -> dict[str, float]:
        """`decode` is inflating, unfiltering and counting, which are one pass here."""
        return self._threads.take_seconds()

    def close(self) -> None:
        self._threads.close()
