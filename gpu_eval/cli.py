"""The command line: the only file that prints or exits.

Exit codes: 0 done, 2 bad input or a run that cannot be used, 1 internal error, 130 Ctrl-C.
Results go to standard output; progress, notes and errors to standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from gpu_eval.errors import GpuEvalError, SplitProblems

FORMATS = ("table", "json", "csv")

# Rows of the table of problems on a terminal; run.json and the images table have the rest.
PROBLEMS_SHOWN = 40


class _Group(click.Group):
    """Turns the package's errors into one message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GpuEvalError as error:
            from gpu_eval import terminal

            if isinstance(error, SplitProblems):
                terminal.show_problems(error, PROBLEMS_SHOWN)
            terminal.show_error(error)
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
@click.version_option(package_name="gpu-eval")
def main() -> None:
    """Score segmentation predictions: exact confusion matrices per image, a Parquet report, SQL."""


def _output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--format", "output", type=click.Choice(FORMATS), default="table", show_default=True,
        help="How results are printed.",
    )(command)  # fmt: skip


@main.command()
@click.argument("gts", required=False)
@click.argument("preds", required=False)
@click.option("--gts", "gts_option", metavar="GTS", help="Ground truth, as the public script spells it.")
@click.option("--preds", "preds_option", metavar="PREDS", help="Predictions, as the public script spells it.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The run folder to write.")
@click.option(
    "--labels",
    default="idd",
    show_default=True,
    metavar="NAME|CSV",
    help="idd, idd-lite, cityscapes, or a label CSV of your own.",
)
@click.option("--gt-encoding", metavar="NAME", help="What the gt's pixel values mean: level3, id, ...")
@click.option("--pred-encoding", metavar="NAME", help="The same for predictions: level3, submission, id, ...")
@click.option(
    "--res",
    metavar="SIZE",
    help="1080, 720, 480, 240, native or WIDTHxHEIGHT; default as the benchmark has it.",
)
@click.option("--gt-suffix", metavar="TEXT", help="How names of ground-truth files end.")
@click.option("--pred-suffix", metavar="TEXT", help="How names of prediction files end.")
@click.option("-j", "--num-workers", "threads", type=int, metavar="N", help="Threads; default: all cores.")
@click.option("--engine", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip", "void"]),
    default="stop",
    show_default=True,
    help="Images that cannot be scored: fail at the end, leave out, or count as predicted void.",
)
@click.option("--resume", is_flag=True, help="Finish an interrupted run of the same inputs.")
@click.option("--overwrite", is_flag=True, help="Replace the run in the output folder.")
@click.option("--shard-size", type=int, default=512, show_default=True, help="Images per committed part.")
@_output_options
def score(
    gts: str | None, preds: str | None, gts_option: str | None, preds_option: str | None, out: Path,
    output: str, **options: Any,
) -> None:  # fmt: skip
    """Score the predictions PREDS against the ground truth GTS.

    Either is a folder, a .zip or .tar (read in place) or an fsspec URL.
    """
    if options["resume"] and options["overwrite"]:
        raise click.UsageError("--resume and --overwrite contradict each other")
    gts, preds = _one(gts, gts_option, "GTS"), _one(preds, preds_option, "PREDS")
    if gts and not preds and not preds_option and gts_option:
        gts, preds = gts_option, gts
    if not gts or not preds:
        raise click.UsageError("two inputs are needed: gpu-eval score GTS PREDS -o FOLDER")
    _score(gts, preds, out, output, **options)


def _one(argument: str | None, option: str | None, name: str) -> str | None:
    if argument and option:
        raise click.UsageError(f"{name} is given twice")
    return argument or option


def _score(gts: str | Path, preds: str | Path, out: Path, output: str, **options: Any) -> None:
    from gpu_eval import api, terminal

    with terminal.ProgressLine() as line:
        run = api.score(gts, preds, out=out, progress=line.update, **options)
    terminal.show_notes(run)
    terminal.show_run(run, output)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--level", type=int, help="Classes of this level; default: the finest.")
@click.option("--protocol", metavar="NAME", help="Only this protocol: idd or autonue.")
@_output_options
def show(run: Path, level: int | None, protocol: str | None, output: str) -> None:
    """Show the scores of a run folder."""
    from gpu_eval import terminal
    from gpu_eval.report.run import open_run

    opened = open_run(run)
    terminal.show_notes(opened)
    terminal.show_run(opened, output, level=level, protocol=protocol)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("sql")
@_output_options
def query(run: Path, sql: str, output: str) -> None:
    """Answer SQL over a run's tables with DuckDB.

    Tables: levels, classes, confusion, images, cells, image_classes (docs/schema.md).
    """
    from gpu_eval import terminal
    from gpu_eval.report.run import open_run

    terminal.show_table(open_run(run).sql(sql), output)


@main.command()
def info() -> None:
    """Say which engines serve on this machine, and why one does not."""
    from gpu_eval import terminal
    from gpu_eval.engines.engine import survey

    terminal.show_engines(survey())


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
    from gpu_eval import synthetic, terminal

    split = out / f"split-{pairs}-{seed}"
    if not (split / "done").exists():
        terminal.say(f"drawing {pairs} pairs of 1920x1080 label maps into {split}")
        synthetic.write_split(split, pairs, seed=seed)
        (split / "done").touch()
    gts, preds, folder = split / "gt", split / "pred", out / "run"
    terminal.say(f"$ gpu-eval score {gts} {preds} -o {folder} --overwrite")
    _score(gts, preds, folder, "table", overwrite=True)
    terminal.say(
        f"\nnext: gpu-eval show {folder} --level 1\n"
        f'      gpu-eval query {folder} "SELECT class_name, iou FROM classes '
        f"WHERE level = 3 AND protocol = 'idd' ORDER BY iou\""
    )


if __name__ == "__main__":
    main()
