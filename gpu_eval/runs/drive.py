"""The drive of a run, whatever its task and wherever its shards are scored."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gpu_eval import registry
from gpu_eval.doctor.doubt import refuse_certain
from gpu_eval.errors import GpuEvalError, MissingPrediction, OptionError, SplitProblems
from gpu_eval.results import units as run_units
from gpu_eval.run_folder import folder as run_folder
from gpu_eval.run_folder import manifest, parts
from gpu_eval.run_folder.schema import FORMAT_VERSION
from gpu_eval.runs.workers import make_workers
from gpu_eval.scheduling import loop, shards
from gpu_eval.scheduling.shards import Shard
from gpu_eval.storage import Place, write_table
from gpu_eval.tasks.summary import Summary, error_facts
from gpu_eval.tasks.task import Listing, ShardWork, Task
from gpu_eval.version import __version__

if TYPE_CHECKING:
    from distributed import Client

# Of problems, run.json keeps the first ones; the images table has every image's own.
PROBLEMS_KEPT = 1000


ON_ERROR = ("stop", "skip", "void")


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


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is alike in all tasks; `api.RunOptions` says what each option means.

    `shard_size` None is the task's own. Raises OptionError for values that have no meaning.
    """

    threads: int | None = None
    engine: str = "auto"
    on_error: str = "stop"
    resume: bool = False
    overwrite: bool = False
    shard_size: int | None = None
    units: run_units.Wanted = run_units.DEFAULT
    intervals: bool = True
    as_is: bool = False
    entry: Mapping[str, str | None] | None = None
    client: Client | None = None
    progress: Callable[[Progress], None] | None = None
    tell: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        if self.on_error not in ON_ERROR:
            raise OptionError("unknown on_error", found=self.on_error, expected=" or ".join(ON_ERROR))
        if self.resume and self.overwrite:
            raise OptionError("resume and overwrite contradict each other")
        if self.shard_size is not None and self.shard_size < 1:
            raise OptionError("shard_size must be at least 1", found=str(self.shard_size))
        run_units.check_units(self.units)
        run_folder.make_entry(self.entry or {})

    @property
    def void_on_error(self) -> bool:
        """Whether an image without a usable prediction counts as one with nothing predicted."""
        return self.on_error == "void"


def drive(task: Task[Any, Any], gts: str, preds: str, folder: Place, options: Options) -> Place:
    """Score the split at `gts` and `preds` into the run folder `folder`, and return it.

    Raises
        SplitProblems: every problem of the split, found in one pass; the run stays incomplete.
        InputError, EngineError: what was asked for cannot be done; nothing was begun.
        ReportError, ClusterError, Interrupted: the run stays as far as it is, for `resume`.
    """
    started = time.perf_counter()
    shard_size = options.shard_size or registry.TASKS[task.word].shard_size
    decides = {"version": __version__, **task.decides(), "shard_size": shard_size}
    with make_workers(options.engine, options.threads, options.client, options.tell) as workers:
        listing = task.list_split(gts, preds, workers.open)
        _stop_early(task, listing, options.on_error)
        run_units.check_units(options.units, listing.manifest["key"].to_pylist())
        pred_files = preds if listing.preds_are_files else None
        with workers.sight(gts, pred_files) as sight:
            doubts = task.examine(listing, sight)
        if not options.as_is:
            refuse_certain(doubts)
        fingerprint = parts.fingerprint(listing.manifest, decides)
        context = workers.context(folder, fingerprint, gts, pred_files)
        facts: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "kind": task.word,
            "complete": False,
            "fingerprint": fingerprint,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "decides": decides,
            "on_error": options.on_error,
            "images": listing.images,
            "engine": workers.facts(),
            "gts": gts,
            "preds": preds,
            "entry": run_folder.make_entry(options.entry or {}),
            "labels": task.labels(),
            "notes": list(listing.notes),
            "doubts": [doubt.facts() for doubt in doubts],
        }
        previous = run_folder.begin(folder, facts, resume=options.resume, overwrite=options.overwrite)
        if previous.get("complete") and options.on_error == "stop":
            facts["on_error"] = previous["on_error"]  # what was left out then does not undo the run now
        write_table(folder / manifest.FILE, listing.manifest, rows_per_group=manifest.ROWS_PER_GROUP)
        listed = time.perf_counter()
        with workers.executor(context) as executor:
            cut = shards.cut(listing.images, shard_size)
            counted = _score_shards(ShardWork(task, context), cut, executor, options)
    facts |= {
        **_counted(task, counted, listing),
        "seconds": {
            "listing": round(listed - started, 6),
            "scoring": round(time.perf_counter() - listed, 6),
        },
    }
    problems = [*listing.problems, *counted.summary.problems]
    if problems and (facts["on_error"] == "stop" or counted.summary.scored == 0):
        run_folder.write_facts(folder, facts)
        raise _refused(problems, counted.summary)
    units = options.units if options.intervals else None
    registry.module("results", task.word).RUN.finish(folder, facts, units)
    return folder


