"""The loop that drives a run: a bounded window of shards in flight, whoever executes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Protocol, TypeVar

from gpu_eval.errors import Interrupted
from gpu_eval.scheduling.shards import Shard

Summary = TypeVar("Summary")


class Executor(Protocol):
    """Where shards are scored. `window` is how many may be in flight."""

    window: int

    def submit(self, work: Callable[[Shard], Summary], shard: Shard) -> Future[Summary]: ...

    def close(self) -> None: ...


class InProcessExecutor:
    """Threads around one engine.

    Two shards are in flight so that one is written while the next is decoded; the engine's own threads
    share the pixels' work.
    """

    def __init__(self, window: int = 2) -> None:
        self.window = window
        self._pool = ThreadPoolExecutor(window, thread_name_prefix="gpu-eval-shard")

    def submit(self, work: Callable[[Shard], Summary], shard: Shard) -> Future[Summary]:
        return self._pool.submit(work, shard)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def run(
    shards: Sequence[Shard], executor: Executor, work: Callable[[Shard], Summary]
) -> Iterator[tuple[Shard, Summary]]:
    """Score `shards`, yielding each with its summary as it completes, in any order.

    An exception of `work` ends the run after the shards in flight; so does Ctrl-C, as Interrupted.
    """
    waiting = iter(shards)
    in_flight: dict[Future[Summary], Shard] = {}
    done = 0
    try:
        while True:
            while len(in_flight) < executor.window and (shard := next(waiting, None)) is not None:
                in_flight[executor.submit(work, shard)] = shard
            if not in_flight:
                return
            for future in wait(in_flight, return_when=FIRST_COMPLETED).done:
                shard = in_flight.pop(future)
                summary = future.result()
                done += 1
                yield shard, summary
    except KeyboardInterrupt as error:
        raise Interrupted(
            "interrupted; finished shards are kept",
            found=f"{done} of {len(shards)} shards scored",
            fix="run the same command with --resume to finish",
        ) from error
    finally:
        for future in in_flight:
            future.cancel()
        wait(in_flight)
