"""The commands. Printing is `console`'s; only this file exits.

Exit codes: 0 done, 2 bad input or a run that cannot be used (of `check`: something would be refused, or is
certainly wrong), 3 a run is worse than `compare --fail-if-worse` allows, 4 `check` found doubts only,
1 internal error, 130 Ctrl-C.
Results go to standard output; progress, notes and errors to standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from gpu_eval.cli.options import (
    client_of,
    cluster_options,
    drawn_no_more,
    entry_options,
    interval_options,
    join_options,
    output_options,
    run_options,
    units_option,
)
from gpu_eval.errors import ClusterError, GpuEvalError, InputError, OptionError, SplitProblems

# What a gate of a pipeline asks for.
WORSE = 3
DOUBTFUL = 4

# Rows of the table of problems on a terminal; run.json and the images table have the rest.
PROBLEMS_SHOWN = 40


def _tell_version(ctx: click.Context) -> None:
    from gpu_eval.version import __version__

    click.echo(f"gpu-eval, version {__version__}")
    ctx.exit()


class _Group(click.Group):
    """Turns the package's errors into one message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GpuEvalError as error:
            from gpu_eval.cli import console

            if isinstance(error, SplitProblems):
                console.show_problems(error, PROBLEMS_SHOWN)
            console.show_error(error)
            ctx.exit(error.exit_code)
        except (click.exceptions.Exit, click.Abort, click.ClickException):
            raise
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(130)
        except BrokenPipeError:
            sys.stderr.close()
            ctx.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, _, asked: _tell_version(ctx) if asked and not ctx.resilient_parsing else None,
    help="Show the version and exit.",
)
def main() -> None:
    """Score segmentation predictions: exact confusion matrices per image, a Parquet report, SQL."""


@main.command()
@click.argument("gts", required=False)
@click.argument("preds", required=False)
@click.option("--gts", "gts_option", metavar="GTS", help="Ground truth, as the public script spells it.")
@click.option("--preds", "preds_option", metavar="PREDS", help="Predictions, as the public script spells it.")
@click.option("-o", "--out", required=True, metavar="FOLDER|URL", help="The run folder to write.")
@click.option(
    "--labels",
    default="idd",
    show_default=True,
    metavar="NAME|CSV",
    help="idd, idd-lite, cityscapes, or a label CSV of your own.",
)
@click.option("--gt-encoding", metavar="NAME", help="What the gt's pixels mean: level3, id, colour, ...")
@click.option(
    "--pred-encoding", metavar="NAME", help="The same for predictions: submission, id, train+1, ..."
)
@click.option(
    "--res",
    metavar="SIZE",
    help="1080, 720, 480, 240, native or WIDTHxHEIGHT; default as the benchmark has it.",
)
@click.option("--gt-suffix", metavar="TEXT", help="How names of ground-truth files end.")
@click.option("--pred-suffix", metavar="TEXT", help="How names of prediction files end.")
@run_options("semantic")
@interval_options
@cluster_options
@entry_options
@click.option("--html", is_flag=True, help="Also write report.html into the run folder.")
@output_options
def score(
    gts: str | None, preds: str | None, gts_option: str | None, preds_option: str | None, out: str,
    output: str, **options: Any,
) -> None:  # fmt: skip
    """Score the predictions PREDS against the ground truth GTS.

    Either is a folder, a .zip or .tar (read in place) or an fsspec URL.
    """
    arguments = [argument for argument in (gts, preds) if argument]
    sides = [option or (arguments.pop(0) if arguments else None) for option in (gts_option, preds_option)]
    inputs = [side for side in sides if side]
    if len(inputs) != 2 or arguments:
        raise click.UsageError("exactly two inputs are needed: gpu-eval score GTS PREDS -o FOLDER")
    _score(inputs[0], inputs[1], out, output, **options)


def _score(gts: str | Path, preds: str | Path, out: str | Path, output: str, **options: Any) -> None:
    from gpu_eval import api
    from gpu_eval.cli import console

    html = options.pop("html", False)
    if html:
        api.check_html()  # before scoring, which may take an hour
    run = _carry_out(api.score, gts, preds, output, out=out, **options)
    if html:
        console.say(f"page: {api.write_html(run, labels=options.get('labels'))}")