def _stop_early(task: Task[Any, Any], listing: Listing, on_error: str) -> None:
    """Where most predictions are missing, the wrong folder was given: say so before scoring the rest."""
    missing = sum(isinstance(problem, MissingPrediction) for problem in listing.problems)
    if on_error == "stop" and missing * 2 > listing.images:
        raise SplitProblems(
            "most predictions are missing",
            listing.problems,
            found=f"{listing.images - missing} predictions for {listing.images} ground truths",
            fix=(listing.hint or f"check the folders and {task.suffix_option}")
            + "; --on-error skip or void scores an incomplete split",
        )


def _refused(problems: Sequence[GpuEvalError], summary: Summary) -> SplitProblems:
    return SplitProblems(
        "the split has problems" if summary.scored else "not one image could be scored",
        problems,
        found=f"{len(problems)} in {summary.images} images",
        fix="mend them and score again with --overwrite, or leave them out with --resume --on-error skip"
        if summary.scored
        else None,
    )


@dataclass(frozen=True)
class _Counted:
    """All shards of a run: how many images of it an earlier run had scored, and each worker's part."""

    summary: Summary
    resumed: int
    by_worker: Mapping[str, Summary]


def _counted(task: Task[Any, Any], counted: _Counted, listing: Listing) -> dict[str, Any]:
    """What run.json tells of the scored shards."""
    summary = counted.summary
    problems = [*listing.problems, *summary.problems]
    return {
        **task.told(summary),
        "images_scored": summary.scored,
        "images_void": summary.counts["status void"],
        "images_failed": summary.counts["status error"],
        "images_resumed": counted.resumed,
        "warning_count": summary.counts["warnings"],
        "warnings": summary.warnings,
        "problem_count": len(problems),
        "problems": [error_facts(problem) for problem in problems[:PROBLEMS_KEPT]],
        "workers": [
            {
                "worker": name,
                "images": of_worker.images,
                "seconds": {stage: round(seconds, 6) for stage, seconds in sorted(of_worker.seconds.items())},
            }
            for name, of_worker in sorted(counted.by_worker.items())
        ],
    }


def _score_shards(
    work: ShardWork[Any, Any], cut: Sequence[Shard], executor: loop.Executor, options: Options
) -> _Counted:
    """Recall the shards that are done, where a run is resumed, and score the others."""
    summary = Summary()
    todo: list[Shard] = []
    images = sum(shard.last - shard.first for shard in cut)
    for shard in cut:
        if options.resume and work.is_done(shard):
            summary += work.recall(shard)
        else:
            todo.append(shard)
    resumed = summary.images
    begun = time.perf_counter()
    by_worker: defaultdict[str, Summary] = defaultdict(Summary)

    def tell() -> None:
        if options.progress is not None:
            seconds = time.perf_counter() - begun
            workers = max(1, len(by_worker))
            options.progress(Progress(summary.images, images, resumed, seconds, workers))

    tell()
    for done in loop.run(todo, executor, work):
        summary += done.summary
        worker = by_worker[done.worker]
        worker.images += done.summary.images
        worker.seconds += done.summary.seconds
        tell()
    return _Counted(summary, resumed, by_worker)
