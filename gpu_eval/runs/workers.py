"""Who works on a run: this process with one engine, or the workers of a Dask cluster."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from gpu_eval.doctor.doubt import Sight
from gpu_eval.engines.choose import ENGINES, make_engine
from gpu_eval.engines.engine import Engine
from gpu_eval.errors import ClusterError, OptionError
from gpu_eval.inputs.sources import Source, open_source
from gpu_eval.runs.worker_check import WorkerView, check
from gpu_eval.scheduling.loop import Executor, InProcessExecutor
from gpu_eval.storage import Place
from gpu_eval.tasks import process_cache
from gpu_eval.tasks.process_cache import Resources, RunContext

if TYPE_CHECKING:
    from distributed import Client

Location = str | os.PathLike[str]

# Seconds to wait for the first worker: batch systems start them when they find the room.
PATIENCE = 300.0


class Workers(Protocol):
    """Those who work on a run; a context manager that holds the run's sources open."""

    def __enter__(self) -> Workers: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def open(self, location: Location) -> Source:
        """The source at a location, closed with the workers. Raises UnreadableSource as `open_source`."""

    def sight(self, gts: Location, preds: Location | None) -> AbstractContextManager[Sight]:
        """What the doctor may look with; these sources are open."""

    def context(self, folder: Place, fingerprint: str, gts: Location, preds: Location | None) -> RunContext:
        """Where all of them read and write."""

    def facts(self) -> Mapping[str, Any]:
        """The engine, for run.json."""

    def executor(self, here: RunContext) -> AbstractContextManager[Executor]:
        """Where the shards of the run at `here`, which has begun, are scored."""


def make_workers(
    engine: str, threads: int | None, client: Client | None, tell: Callable[[str], None] | None = None
) -> Workers:
    """The workers of `client`'s cluster, or this process. `tell` gets a line where a worker is waited for.

    Raises OptionError or EngineUnavailable for an engine that cannot be had, before anything is listed.
    """
    if threads is not None and threads < 1:
        raise OptionError("threads must be at least 1", found=str(threads))
    if engine not in ENGINES:
        raise OptionError("no such engine", found=engine, expected=" or ".join(ENGINES))
    return ThisProcess(engine, threads) if client is None else Cluster(engine, threads, client, tell)


class _Sources:
    """The part that both share: sources are opened for listing and closed at the end."""

    def __init__(self, threads: int | None) -> None:
        self._threads = threads
        self._stack = ExitStack()
        self._sources: dict[str, Source] = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def open(self, location: Location) -> Source:
        source = open_source(location)
        self._stack.callback(source.close)
        self._sources[str(location)] = source
        return source

    @contextmanager
    def sight(self, gts: Location, preds: Location | None) -> Iterator[Sight]:
        engine = self._eyes()
        try:
            yield Sight(self._sources[str(gts)], self._sources[str(gts if preds is None else preds)], engine)
        finally:
            if engine is not None:
                engine.close()

    def _eyes(self) -> Engine | None:
        """The engine that the doctor looks with."""
        return None


class ThisProcess(_Sources):
    """One engine in this process, which also lists the sources."""

    def __init__(self, engine: str, threads: int | None) -> None:
        super().__init__(threads)
        self._asked = (engine, threads)
        self._engine, self._why = make_engine(engine, threads)
        self._stack.callback(self._engine.close)

    def __enter__(self) -> ThisProcess:
        return self

    def _eyes(self) -> Engine | None:
        # The CPU engine, whichever scores: a few images are no work for a device.
        return make_engine("cpu", self._threads)[0]

    def context(self, folder: Place, fingerprint: str, gts: Location, preds: Location | None) -> RunContext:
        return RunContext(
            str(folder), fingerprint, str(gts), None if preds is None else str(preds), *self._asked
        )

    def facts(self) -> Mapping[str, Any]:
        return {"name": self._engine.name, "why": self._why, "device": self._engine.describe()}

    @contextmanager
    def executor(self, here: RunContext) -> Iterator[Executor]:
        gts = self._sources[here.gts]
        preds = gts if here.preds is None else self._sources[here.preds]
        # One thread means one core: no second shard is scored while the first is written.
        executor = InProcessExecutor(window=1 if here.threads == 1 else 2)
        with process_cache.lent(here, Resources(self._engine, gts, preds)):
            try:
                yield executor
            finally:
                executor.close()


