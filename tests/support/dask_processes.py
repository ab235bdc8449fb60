"""`dask scheduler` and `dask worker` as processes of their own, on loopback, ended by their own ids."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from distributed import Client

from gpu_eval.runs import cluster_options
from gpu_eval.runs.cluster_options import ClusterOptions
from tests.support.children import child_environment
from tests.support.toy_work import wait_for

LOOPBACK = "127.0.0.1"


@dataclass
class DaskProcesses:
    """A scheduler with its file in `folder`, and workers; `options` are given to all of them (TLS files)."""

    folder: Path
    options: Sequence[str] = ()
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def scheduler_file(self) -> Path:
        return self.folder / "scheduler.json"

    def start_scheduler(self, *, allowed_failures: int = 3) -> subprocess.Popen[bytes]:
        process = self._start(
            ["scheduler", "--host", LOOPBACK, "--port", "0", "--dashboard-address", f"{LOOPBACK}:0"],
            {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(allowed_failures)},
        )
        wait_for(lambda: self._alive(process) and self._is_told())
        return process

    def start_workers(
        self,
        number: int = 1,
        *,
        nanny: bool = True,
        resources: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Workers of one thread each under one command; it returns before they have joined."""
        arguments = [
            *("worker", "--host", LOOPBACK, "--nworkers", str(number), "--nthreads", "1"),
            *("--dashboard-address", f"{LOOPBACK}:0", "--memory-limit", "0"),
            *("--local-directory", str(self.folder / "scratch")),
            "--nanny" if nanny else "--no-nanny",
            *(("--resources", resources) if resources else ()),
        ]
        return self._start(arguments, environment or {})

    def _start(self, arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with open(self.folder / f"log-{len(self.processes)}", "wb") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "dask", *arguments),
                    *("--scheduler-file", str(self.scheduler_file), *self.options),
                ],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=child_environment(environment),
            )
        self.processes.append(process)
        return process

    def _is_told(self) -> bool:
        """Whether the scheduler has written its file, which it does not do at once."""
        return self.scheduler_file.exists() and self.scheduler_file.stat().st_size > 0

    def _alive(self, process: subprocess.Popen[bytes]) -> bool:
        log = self.folder / f"log-{self.processes.index(process)}"
        assert process.poll() is None, log.read_text()
        return True

    def stop(self) -> None:
        for process in reversed(self.processes):
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and then its children, none of which has anything to lose."""
    if process.poll() is None:
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait(10)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()  # by process id and start time: never a stranger
        assert not psutil.wait_procs(children, timeout=10)[1]


@contextmanager
def dask_processes(folder: Path, options: Sequence[str] = ()) -> Iterator[DaskProcesses]:
    started = DaskProcesses(folder, options)
    try:
        yield started
    finally:
        started.stop()


@contextmanager
def local_client(**options: int) -> Iterator[Client]:
    """The client of a cluster that the run starts for itself, as `--workers` does."""
    with cluster_options.client_of(ClusterOptions(**options)) as cluster:
        assert cluster is not None
        yield cluster.client


@contextmanager
def client_of(processes: DaskProcesses) -> Iterator[Client]:
    """A client of these processes, as `--scheduler-file` makes one."""
    with cluster_options.client_of(ClusterOptions(scheduler_file=str(processes.scheduler_file))) as cluster:
        assert cluster is not None
        yield cluster.client
