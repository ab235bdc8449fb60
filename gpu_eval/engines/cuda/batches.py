"""How batches go through lanes: while the device works on one, the host reads the next.

A batch is a generator that yields whenever it has put work on its lane's stream, and goes on when that work
is waited for anyway. It takes what fits from what is to be done and leaves the rest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from queue import Empty, SimpleQueue
from typing import TypeVar

from gpu_eval.engines.cuda.device import Device, OutOfDeviceMemory
from gpu_eval.engines.cuda.lane import Lane

LANES = 2

# Share of the free device memory that the lanes may take; the rest is for the caller's own arrays.
MEMORY_SHARE = 0.8
LEAST_BUDGET = 1 << 20

# Enough streams to hide most of the latency of one, few enough for reading and counting to overlap.
PAIRS, FILES = 512, 2048

# Encoded bytes of a batch: what a lane pins of the host's memory. A larger image makes a batch of its own.
BATCH_BYTES = 256 << 20

Batch = Iterator[None]
Step = TypeVar("Step")


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


def drive(lanes: Lanes, start: Callable[[Lane], Batch | None]) -> None:
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


def fitted(
    lane: Lane,
    limits: Limits,
    picks: list[int],
    attempt: Callable[[list[int]], Step | None],
    too_many: Callable[[list[int], int], None],
) -> Step | None:
    """What `attempt` makes of as many of the picks as fit; None where that is nothing.

    Where memory runs out the budget and the picks are halved, and `too_many` gets the other half and how many
    are tried next. What does not fit alone is not among them: it stays without a result.
    """
    while picks:
        try:
            return attempt(picks)
        except OutOfDeviceMemory:
            lane.settle()
            lane.free()
            limits.halve()
            half = len(picks) // 2
            too_many(picks[half:] if half else [], half)
            picks = picks[:half]
    return None


def _free_lane(lanes: Lanes, *, patient: bool) -> Lane | None:
    if patient:
        return lanes.get()
    try:
        return lanes.get_nowait()
    except Empty:
        return None
