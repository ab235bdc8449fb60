"""The loop that drives a run: a bounded window of shards in flight, whoever executes them.

A shard may kill the worker that scores it, every time. The executor then gives it back as `Killed`, and the
loop has a worker search for the images that do it (`work.isolate`) and scores the shard again without them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from gpu_eval.errors import ClusterError, Interrupted
from gpu_eval.scheduling.shards import Shard

Summary = TypeVar("Summary")
Summary_co = TypeVar("Summary_co", covariant=True)

# How often a shard may kill its workers before the run is given up. More than once, because an innocent shard
# goes down with a worker that another one kills.
SEARCHES = 5


@runtime_checkable
class Isolating(Protocol):
    """Work that can tell which images of a shard kill the process that scores them."""

    def isolate(self, shard: Shard) -> tuple[int, ...]:
        """The images of `shard` that do, besides `shard.fatal`, which it leaves out of its search.

        It runs on a worker and must survive what it looks for: `gpu_eval.scheduling.fatal_images` does.
        """


@dataclass(frozen=True, slots=True)
class Done(Generic[Summary_co]):
    """A scored shard: who scored it, and in how many seconds."""

    shard: Shard
    summary: Summary_co
    worker: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Killed:
    """A shard that was given up because too many workers died while they had it; `worker` was the last."""

    shard: Shard
    worker: str


class Executor(Protocol):
    """Where shards are scored. `window` is how many may be in flight now; it may change."""

    @property
    def window(self) -> int: ...

    def submit(self, work: Callable[[Shard], object], shard: Shard) -> None:
        """Have a worker call `work(shard)`."""

    def completed(self) -> Iterator[Done[Any] | Killed]:
        """What has completed, in any order; waits until there is something.

        Each submitted call comes out once. Raises what `work` raised.
        """

    def abandon(self) -> None:
        """Give up all calls in flight."""

    def close(self) -> None:
        """Free what the executor started; it is not used again."""


class InProcessExecutor:
    """Threads around one engine.

    Two shards are in flight so that one is written while the next is decoded; the engine's own threads
    share the pixels' work.
    """

    def __init__(self, window: int = 2) -> None:
        self.window = window
        self._pool = ThreadPoolExecutor(window, thread_name_prefix="gpu-eval-shard")
        self._in_flight: set[Future[Done[Any]]] = set()

    def submit(self, work: Callable[[Shard], object], shard: Shard) -> None:
        self._in_flight.add(self._pool.submit(_timed, work, shard))

    def completed(self) -> Iterator[Done[Any] | Killed]:
        for future in wait(self._in_flight, return_when=FIRST_COMPLETED).done:
            self._in_flight.discard(future)
            yield future.result()

    def abandon(self) -> None:
        for future in self._in_flight:
            future.cancel()
        wait(self._in_flight)
        self._in_flight.clear()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def run(
    shards: Iterable[Shard], executor: Executor, work: Callable[[Shard], Summary]
) -> Iterator[Done[Summary]]:
    """Score `shards`, yielding each as it completes, in any order. `shards` may be lazy and endless.

    A shard that had fatal images comes out with them in `shard.fatal`. An exception of `work` ends the
    run after the shards in flight; so does Ctrl-C, as Interrupted.

    Raises ClusterError for a shard that kills its workers for a reason that cannot be isolated.
    """
    waiting = iter(shards)
    search = _FatalSearch(executor, work)
    in_flight = done = 0
    try:
        while True:
            while in_flight < executor.window and (shard := next(waiting, None)) is not None:
                executor.submit(work, shard)
                in_flight += 1
            if not in_flight:
                return
            for outcome in executor.completed():
                if search.takes(outcome):
                    continue
                assert isinstance(outcome, Done)
                in_flight -= 1
                done += 1
                yield outcome
    except KeyboardInterrupt as error:
        of_all = f" of {len(shards)}" if isinstance(shards, Sized) else ""
        raise Interrupted(
            "interrupted; finished shards are kept",
            found=f"{done}{of_all} shards scored",
            fix="run the same command with --resume to finish",
        ) from error
    finally:
        executor.abandon()


class _FatalSearch:
    """The way of shards that kill their workers: search, then score without what was found."""

    def __init__(self, executor: Executor, work: Callable[[Shard], object]) -> None:
        self._executor = executor
        self._work = work
        # Looked up once, so that an executor can recognise it and pickles it once.
        self._isolate = work.isolate if isinstance(work, Isolating) else None
        self._searches: Counter[int] = Counter()
        self._searching: set[int] = set()

    def takes(self, outcome: Done[Any] | Killed) -> bool:
        """Whether the outcome is a step of a search, which then has submitted the next one."""
        shard = outcome.shard
        if isinstance(outcome, Killed):
            self._searches[shard.number] += 1
            if self._isolate is None or self._searches[shard.number] > SEARCHES:
                raise _deadly(outcome, self._searches[shard.number])
            self._searching.add(shard.number)
            self._executor.submit(self._isolate, shard)
            return True
        if shard.number not in self._searching:
            return False
        self._searching.discard(shard.number)
        fatal = tuple(sorted({*shard.fatal, *outcome.summary}))
        self._executor.submit(self._work, replace(shard, fatal=fatal))
        return True


def _deadly(killed: Killed, times: int) -> ClusterError:
    shard = killed.shard
    without = f", without images {', '.join(map(str, shard.fatal))}" if shard.fatal else ""
    return ClusterError(
        "a shard keeps killing the workers that score it",
        found=f"shard {shard.number}, images {shard.first} to {shard.last - 1}{without}, given up "
        f"{times} times, last by {killed.worker}",
        expected="single images that do it, which become error rows",
        fix="look at that worker's log; give workers more memory or fewer threads, or use a smaller "
        "--shard-size",
    )


def _timed(work: Callable[[Shard], object], shard: Shard) -> Done[Any]:
    started = time.perf_counter()
    summary = work(shard)
    return Done(shard, summary, "this process", time.perf_counter() - started)
