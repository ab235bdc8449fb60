"""What notebooks, training loops and the command line call."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gpu_eval.atomic import write_table
from gpu_eval.engines.engine import make_engine, make_task
from gpu_eval.errors import GpuEvalError, MissingPrediction, OptionError, SplitProblems
from gpu_eval.inputs.nearest import parse_resolution
from gpu_eval.inputs.pairs import Pair, Split, pair_up
from gpu_eval.inputs.sources import open_source
from gpu_eval.labels import Labels, as_labels
from gpu_eval.meter import ConfusionMeter, confusion_matrix
from gpu_eval.metrics.bootstrap import RESAMPLES
from gpu_eval.report import compare as comparing
from gpu_eval.report import leaderboard as ranking
from gpu_eval.report import run as report
from gpu_eval.report import schema
from gpu_eval.report.compare import Comparison
from gpu_eval.report.run import Run, open_run
from gpu_eval.scheduling import runner
from gpu_eval.scheduling import shards as sharding
from gpu_eval.scheduling.shards import Shard
from gpu_eval.version import __version__
from gpu_eval.work import ShardWork, Tally

__all__ = [
    "ConfusionMeter",
    "Progress",
    "compare",
    "confusion_matrix",
    "leaderboard",
    "open_run",
    "score",
    "write_html",
]

ON_ERROR = ("stop", "skip", "void")

# Of problems, run.json keeps the first ones; the images table has every image's own.
PROBLEMS_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: images done, of how many, how many of those by an earlier run, and seconds."""

    done: int
    total: int
    resumed: int
    seconds: float


