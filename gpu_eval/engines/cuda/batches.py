"""How batches go through lanes: while the device works on one, the host reads the next.

A batch is a generator that yields whenever it has put work on its lane's stream, and goes on when that work
is waited for anyway. It takes what fits from what is to be done and leaves the rest. Its life is the same for
every task; what is read, launched and collected is the task's own (`Batches`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic

from gpu_eval.engines.cuda.device import Device, OutOfDeviceMemory
from gpu_eval.engines.cuda.files import Files, read_files
from gpu_eval.engines.cuda.lane import Lane
from gpu_eval.engines.engine import Image, Result
from gpu_eval.inputs.sources import Entry, Source

LANES = 2

# Share of the free device memory that the lanes may take; the rest is for the caller's own arrays.
MEMORY_SHARE = 0.8
LEAST_BUDGET = 1 << 20

# Enough streams to hide most of the latency of one, few enough for reading and counting to overlap.
PAIRS, FILES = 512, 2048

# Encoded bytes of a batch: what a lane pins of the host's memory. A larger image makes a batch of its own.
BATCH_BYTES = 256 << 20

Batch = Iterator[None]


class Lanes(SimpleQueue[Lane]):
    """The lanes of a device that no batch has now."""


class Limits:
    """How much a batch may take; `budget`, its bytes of device memory, learns from what failed.

    Shared by all lanes. `pairs` are those of a semantic batch, `files` gts and masks of an instance batch,
    `bytes` the encoded ones of any.
    """

    def __init__(
        self, device: Device, *, pairs: int = PAIRS, files: int = FILES, bytes: int = BATCH_BYTES
    ) -> None:
        self.budget = int(device.free_memory() * MEMORY_SHARE) // LANES
        self.pairs, self.files, self.bytes = pairs, files, bytes

    def halve(self) -> None:
        self.budget = max(self.budget // 2, LEAST_BUDGET)


def run_batches(lanes: Lanes, start: Callable[[Lane], Batch | None]) -> None:
    """Run batches to their end, several at a time where lanes are free.

    `start` gives a batch that will work in this lane, or None where nothing is left to be done. Other threads
    may drive batches through the same lanes: one that has a lane never waits for a second one.
    """
    running: deque[tuple[Lane, Batch]] = deque()
    more = True
    try:
        while more or running:
            lane = _free_lane(lanes, patient=not running) if more else None
            if lane is not None:
                batch = start(lane)
                if batch is None:
                    more = False
                    lanes.put(lane)
                    continue
                running.append((lane, batch))
            else:
                running.rotate(-1)  # the oldest step is the last now
            if next(running[-1][1], StopIteration) is StopIteration:
                lanes.put(running.pop()[0])
    finally:
        with ExitStack() as given_up:  # all lanes go back, also those of a device that has failed
            for lane, _ in running:
                given_up.callback(lanes.put, lane)
                given_up.callback(lane.settle)


def _free_lane(lanes: Lanes, *, patient: bool) -> Lane | None:
    if patient:
        return lanes.get()
    try:
        return lanes.get_nowait()
    except Empty:
        return None


@dataclass(frozen=True)
class Launched:
    """What a batch has put on its lane's stream: `then`, one after the other, each once the work before it is
    waited for; and the images, by index, that did not fit beside the others."""

    then: Sequence[Callable[[Lane], None]]
    beyond: Sequence[int] = ()


class Batches(ABC, Generic[Image, Result]):
    """The images of one call on their way through the lanes.

    `results`, by index, are those that a device can give; the other images are `left`. `entries`, by index,
    are the files of those that are worth a batch: the gt, then the predictions. A batch holds at most `most`
    files; one that did not fit lowers the limit to what did, and each one that fits doubles it again.
    """

    def __init__(
        self,
        images: Sequence[Image],
        gts: Source,
        preds: Source,
        *,
        limits: Limits,
        readers: ThreadPoolExecutor | None,
        most: int,
    ) -> None:
        self.images, self.gts, self.preds = images, gts, preds
        self.limits, self.readers = limits, readers
        self.results: dict[int, Result] = {}
        self._limit = self._most = most
        listed = enumerate(map(self.files, images))
        self.entries = {i: entries for i, entries in listed if entries is not None}
        self._todo = deque(self.entries)

    @abstractmethod
    def files(self, image: Image) -> Sequence[Entry] | None:
        """The gt and the predictions of an image; None where it is left to the CPU without a look."""

    @abstractmethod
    def launch(self, lane: Lane, picks: list[int], files: Files) -> Launched | None:
        """Put as many of these images on the device as fit; None if it takes none of them.

        `files` are their gts, then their predictions. Raises OutOfDeviceMemory.
        """

    @property
    def left(self) -> list[int]:
        """The images without a result, in input order."""
        return [i for i in range(len(self.images)) if i not in self.results]

    def start(self, lane: Lane) -> Batch | None:
        """The next batch; None where all images have been in one."""
        if not self._todo:
            return None
        picks: list[int] = []
        files = size = 0
        while self._todo:
            entries = self.entries[self._todo[0]]
            files += len(entries)
            size += sum([entry.size for entry in entries])
            if picks and (files > self._limit or size > self.limits.bytes):
                break
            picks.append(self._todo.popleft())
        return self._run(lane, picks)

    def _run(self, lane: Lane, picks: list[int]) -> Batch:
        launched = self._launch_what_fits(lane, picks)
        for step in () if launched is None else launched.then:
            yield
            try:
                step(lane)
            except OutOfDeviceMemory:  # in the middle of a batch: its images are left to the CPU
                lane.settle()
                lane.free()
                return

    def _launch_what_fits(self, lane: Lane, picks: list[int]) -> Launched | None:
        """Launch these images, or half of them and so on; what does not fit alone stays without a result."""
        while picks:
            try:
                launched = self.launch(lane, picks, self._read(lane, picks))
            except OutOfDeviceMemory:
                lane.settle()
                lane.free()
                self.limits.halve()
                half = len(picks) // 2
                self._put_back(picks[half:] if half else ())
                picks = picks[:half]
                self._limit = self._number(picks)
                continue
            if launched is not None:
                self._put_back(launched.beyond)
                fitted = picks[: len(picks) - len(launched.beyond)]
                self._limit = self._number(fitted) if launched.beyond else min(2 * self._limit, self._most)
            return launched
        return None

    def _read(self, lane: Lane, picks: Sequence[int]) -> Files:
        entries = [self.entries[i] for i in picks]
        gts = [gt for gt, *_ in entries]
        preds = [pred for _, *of_image in entries for pred in of_image]
        return read_files(lane, [(self.gts, gts), (self.preds, preds)], self.readers)

    def _put_back(self, picks: Sequence[int]) -> None:
        self._todo.extendleft(reversed(picks))

    def _number(self, picks: Sequence[int]) -> int:
        """How many files these images have: the limit that lets as many through again."""
        return max(sum(len(self.entries[i]) for i in picks), 1)
