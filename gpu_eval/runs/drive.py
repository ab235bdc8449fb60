"""The drive of a run, whatever its task and wherever its shards are scored.

A task prepares a `Plan`; `drive` opens the run folder, scores what is not scored yet, and writes run.json.
Tables of the whole run are the task's, given to `drive` as `finish`.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from gpu_eval.errors import GpuEvalError, InputError, MissingPrediction, OptionError, SplitProblems
from gpu_eval.run_folder import folder as run_folder
from gpu_eval.run_folder import manifest as manifests
from gpu_eval.run_folder import schema
from gpu_eval.runs.workers import Crew
from gpu_eval.scheduling import loop as runner
from gpu_eval.scheduling import shards as sharding
from gpu_eval.scheduling.shards import Shard
from gpu_eval.storage import Place, write_table
from gpu_eval.tasks.summary import Tally, error_facts
from gpu_eval.tasks.task import ShardWork

ON_ERROR = ("stop", "skip", "void")

# Of problems, run.json keeps the first ones; the images table has every image's own.
PROBLEMS_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: images done, of how many, how many of those by an earlier run, and seconds.

    `workers` is how many have completed a shard.
    """

    done: int
    total: int
    resumed: int
    seconds: float
    workers: int = 1


@dataclass(frozen=True)
class Options:
    """What is alike in all tasks: how to go on after errors, and how a run meets its folder."""

    on_error: str = "stop"
    resume: bool = False
    overwrite: bool = False
    shard_size: int = 512

    def check(self) -> None:
        """Raise OptionError for values that have no meaning."""
        if self.on_error not in ON_ERROR:
            raise OptionError("unknown on_error", found=self.on_error, expected=" or ".join(ON_ERROR))
        if self.shard_size < 1:
            raise OptionError("shard_size must be at least 1", found=str(self.shard_size))
        if self.resume and self.overwrite:
            raise OptionError("resume and overwrite contradict each other")


@dataclass(frozen=True)
class Plan:
    """A split that is ready to be scored.

    `decides` is everything but the files that decides the numbers; `facts` is what else run.json tells.
    """

    kind: str
    manifest: pa.Table
    decides: Mapping[str, Any]
    facts: Mapping[str, Any]
    problems: Sequence[InputError]

    @property
    def images(self) -> int:
        return int(self.manifest.num_rows)

    def fingerprint(self) -> str:
        return sharding.fingerprint(self.manifest, self.decides)


def stop_early(plan: Plan, on_error: str, hint: str) -> None:
    """Where most predictions are missing, the wrong folder was given: say so before scoring the rest."""
    missing = sum(isinstance(problem, MissingPrediction) for problem in plan.problems)
    if on_error == "stop" and missing * 2 > plan.images:
        raise SplitProblems(
            "most predictions are missing",
            plan.problems,
            found=f"{plan.images - missing} predictions for {plan.images} ground truths",
            fix=f"check the folders and {hint}; --on-error skip or void scores an incomplete split",
        )


def drive(
    plan: Plan,
    folder: Place,
    work: ShardWork[Any, Any],
    options: Options,
    *,
    crew: Crew,
    finish: Callable[[Mapping[str, Any], Tally], None],
    started: float,
    progress: Callable[[Progress], None] | None = None,
) -> None:
    """Score a plan into a run folder, and have `finish` write the tables of the whole run.

    `started` is when the caller began, by `time.perf_counter`.

    Raises
        SplitProblems: every problem of the split, found in one pass; the run stays incomplete.
        ReportError, ClusterError, Interrupted: the run stays as far as it is, for `resume`.
    """
    facts: dict[str, Any] = {
        "format_version": schema.FORMAT_VERSION,
        "kind": plan.kind,
        "complete": False,
        "fingerprint": work.workplace.fingerprint,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "decides": plan.decides,
        "on_error": options.on_error,
        "images": plan.images,
        "engine": crew.facts(),
        **plan.facts,
    }
    previous = run_folder.begin(folder, facts, resume=options.resume, overwrite=options.overwrite)
    if previous.get("complete") and options.on_error == "stop":
        facts["on_error"] = previous["on_error"]  # what was left out then does not undo the run now
    write_table(folder / run_folder.MANIFEST, plan.manifest, rows_per_group=manifests.ROWS_PER_GROUP)
    listed = time.perf_counter()
    with crew.executor(work.workplace) as executor:
        shards = sharding.cut(plan.images, options.shard_size)
        tally, resumed, workers = _score_shards(work, shards, executor, options.resume, plan.images, progress)
    problems: list[GpuEvalError] = [*plan.problems, *tally.problems]
    facts |= {
        "images_scored": tally.scored,
        "images_void": tally.counts["status void"],
        "images_failed": tally.counts["status error"],
        "images_resumed": resumed,
        "warning_count": tally.counts["warnings"],
        "warnings": tally.warnings,
        "problem_count": len(problems),
        "problems": [error_facts(problem) for problem in problems[:PROBLEMS_KEPT]],
        "workers": workers,
        "seconds": {
            "listing": round(listed - started, 6),
            "scoring": round(time.perf_counter() - listed, 6),
        },
    }
    if problems and (facts["on_error"] == "stop" or tally.scored == 0):
        run_folder.write_facts(folder, facts)
        raise SplitProblems(
            "the split has problems" if tally.scored else "not one image could be scored",
            problems,
            found=f"{len(problems)} in {plan.images} images",
            fix="mend them and score again with --overwrite, or leave them out with --resume --on-error skip"
            if tally.scored
            else None,
        )
    finish(facts, tally)


def _score_shards(
    work: ShardWork[Any, Any],
    shards: Sequence[Shard],
    executor: runner.Executor,
    resume: bool,
    images: int,
    progress: Callable[[Progress], None] | None,
) -> tuple[Tally, int, list[dict[str, Any]]]:
    """The tally of all shards, how many images of it an earlier run had scored, and each worker's part."""
    tally = Tally()
    todo = []
    for shard in shards:
        if resume and work.is_done(shard):
            tally += work.recall(shard)
        else:
            todo.append(shard)
    resumed = tally.images
    begun = time.perf_counter()
    by_worker: defaultdict[str, Tally] = defaultdict(Tally)

    def tell() -> None:
        if progress is not None:
            seconds = time.perf_counter() - begun
            progress(Progress(tally.images, images, resumed, seconds, max(1, len(by_worker))))

    tell()
    for done in runner.run(todo, executor, work):
        tally += done.summary
        worker = by_worker[done.worker]
        worker.images += done.summary.images
        worker.seconds += done.summary.seconds
        tell()
    return (
        tally,
        resumed,
        [
            {
                "worker": name,
                "images": part.images,
                "seconds": {stage: round(seconds, 6) for stage, seconds in sorted(part.seconds.items())},
            }
            for name, part in sorted(by_worker.items())
        ],
    )
