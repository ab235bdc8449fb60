"""What notebooks, training loops and the command line call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, overload

import pyarrow as pa

from gpu_eval import registry
from gpu_eval.checkup import instance as instance_check
from gpu_eval.checkup import semantic as semantic_check
from gpu_eval.checkup.examination import Asked, Examination
from gpu_eval.engines.resize import parse_resolution
from gpu_eval.errors import OptionError
from gpu_eval.labels import Labels, LabelSpace, as_labels
from gpu_eval.labels.instance_coding import FACTOR, check_factor
from gpu_eval.labels.instance_readings import choose_reading, load_readings
from gpu_eval.labels.instance_space import load_instances
from gpu_eval.meter import ConfusionMeter, confusion_matrix
from gpu_eval.metrics.matching import AREA, check_area
from gpu_eval.metrics.matrices import compare_confusions, miou_interval
from gpu_eval.metrics.uncertainty import CONFIDENCE
from gpu_eval.results import compare as comparing
from gpu_eval.results import leaderboard as ranking
from gpu_eval.results.compare import Comparison
from gpu_eval.results.instance_run import InstanceRun
from gpu_eval.results.run import ScoredRun, open_scored
from gpu_eval.results.semantic_run import Run
from gpu_eval.results.units_file import Wanted
from gpu_eval.run_folder import folder as run_folder
from gpu_eval.runs.drive import Options, Progress, drive
from gpu_eval.storage import Place, place, write
from gpu_eval.tasks.instance import InstanceTask
from gpu_eval.tasks.semantic import SemanticTask

if TYPE_CHECKING:
    from distributed import Client

Location = str | os.PathLike[str]

__all__ = [
    "ConfusionMeter",
    "Progress",
    "check",
    "compare",
    "compare_confusions",
    "confusion_matrix",
    "leaderboard",
    "miou_interval",
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
    committed part (512 label maps, 128 images of instances). `units` are what intervals leave out in turn:
    "drives" (the default), "images", a CSV file with the columns key and, say, city, or a mapping from each
    image's key to its unit, a string or an integer; `intervals=False` leaves intervals away. `as_is` scores
    what certainly is not what was meant, too. `entry` may hold
    the team, method and link of the run's row on a leaderboard (`tag` sets them later). `client` is a
    `distributed.Client`: its workers score, and must see the inputs and `out` by the same names. `progress`
    is called as the run goes on, `tell` with a line for a person where it has to wait for a worker.
    """

    threads: int | None
    engine: str
    on_error: str
    resume: bool
    overwrite: bool
    shard_size: int | None
    units: Wanted
    intervals: bool
    as_is: bool
    entry: Mapping[str, str | None] | None
    client: Client | None
    progress: Callable[[Progress], None] | None
    tell: Callable[[str], None] | None


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
    "cityscapes", the path of a label CSV, or a number of classes. Encodings and `res`
    (1080, 720, 480, 240, native or WxH) default to the benchmark's own. Without suffixes the files are found
    as the benchmark and the toolchains in use name them; what was assumed is among the run's notes. The other
    options are those of
    `RunOptions`; with `on_error` "void" a missing or broken prediction counts as void everywhere.

    Raises
        SplitProblems: every problem of the split, found in one pass; the run stays incomplete.
        InputError, ReportError, EngineError: what was asked for cannot be done; see `gpu_eval.errors`.
        ClusterError: the cluster is lost, or a worker cannot work; what is finished is kept for `resume`.
        Interrupted: Ctrl-C. What is finished is kept for `resume`.
    """
    checked = _options("score", options)
    space = as_labels(labels)
    task = SemanticTask(
        space,
        gt_encoding=gt_encoding or space.default_encoding,
        pred_encoding=pred_encoding or space.default_encoding,
        resolution=parse_resolution(res or space.resolution),
        gt_suffix=gt_suffix,
        pred_suffix=pred_suffix,
        void_on_error=checked.void_on_error,
        as_is=checked.as_is,
    )
    return Run(drive(task, os.fspath(gts), os.fspath(preds), place(out), checked))


def score_instances(
    gts: Location,
    preds: Location,
    *,
    out: Location,
    labels: Location = "idd",
    gt_suffix: str | None = None,
    list_suffix: str | None = None,
    gt_factor: int = FACTOR,
    pred_encoding: str | None = None,
    area: tuple[float, float] = AREA,
    **options: Unpack[RunOptions],
) -> InstanceRun:
    """Score a split of predicted instances (AP, AP50) and write the run folder `out`.

    `gts` holds 16-bit PNGs (pixel = id, or id * 1000 + n). `preds` holds per image a list of masks
    ("mask.png labelID confidence" per line) and the masks, or is a COCO results file (.json) with run-length
    masks. `labels` is "idd", "cityscapes" or a label CSV with `has_instances`. `gt_factor` 256 reads ground
    truth of id * 256 + n. `pred_encoding` says what the labels of predictions are, if not raw ids: "level3",
    "cs", "cs_train", ... as the label table's columns (and "id+1"), "from0" or "from1" for places among the
    evaluated classes, "coco" or "coco0" for COCO's categories. Ground truth of fewer pixels
    than `area[0]`, or of `area[1]` and more, does not count. The other options are those of `RunOptions`;
    with `on_error` "void" an image with a missing or broken prediction counts as one without predictions.

    Raises
        SplitProblems: every problem of the split, found in one pass; the run stays incomplete.
        InputError, ReportError, EngineError, ClusterError, Interrupted: as `score`.
    """
    checked = _options("score_instances", options)
    check_area(area)  # before anything is listed
    check_factor(gt_factor)
    space = load_instances(os.fspath(labels))
    readings = load_readings(os.fspath(labels), space)
    task = InstanceTask(
        space,
        area,
        gt_suffix=gt_suffix,
        list_suffix=list_suffix,
        gt_factor=gt_factor,
        reading=choose_reading(readings, pred_encoding),
        readings=readings,
        void_on_error=checked.void_on_error,
    )
    return InstanceRun(drive(task, os.fspath(gts), os.fspath(preds), place(out), checked))


def check(
    preds: Location,
    gts: Location | None = None,
    *,
    task: Literal["semantic", "instance"] = "semantic",
    labels: Labels = "idd",
    gt_encoding: str | None = None,
    pred_encoding: str | None = None,
    gt_suffix: str | None = None,
    pred_suffix: str | None = None,
    gt_factor: int = FACTOR,
    names: Location | None = None,
    fix: Location | None = None,
    threads: int | None = None,
) -> Examination:
    """What is wrong with predictions before they are scored or uploaded, in one pass; nothing is scored.

    With `gts` the split is listed as scoring lists it, and a few images are judged against their ground
    truth; without, the predictions are examined alone. Every file is read to its end. `pred_suffix` is how
    names of label maps end, or of lists of masks. `names` is a file that says which images must be there:
    one name a line, or a CSV file with a column `key`. `fix` writes a corrected copy of label maps to that
    folder where the fix is certain (docs/check.md says what is); the predictions are never touched. The
    other options are those of `score` and `score_instances`.

    Raises
        OptionError: an option has no meaning here, or the folder of `fix` is not empty.
        UnreadableSource, LabelTableError: a side cannot be listed, or the labels cannot be read.
        ReportError: the corrected copy cannot be written.
    """
    given = {
        "labels": None if labels == "idd" or isinstance(labels, LabelSpace) else labels,
        "gt_encoding": gt_encoding,
        "pred_encoding": pred_encoding,
        "gt_suffix": gt_suffix,
        "pred_suffix" if task == "semantic" else "list_suffix": pred_suffix,
        "gt_factor": None if gt_factor == FACTOR else gt_factor,
    }
    asked = Asked(
        command=registry.TASKS[task].command if task in registry.TASKS else task,
        preds=os.fspath(preds),
        gts=None if gts is None else os.fspath(gts),
        options={name: str(value) for name, value in given.items() if value is not None},
        check_options={
            **({} if task == "semantic" else {"task": task}),
            **({} if names is None else {"names": os.fspath(names)}),
        },
    )
    options: dict[str, Any] = {
        "names": None if names is None else os.fspath(names),
        "fix": None if fix is None else os.fspath(fix),
        "threads": threads,
    }
    if task == "semantic":
        if gt_factor != FACTOR:
            raise OptionError("gt_factor has no meaning for label maps", found=str(gt_factor))
        return semantic_check.check(asked, as_labels(labels), **options)
    if task == "instance":
        if isinstance(labels, LabelSpace | int):
            raise OptionError("the labels of instances are a name or a file", found=repr(labels)[:80])
        if gt_encoding is not None:
            fix = "gt_factor says how their ground truth is coded"
            raise OptionError("gt_encoding has no meaning for instances", found=gt_encoding, fix=fix)
        return instance_check.check(asked, os.fspath(labels), **options)
    raise OptionError("no such task", found=repr(task), expected=" or ".join(registry.TASKS))


def _options(caller: str, given: RunOptions) -> Options:
    """Raises TypeError as a call does for a keyword that there is not, OptionError for a wrong value."""
    for name in given:
        if name not in RunOptions.__annotations__:
            raise TypeError(f"{caller}() got an unexpected keyword argument {name!r}")
    return Options(**given)


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
    units: Wanted = "drives",
    confidence: float = CONFIDENCE,
) -> Comparison:
    """The second run against the first, B - A, with paired intervals and p-values (docs/statistics.md).

    Both are semantic runs (mIoU and IoU), or both are of instances (AP and AP50). They may be given as their
    folders. `common` compares the images both have where the sets differ. `units` is "drives", "images", a
    CSV file with the columns key and, say, city, or a mapping from each image's key to its unit, a string or
    an integer.

    Raises
        OptionError: runs of two tasks, or units that do not fit the images.
        IncomparableRuns: ground truth, label space, protocols, resolution, area or images differ; it says
            which.
        CorruptRun, IncompleteRun: a run cannot be used.
    """
    return comparing.compare(
        _opened(run_a), _opened(run_b), common=common, units=units, confidence=confidence
    )


def leaderboard(
    runs: Iterable[ScoredRun | Location],
    *,
    published: bool = False,
    sort: str | None = None,
    protocol: str | None = None,
    units: Wanted = "drives",
) -> pa.Table:
    """Runs of one split in order of their score, with ranks, rank ranges, intervals and provenance.

    All are semantic runs, or all are of instances. They may be given as their folders. `published` adds the
    rows of the benchmark's own boards; `sort` is L3, L2, L1, AP or AP50 (default: the finest level, or AP);
    `units` is as in `compare`. Columns: docs/schema.md.

    Raises
        IncomparableRuns: ground truth, label space, protocols, resolution, area or splits differ.
        CorruptRun, IncompleteRun: a run cannot be used.
        OptionError: no runs, one twice, runs of both kinds, or an unknown sort or protocol.
    """
    return ranking.leaderboard(
        [_opened(run) for run in runs], published=published, sort=sort, protocol=protocol, units=units
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
    """Write the page of a run, by default as report.html of its folder; returns the path.

    The page of label maps has charts, and pictures of the worst images, which are read from `gts` and
    `preds`, or else from where the run was scored from, if that is still there; `labels` is needed for them
    where the run was scored with a label CSV of the user.

    Raises
        OptionError: the plotting libraries are not installed, which label maps need.
        InputError: `gts` or `preds` are given and cannot be read.
        ReportError: the page cannot be written.
    """
    drawn = _opened(run)
    if isinstance(drawn, Run):
        from gpu_eval import thumbnails

        check_html()  # before the pictures, which take longer
        pictures = thumbnails.of_worst(
            drawn,
            None if gts is None else os.fspath(gts),
            None if preds is None else os.fspath(preds),
            labels,
        )
        text = drawn.page(pictures)
    else:
        text = drawn.page()
    target = drawn.folder / "report.html" if path is None else Path(path)
    write(target, lambda file: file.write(text.encode()))
    return target
