"""What notebooks, training loops and the command line call."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from gpu_eval.engines.engine import make_task
from gpu_eval.engines.resize import parse_resolution
from gpu_eval.errors import OptionError
from gpu_eval.inputs.coco import read_split_coco
from gpu_eval.inputs.instance_split import read_split
from gpu_eval.inputs.pairs import pair_up
from gpu_eval.labels import Labels, as_labels
from gpu_eval.labels.instance_space import load_instances
from gpu_eval.meter import ConfusionMeter, confusion_matrix
from gpu_eval.metrics.bootstrap import RESAMPLES
from gpu_eval.metrics.matching import AREA, check_area
from gpu_eval.results import compare as comparing
from gpu_eval.results import leaderboard as ranking
from gpu_eval.results import semantic_run as report
from gpu_eval.results.compare import Comparison
from gpu_eval.results.instance_run import InstanceRun, area_facts, describe_space
from gpu_eval.results.instance_run import finish as finish_instances
from gpu_eval.results.semantic_run import Run
from gpu_eval.results.semantic_run import open_run as open_semantic
from gpu_eval.run_folder import folder as run_folder
from gpu_eval.run_folder import manifest, schema
from gpu_eval.runs.drive import Options, Plan, Progress, drive, stop_early
from gpu_eval.runs.workers import make_crew
from gpu_eval.storage import Place, place
from gpu_eval.tasks.instance import DECODERS, InstanceWork
from gpu_eval.tasks.semantic import SemanticWork
from gpu_eval.tasks.summary import Tally
from gpu_eval.version import __version__

if TYPE_CHECKING:
    from distributed import Client

AnyRun = Run | InstanceRun

__all__ = [
    "ConfusionMeter",
    "Progress",
    "compare",
    "confusion_matrix",
    "leaderboard",
    "open_run",
    "open_semantic",
    "score",
    "score_instances",
    "write_html",
]


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
    client: Client | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Score a split of predictions and write the run folder `out`.

    `gts` and `preds` are folders, .zip or .tar files, or fsspec URLs. `labels` is "idd", "idd-lite",
    "cityscapes", the path of a label CSV, or a number of classes. Encodings, suffixes and `res`
    (1080, 720, 480, 240, native or WxH) default to the benchmark's own. `on_error` says what becomes of
    images that cannot be scored: "stop" (the split is checked to its end, then this raises), "skip"
    (they are left out) or "void" (a missing or broken prediction counts as void everywhere).
    `bootstrap` is the number of resamples the intervals come from, 0 for none. `entry` may hold the team,
    method and link of the run's row on a leaderboard (`gpu-eval tag` sets them later). `client` is a
    `distributed.Client`: its workers score, and must see the inputs and `out` by the same names.

    Raises
        SplitProblems: every problem of the split, found in one pass; the run stays incomplete.
        InputError, ReportError, EngineError: what was asked for cannot be done; see `gpu_eval.errors`.
        ClusterError: the cluster is lost, or a worker cannot work; what is finished is kept for `resume`.
        Interrupted: Ctrl-C. What is finished is kept for `resume`.
    """
    started = time.perf_counter()
    options = Options(on_error, resume, overwrite, shard_size)
    options.check()
    space = as_labels(labels)
    if bootstrap < 0:
        raise OptionError("bootstrap must be at least 0", found=str(bootstrap))
    entry = run_folder.make_entry(entry or {})
    task = make_task(
        space,
        gt_encoding=gt_encoding,
        pred_encoding=pred_encoding,
        resolution=parse_resolution(res or space.resolution),
        void_on_error=on_error == "void",
    )
    folder = place(out)
    with make_crew(engine, threads, client) as crew:
        gt_source, pred_source = crew.open(gts), crew.open(preds)
        split = pair_up(
            gt_source.entries(),
            pred_source.entries(),
            gt_suffix=gt_suffix or space.gt_suffix,
            pred_suffix=pred_suffix or space.pred_suffix,
            gt_location=str(gts),
            pred_location=str(preds),
            exclude=space.exclude,
        )
        plan = Plan(
            schema.SEMANTIC,
            manifest.of_pairs(split.pairs),
            decides={
                "version": __version__,
                "labels": space.digest(),
                "gt_encoding": gt_encoding or space.default_encoding,
                "pred_encoding": pred_encoding or space.default_encoding,
                "resolution": list(task.resolution) if task.resolution else "native",
                "void_on_error": task.void_on_error,
                "shard_size": shard_size,
            },
            facts={
                "gts": str(gts),
                "preds": str(preds),
                "entry": entry,
                "labels": report.describe_labels(space),
                "notes": list(split.notes),
            },
            problems=split.problems,
        )
        stop_early(plan, on_error, "--pred-suffix")
        work = SemanticWork(crew.workplace(folder, plan.fingerprint(), gts, preds), task, space)

        def finish(facts: Mapping[str, Any], tally: Tally) -> None:
            assert tally.confusion is not None
            report.finish(folder, {**facts, **_counted(tally)}, tally.confusion, space, resamples=bootstrap)

        drive(plan, folder, work, options, crew=crew, finish=finish, started=started, progress=progress)
    return Run(folder)