class Cluster(_Sources):
    """The workers of a Dask cluster. They read the inputs and write the parts themselves."""

    def __init__(
        self, engine: str, threads: int | None, client: Client, tell: Callable[[str], None] | None = None
    ) -> None:
        from gpu_eval.scheduling import dask_executor as cluster

        # A worker scores one shard per thread of its own; more threads in each engine are the user's word.
        super().__init__(threads or 1)
        self._engine, self._client, self._tell = engine, client, tell
        cluster.wait_for_workers(client, PATIENCE, tell)
        cluster.check_versions(client)

    def __enter__(self) -> Cluster:
        return self

    def context(self, folder: Place, fingerprint: str, gts: Location, preds: Location | None) -> RunContext:
        there = None if preds is None else _everywhere(preds)
        return RunContext(
            _everywhere(folder), fingerprint, _everywhere(gts), there, self._engine, self._threads
        )

    def facts(self) -> Mapping[str, Any]:
        views = _views(self._client, self._engine)
        engines = Counter(view.engine for view in views.values())
        hosts = {view.host for view in views.values()}
        return {
            "name": "+".join(sorted(engines)),
            "why": "asked for" if self._engine != "auto" else "what each worker has",
            "device": f"{len(views)} Dask workers on {len(hosts)} hosts: "
            + "; ".join(sorted({view.device for view in views.values()})),
        }

    @contextmanager
    def executor(self, here: RunContext) -> Iterator[Executor]:
        from gpu_eval.scheduling import dask_executor as cluster

        inputs = (here.gts, *([] if here.preds is None else [here.preds]))
        _views(self._client, self._engine, inputs, here.run, here.fingerprint)
        executor = cluster.DaskExecutor(
            self._client, resources=_needs(self._client, self._engine), tell=self._tell
        )
        try:
            yield executor
        finally:
            executor.close()


def _everywhere(location: Location | Place) -> str:
    """A location by a name that does not depend on the working folder."""
    text = str(location)
    return text if "://" in text else os.path.abspath(text)


def ask(
    client: Client,
    engine: str,
    inputs: Sequence[Location] = (),
    output: Location | None = None,
    fingerprint: str | None = None,
    *,
    patience: float = PATIENCE,
    tell: Callable[[str], None] | None = None,
) -> dict[str, WorkerView | BaseException]:
    """What each worker that is to score with `engine` sees, by its address; see `worker_check.check`.

    `tell` gets a line where a worker is waited for.

    Raises ClusterError if one does not answer, or if there is none after `patience` seconds.
    """
    from gpu_eval.scheduling import dask_executor as cluster

    cluster.wait_for_workers(client, patience, tell)
    there = None if output is None else _everywhere(output)
    question = (engine, tuple(map(_everywhere, inputs)), there, fingerprint)
    return cluster.ask_workers(
        client, check, *question, workers=cluster.workers_with(client, _needs(client, engine))
    )


def _needs(client: Client, engine: str) -> dict[str, float] | None:
    """What a shard for `engine` needs of a worker."""
    from gpu_eval.scheduling import dask_executor as cluster

    return cluster.gpu_resources(client) if engine == "cuda" else None


def _views(client: Client, *question: Any) -> dict[str, WorkerView]:
    """What each worker sees. Raises ClusterError, which names those that cannot work and why."""
    views = ask(client, *question)
    problems = [
        f"{address} ({view.host}) {problem}"
        for address, view in sorted(views.items())
        if isinstance(view, WorkerView)
        for problem in view.problems
    ]
    problems += [f"{address}: {view}" for address, view in views.items() if not isinstance(view, WorkerView)]
    if problems:
        raise ClusterError(
            f"{len(problems)} problems with the workers; nothing was scored",
            found="\n  " + "\n  ".join(problems) + "\n",
            fix="give every worker what the engine needs, and paths or URLs that it sees; "
            "`gpu-eval worker-check` asks them again",
        )
    return {address: view for address, view in views.items() if isinstance(view, WorkerView)}
