"""The loop that drives a run: one contract for both executors, and the search for poison."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from gpu_eval.errors import ClusterError, CorruptImage, Interrupted
from gpu_eval.scheduling import loop as runner
from gpu_eval.scheduling.dask_cluster import start_local
from gpu_eval.scheduling.dask_executor import DaskExecutor
from gpu_eval.scheduling.loop import Done, Executor, InProcessExecutor, Killed
from gpu_eval.scheduling.shards import Shard, cut
from tests.support.toy_work import Toy

Make = Callable[[int], Executor]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with start_local(workers=1, threads=2) as client:
        yield client


@pytest.fixture(params=["in-process", "dask"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """An executor with a given window."""
    made: list[Executor] = []

    def make(window: int) -> Executor:
        if request.param == "in-process":
            made.append(InProcessExecutor(window))
        else:
            made.append(DaskExecutor(request.getfixturevalue("client"), window=window))
        return made[-1]

    yield make
    for executor in made:
        executor.close()


class TestBothExecutors:
    def test_every_shard_comes_out_once_with_its_own_result(self, make: Make, tmp_path: Path) -> None:
        shards = cut(50, 3)
        dones = list(runner.run(shards, make(4), Toy(tmp_path)))
        assert sorted(done.shard.number for done in dones) == list(range(17))
        assert {done.shard: done.summary for done in dones} == {
            shard: sum(range(shard.first, shard.last)) for shard in shards
        }
        assert all(done.worker and done.seconds >= 0 for done in dones)

    def test_no_shards_are_a_run_too(self, make: Make, tmp_path: Path) -> None:
        assert list(runner.run([], make(2), Toy(tmp_path))) == []

    @pytest.mark.parametrize("window", [1, 3])
    def test_no_more_than_the_window_is_taken_from_a_lazy_split(
        self, make: Make, tmp_path: Path, window: int
    ) -> None:
        taken = done = most = 0

        def shards() -> Iterator[Shard]:
            nonlocal taken, most
            for number in range(12):
                taken += 1
                most = max(most, taken - done)
                yield Shard(number, number, number + 1)

        for _ in runner.run(shards(), make(window), Toy(tmp_path)):
            done += 1
        assert (taken, done, most) == (12, 12, window)

    @pytest.mark.parametrize(
        ("accident", "kind"), [({"corrupt": {5}}, CorruptImage), ({"broken": {5}}, ValueError)]
    )
    def test_exception_of_the_work_ends_the_run(
        self, make: Make, tmp_path: Path, accident: dict[str, Any], kind: type[Exception]
    ) -> None:
        scored = []
        work = Toy(tmp_path, **{name: frozenset(numbers) for name, numbers in accident.items()})
        run = runner.run(cut(1000, 1), make(2), work)
        with pytest.raises(kind, match="shard 5") as caught:
            scored.extend(done.shard.number for done in run)
        assert type(caught.value) is kind
        assert 5 not in scored
        assert len(scored) < 20

    def test_our_own_errors_keep_what_they_tell_and_are_not_tried_again(
        self, make: Make, tmp_path: Path
    ) -> None:
        work = Toy(tmp_path, corrupt=frozenset({0}))
        with pytest.raises(CorruptImage) as caught:
            list(runner.run(cut(1, 1), make(1), work))
        assert caught.value.file == "shard 0"
        assert len(work.pids_of(0)) == 1

    def test_ctrl_c_says_how_far_the_run_came(self, make: Make, tmp_path: Path) -> None:
        run = runner.run(cut(9, 1), make(2), Toy(tmp_path))
        next(run)
        next(run)
        with pytest.raises(Interrupted, match=r"2 of 9 shards scored.*--resume"):
            run.throw(KeyboardInterrupt())

    def test_ctrl_c_of_a_lazy_split_does_not_ask_for_its_length(self, make: Make, tmp_path: Path) -> None:
        run = runner.run(iter(cut(9, 1)), make(2), Toy(tmp_path))
        next(run)
        with pytest.raises(Interrupted, match="found 1 shards scored"):
            run.throw(KeyboardInterrupt())

    def test_executor_is_free_again_after_a_run_was_left(self, make: Make, tmp_path: Path) -> None:
        executor = make(3)
        run = runner.run(cut(1000, 1), executor, Toy(tmp_path))
        next(run)
        run.close()
        dones = list(runner.run(cut(4, 2), executor, Toy(tmp_path)))
        assert sorted(done.summary for done in dones) == [1, 5]


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
        dones = list(runner.run(cut(15, 5), executor, Work()))
        assert sorted((done.shard.number, done.shard.poisoned) for done in dones) == [
            (0, ()),
            (1, (7,)),
            (2, ()),
        ]
        assert [call for call, shard in executor.calls if shard.number == 1] == ["score", "isolate", "score"]

    def test_further_poison_of_a_shard_is_added_to_the_known(self) -> None:
        executor = Scripted(deadly=1, kills=2, finds=(9, 7))
        dones = list(runner.run(cut(15, 5), executor, Work()))
        assert {done.shard.number: done.shard.poisoned for done in dones}[1] == (7, 9)
        searched = [shard.poisoned for call, shard in executor.calls if call == "isolate"]
        assert searched == [(), (9,)]

    def test_innocent_shard_that_went_down_with_another_is_scored_again_as_it_is(self) -> None:
        executor = Scripted(deadly=0, kills=runner.SEARCHES, finds=())
        (done,) = runner.run(cut(5, 5), executor, Work())
        assert done.shard == Shard(0, 0, 5)

    def test_shard_that_kills_without_a_deadly_image_ends_the_run(self) -> None:
        executor = Scripted(deadly=1, kills=100, finds=(7,))
        with pytest.raises(ClusterError, match="images 5 to 9, without images 7, given up 6 times"):
            list(runner.run(cut(15, 5), executor, Work()))

    def test_work_that_cannot_isolate_ends_the_run_at_the_first_kill(self) -> None:
        def work(shard: Shard) -> str:
            raise AssertionError(shard)

        with pytest.raises(ClusterError, match="shard 1, images 5 to 9"):
            list(runner.run(cut(15, 5), Scripted(deadly=1, kills=1, finds=()), work))
