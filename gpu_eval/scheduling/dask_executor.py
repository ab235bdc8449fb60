"""Scoring shards on the workers of a Dask cluster, and asking these workers.

Nothing here changes Dask's configuration, and no task graph is ever built: each shard is one task.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import itertools
import queue
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from gpu_eval.errors import ClusterError, DeviceFailed, GpuEvalError, OptionError
from gpu_eval.scheduling.loop import Done, Killed
from gpu_eval.scheduling.shards import Shard
from gpu_eval.version import __version__

if TYPE_CHECKING:
    from distributed import Client, Future

# In flight per worker thread: one is scored, one waits at the worker, one at the scheduler.
SHARDS_PER_THREAD = 3

# Ordinary exceptions (a network share that hiccups) are tried again so often; our own errors are not.
RETRIES = 2

Tell = Callable[[str], None]

# Seconds without a worker until that is said, and until it is said again.
TOLD_AFTER, TOLD_EVERY = 3.0, 30.0

RESUME = "run the same command with --resume"

# Seconds: how long to wait before looking around, how often to ask who is there, when an answer is overdue.
POLL = 0.5
WATCH_EVERY = 1.0
OVERDUE = 30.0


def ask_workers(
    client: Client,
    question: Callable[..., object],
    *arguments: object,
    workers: list[str] | None = None,
    timeout: float = 60.0,
) -> dict[str, Any]:
    """What `question(*arguments)` is on each worker, or on each of `workers`, by address.

    An exception is an answer too.

    Raises ClusterError if a worker does not answer in `timeout` seconds, or the scheduler is lost.
    """
    if client.status != "running":  # Dask would try to connect for half a minute
        raise _lost(client, f"the connection is {client.status}")
    try:
        answers = client.run(
            question, *arguments, workers=workers, on_error="return", callback_timeout=timeout
        )
    except TimeoutError as error:
        raise ClusterError(
            "a worker does not answer",
            found=f"nothing in {timeout:g} s, from {', '.join(sorted(_workers(client))) or 'no workers'}",
            fix="look at the workers' logs",
        ) from error
    except OSError as error:
        raise _lost(client, str(error)) from error
    return dict(answers)


def wait_for_workers(client: Client, seconds: float, tell: Tell | None = None) -> None:
    """Return as soon as there is a worker. Raises ClusterError if there is none after `seconds`.

    `tell` gets a line after a few seconds, and another from time to time.
    """
    begun = time.monotonic()
    waiting = _Waiting(client, seconds, tell)
    while True:
        waited = time.monotonic() - begun
        waiting.say(waited)
        try:
            return client.wait_for_workers(1, timeout=max(min(seconds - waited, POLL), 0.01))
        except TimeoutError as error:
            if time.monotonic() - begun >= seconds:
                raise ClusterError(
                    "the cluster has no workers",
                    found=f"none in {seconds:g} s at the scheduler {_address_of(client)}",
                    fix="start workers, then run the same command again",
                ) from error
        except OSError as error:
            raise _lost(client, str(error)) from error


class _Waiting:
    """Says that nobody works, after TOLD_AFTER seconds and then every TOLD_EVERY.

    `seconds` is how long that is borne, `needed` a resource that a worker must have.
    """

    def __init__(
        self, client: Client, seconds: float | None, tell: Tell | None, needed: Sequence[str] = ()
    ) -> None:
        self._client, self._seconds, self._tell = client, seconds, tell
        self._resources = "".join(f" --resources {name}=1" for name in needed)
        self._next = TOLD_AFTER

    def say(self, waited: float) -> None:
        """Tell it, if it is time to, of `waited` seconds without a worker; 0 is a new beginning."""
        if waited <= 0:
            self._next = TOLD_AFTER
        if self._tell is None or waited < self._next:
            return
        self._next = waited + TOLD_EVERY
        address = _address_of(self._client)
        tls = " with the scheduler's --tls options" if address.startswith("tls:") else ""
        left = "" if self._seconds is None else f", {max(self._seconds - waited, 0):.0f} s more at most"
        self._tell(
            f"waiting for a worker{left}: the scheduler at {address} has none; "
            f"`dask worker {address}{self._resources}`{tls} starts one"
        )


def check_versions(client: Client) -> None:
    """Raise ClusterError if a worker has another version of this package than this process, or none."""
    answers = ask_workers(client, importlib.metadata.version, "gpu-eval")
    others = {}
    for address, answer in answers.items():
        if isinstance(answer, ImportError):
            others[address] = "not installed"
        elif isinstance(answer, str) and answer != __version__:
            others[address] = answer
    if others:
        raise _other_versions(others)


def _other_versions(others: Mapping[str, str]) -> ClusterError:
    return ClusterError(
        "workers have another version of gpu-eval",
        found=", ".join(f"{address}: {version}" for address, version in sorted(others.items())),
        expected=f"{__version__} as here",
        fix="install the same version everywhere and start the workers again",
    )


def gpu_resources(client: Client) -> dict[str, float] | None:
    """What tasks for GPUs must ask for where some workers have GPUs and some do not; None elsewhere.

    Half a GPU, since a worker of two threads writes one shard while it decodes the next. Only `--engine cuda`
    needs it: otherwise each worker's own engine counts the same integers. Where all workers are alike it
    would only cost, since Dask does not queue tasks that ask for resources.
    """
    needed = {"GPU": 0.5}
    shares = [_slots(worker, needed) for worker in _workers(client).values()]
    return needed if any(shares) and not all(shares) else None


def workers_with(client: Client, resources: Mapping[str, float] | None) -> list[str] | None:
    """The addresses of the workers that can score shards which need `resources`; None for all of them."""
    if resources is None:
        return None
    return sorted(address for address, worker in _workers(client).items() if _slots(worker, resources))


def _workers(client: Client) -> dict[str, dict[str, Any]]:
    return dict(client.scheduler_info(n_workers=-1)["workers"])


def _slots(worker: Mapping[str, Any], resources: Mapping[str, float] | None) -> int:
    """How many shards that need `resources` a worker scores at once."""
    has = worker.get("resources") or {}
    limits = [int(has.get(name, 0) // amount) for name, amount in (resources or {}).items()]
    return min(int(worker["nthreads"]), *limits) if limits else int(worker["nthreads"])


def _address_of(client: Client) -> str:
    return str(client.scheduler.address) if client.scheduler is not None else "an unknown address"


def _lost(client: Client, found: str) -> ClusterError:
    return ClusterError(
        f"the Dask scheduler at {_address_of(client)} is lost; finished shards are kept",
        found=found,
        fix=RESUME,
    )


@dataclass(frozen=True)
class Packed:
    """A callable pickled once, which unpickles once per process."""

    payload: bytes

    def __call__(self, shard: Shard) -> object:
        return _unpacked(self.payload)(shard)


def pack(work: Callable[[Shard], object]) -> Packed:
    """`work` ready to be sent with every shard; may come from a notebook."""
    import cloudpickle

    return Packed(cloudpickle.dumps(work))


@lru_cache(maxsize=8)
def _unpacked(payload: bytes) -> Callable[[Shard], object]:
    import cloudpickle

    work: Callable[[Shard], object] = cloudpickle.loads(payload)
    return work


@dataclass(frozen=True)
class Answer:
    """What a worker sends back for a shard: a summary, or an error of ours, and who it is."""

    worker: str
    version: str
    seconds: float = 0.0
    summary: object = None
    error: GpuEvalError | None = None


def serve(work: Packed, shard: Shard, version: str) -> Answer:
    """Runs on a worker: score a shard, if the driver has this version of the package.

    A worker whose device fails dies of it, as of any image that kills it.
    """
    from distributed import get_worker

    worker = get_worker()
    address = str(worker.address)
    if version != __version__:
        return Answer(address, __version__)
    started = time.perf_counter()
    try:
        summary = work(shard)
    except GpuEvalError as error:
        if isinstance(error, DeviceFailed) and worker.nanny:
            # Only a new process has a working device. The nanny starts it, and the shard goes elsewhere.
            signal.raise_signal(signal.SIGKILL)
        # As an answer: it would fail the same way again, and Dask would retry it.
        return Answer(address, __version__, time.perf_counter() - started, error=error)
    return Answer(address, __version__, time.perf_counter() - started, summary)


class DaskExecutor:
    """The workers of a Dask cluster, as many as there are at any time.

    `window` is how many shards are in flight; None follows the workers as they come and go, three per thread.
    `resources` is what a shard needs of a worker, see `gpu_resources`. If there is no worker that could serve
    for `worker_wait` seconds, in the beginning or later, the run ends; None waits for ever. `tell` gets
    a line about it now and then. The client stays open.

    `submit`, `completed` and the constructor raise ClusterError where the scheduler is lost.
    """

    def __init__(
        self,
        client: Client,
        *,
        window: int | None = None,
        resources: Mapping[str, float] | None = None,
        worker_wait: float | None = 300.0,
        tell: Tell | None = None,
    ) -> None:
        if client.asynchronous:
            raise OptionError(
                "an asynchronous Dask client cannot be used", fix="make it without asynchronous"
            )
        self._client = client
        self._window = window
        self._resources = dict(resources) if resources else None
        self._worker_wait = worker_wait
        self._waiting = _Waiting(client, worker_wait, tell, tuple(self._resources or ()))
        self._slots = 0
        self._known_workers: frozenset[str] = frozenset()
        self._watched = float("-inf")
        self._alone_since: float | None = None
        self._group = f"gpu-eval-shard-{uuid.uuid4().hex}"
        self._numbers = itertools.count()
        # By the identity of the callable, which is kept so that the identity stays its own.
        self._packed: dict[int, tuple[object, Packed]] = {}
        self._in_flight: dict[Future[Answer], Shard] = {}
        self._settled: queue.SimpleQueue[Future[Answer]] = queue.SimpleQueue()
        # Settled once, but their worker died before it could hand over the result: Dask computes them again.
        self._astray: set[Future[Answer]] = set()
        self._watch()

    @property
    def window(self) -> int:
        return self._window or max(2, SHARDS_PER_THREAD * self._slots)

    def submit(self, work: Callable[[Shard], object], shard: Shard) -> None:
        if self._client.status != "running":
            raise _lost(self._client, f"the connection is {self._client.status}")
        if id(work) not in self._packed:
            self._packed[id(work)] = (work, pack(work))
        future = self._client.submit(
            serve,
            self._packed[id(work)][1],
            shard,
            __version__,
            key=(self._group, next(self._numbers)),
            pure=False,
            retries=RETRIES,
            resources=self._resources,
        )
        self._in_flight[future] = shard
        future.add_done_callback(self._settled.put)

    def completed(self) -> Iterator[Done[Any] | Killed]:
        from distributed import KilledWorker

        some = False
        while not some:
            settled = self._some_settled()
            self._watch()
            failed = [future for future in settled if future.status == "error"]
            wrong: list[Answer] = []
            for future, answer in self._gather([future for future in settled if future.status == "finished"]):
                if answer is None:
                    self._astray.add(future)
                elif answer.error is not None or answer.version != __version__:
                    wrong.append(answer)
                else:
                    some = True
                    yield Done(self._take(future), answer.summary, answer.worker, answer.seconds)
            for answer in wrong:
                raise answer.error or _other_versions({answer.worker: answer.version})
            for future in failed:
                error = future.exception(timeout=OVERDUE)
                if not isinstance(error, KilledWorker):
                    raise self._failure(error)
                some = True
                yield Killed(self._take(future), str(error.last_worker.address))

    def abandon(self) -> None:
        futures = list(self._in_flight)
        self._in_flight.clear()
        self._astray.clear()
        if futures and self._client.status == "running":

            async def cancel() -> None:
                await self._client.cancel(futures, asynchronous=True)

            with suppress(OSError):  # a scheduler that is gone has given them up already
                self._client.sync(cancel, callback_timeout=OVERDUE)

    def close(self) -> None:
        """Nothing: the client and its cluster are not ours."""

    def _take(self, future: Future[Answer]) -> Shard:
        future.release()
        return self._in_flight.pop(future)

    def _some_settled(self) -> list[Future[Answer]]:
        """Futures that have finished or failed; waits for one, but not longer than POLL seconds."""
        settled = {future for future in self._astray if future.status in ("finished", "error", "cancelled")}
        with suppress(queue.Empty):
            settled.add(self._settled.get(block=not settled, timeout=POLL))
            while True:
                settled.add(self._settled.get_nowait())
        self._astray -= settled
        settled &= self._in_flight.keys()
        self._astray |= {future for future in settled if future.status in ("lost", "pending")}
        settled -= self._astray
        if any(future.status == "cancelled" for future in settled):
            raise _lost(self._client, "the shards in flight were cancelled there, or its connection broke")
        return list(settled)

    def _gather(self, futures: list[Future[Answer]]) -> list[tuple[Future[Answer], Answer | None]]:
        """The answers of finished futures, None where the answer went down with its worker."""
        if not futures:
            return []

        async def gather() -> Sequence[Answer | None]:
            task = asyncio.ensure_future(
                self._client.gather(dict(enumerate(futures)), errors="skip", asynchronous=True)
            )
            while not (await asyncio.wait({task}, timeout=POLL))[0]:
                if any(future.status != "finished" for future in futures):
                    task.cancel()  # it would wait until Dask has computed them again, with nobody on watch
                    return [None] * len(futures)
            return list(task.result().values())

        try:
            return list(zip(futures, self._client.sync(gather, callback_timeout=OVERDUE), strict=True))
        except TimeoutError:
            return [(future, None) for future in futures]
        except OSError as error:
            raise _lost(self._client, str(error)) from error

    def _failure(self, error: BaseException) -> BaseException:
        """What to raise for an exception that is not ours."""
        check_versions(self._client)  # a worker without this package, or with an old one, fails in many ways
        if type(error).__module__.startswith("distributed"):
            return ClusterError("Dask gave up a shard", found=str(error), fix=RESUME)
        return error

    def _watch(self) -> None:
        """Raise ClusterError where nobody is left to wait for; count the workers otherwise."""
        if self._client.status != "running":
            raise _lost(self._client, f"the connection is {self._client.status}")
        now = time.monotonic()
        if now - self._watched < WATCH_EVERY:
            return
        self._watched = now
        try:
            threads = self._client.nthreads(callback_timeout=OVERDUE)
            if self._resources is None:
                self._slots = sum(threads.values())
            elif threads.keys() != self._known_workers:
                self._slots = sum(
                    _slots(worker, self._resources) for worker in _workers(self._client).values()
                )
            self._known_workers = frozenset(threads)
        except OSError as error:
            raise _lost(self._client, str(error) or f"no answer in {OVERDUE:g} s") from error
        if self._slots:
            self._alone_since = None
            return
        self._alone_since = self._alone_since or now
        self._waiting.say(now - self._alone_since)
        if self._worker_wait is not None and now - self._alone_since >= self._worker_wait:
            needed = "" if self._resources is None else f" with {', '.join(self._resources)}"
            raise ClusterError(
                f"the Dask cluster has no workers{needed}; finished shards are kept",
                found=f"none for {self._worker_wait:g} s at the scheduler {_address_of(self._client)}",
                fix=f"start workers, then {RESUME}",
            )