def _carry_out(
    call: Callable[..., Any], gts: str | Path, preds: str | Path, output: str, **options: Any
) -> Any:
    """Have `api.score` or `score_instances` score, with progress and on the cluster asked for; show it."""
    from gpu_eval.cli import progress, show_workers

    drawn_no_more(options)
    entry = {name: options.pop(name, None) for name in ("team", "method", "link")}
    with client_of(options) as client, progress.ProgressLine() as line:
        run = call(gts, preds, entry=entry, client=client, progress=line.update, tell=line.say, **options)
    _show(run, output)
    if client is not None:
        show_workers.show_workers(run.facts)
    return run


@main.command()
@click.argument("gts")
@click.argument("preds")
@click.option("-o", "--out", required=True, metavar="FOLDER|URL", help="The run folder to write.")
@click.option(
    "--labels",
    default="idd",
    show_default=True,
    metavar="NAME|CSV",
    help="idd, cityscapes, or a label CSV with has_instances.",
)
@click.option("--gt-suffix", metavar="TEXT", help="How names of ground-truth files end.")
@click.option("--list-suffix", metavar="TEXT", help="How names of the lists of predictions end.")
@click.option(
    "--gt-factor",
    type=int,
    default=1000,
    show_default=True,
    metavar="N",
    help="Ground-truth pixels are id * N + n; 256 as KITTI and Vistas have it.",
)
@click.option(
    "--pred-encoding",
    metavar="NAME",
    help="What the labels of predictions are: id (the default), level3, cs, ...",
)
@click.option(
    "--area",
    nargs=2,
    type=float,
    metavar="FROM TO",
    default=(100, float("inf")),
    show_default="100 inf",
    help="Ground truth of other sizes, in pixels, does not count.",
)
@run_options("instance")
@interval_options
@cluster_options
@entry_options
@output_options
def instances(gts: str, preds: str, out: str, output: str, **options: Any) -> None:
    """Score predicted instances: AP and AP 50 % by the rules of AutoNUE and of Cityscapes.

    GTS holds 16-bit PNGs. PREDS holds lists of masks (mask.png labelID confidence) and the masks, or is a
    COCO results file. Either may be a folder, a .zip, a .tar or an fsspec URL.
    """
    from gpu_eval import api

    _carry_out(api.score_instances, gts, preds, output, out=out, **options)


