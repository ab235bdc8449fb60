"""One contract for every executor: each shard comes out once, and trouble ends the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gpu_eval.errors import CorruptImage, Interrupted
from gpu_eval.scheduling import loop
from gpu_eval.scheduling.loop import Executor
from gpu_eval.scheduling.shards import Shard, cut
from tests.support.toy_work import Toy

Make = Callable[[int], Executor]


class ExecutorContract:
    """What the loop may count on, whatever executor it drives."""

    @pytest.fixture
    def executor_of(self) -> Make:
        """The executor of the implementation with a given window."""
        raise NotImplementedError

    @pytest.fixture
    def make(self, executor_of: Make) -> Iterator[Make]:
        """The same; all of them are closed at the end."""
        made: list[Executor] = []

        def make(window: int) -> Executor:
            made.append(executor_of(window))
            return made[-1]

        yield make
        for executor in made:
            executor.close()

    def test_every_shard_comes_out_once_with_its_own_result(self, make: Make, tmp_path: Path) -> None:
        shards = cut(50, 3)
        dones = list(loop.run(shards, make(4), Toy(tmp_path)))
        assert sorted(done.shard.number for done in dones) == list(range(17))
        assert {done.shard: done.summary for done in dones} == {
            shard: sum(range(shard.first, shard.last)) for shard in shards
        }
        assert all(done.worker and done.seconds >= 0 for done in dones)

    def test_no_shards_are_a_run_too(self, make: Make, tmp_path: Path) -> None:
        assert list(loop.run([], make(2), Toy(tmp_path))) == []

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

        for _ in loop.run(shards(), make(window), Toy(tmp_path)):
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
        run = loop.run(cut(1000, 1), make(2), work)
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
            list(loop.run(cut(1, 1), make(1), work))
        assert caught.value.file == "shard 0"
        assert len(work.pids_of(0)) == 1

    def test_ctrl_c_says_how_far_the_run_came(self, make: Make, tmp_path: Path) -> None:
        run = loop.run(cut(9, 1), make(2), Toy(tmp_path))
        next(run)
        next(run)
        with pytest.raises(Interrupted, match=r"2 of 9 shards scored.*--resume"):
            run.throw(KeyboardInterrupt())

    def test_ctrl_c_of_a_lazy_split_does_not_ask_for_its_length(self, make: Make, tmp_path: Path) -> None:
        run = loop.run(iter(cut(9, 1)), make(2), Toy(tmp_path))
        next(run)
        with pytest.raises(Interrupted, match="found 1 shards scored"):
            run.throw(KeyboardInterrupt())

    def test_executor_is_free_again_after_a_run_was_left(self, make: Make, tmp_path: Path) -> None:
        executor = make(3)
        run = loop.run(cut(1000, 1), executor, Toy(tmp_path))
        next(run)
        run.close()
        dones = list(loop.run(cut(4, 2), executor, Toy(tmp_path)))
        assert sorted(done.summary for done in dones) == [1, 5]
