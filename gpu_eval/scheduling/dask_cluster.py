"""Joining a Dask cluster, or starting one on this machine.

What a context manager here started or changed (processes, log levels, environment) is undone at its end;
a cluster of somebody else is left as it is. Dask's configuration is not touched.
"""

from __future__ import annotations

import asyncio
import importlib.util
import ipaddress
import json
import logging
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gpu_eval.errors import ClusterError, OptionError

if TYPE_CHECKING:
    from distributed import Client, Security

LOOPBACK = "127.0.0.1"

# Seconds after which a good-bye is not waited for.
PATIENCE = 10.0


def tls(
    ca_file: str | os.PathLike[str] | None,
    cert: str | os.PathLike[str] | None,
    key: str | os.PathLike[str] | None,
) -> Security | None:
    """What a Dask client needs for tls:// addresses; None if no file is given. All are PEM files.

    Raises OptionError if one of the three is missing.
    """
    files = {"tls_ca_file": ca_file, "tls_cert": cert, "tls_key": key}
    if not any(files.values()):
        return None
    for name, path in files.items():
        if path is None:
            raise OptionError("TLS needs a CA file, a certificate and a key", found=f"no {name}")
        if not Path(path).is_file():
            raise OptionError(f"{name} is not a file", file=str(path))
    from distributed import Security

    pair = {"cert": str(cert), "key": str(key)}
    roles = {
        f"tls_{role}_{name}": path
        for role in ("client", "worker", "scheduler")
        for name, path in pair.items()
    }
    return Security(require_encryption=True, tls_ca_file=str(ca_file), **roles)


@contextmanager
def connect(
    *,
    scheduler: str | None = None,
    scheduler_file: str | os.PathLike[str] | None = None,
    security: Security | None = None,
    timeout: float = 30.0,
) -> Iterator[Client]:
    """A client of a running scheduler, closed at the end; the cluster stays as it is.

    `scheduler` is an address such as tcp://host:8786, `scheduler_file` the JSON file that
    `dask scheduler --scheduler-file` writes. Both are waited for up to `timeout` seconds.

    Raises
        OptionError: none or both of them are given.
        ClusterError: nobody answers there, or not with this protocol or certificate.
    """
    if (scheduler is None) == (scheduler_file is None):
        raise OptionError("give either the scheduler's address or its scheduler file")
    address = scheduler if scheduler is not None else _address_in(Path(scheduler_file or ""), timeout)
    import distributed

    with _quiet():
        try:
            _knock(address, security, timeout)
            client = distributed.Client(
                address, security=security, timeout=timeout, set_as_default=False, name="gpu-eval"
            )
        # RuntimeError: a plain address where encryption is required. ValueError, TypeError: no address.
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise ClusterError(
                f"cannot connect to the Dask scheduler at {address}",
                found=str(error).partition("\n")[0] or type(error).__name__,
                fix="check the address, that `dask scheduler` runs there, and the TLS options",
            ) from error
        try:
            yield client
        finally:
            _close(client)


def _knock(address: str, security: Security | None, timeout: float) -> None:
    """Raise what a client would where no scheduler can be reached.

    A `distributed.Client` that fails in its constructor leaves its thread behind, and closes itself when
    it is garbage collected: if that happens while the next client starts its thread, both wait for ever.
    """
    from distributed import Security
    from distributed.comm.core import connect

    async def knock() -> None:
        arguments = (security or Security()).get_connection_args("client")
        comm = await connect(address, timeout=timeout, **arguments)
        await comm.close()

    with ThreadPoolExecutor(1) as pool:  # a notebook's thread runs an event loop already
        pool.submit(lambda: asyncio.run(knock())).result()