def score(
    gts: str | os.PathLike[str],
    preds: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    labels: Labels = "idd",
    gt_encoding: str | None = None,
    pred_encoding: str | None = None,
    res: str | None = None,
    gt_suffix: str | None = None,
    pred_suffix: str | None = None,
    threads: int | None = None,
    engine: str = "auto",
    on_error: str = "stop",
    resume: bool = False,
    overwrite: bool = False,
    shard_size: int = 512,
    bootstrap: int = RESAMPLES,
    entry: Mapping[str, str | None] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Score a split of predictions and write the run folder `out`.

    `gts` and `preds` are folders, .zip or .tar files, or fsspec URLs. `labels` is "idd", "idd-lite",
    "cityscapes", the path of a label CSV, or a number of classes. Encodings, suffixes and `res`
    (1080, 720, 480, 240, native or WxH) default to the benchmark's own. `on_error` says what becomes of
    images that cannot be scored: "stop" (the split is checked to its end, then this raises), "skip"
    (they are left out) or "void" (a missing or broken prediction counts as void everywhere).
    `bootstrap` is the number of resamples the intervals come from, 0 for none. `entry` may hold the team,
    method and link of the run's row on a leaderboard (`gpu-eval tag` sets them later).

    Raises
        SplitProblems: every problem of the split, found in one pass; the run stays incomplete.
        InputError, ReportError, EngineError: what was asked for cannot be done; see `gpu_eval.errors`.
        Interrupted: Ctrl-C. What is finished is kept for `resume`.
    """
    started = time.perf_counter()
    space = as_labels(labels)
    if on_error not in ON_ERROR:
        raise OptionError("unknown on_error", found=on_error, expected=" or ".join(ON_ERROR))
    for name, value in (("threads", threads), ("shard_size", shard_size)):
        if value is not None and value < 1:
            raise OptionError(f"{name} must be at least 1", found=str(value))
    if bootstrap < 0:
        raise OptionError("bootstrap must be at least 0", found=str(bootstrap))
    entry = report.make_entry(entry or {})
    task = make_task(
        space,
        gt_encoding=gt_encoding,
        pred_encoding=pred_encoding,
        resolution=parse_resolution(res or space.resolution),
        void_on_error=on_error == "void",
    )
    device, why = make_engine(engine, threads)
    gt_source = pred_source = None
    try:
        gt_source, pred_source = open_source(gts), open_source(preds)
        split = pair_up(
            gt_source.entries(),
            pred_source.entries(),
            gt_suffix=gt_suffix or space.gt_suffix,
            pred_suffix=pred_suffix or space.pred_suffix,
            gt_location=str(gts),
            pred_location=str(preds),
            exclude=space.exclude,
        )
        _stop_early(split, on_error)
        decides = {
            "version": __version__,
            "labels": space.digest(),
            "gt_encoding": gt_encoding or space.default_encoding,
            "pred_encoding": pred_encoding or space.default_encoding,
            "resolution": list(task.resolution) if task.resolution else "native",
            "void_on_error": task.void_on_error,
            "shard_size": shard_size,
        }
        facts: dict[str, Any] = {
            "format_version": schema.FORMAT_VERSION,
            "complete": False,
            "fingerprint": sharding.fingerprint(split.pairs, decides),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "gts": str(gts),
            "preds": str(preds),
            "decides": decides,
            "on_error": on_error,
            "entry": entry,
            "labels": report.describe_labels(space),
            "engine": {"name": device.name, "why": why, "device": device.describe()},
            "notes": list(split.notes),
            "images": len(split.pairs),
        }
        folder = Path(out)
        report.begin(folder, facts, resume=resume, overwrite=overwrite)
        write_table(folder / report.MANIFEST, _manifest(split.pairs))
        listed = time.perf_counter()
        work = ShardWork(
            folder, facts["fingerprint"], split.pairs, device, gt_source, pred_source, task, space
        )
        shards = sharding.cut(len(split.pairs), shard_size)
        tally, resumed = _score_shards(work, shards, resume, progress)
    finally:
        device.close()
        for source in (gt_source, pred_source):
            if source is not None:
                source.close()

    problems: list[GpuEvalError] = [*split.problems, *tally.problems]
    scored = tally.counts["status ok"] + tally.counts["status void"]
    facts |= {
        "images_scored": scored,
        "images_void": tally.counts["status void"],
        "images_failed": tally.counts["status error"],
        "images_resumed": resumed,
        "decoders": {name: tally.counts[f"decoder {name}"] for name in ("simd", "pillow")},
        "gt_outside": tally.counts["gt_outside"],
        "pred_outside": tally.counts["pred_outside"],
        "warning_count": tally.counts["warnings"],
        "warnings": [*tally.warnings, *_doubts(tally)],
        "problem_count": len(problems),
        "problems": [_problem_facts(problem) for problem in problems[:PROBLEMS_KEPT]],
        "seconds": {
            "listing": round(listed - started, 6),
            "scoring": round(time.perf_counter() - listed, 6),
        },
    }
    if problems and (on_error == "stop" or scored == 0):
        report.write_facts(folder, facts)
        raise SplitProblems(
            "the split has problems" if scored else "not one image could be scored",
            problems,
            found=f"{len(problems)} in {len(split.pairs)} images",
            fix="mend them and score again with --overwrite, or leave them out with --resume --on-error skip"
            if scored
            else None,
        )
    report.finish(folder, facts, tally.confusion, space, resamples=bootstrap)
    return open_run(folder)


def compare(
    run_a: Run | str | os.PathLike[str],
    run_b: Run | str | os.PathLike[str],
    *,
    common: bool = False,
    resamples: int = RESAMPLES,
) -> Comparison:
    """The second run against the first, B - A, with paired bootstrap intervals and p-values.

    Runs may be given as their folders. `common` compares the images both have where the sets differ.

    Raises
        IncomparableRuns: ground truth, label space, protocols, resolution or images differ; it says which.
        CorruptRun, IncompleteRun: a run cannot be used.
    """
    return comparing.compare(_opened(run_a), _opened(run_b), common=common, resamples=resamples)


def leaderboard(
    runs: Iterable[Run | str | os.PathLike[str]],
    *,
    published: bool = False,
    sort: str | None = None,
    protocol: str | None = None,
) -> pa.Table:
    """Runs of one split in order of their score, with ranks, tiers, intervals and provenance.

    Runs may be given as their folders. `published` adds the rows of the benchmark's own boards; `sort` is
    L3, L2, L1, AP or AP50. Columns: `report.schema.board`.

    Raises
        IncomparableRuns: ground truth, label space, protocols, resolution or splits differ.
        CorruptRun, IncompleteRun: a run cannot be used.
        OptionError: no runs, one twice, or an unknown sort or protocol.
    """
    return ranking.leaderboard(
        [_opened(run) for run in runs], published=published, sort=sort, protocol=protocol
    )


def _opened(run: Run | str | os.PathLike[str]) -> Run:
    return run if isinstance(run, Run) else open_run(Path(run))


def check_html() -> None:
    """Raise OptionError where the libraries that the HTML report needs are not installed."""
    from gpu_eval.report import html

    html.load_bundler()


def write_html(
    run: Run,
    path: str | os.PathLike[str] | None = None,
    *,
    gts: str | os.PathLike[str] | None = None,
    preds: str | os.PathLike[str] | None = None,
    labels: Labels | None = None,
) -> Path:
    """Write the HTML report of a run, by default as report.html of its folder; returns the path.

    Its pictures of the worst images are read from `gts` and `preds`, or else from where the run was scored
    from, if that is still there. `labels` is needed for pictures of a run with a label CSV of the user.

    Raises
        OptionError: the plotting libraries are not installed.
        InputError: `gts` or `preds` are given and cannot be read.
        ReportError: the page cannot be written.
    """
    from gpu_eval import thumbnails
    from gpu_eval.report import html

    check_html()  # before the pictures, which take longer
    pictures = thumbnails.of_worst(
        run, None if gts is None else os.fspath(gts), None if preds is None else os.fspath(preds), labels
    )
    return html.write_report(run, None if path is None else Path(path), pictures)


def _stop_early(split: Split, on_error: str) -> None:
    """Where most predictions are missing, the wrong folder was given: say so before scoring the rest."""
    missing = sum(isinstance(problem, MissingPrediction) for problem in split.problems)
    if on_error == "stop" and missing * 2 > len(split.pairs):
        raise SplitProblems(
            "most predictions are missing",
            split.problems,
            found=f"{len(split.pairs) - missing} predictions for {len(split.pairs)} ground truths",
            fix="check the folders and --pred-suffix; --on-error skip or void scores an incomplete split",
        )


def _score_shards(
    work: ShardWork, shards: Sequence[Shard], resume: bool, progress: Callable[[Progress], None] | None
) -> tuple[Tally, int]:
    """The tally of all shards, and how many images of it an earlier run had scored."""
    size = work.labels.n_classes + 1
    tally = Tally(np.zeros((size, size), np.int64))
    todo = []
    for shard in shards:
        if resume and work.is_done(shard):
            tally += work.recall(shard)
        else:
            todo.append(shard)
    resumed = tally.images
    begun = time.perf_counter()

    def tell() -> None:
        if progress is not None:
            progress(Progress(tally.images, len(work.pairs), resumed, time.perf_counter() - begun))

    executor = runner.InProcessExecutor()
    try:
        tell()
        for _, part in runner.run(todo, executor, work):
            tally += part
            tell()
    finally:
        executor.close()
    return tally, resumed


def _manifest(pairs: Sequence[Pair]) -> pa.Table:
    """The pairs of the split in order: what a shard's `first` and `last` count."""
    columns: dict[str, pa.Array] = {
        "key": pa.array([pair.key for pair in pairs], pa.string()),
        "drive": pa.array([pair.drive for pair in pairs], pa.string()),
    }
    kinds = {"name": pa.string(), "size": pa.int64(), "stamp": pa.string(), "offset": pa.int64()}
    for side in ("gt", "pred"):
        entries = [getattr(pair, side) for pair in pairs]
        for name, kind in kinds.items():
            values = [None if entry is None else getattr(entry, name) for entry in entries]
            columns[f"{side}_{name}"] = pa.array(values, kind)
    return pa.table(columns)


def _problem_facts(problem: GpuEvalError) -> Mapping[str, str | None]:
    return {
        "kind": problem.kind,
        "file": problem.file,
        "message": problem.message,
        "found": problem.found,
        "expected": problem.expected,
        "fix": problem.fix,
    }


def _doubts(tally: Tally) -> list[str]:
    """What makes the numbers look like a mix-up of ids, the most common mistake with such files."""
    if not tally.counts["pred_outside"] or not tally.confusion[0].any() or tally.confusion[:, 0].any():
        return []
    return [
        "class 0 is never predicted and some predicted values are outside the encoding: if the "
        "predictions count from 1, --pred-encoding submission is what they need"
    ]
