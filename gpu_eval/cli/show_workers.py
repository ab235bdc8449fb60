"""Engines and workers on a terminal: who serves, who worked, and who cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from gpu_eval.cli.console import err, out
from gpu_eval.engines.choose import EngineStatus
from gpu_eval.runs.worker_check import PACKAGES, WorkerView


def show_engines(statuses: Sequence[EngineStatus]) -> None:
    table = Table(title="engines", title_justify="left")
    for column in ("engine", "serves here", "why"):
        table.add_column(column, overflow="fold")
    for status in statuses:
        table.add_row(status.name, "yes" if status.available else "no", Text(status.why))
    out().print(table)


def show_workers(facts: Mapping[str, Any]) -> None:
    """A line per worker of a cluster run: its images, and where its seconds went."""
    workers = facts["workers"]
    stages = list(dict.fromkeys(stage for worker in workers for stage in worker["seconds"]))
    table = Table(title="workers", title_justify="left")
    table.add_column("worker")
    for name in ("images", "images/s", *(f"{stage} s" for stage in stages)):
        table.add_column(name, justify="right")
    for worker in workers:
        busy = sum(worker["seconds"].values())
        table.add_row(
            Text(worker["worker"]),
            f"{worker['images']:,}",
            f"{worker['images'] / busy:,.0f}" if busy else "-",
            *(f"{worker['seconds'].get(stage, 0.0):.2f}" for stage in stages),
        )
    err().print(table)


def show_views(views: Mapping[str, WorkerView | BaseException]) -> int:
    """What each worker sees, then what is wrong; returns how many of them cannot work."""
    table = Table(title="workers", title_justify="left")
    for column in ("worker", "host", "versions", "engine", "can work"):
        table.add_column(column, overflow="fold")
    problems: dict[str, list[str]] = {}
    for address, view in sorted(views.items()):
        if isinstance(view, WorkerView):
            versions = ", ".join(f"{name} {view.versions[name]}" for name in ("python", *PACKAGES))
            cells = (view.host, versions, f"{view.engine}: {view.device}")
            problems[address] = view.problems
        else:
            cells = ("", "", "")
            problems[address] = [f"{type(view).__name__}: {view}"]
        verdict = Text("no", style="red") if problems[address] else Text("yes", style="green")
        table.add_row(Text(address), *map(Text, cells), verdict)
    console = out()
    console.print(table)
    for address, told in problems.items():
        for problem in told:
            console.print(Text(f"{address} {problem}"), soft_wrap=True)
    return sum(bool(told) for told in problems.values())