@main.command()
@click.argument("preds")
@click.option("--gts", metavar="GTS", help="Ground truth; without it the predictions are examined alone.")
@click.option("--task", type=click.Choice(["semantic", "instance"]), default="semantic", show_default=True)
@click.option("--labels", default="idd", show_default=True, metavar="NAME|CSV", help="As `score` has it.")
@click.option("--gt-encoding", metavar="NAME", help="What the gt's pixel values mean: level3, id, ...")
@click.option("--pred-encoding", metavar="NAME", help="The same for predictions: level3, submission, id, ...")
@click.option("--gt-suffix", metavar="TEXT", help="How names of ground-truth files end.")
@click.option(
    "--pred-suffix", "--list-suffix", "pred_suffix", metavar="TEXT", help="How names of predictions end."
)
@click.option("--gt-factor", type=int, default=1000, show_default=True, metavar="N", help="As `instances`.")
@click.option(
    "--names", metavar="FILE", help="What must be there: a name a line, or a CSV with a column key."
)
@click.option(
    "--fix", metavar="FOLDER", help="Write a corrected copy of label maps where the fix is certain."
)
@click.option("-j", "--num-workers", "threads", type=int, metavar="N", help="Threads; default: all cores.")
@click.option("--format", "output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_context
def check(ctx: click.Context, /, preds: str, output: str, **options: Any) -> None:
    """Say what is wrong with the predictions PREDS before they are scored or uploaded.

    Every file is read to its end; nothing is scored. Exit codes: 0 nothing found, 2 something would be
    refused or is certainly wrong, 4 doubts only.
    """
    from gpu_eval import api
    from gpu_eval.cli import show_examination

    examination = api.check(preds, **options)
    show_examination.show_examination(examination, output)
    if not examination.ok:
        ctx.exit(InputError.exit_code if examination.certain else DOUBTFUL)


def _show(run: Any, output: str, *, level: int | None = None, protocol: str | None = None) -> None:
    """Doubts, notes and scores of a run of any task."""
    from gpu_eval import registry
    from gpu_eval.cli import console

    console.show_doubts(run)
    view = registry.module("cli", run.kind)
    view.notes(run)
    view.show(run, output, level=level, protocol=protocol)


@main.command()
@click.argument("run")
@click.option("--level", type=int, help="Classes of this level; default: the finest.")
@click.option("--protocol", metavar="NAME", help="Only this protocol: idd or autonue.")
@output_options
def show(run: str, level: int | None, protocol: str | None, output: str) -> None:
    """Show the scores of a run folder."""
    from gpu_eval import api

    _show(api.open_run(run), output, level=level, protocol=protocol)


@main.command()
@click.argument("run")
@click.argument("sql")
@output_options
def query(run: str, sql: str, output: str) -> None:
    """Answer SQL over a run's tables with DuckDB.

    Tables of `score`: levels, classes, confusion, images, cells, image_classes. Tables of `instances`:
    scores, classes, ap, curves, images, instances, intersections. See docs/schema.md.
    """
    from gpu_eval import api
    from gpu_eval.cli import console

    console.show_table(api.open_run(run).sql(sql), output)


@main.command()
@click.argument("run")
@click.option(
    "--images",
    nargs=2,
    metavar="GTS PREDS",
    help="Where to read the worst images; default: where they were scored from.",
)
@click.option("--labels", metavar="NAME|CSV", help="The label CSV of the run, if it was one of your own.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write; default: report.html in RUN.",
)
def report(run: str, images: tuple[str, str] | None, labels: str | None, out: Path | None) -> None:
    """Write the HTML report of a run folder: one file that opens offline."""
    from gpu_eval import api

    gts, preds = images or (None, None)
    click.echo(api.write_html(run, out, gts=gts, preds=preds, labels=labels))


@main.command()
@click.argument("run_a", metavar="RUN_A")
@click.argument("others", metavar="RUN_B...", nargs=-1, required=True)
@click.option("--common", is_flag=True, help="Where the image sets differ, compare the images both have.")
@click.option("--level", type=int, help="Classes and images of this level; default: the finest.")
@click.option("--protocol", metavar="NAME", help="One of the runs'; default: idd, of instances autonue.")
@units_option
@click.option(
    "--fail-if-worse",
    type=click.FloatRange(min=0),
    metavar="X",
    help="Exit with 3 if the mIoU (finest level) or AP of a later run is more than X below the first run's, "
    "if a run has no score, or if images are missing from a run and --common was not given.",
)
@click.option(
    "--significant",
    is_flag=True,
    help='With --fail-if-worse: a run that is worse by more than X passes if p is above 0.05. p tests "no '
    'difference", not X. Without a p (one drive, say) it fails.',
)
@output_options
@click.pass_context
def compare(
    ctx: click.Context, /, run_a: str, others: tuple[str, ...], common: bool, level: int | None,
    protocol: str | None, fail_if_worse: float | None, significant: bool, output: str, **options: Any,
) -> None:  # fmt: skip
    """Compare later runs with the first one: differences, whether they are noise, and where they are.

    All are runs of `score`, or all of `instances`. Differences are B - A with intervals and p-values, paired
    by drives (docs/statistics.md). Runs of different ground truth, labels, resolution or area are refused.
    """
    from gpu_eval import api
    from gpu_eval.cli import console, show_comparison

    if significant and fail_if_worse is None:
        raise click.UsageError("--significant belongs to --fail-if-worse X")
    drawn_no_more(options)
    results = [api.compare(run_a, other, common=common, **options) for other in others]
    show_comparison.show_comparisons(results, output, level=level, protocol=protocol)
    if fail_if_worse is None:
        return
    failed = False
    for result in results:
        why = show_comparison.why_it_fails(
            result, protocol, fail_if_worse, significant=significant, common=common
        )
        if why is not None:
            console.say(why)
            failed = True
    if failed:
        ctx.exit(WORSE)


@main.command()
@click.argument("runs", nargs=-1, required=True)
@click.option("--published", is_flag=True, help="Add the rows of the benchmark's own boards (IDD).")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Folder for Parquet, CSV, Markdown, HTML.")
@click.option("--sort", metavar="COLUMN", help="L3, L2, L1, AP or AP50; default: the finest level, or AP.")
@click.option("--protocol", metavar="NAME", help="One of the runs'; default: idd, of instances autonue.")
@units_option
@output_options
def leaderboard(
    runs: tuple[str, ...], published: bool, out: Path | None, sort: str | None, protocol: str | None,
    output: str, **options: Any,
) -> None:  # fmt: skip
    """Rank runs of one split by mIoU, or by AP if all are of instances, with intervals and provenance.

    Beside its rank each run has the range of ranks that the data allow it (docs/statistics.md). Runs with
    images missing are listed without a rank.
    """
    from gpu_eval import api
    from gpu_eval.cli import console, show_comparison
    from gpu_eval.results.leaderboard_files import write_board

    drawn_no_more(options)
    table = api.leaderboard(runs, published=published, sort=sort, protocol=protocol, **options)
    written = write_board(out, table) if out else []
    show_comparison.show_board(table, output)
    for path in written:
        console.say(f"wrote {path}")


@main.command()
@click.argument("run")
@entry_options
def tag(run: str, **given: str | None) -> None:
    """Set the team, method or link of a run's row on a leaderboard; "" clears one."""
    from gpu_eval import api
    from gpu_eval.cli import console

    if all(value is None for value in given.values()):
        raise click.UsageError("nothing to set: give --team, --method or --link")
    entry = api.tag(run, **given)
    console.say(", ".join(f"{name}: {value or 'none'}" for name, value in entry.items()))


@main.command()
def info() -> None:
    """Say which engines serve on this machine, and why one does not."""
    from gpu_eval.cli import show_workers
    from gpu_eval.engines.choose import survey

    show_workers.show_engines(survey())


@main.command("worker-check")
@click.argument("locations", nargs=-1, metavar="[INPUT]...")
@click.option("-o", "--out", metavar="FOLDER|URL", help="The folder that workers must be able to write to.")
@click.option("--engine", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@join_options
@click.pass_context
def worker_check(
    ctx: click.Context, /, locations: tuple[str, ...], out: str | None, engine: str, **options: Any
) -> None:
    """Ask every worker for its versions, its engine, and whether it sees each INPUT and the output."""
    from gpu_eval.cli import console, show_workers
    from gpu_eval.runs.workers import ask

    if options["scheduler"] is None and options["scheduler_file"] is None:
        raise click.UsageError("which cluster? give --scheduler or --scheduler-file")
    with client_of(options) as client:
        views = ask(client, engine, locations, out, patience=30.0, tell=console.say)
    if broken := show_workers.show_views(views):
        console.say(f"{broken} of {len(views)} workers cannot work")
        ctx.exit(ClusterError.exit_code)


@main.command()
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("gpu-eval-demo"),
    show_default=True,
    help="Where the split and its run folder go.",
)
@click.option("--pairs", type=click.IntRange(1), default=24, show_default=True, help="Images to draw.")
@click.option("--seed", type=int, default=0, show_default=True)
def demo(out: Path, pairs: int, seed: int) -> None:
    """Draw a seeded street-like split and score it: the whole tool on one screen."""
    from gpu_eval import api, synthetic
    from gpu_eval.cli import console

    split = out / f"split-{pairs}-{seed}"
    if not (split / "done").exists():
        console.say(f"drawing {pairs} pairs of 1920x1080 label maps into {split}")
        synthetic.write_split(split, pairs, seed=seed)
        (split / "done").touch()
    gts, preds, folder = split / "gt", split / "pred", out / "run"
    console.say(f"$ gpu-eval score {gts} {preds} -o {folder} --overwrite")
    try:
        api.check_html()
        html = True
    except OptionError as error:
        console.say(f"no HTML report: {error}")
        html = False
    _score(gts, preds, folder, "table", overwrite=True, html=html)
    console.say(
        f"\nnext: gpu-eval show {folder} --level 1\n"
        f'      gpu-eval query {folder} "SELECT class_name, iou FROM classes '
        f"WHERE level = 3 AND protocol = 'idd' ORDER BY iou\""
    )


if __name__ == "__main__":
    main()
