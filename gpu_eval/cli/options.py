"""Options that commands share, and what the cluster's options ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from gpu_eval import registry

FORMATS = ("table", "json", "csv")


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--format", "output", type=click.Choice(FORMATS), default="table", show_default=True,
        help="How results are printed.",
    )(command)  # fmt: skip


def entry_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--team, --method and --link: the run's row on a leaderboard."""
    for name, meaning in (
        ("link", "Web address of the paper or code."),
        ("method", "Name of the method on a leaderboard."),
        ("team", "Name of the team on a leaderboard."),
    ):
        command = click.option(f"--{name}", metavar="TEXT", help=meaning)(command)
    return command


def units_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--units, and the option that it replaced."""
    command = click.option(
        "--units",
        default="drives",
        show_default=True,
        metavar="drives|images|CSV",
        help="What intervals take as independent; a CSV has the columns key and, say, city.",
    )(command)
    # Intervals were drawn once; command lines that say how often go on working.
    return click.option("--bootstrap", type=click.IntRange(0), hidden=True)(command)


def interval_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--units and --no-intervals."""
    command = click.option(
        "--no-intervals", "intervals", flag_value=False, default=True, type=bool, help="Scores alone."
    )(command)
    return units_option(command)


def drawn_no_more(options: dict[str, Any]) -> None:
    """Take --bootstrap out of `options`: 0 means no intervals, any other number nothing any more."""
    from gpu_eval.cli import console

    asked = options.pop("bootstrap", None)
    if asked == 0 and "intervals" in options:
        options["intervals"] = False
    elif asked is not None:
        note = "note: --bootstrap has no meaning any more: intervals are computed, not drawn"
        # `compare` and `leaderboard` have none: there they are the point.
        console.say(f"{note}; --no-intervals leaves them out" if "intervals" in options else note)


def run_options(task: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """What `score` and `instances` share: who counts, what errors do, and how a run meets its folder."""
    options = (
        click.option(
            "-j", "--num-workers", "threads", type=int, metavar="N", help="Threads; default: all cores."
        ),
        click.option(
            "--engine", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
        ),
        click.option(
            "--on-error",
            type=click.Choice(["stop", "skip", "void"]),
            default="stop",
            show_default=True,
            help="Images that cannot be scored: fail at the end, leave out, or count as nothing predicted.",
        ),
        click.option("--as-is", is_flag=True, help="Score even what looks certainly like a mix-up."),
        click.option("--resume", is_flag=True, help="Finish an interrupted run of the same inputs."),
        click.option("--overwrite", is_flag=True, help="Replace the run in the output folder."),
        click.option(
            "--shard-size",
            type=int,
            default=registry.TASKS[task].shard_size,
            show_default=True,
            help="Images per committed part.",
        ),
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def join_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How to reach a running Dask cluster."""
    for option in (
        click.option("--tls-key", metavar="PEM", help="Private key for a tls:// scheduler."),
        click.option("--tls-cert", metavar="PEM", help="Certificate for a tls:// scheduler."),
        click.option("--tls-ca-file", metavar="PEM", help="Authority behind the cluster's certificates."),
        click.option(
            "--scheduler-file", metavar="JSON", help="As `dask scheduler --scheduler-file` wrote it."
        ),
        click.option("--scheduler", metavar="ADDRESS", help="Score on a Dask cluster: tcp://host:8786."),
    ):
        command = option(command)
    return command


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Who scores, if it is not this process: a Dask cluster that runs, or one started on this machine."""
    for option in (
        click.option("--gpus", metavar="all|0,1", help="Start one worker process per GPU of this machine."),
        click.option("--workers", type=int, metavar="N", help="Worker processes of a local cluster."),
        click.option(
            "--cluster", type=click.Choice(["local"]), help="Start worker processes on this machine."
        ),
    ):
        command = option(command)
    return join_options(command)


@contextmanager
def client_of(options: dict[str, Any]) -> Iterator[Any]:
    """Take the cluster's options out of `options`; the client of that cluster, or None."""
    from gpu_eval.cli import console
    from gpu_eval.runs import cluster_options as clusters

    names = ("scheduler", "scheduler_file", "workers", "gpus", "tls_ca_file", "tls_cert", "tls_key")
    wanted = clusters.ClusterOptions(
        local=options.pop("cluster", None) is not None, **{name: options.pop(name, None) for name in names}
    )
    if wanted.gpus is not None and options.get("engine") == "auto":
        options["engine"] = "cuda"  # who asks for GPUs must not get CPUs
    with clusters.client_of(wanted) as cluster:
        if cluster is None:
            yield None
            return
        if cluster.warning:
            console.say(f"warning: {cluster.warning}")
        if cluster.dashboard:
            console.say(f"dashboard: {cluster.dashboard}")
        yield cluster.client
