"""Work on shards without any image, importable by the processes of a cluster."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gpu_eval.errors import CorruptImage, DeviceFailed
from gpu_eval.scheduling.fatal_images import find_fatal_images
from gpu_eval.scheduling.shards import Shard


@dataclass(frozen=True)
class Toy:
    """Sums the numbers of a shard's images, and has accidents where it is told to.

    Each call leaves a line in `journal`/starts. Of the shards, by number, `held` wait until `journal`/go
    exists, `fragile` kill their process on the first call, `corrupt` and `broken` raise; `deadly` images kill
    it every time.
    """

    journal: Path
    held: frozenset[int] = frozenset()
    fragile: frozenset[int] = frozenset()
    corrupt: frozenset[int] = frozenset()
    broken: frozenset[int] = frozenset()
    deadly: frozenset[int] = frozenset()

    def __call__(self, shard: Shard) -> int:
        self.note(f"{shard.number} {os.getpid()}")
        if shard.number in self.fragile and len(self.pids_of(shard.number)) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if shard.number in self.held:
            wait_for((self.journal / "go").exists)
        if shard.number in self.corrupt:
            raise CorruptImage("no PNG", file=f"shard {shard.number}")
        if shard.number in self.broken:
            raise ValueError(f"broken shard {shard.number}")
        return sum(self.score(image) for image in images_of(shard))

    def score(self, image: int) -> int:
        if image in self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return image

    def note(self, line: str) -> None:
        handle = os.open(self.journal / "starts", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(handle, f"{line}\n".encode())  # one write: lines of several processes do not mix
        os.close(handle)

    def pids_of(self, number: int) -> list[int]:
        """The process of each call for a shard so far."""
        path = self.journal / "starts"
        lines = path.read_text().splitlines() if path.exists() else []
        return [int(pid) for shard, pid in map(str.split, lines) if int(shard) == number]


@dataclass(frozen=True)
class IsolatingToy(Toy):
    """A toy that knows how to find out which of its images are deadly."""

    def isolate(self, shard: Shard) -> tuple[int, ...]:
        return find_fatal_images(
            partial(score_one, self), shard.first, shard.last, timeout=60, known=shard.fatal
        )


def score_one(toy: Toy, image: int) -> int:
    return toy.score(image)


def failing_device(image: int) -> None:
    """The device fails at every image that can be divided by four."""
    if image % 4 == 0:
        raise DeviceFailed("the CUDA device failed")


def images_of(shard: Shard) -> list[int]:
    return [image for image in range(shard.first, shard.last) if image not in shard.fatal]


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.005)


def trivial(shard: Shard) -> int:
    return shard.first


def dangerous(image: int) -> None:
    """Image 2 hangs, 4 dies, 5 raises, 6 prints."""
    if image == 2:
        threading.Event().wait()
    if image == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    if image == 5:
        raise ValueError("an exception is not a death")
    if image == 6:
        os.write(1, b"7\nend\n")  # what a library may print is not taken for a report


def always_deadly(image: int) -> None:  # noqa: ARG001
    os.kill(os.getpid(), signal.SIGKILL)


class Unpicklable:
    """Cannot be made again in a child process."""

    def __reduce__(self) -> tuple[object, ...]:
        return (_refuse, ())

    def __call__(self, image: int) -> None:
        raise AssertionError(image)


def _refuse() -> None:
    raise RuntimeError("not in this process")
