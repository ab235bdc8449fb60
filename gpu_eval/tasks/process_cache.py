"""What a process needs to work on a run, an engine and the open sources: made once, and kept.

A shard's work is a small value that travels to any process. What it needs there lives in one locked cache
per process, so that a worker makes its CUDA context and its buffers once, not once per shard.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa

from gpu_eval.engines.choose import make_engine
from gpu_eval.engines.engine import Engine
from gpu_eval.inputs.sources import Source, open_source
from gpu_eval.run_folder import manifest
from gpu_eval.storage import Place, place


@dataclass(frozen=True)
class RunContext:
    """Where a run reads and writes, by names that mean the same in every process, and who counts there.

    `preds` is None where the predictions are no files: run-length masks stand in the manifest. `engine` is
    "auto", "cpu" or "cuda"; `threads` is per engine.
    """

    run: str
    fingerprint: str
    gts: str
    preds: str | None
    engine: str
    threads: int | None

    @property
    def folder(self) -> Place:
        return place(self.run)

    def manifest(self, first: int, last: int) -> pa.Table:
        """Rows first..last - 1 of the run's manifest."""
        return manifest.read(self.folder, first, last)


@dataclass
class Resources:
    """The open engine and sources of one run in this process."""

    engine: Engine
    gts: Source
    preds: Source
    users: int = 0

    def close(self) -> None:
        self.engine.close()
        self.gts.close()
        if self.preds is not self.gts:
            self.preds.close()


_cache: dict[RunContext, Resources] = {}
_lock = threading.Lock()


@contextmanager
def resources(context: RunContext) -> Iterator[Resources]:
    """The resources of a run, made on first use; those of other runs are closed once idle.

    Raises InputError for a source and EngineUnavailable for an engine that cannot be had here.
    """
    with _lock:
        found = _cache.get(context)
        if found is None:
            for idle in [key for key, others in _cache.items() if others.users == 0]:
                _cache.pop(idle).close()
            engine, _ = make_engine(context.engine, context.threads)
            gts = open_source(context.gts)
            preds = gts if context.preds is None else open_source(context.preds)
            found = _cache[context] = Resources(engine, gts, preds)
        found.users += 1
    try:
        yield found
    finally:
        with _lock:
            found.users -= 1


@contextmanager
def lent(context: RunContext, of_caller: Resources) -> Iterator[None]:
    """Have this process work on a run with resources that the caller has, and will close."""
    with _lock:
        _cache[context] = of_caller
        of_caller.users += 1
    try:
        yield
    finally:
        with _lock:
            del _cache[context]
