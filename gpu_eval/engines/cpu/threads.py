"""The threads of a CPU engine and the workspaces that they take turns with."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TypeVar

from gpu_eval.engines.cpu.workspace import Workspace
from gpu_eval.engines.libdeflate import load_libdeflate

T = TypeVar("T")
R = TypeVar("R")


def available_cores() -> int:
    """Cores this process may run on (a container or a batch system may have given it fewer)."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


class Threads:
    """`count` threads (default: the cores this process may use), each with a workspace while it works.

    Raises EngineUnavailable where libdeflate cannot be reached.
    """

    def __init__(self, count: int | None = None) -> None:
        self.count = count or available_cores()
        self._libdeflate = load_libdeflate()
        self._workspaces: SimpleQueue[Workspace] = SimpleQueue()
        self._owned: list[Workspace] = []
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._taken = (0.0, 0.0)

    def map(self, work: Callable[[Workspace, T], R], items: Sequence[T]) -> list[R]:
        """What `work` makes of each item, in order; each call has a workspace to itself."""

        def run(item: T) -> R:
            with self._workspace() as ws:
                begun = time.perf_counter()
                try:
                    return work(ws, item)
                finally:
                    ws.busy_s += time.perf_counter() - begun

        if self.count == 1 or len(items) < 2:
            return [run(item) for item in items]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="gpu-eval")
        futures = [self._pool.submit(run, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def take_seconds(self) -> dict[str, float]:
        """`decode` is inflating, unfiltering and counting, which are one pass here."""
        with self._lock:
            reading = sum(workspace.reading_s for workspace in self._owned)
            busy = sum(workspace.busy_s for workspace in self._owned)
            taken = self._taken
            self._taken = (reading, busy)
        return {"read": reading - taken[0], "decode": (busy - taken[1]) - (reading - taken[0])}

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        with self._lock:
            for workspace in self._owned:
                self._libdeflate.free_decompressor(workspace.decompressor)
            self._owned.clear()
            self._workspaces = SimpleQueue()

    @contextmanager
    def _workspace(self) -> Iterator[Workspace]:
        try:
            workspace = self._workspaces.get_nowait()
        except Empty:
            workspace = Workspace(self._libdeflate, self._libdeflate.new_decompressor())
            with self._lock:
                self._owned.append(workspace)
        try:
            yield workspace
        finally:
            self._workspaces.put(workspace)
