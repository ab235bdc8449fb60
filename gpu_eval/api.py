"""What notebooks, training loops and the command line call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack, overload

import pyarrow as pa

from gpu_eval.engines.resize import parse_resolution
from gpu_eval.labels import Labels, as_labels
from gpu_eval.labels.instance_space import load_instances
from gpu_eval.meter import ConfusionMeter, confusion_matrix
from gpu_eval.metrics.bootstrap import RESAMPLES
from gpu_eval.metrics.matching import AREA, check_area
from gpu_eval.results import compare as comparing
from gpu_eval.results import leaderboard as ranking
from gpu_eval.results.compare import Comparison
from gpu_eval.results.instance_run import InstanceRun
from gpu_eval.results.run import ScoredRun, open_scored
from gpu_eval.results.semantic_run import Run
from gpu_eval.run_folder import folder as run_folder
from gpu_eval.runs.drive import Options, Progress, drive
from gpu_eval.storage import Place, place
from gpu_eval.tasks.instance import InstanceTask
from gpu_eval.tasks.semantic import SemanticTask

if TYPE_CHECKING:
    from distributed import Client

Location = str | os.PathLike[str]

__all__ = [
    "ConfusionMeter",
    "Progress",
    "compare",
    "confusion_matrix",
    "leaderboard",
    "open_run",
    "score",
    "score_instances",
    "tag",
    "write_html",
]


class RunOptions(TypedDict, total=False):
    """The keyword arguments that every way of scoring a split takes; defaults and checks are `Options`'.

    `threads` (default: all cores) and `engine` ("auto", "cpu" or "cuda") say who counts. `on_error` says what
    becomes of images that cannot be scored: "stop" (the default: the split is checked to its end, then this
    raises), "skip" (they are left out) or "void" (they count as nothing predicted). `resume` finishes an
    interrupted run of the same inputs, `overwrite` replaces the run in `out`. `shard_size` images make a
    committed part. `bootstrap` is the number of resamples the intervals come from, 0 for none. `entry` may
    hold the team, method and link of the run's row on a leaderboard (`tag` sets them later). `client` is a
    `distributed.Client`: its workers score, and must see the inputs and `out` by the same names. `progress`
    is called as the run goes on.
    """

    threads: int | None
    engine: str
    on_error: str
    resume: bool
    overwrite: bool
    shard_size: int | None
    bootstrap: int
    entry: Mapping[str, str | None]
    client: Client | None
    progress: Callable[[Progress], None] | None


def score(
    gts: Location,
    preds: Location,
    *,
    out: Location,
    labels: Labels = "idd",
    gt_encoding: str | None = None,
    pred_encoding: str | None = None,
    res: str | None = None,
    gt_suffix: str | None = None,
    pred_suffix: str | None = None,
    **options: Unpack[RunOptions],
) -> Run:
    """Score a split of predicted label maps and write the run folder `out`.

    `gts` and `preds` are folders, .zip or .tar files, or fsspec URLs. `labels` is "idd", "idd-lite",
    "cityscapes", the path of a label CSV, or a number of classes. Encodings, suffixes and `res`
    (1080, 720, 480, 240, native or WxH) default to the benchmark's own. The other options are those of
    `RunOptions`; `bootstrap` is 2,000 and `shard_size` 512 unless given, and with `on_error` "void" a missing
    or broken prediction counts as void everywhere.

    Raises
        SplitProblems: every problem of the split, found in one pass; the run stays incomplete.
        InputError, ReportError, EngineError: what was asked for cannot be done; see `gpu_eval.errors`.
        ClusterError: the cluster is lost, or a worker cannot work; what is finished is kept for `resume`.
        Interrupted: Ctrl-C. What is finished is kept for `resume`.
    """
    options.setdefault("bootstrap", RESAMPLES)
    checked = Options(**options)
    space = as_labels(labels)
    task = SemanticTask(
        space,
        gt_encoding=gt_encoding or space.default_encoding,
        pred_encoding=pred_encoding or space.default_encoding,
        resolution=parse_resolution(res or space.resolution),
        gt_suffix=gt_suffix or space.gt_suffix,
        pred_suffix=pred_suffix or space.pred_suffix,
        void_on_error=checked.on_error == "void",
    )
    return Run(drive(task, os.fspath(gts), os.fspath(preds), os.fspath(out), checked))


def score_instances(
    gts: Location,
    preds: Location,
    *,
    out: Location,
    labels: Location = "idd",
    gt_suffix: str | None = None,
    list_suffix: str | None = None,
    area: tuple[float, float] = AREA,
    **options: Unpack[RunOptions],
) -> InstanceRun:
    """Score a split of predicted instances (AP, AP50) and write the run folder `out`.

    `gts` holds 16-bit PNGs (pixel = id, or id * 1000 + n). `preds` holds per image a list of masks
    ("mask.png labelID confidence" per line) and the masks, or is a COCO results file (.json) with run-length
    masks. `labels` is "idd", "cityscapes" or a label CSV with `has_instances`. Ground truth of fewer pixels
    than `area[0]`, or of `area[1]` and more, does not count. The other options are those of `RunOptions`;
    `bootstrap` is 0 and `shard_size` 128 unless given, and with `on_error` "void" an image with a missing or
    broken prediction counts as one without predictions.

    Raises
        SplitProblems: every problem of the split, found in one pass; the run stays incomplete.
        InputError, ReportError, EngineError, ClusterError, Interrupted: as `score`.
    """
    checked = Options(**options)
    check_area(area)  # before anything is listed
    task = InstanceTask(
        load_instances(os.fspath(labels)),
        area,
        gt_suffix=gt_suffix,
        list_suffix=list_suffix,
        void_on_error=checked.on_error == "void",
    )
    return InstanceRun(drive(task, os.fspath(gts), os.fspath(preds), os.fspath(out), checked))


@overload
def open_run(location: Location, task: Literal["semantic"]) -> Run: ...


@overload
def open_run(location: Location, task: Literal["instance"]) -> InstanceRun: ...


@overload
def open_run(location: Location, task: None = None) -> ScoredRun: ...


def open_run(location: Location, task: str | None = None) -> ScoredRun:
    """Open a run, in a folder or at an fsspec URL.

    `task` is "semantic" or "instance", where only a run of that kind will do: then type checkers know what
    comes back, a `Run` or an `InstanceRun`.

    Raises
        CorruptRun: not a run folder, or one that cannot be read.
        IncompleteRun: the run was stopped before its end.
        WrongKind: a run of another task.
    """
    return open_scored(location, task)


def compare(
    run_a: ScoredRun | Location,
    run_b: ScoredRun | Location,
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
    runs: Iterable[ScoredRun | Location],
    *,
    published: bool = False,
    sort: str | None = None,
    protocol: str | None = None,
) -> pa.Table:
    """Runs of one split in order of their score, with ranks, tiers, intervals and provenance.

    All are semantic runs, or all are of instances. They may be given as their folders. `published` adds the
    rows of the benchmark's own boards; `sort` is L3, L2, L1, AP or AP50 (default: the finest level, or AP).
    Columns: docs/schema.md.

    Raises
        IncomparableRuns: ground truth, label space, protocols, resolution, area or splits differ.
        CorruptRun, IncompleteRun: a run cannot be used.
        OptionError: no runs, one twice, runs of both kinds, or an unknown sort or protocol.
    """
    return ranking.leaderboard(
        [_opened(run) for run in runs], published=published, sort=sort, protocol=protocol
    )


def _opened(run: ScoredRun | Location) -> ScoredRun:
    return run if isinstance(run, ScoredRun) else open_run(run)


def tag(
    run: ScoredRun | Location,
    *,
    team: str | None = None,
    method: str | None = None,
    link: str | None = None,
) -> dict[str, str | None]:
    """Set the given fields of a run's row on a leaderboard, keep the others, and return all of them.

    An empty text clears a field. Raises CorruptRun where there is no run, OptionError for a link that is no
    web address.
    """
    folder = run.folder if isinstance(run, ScoredRun) else place(run)
    return run_folder.tag(folder, {"team": team, "method": method, "link": link})


def check_html() -> None:
    """Raise OptionError where the libraries that the HTML report needs are not installed."""
    from gpu_eval.page import html

    html.load_bundler()


def write_html(
    run: ScoredRun | Location,
    path: Location | None = None,
    *,
    gts: Location | None = None,
    preds: Location | None = None,
    labels: Labels | None = None,
) -> Place:
    """Write the page of a run of label maps, by default as report.html of its folder; returns the path.

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
    location = str(run.folder) if isinstance(run, ScoredRun) else run
    drawn = run if isinstance(run, Run) else open_run(location, "semantic")
    pictures = thumbnails.of_worst(
        drawn,
        None if gts is None else os.fspath(gts),
        None if preds is None else os.fspath(preds),
        labels,
    )
    return html.write_report(drawn, None if path is None else Path(path), pictures)
