"""What a process needs to work on a run: an engine and the open sources, made once and kept.

A shard's work is a small value that travels to any process. What it needs there lives in one locked cache
per process, so that a worker makes its CUDA context and its buffers once, not once per shard.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa

from gpu_eval.engines.engine import Engine, make_engine
from gpu_eval.inputs.sources import Source, open_source
from gpu_eval.run_folder import manifest
from gpu_eval.run_folder.folder import MANIFEST
from gpu_eval.storage import Place, place


@dataclass(frozen=True)
class Workplace:
    """Where a run reads and writes, by names that mean the same in every process that works on it.

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


@dataclass
class Tools:
    """The open engine and sources of one workplace in this process."""

    engine: Engine
    why: str
    gts: Source
    preds: Source
    users: int = 0

    def close(self) -> None:
        self.engine.close()
        self.gts.close()
        if self.preds is not self.gts:
            self.preds.close()


_tools: dict[Workplace, Tools] = {}
_lock = threading.Lock()


@contextmanager
def at(workplace: Workplace) -> Iterator[Tools]:
    """The tools of a workplace, made on first use; those of other workplaces are closed once idle.

    Raises InputError for a source and EngineUnavailable for an engine that cannot be had here.
    """
    with _lock:
        tools = _tools.get(workplace)
        if tools is None:
            for idle in [key for key, others in _tools.items() if others.users == 0]:
                _tools.pop(idle).close()
            engine, why = make_engine(workplace.engine, workplace.threads)
            gts = open_source(workplace.gts)
            preds = gts if workplace.preds is None else open_source(workplace.preds)
            tools = _tools[workplace] = Tools(engine, why, gts, preds)
        tools.users += 1
    try:
        yield tools
    finally:
        with _lock:
            tools.users -= 1


@contextmanager
def furnished(workplace: Workplace, tools: Tools) -> Iterator[None]:
    """Have this process work at `workplace` with tools that the caller has, and will close."""
    with _lock:
        _tools[workplace] = tools
        tools.users += 1
    try:
        yield
    finally:
        with _lock:
            del _tools[workplace]


def rows(workplace: Workplace, first: int, last: int) -> pa.Table:
    """These rows of the run's manifest."""
    return manifest.read(workplace.folder / MANIFEST, first, last)