def _address_in(path: Path, timeout: float) -> str:
    deadline = time.monotonic() + timeout
    while True:
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["address"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            # Dask writes the file late and in place: not there and half there mean the same at first.
            if time.monotonic() >= deadline:
                raise ClusterError(
                    "cannot read the scheduler file",
                    file=str(path),
                    found=str(error),
                    fix="start `dask scheduler --scheduler-file` with this file first",
                ) from error
            time.sleep(0.05)


@contextmanager
def start_local(
    *,
    workers: int | None = None,
    threads: int = 1,
    gpus: Sequence[int] | None = None,
    security: Security | None = None,
) -> Iterator[Client]:
    """A client of a cluster on this machine, started for it and stopped at the end.

    With `gpus`, one worker process per GPU, which sees that GPU only: `gpus` count those that this process
    sees. Otherwise `workers` processes, by default one per usable core. `threads` is how many shards a worker
    scores at once. Scheduler, workers and dashboard listen on 127.0.0.1 only. As with every use of
    multiprocessing, a script that calls this needs an `if __name__ == "__main__"`.

    Raises
        OptionError: the numbers have no meaning, or a GPU is listed twice.
        ClusterError: a process does not start.
    """
    import distributed
    from distributed import Nanny, Scheduler, SpecCluster

    common = {
        "nthreads": threads,
        "host": LOOPBACK,
        "dashboard": False,
        "dashboard_address": f"{LOOPBACK}:0",  # its HTTP server; without this it would listen everywhere
        "memory_limit": 0,  # Dask data is what Dask can limit, and there is none
        "silence_logs": logging.CRITICAL,
        "security": security,
        "preload": [__name__],  # its dask_setup
        "config": {"distributed.worker.profile.enabled": False},
    }
    dashboard = importlib.util.find_spec("bokeh") is not None
    options = {
        "host": LOOPBACK,
        "dashboard": dashboard,
        "dashboard_address": f"{LOOPBACK}:0",
        "security": security,
        "protocol": "tls" if security else "tcp",
    }
    specs = {
        name: {"cls": Nanny, "options": {**common, **own}}
        for name, own in _worker_specs(workers, threads, gpus)
    }
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        stack.enter_context(_environment_kept())
        try:
            cluster = SpecCluster(
                workers=specs, scheduler={"cls": Scheduler, "options": options}, security=security
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise ClusterError("cannot start a cluster on this machine", found=str(error)) from error
        stack.callback(cluster.close, timeout=PATIENCE)
        client = distributed.Client(cluster, security=security, set_as_default=False, name="gpu-eval")
        stack.callback(_close, client)
        yield client


def _worker_specs(
    workers: int | None, threads: int, gpus: Sequence[int] | None
) -> list[tuple[str, dict[str, Any]]]:
    """A name and its own options for each worker."""
    if threads < 1:
        raise OptionError("threads must be at least 1", found=str(threads))
    if gpus is None:
        count = len(os.sched_getaffinity(0)) if workers is None else workers
        if count < 1:
            raise OptionError("workers must be at least 1", found=str(count))
        return [(f"cpu-{i}", {}) for i in range(count)]
    if workers is not None:
        raise OptionError("there is one worker per GPU: give either workers or gpus")
    if not gpus or len(set(gpus)) < len(gpus) or min(gpus) < 0:
        raise OptionError("these are not GPUs", found=str(list(gpus)), expected="each index once, from 0")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = None if visible is None else visible.split(",")
    if names is not None and max(gpus) >= len(names):
        raise OptionError("no such GPU", found=str(max(gpus)), expected=f"CUDA_VISIBLE_DEVICES={visible}")
    return [
        (
            f"gpu-{gpu}",
            {
                "env": {"CUDA_VISIBLE_DEVICES": str(gpu) if names is None else names[gpu]},
                "resources": {"GPU": 1},
            },
        )
        for gpu in gpus
    ]


def dask_setup(worker: object) -> None:  # noqa: ARG001  # the signature is Dask's
    """Called in each worker process that `start_local` starts.

    Ctrl-C reaches the whole process group; the driver stops its workers, they do not stop by themselves.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _quiet() -> Iterator[None]:
    """Dask's log lines are not for people who score; what matters comes as an error."""
    handlers = {handler: handler.level for handler in logging.getLogger("distributed").handlers}
    for handler in handlers:
        handler.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for handler, level in handlers.items():
            handler.setLevel(level)


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Undo what a Nanny sets in the environment of the process that starts workers (OMP_NUM_THREADS, ...)."""
    import dask

    names = [*dask.config.get("distributed.nanny.pre-spawn-environ"), "PYTHONHASHSEED"]
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _close(client: Client) -> None:
    with suppress(OSError):  # a scheduler that is gone does not answer the good-bye
        client.close(timeout=PATIENCE)


def plain_tcp_warning(client: Client) -> str | None:
    """What to tell who sends work unencrypted over a network; None for TLS and for this machine."""
    address = str(client.scheduler.address) if client.scheduler is not None else ""
    parts = urlsplit(address)
    if parts.scheme in ("tls", "wss", "inproc") or _is_loopback(parts.hostname or ""):
        return None
    return (
        f"the scheduler at {address} is reached without encryption or authentication: whoever can reach it "
        "can run code on its workers; outside a trusted network use tls:// with --tls-ca-file, --tls-cert "
        "and --tls-key"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def dashboard_link(client: Client) -> str | None:
    """Where a browser sees the cluster; None where it has no dashboard."""
    if client.cluster is not None and importlib.util.find_spec("bokeh") is None:
        return None
    return str(client.dashboard_link) or None
