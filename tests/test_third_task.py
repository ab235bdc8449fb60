"""A task is added by its files and a line in the registry: all else works for it as for the others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpu_eval
from gpu_eval import errors
from gpu_eval.run_folder import schema
from gpu_eval.runs.drive import Options, drive
from tests.support import third_task
from tests.support.commands import gpu_eval_command
from tests.support.semantic_split import SUFFIX, TinySplit, make_split
from tests.support.third_task import RightRun, RightTask


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with third_task.registered():
        yield


def score(split: TinySplit, out: Path, **options: object) -> gpu_eval.results.run.ScoredRun:  # type: ignore[name-defined]
    options = {"threads": 1, **options}
    return gpu_eval.open_run(
        drive(RightTask(SUFFIX), str(split.gts), str(split.preds), out, Options(**options))  # type: ignore[arg-type]
    )


def right(split: TinySplit) -> float:
    pairs = split.maps.values()
    return sum(int((gt == pred).sum()) for gt, pred in pairs) / sum(gt.size for gt, _ in pairs)


@pytest.fixture
def split(tmp_path: Path) -> TinySplit:
    return make_split(tmp_path / "split")


@pytest.fixture
def runs(split: TinySplit, tmp_path: Path) -> list[Path]:
    """Two runs of one split."""
    for name in "ab":
        score(split, tmp_path / name)
    return [tmp_path / name for name in "ab"]


def test_it_is_scored_and_opened(split: TinySplit, tmp_path: Path) -> None:
    run = score(split, tmp_path / "run")
    assert isinstance(run, RightRun)
    assert run.score_of("right", "plain").value == right(split)
    assert repr(run) == f"<RightRun {tmp_path / 'run'}: 6 images, RIGHT {right(split):.4f}>"
    assert run.sql("SELECT count(*) AS n FROM images").to_pylist() == [{"n": 6}]
    assert f"{right(split):.4f}" in run._repr_html_()


def test_it_is_shown_and_queried_by_the_command_line(split: TinySplit, runs: list[Path]) -> None:
    told = gpu_eval_command("show", runs[0], "--format", "json")
    assert json.loads(told.stdout) == {"right": right(split)}
    told = gpu_eval_command("query", runs[0], "SELECT right_low < right_high AS wide FROM shares")
    assert told.exit_code == 0, told.output
    assert "True" in told.stdout


def test_it_is_compared_with_a_gate(runs: list[Path]) -> None:
    compared = gpu_eval.compare(*runs)
    assert (compared.kind, compared.difference()) == ("right", 0.0)
    told = gpu_eval_command("compare", *runs, "--fail-if-worse", 0)
    assert told.exit_code == 0, told.output
    assert "right pixels, protocol plain" in told.stdout


def test_it_is_ranked_and_tagged(runs: list[Path], tmp_path: Path) -> None:
    gpu_eval.tag(runs[0], team="us")
    told = gpu_eval_command("leaderboard", *runs, "-o", tmp_path / "board")
    assert told.exit_code == 0, told.output
    assert {path.suffix for path in (tmp_path / "board").iterdir()} == {".parquet", ".csv", ".md", ".html"}
    assert {row["rank"] for row in gpu_eval.leaderboard(runs).to_pylist()} == {1}


def test_it_has_a_page(split: TinySplit, runs: list[Path]) -> None:
    told = gpu_eval_command("report", runs[0])
    assert told.exit_code == 0, told.output
    page = (runs[0] / "report.html").read_text()
    assert told.stdout.strip() == str(runs[0] / "report.html")
    assert f'<p class="big">{right(split):.4f}</p>' in page
    assert "jackknife t, 2 drives" in page


def test_its_broken_images_are_left_out_when_it_is_resumed(split: TinySplit, tmp_path: Path) -> None:
    path = split.preds / split.names[0]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(errors.SplitProblems) as caught:
        score(split, tmp_path / "run")
    assert [type(problem) for problem in caught.value.problems] == [errors.CorruptImage]
    run = score(split, tmp_path / "run", resume=True, on_error="skip")
    assert (run.facts["images_resumed"], run.facts["images_scored"]) == (6, 5)
    assert run.score_of("right", "plain").value == right(split.without(split.names[0]))


def test_runs_of_other_tasks_are_no_company_for_it(
    split: TinySplit, runs: list[Path], tmp_path: Path
) -> None:
    gpu_eval.score(split.gts, split.preds, out=tmp_path / "semantic", threads=1, res="native")
    with pytest.raises(errors.OptionError, match="no score in common"):
        gpu_eval.compare(runs[0], tmp_path / "semantic")


def test_its_tables_are_described_and_removed_like_the_others(split: TinySplit, runs: list[Path]) -> None:
    assert "# Tables of a run folder: `gpu-eval right`" in schema.markdown()
    with pytest.raises(errors.RunExists):
        score(split, runs[0])
    score(split, runs[0], overwrite=True)


def test_without_its_line_in_the_registry_its_runs_are_refused(runs: list[Path]) -> None:
    from gpu_eval import registry

    del registry.TASKS["right"]
    with pytest.raises(errors.CorruptRun, match="a task that this version does not know"):
        gpu_eval.open_run(runs[0])
