"""The staging memory of a lane: whatever its size, what was put there stays when it moves."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from gpu_eval.engines.cuda.lane import Lane, Stopwatch


class HostMemory:
    """As much of a device as staging needs."""

    def pinned(self, size: int) -> Any:
        return np.full(size, 0xAA, np.uint8)  # of any content

    def stream(self) -> Any:
        return nullcontext()


@pytest.mark.parametrize("left", range(18))
def test_memory_that_ends_within_the_padding_moves_with_all_that_was_put(left: int) -> None:
    lane = Lane(HostMemory(), Stopwatch())  # type: ignore[arg-type]
    files = lane.begin(101)  # the memory is no multiple of 16 then
    files[:] = 7
    room = lane.staging.size - lane.staged
    first = np.arange(room - left, dtype=np.uint8)
    placed = lane.put(first), lane.put(np.arange(50, dtype=np.int64))
    assert np.array_equal(lane.staging[:101], np.full(101, 7))
    assert np.array_equal(placed[0].on(lane.staging), first)
    assert np.array_equal(placed[1].on(lane.staging), np.arange(50))