def score_instances(
    gts: str | os.PathLike[str],
    preds: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    labels: str | os.PathLike[str] = "idd",
    gt_suffix: str | None = None,
    list_suffix: str | None = None,
    area: tuple[float, float] = AREA,
    threads: int | None = None,
    engine: str = "auto",
    on_error: str = "stop",
    resume: bool = False,
    overwrite: bool = False,
    shard_size: int = 128,
    entry: Mapping[str, str | None] | None = None,
    client: Client | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> InstanceRun:
    """Score a split of predicted instances (AP, AP50) and write the run folder `out`.

    `gts` holds 16-bit PNGs (pixel = id, or id * 1000 + n). `preds` holds per image a list of masks
    ("mask.png labelID confidence" per line) and the masks, or is a COCO results file (.json) with run-length
    masks. `labels` is "idd", "cityscapes" or a label CSV with `has_instances`. Ground truth of fewer pixels
    than `area[0]`, or of `area[1]` and more, does not count. `on_error` "void" counts an image with a
    missing or broken prediction as one without predictions; the rest is as in `score`.

    Raises
        SplitProblems: every problem of the split, found in one pass; the run stays incomplete.
        InputError, ReportError, EngineError, ClusterError, Interrupted: as `score`.
    """
    started = time.perf_counter()
    options = Options(on_error, resume, overwrite, shard_size)
    options.check()
    check_area(area)  # before anything is listed
    space = load_instances(os.fspath(labels))
    entry = run_folder.make_entry(entry or {})
    folder = place(out)
    is_coco = os.fspath(preds).lower().endswith(".json")
    with make_crew(engine, threads, client) as crew:
        gt_source = crew.open(gts)
        if is_coco:
            split = read_split_coco(gt_source, os.fspath(preds), space, gt_suffix=gt_suffix)
        else:
            split = read_split(
                gt_source, crew.open(preds), space, gt_suffix=gt_suffix, list_suffix=list_suffix
            )
        skipped = f"{split.skipped} predictions of labels that are not evaluated were left out"
        plan = Plan(
            schema.INSTANCE,
            manifest.of_images(split.images),
            decides={
                "version": __version__,
                "labels": space.digest(),
                "area": area_facts(area),
                "void_on_error": on_error == "void",
                "shard_size": shard_size,
            },
            facts={
                "gts": str(gts),
                "preds": str(preds),
                "entry": entry,
                "labels": describe_space(space),
                "notes": [*split.notes, *([skipped] if split.skipped else [])],
            },
            problems=split.problems,
        )
        stop_early(plan, on_error, "--list-suffix")
        here = crew.workplace(folder, plan.fingerprint(), gts, None if is_coco else preds)
        work = InstanceWork(here, space, area, on_error == "void")

        def finish(facts: Mapping[str, Any], tally: Tally) -> None:
            counted = {name: tally.counts[f"decoder {name}"] for name in DECODERS}
            finish_instances(folder, {**facts, "decoders": counted}, space, area)

        drive(plan, folder, work, options, crew=crew, finish=finish, started=started, progress=progress)
    return InstanceRun(folder)


def open_run(location: str | os.PathLike[str]) -> AnyRun:
    """Open a run of either kind, in a folder or at an fsspec URL.

    Raises
        CorruptRun: not a run folder, or one that cannot be read.
        IncompleteRun: the run was stopped before its end.
    """
    folder = place(location)
    kind = run_folder.read_facts(folder)["kind"]
    return InstanceRun(folder) if kind == schema.INSTANCE else Run(folder)


def compare(
    run_a: AnyRun | str | os.PathLike[str],
    run_b: AnyRun | str | os.PathLike[str],
    *,
    common: bool = False,
    resamples: int = RESAMPLES,
) -> Comparison:
    """The second run against the first, B - A, with paired bootstrap intervals and p-values.

    Both are semantic runs (mIoU and IoU), or both are of instances (AP and AP50). They may be given as their
    folders. `common` compares the images both have where the sets differ.

    Raises
        OptionError: one run of each kind.
        IncomparableRuns: ground truth, label space, protocols, resolution, area or images differ; it says
            which.
        CorruptRun, IncompleteRun: a run cannot be used.
    """
    return comparing.compare(_opened(run_a), _opened(run_b), common=common, resamples=resamples)


def leaderboard(
    runs: Iterable[AnyRun | str | os.PathLike[str]],
    *,
    published: bool = False,
    sort: str | None = None,
    protocol: str | None = None,
) -> pa.Table:
    """Runs of one split in order of their score, with ranks, tiers, intervals and provenance.

    All are semantic runs, or all are of instances. They may be given as their folders. `published` adds the
    rows of the benchmark's own boards; `sort` is L3, L2, L1, AP or AP50 (default: the finest level, or AP).
    Columns: `report.schema.board`.

    Raises
        IncomparableRuns: ground truth, label space, protocols, resolution, area or splits differ.
        CorruptRun, IncompleteRun: a run cannot be used.
        OptionError: no runs, one twice, runs of both kinds, or an unknown sort or protocol.
    """
    return ranking.leaderboard(
        [_opened(run) for run in runs], published=published, sort=sort, protocol=protocol
    )


def _opened(run: AnyRun | str | os.PathLike[str]) -> AnyRun:
    return run if isinstance(run, Run | InstanceRun) else open_run(run)


def check_html() -> None:
    """Raise OptionError where the libraries that the HTML report needs are not installed."""
    from gpu_eval.page import html

    html.load_bundler()


def write_html(
    run: Run,
    path: str | os.PathLike[str] | None = None,
    *,
    gts: str | os.PathLike[str] | None = None,
    preds: str | os.PathLike[str] | None = None,
    labels: Labels | None = None,
) -> Place:
    """Write the HTML report of a run, by default as report.html of its folder; returns the path.

    Its pictures of the worst images are read from `gts` and `preds`, or else from where the run was scored
    from, if that is still there. `labels` is needed for pictures of a run with a label CSV of the user.

    Raises
        WrongKind: a run of instances.
        OptionError: the plotting libraries are not installed.
        InputError: `gts` or `preds` are given and cannot be read.
        ReportError: the page cannot be written.
    """
    from gpu_eval import thumbnails
    from gpu_eval.page import html

    check_html()  # before the pictures, which take longer
    if not isinstance(run, Run):  # of instances: WrongKind, opened or not
        run = Run(run.folder) if isinstance(run, InstanceRun) else open_semantic(run)
    pictures = thumbnails.of_worst(
        run, None if gts is None else os.fspath(gts), None if preds is None else os.fspath(preds), labels
    )
    return html.write_report(run, None if path is None else Path(path), pictures)


def _counted(tally: Tally) -> dict[str, Any]:
    """What run.json tells of the pixels of a semantic run."""
    return {
        "decoders": {name: tally.counts[f"decoder {name}"] for name in ("simd", "cuda", "pillow")},
        "gt_outside": tally.counts["gt_outside"],
        "pred_outside": tally.counts["pred_outside"],
        "warnings": [*tally.warnings, *_doubts(tally)],
    }


def _doubts(tally: Tally) -> list[str]:
    """What makes the numbers look like a mix-up of ids, the most common mistake with such files."""
    assert tally.confusion is not None
    if not tally.counts["pred_outside"] or not tally.confusion[0].any() or tally.confusion[:, 0].any():
        return []
    return [
        "class 0 is never predicted and some predicted values are outside the encoding: if the "
        "predictions count from 1, --pred-encoding submission is what they need"
    ]
