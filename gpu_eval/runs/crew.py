"""Who works on a run: this process with one engine, or the workers of a Dask cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

from gpu_eval.engines.engine import make_engine
from gpu_eval.errors import OptionError
from gpu_eval.inputs.sources import Source, open_source
from gpu_eval.runs import workplace
from gpu_eval.runs.workplace import Tools, Workplace
from gpu_eval.scheduling.runner import Executor, InProcessExecutor
from gpu_eval.storage import Place


class Crew:
    """An engine of this process, and the sources of a run while it is listed and scored.

    Raises OptionError or EngineUnavailable for an engine that cannot be had, before anything is listed.
    """

    def __init__(self, engine: str = "auto", threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise OptionError("threads must be at least 1", found=str(threads))
        self._asked = (engine, threads)
        self._open = ExitStack()
        self._engine, self._why = make_engine(engine, threads)
        self._open.callback(self._engine.close)
        self._sources: dict[str, Source] = {}

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def open(self, location: str | os.PathLike[str]) -> Source:
        """The source at a location, closed with the crew. Raises UnreadableSource as `open_source`."""
        source = open_source(location)
        self._open.callback(source.close)
        self._sources[str(location)] = source
        return source

    def workplace(
        self,
        folder: Place,
        fingerprint: str,
        gts: str | os.PathLike[str],
        preds: str | os.PathLike[str] | None,
    ) -> Workplace:
        """Where everyone of the crew reads and writes."""
        return Workplace(
            str(folder), fingerprint, str(gts), None if preds is None else str(preds), *self._asked
        )

    def facts(self) -> Mapping[str, Any]:
        """The engine, for run.json."""
        return {"name": self._engine.name, "why": self._why, "device": self._engine.describe()}

    @contextmanager
    def executor(self, here: Workplace) -> Iterator[Executor]:
        """Where the shards of the run at `here` are scored."""
        gts = self._sources[here.gts]
        preds = gts if here.preds is None else self._sources[here.preds]
        executor = InProcessExecutor()
        with workplace.furnished(here, Tools(self._engine, self._why, gts, preds)):
            try:
                yield executor
            finally:
                executor.close()
