"""The contract of an engine. Who implements it is chosen in `choose`.

An engine turns the encoded files of images into small integers: one result per image. What there is to know
of a task, and what is found out about an image, are the task's own (`semantic`, `instance`); an engine finds
its file of the task by the task's word. Engines agree to the last integer; `tests/engines` holds all of them
to one slow reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Generic, Protocol, TypeVar

from gpu_eval.inputs.sources import Source

Image = TypeVar("Image")
Result = TypeVar("Result")


class Job(Generic[Image, Result]):
    """What an engine must know of a task besides the files; it travels. `task` is the registry's word."""

    task: ClassVar[str]


class Engine(Protocol):
    """One device's worth of decoding and counting."""

    name: str

    def describe(self) -> str:
        """One line for `gpu-eval info` and `run.json`: device, threads, libraries."""

    def count(
        self, job: Job[Image, Result], images: Sequence[Image], gts: Source, preds: Source
    ) -> list[Result]:
        """One result per image, in input order; an image that cannot be counted is a result too."""

    def take_seconds(self) -> dict[str, float]:
        """Seconds by stage since the last call, summed over threads: of read, decode, copy and kernel."""

    def close(self) -> None:
        """Free threads and device memory."""
