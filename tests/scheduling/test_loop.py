"""The loop that drives a run searches a shard that kills its workers for deadly images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gpu_eval.errors import ClusterError
from gpu_eval.scheduling import loop
from gpu_eval.scheduling.loop import Done, Killed
from gpu_eval.scheduling.shards import Shard, cut


class Scripted:
    """An executor on which shard `deadly` is killed as long as `kills` lasts; searches find `finds`."""

    window = 2

    def __init__(self, deadly: int, kills: int, finds: tuple[int, ...]) -> None:
        self.deadly, self.kills, self.finds = deadly, kills, list(finds)
        self.calls: list[tuple[str, Shard]] = []
        self._waiting: list[tuple[str, Shard]] = []

    def submit(self, work: Callable[[Shard], object], shard: Shard) -> None:
        self._waiting.append(("isolate" if getattr(work, "__name__", "") == "isolate" else "score", shard))

    def completed(self) -> Iterator[Done[Any] | Killed]:
        call, shard = self._waiting.pop(0)
        self.calls.append((call, shard))
        if shard.number == self.deadly and call == "score" and self.kills:
            self.kills -= 1
            yield Killed(shard, "tcp://worker")
        elif call == "isolate":
            yield Done(shard, (self.finds.pop(0),) if self.finds else (), "tcp://worker", 1.0)
        else:
            yield Done(shard, "scored", "tcp://worker", 1.0)

    def abandon(self) -> None:
        self._waiting.clear()

    def close(self) -> None:
        pass


class Work:
    def __call__(self, shard: Shard) -> str:
        raise AssertionError(shard)  # the scripted executor calls nothing

    def isolate(self, shard: Shard) -> tuple[int, ...]:
        raise AssertionError(shard)  # the scripted executor calls nothing


class TestPoisonSearch:
    def test_shard_is_scored_without_what_was_found(self) -> None:
        executor = Scripted(deadly=1, kills=1, finds=(7,))
        dones = list(loop.run(cut(15, 5), executor, Work()))
        assert sorted((done.shard.number, done.shard.fatal) for done in dones) == [
            (0, ()),
            (1, (7,)),
            (2, ()),
        ]
        assert [call for call, shard in executor.calls if shard.number == 1] == ["score", "isolate", "score"]

    def test_further_poison_of_a_shard_is_added_to_the_known(self) -> None:
        executor = Scripted(deadly=1, kills=2, finds=(9, 7))
        dones = list(loop.run(cut(15, 5), executor, Work()))
        assert {done.shard.number: done.shard.fatal for done in dones}[1] == (7, 9)
        searched = [shard.fatal for call, shard in executor.calls if call == "isolate"]
        assert searched == [(), (9,)]

    def test_innocent_shard_that_went_down_with_another_is_scored_again_as_it_is(self) -> None:
        executor = Scripted(deadly=0, kills=loop.SEARCHES, finds=())
        (done,) = loop.run(cut(5, 5), executor, Work())
        assert done.shard == Shard(0, 0, 5)

    def test_shard_that_kills_without_a_deadly_image_ends_the_run(self) -> None:
        executor = Scripted(deadly=1, kills=100, finds=(7,))
        with pytest.raises(ClusterError, match="images 5 to 9, without images 7, given up 6 times"):
            list(loop.run(cut(15, 5), executor, Work()))

    def test_work_that_cannot_isolate_ends_the_run_at_the_first_kill(self) -> None:
        def work(shard: Shard) -> str:
            raise AssertionError(shard)

        with pytest.raises(ClusterError, match="shard 1, images 5 to 9"):
            list(loop.run(cut(15, 5), Scripted(deadly=1, kills=1, finds=()), work))
