"""From options to a Dask client: an existing cluster joined, or one started on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpu_eval.engines.choose import count_gpus
from gpu_eval.errors import OptionError

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True)
class ClusterOptions:
    """Which cluster scores; nothing set means none: this process.

    `gpus` is "all" or indices such as "0,1". The TLS files are PEM.
    """

    scheduler: str | None = None
    scheduler_file: str | None = None
    local: bool = False
    workers: int | None = None
    gpus: str | None = None
    tls_ca_file: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None

    @property
    def remote(self) -> bool:
        return self.scheduler is not None or self.scheduler_file is not None

    @property
    def starts_one(self) -> bool:
        return self.local or self.workers is not None or self.gpus is not None


# One is written while the next one is decoded: both take about as long.
SHARDS_PER_GPU = 2


@dataclass(frozen=True)
class Connected:
    """A client, and what a person should know about its cluster."""

    client: Client
    dashboard: str | None
    warning: str | None


@contextmanager
def client_of(options: ClusterOptions, *, threads: int | None = None) -> Iterator[Connected | None]:
    """The cluster that the options ask for, left or stopped at the end; None if they ask for none.

    `threads` is how many shards a worker of a cluster that is started here scores at once; by default one, or
    `SHARDS_PER_GPU`.

    Raises
        OptionError: options that contradict each other.
        ClusterError: the cluster cannot be joined or started.
        EngineUnavailable: GPUs are asked for and there are none.
    """
    if options.remote and options.starts_one:
        raise OptionError(
            "one cluster at a time",
            found="a scheduler and a cluster of this machine",
            fix="give --scheduler or --scheduler-file, or else --cluster local, --workers or --gpus",
        )
    if not options.remote and not options.starts_one:
        yield None
        return
    from gpu_eval.scheduling import dask_cluster

    security = dask_cluster.tls(options.tls_ca_file, options.tls_cert, options.tls_key)
    if options.remote:
        cluster = dask_cluster.connect(
            scheduler=options.scheduler, scheduler_file=options.scheduler_file, security=security
        )
    else:
        cluster = dask_cluster.start_local(
            workers=options.workers,
            threads=threads or (1 if options.gpus is None else SHARDS_PER_GPU),
            gpus=None if options.gpus is None else _indices(options.gpus),
            security=security,
        )
    with cluster as client:
        yield Connected(client, dask_cluster.dashboard_link(client), dask_cluster.plain_tcp_warning(client))


def _indices(gpus: str) -> list[int]:
    if gpus == "all":
        return list(range(count_gpus()))
    try:
        return [int(index) for index in gpus.split(",")]
    except ValueError as error:
        raise OptionError("not a list of GPUs", found=gpus, expected="all, or indices such as 0,1") from error
