"""Runs of format 2, which earlier versions wrote, open, show, compare and rank as they did then."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import gpu_eval
from gpu_eval import errors
from gpu_eval.run_folder import folder as run_folder
from gpu_eval.run_folder import schema
from tests.support.commands import gpu_eval_command

OLD = Path(__file__).parents[1] / "data" / "format_2"
# What the version that wrote them printed.
MIOU, AP = {3: 0.5320, 2: 0.5739, 1: 0.6343}, 0.8875


@pytest.fixture(params=["semantic", "instance"])
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_they_are_of_format_2(task: str) -> None:
    assert run_folder.read_facts(OLD / task)["format_version"] == schema.OLDEST_FORMAT == 2


def test_scores_are_those_that_were_printed() -> None:
    run = gpu_eval.open_run(OLD / "semantic", "semantic")
    assert {level: round(run.miou(level), 4) for level in MIOU} == MIOU
    assert round(gpu_eval.open_run(OLD / "instance", "instance").ap(), 4) == AP


def test_errors_of_images_have_one_form_in_python() -> None:
    found = gpu_eval.open_run(OLD / "semantic").images["errors"].to_pylist()
    assert [len(errors) for errors in found] == [0, 0, 0, 1]
    assert found[3][0]["kind"] == "CorruptImage"
    assert found[3][0].keys() == set(schema.ERROR_FACTS)


@pytest.mark.parametrize("kind", ["semantic", "instance"])
def test_sql_sees_the_intervals_that_are_shown(kind: str) -> None:
    run = gpu_eval.open_run(OLD / kind)
    for name in run.tables.whole:
        # As text, in which NaN is NaN.
        assert str(run.sql(f"SELECT * FROM {name}").to_pylist()) == str(run.table(name).to_pylist()), name


def test_sql_sees_the_tables_as_they_were_written() -> None:
    run = gpu_eval.open_run(OLD / "semantic")
    query = "SELECT error_kind FROM images WHERE status = 'error'"
    assert run.sql(query).to_pylist() == [{"error_kind": "CorruptImage"}]


def test_they_are_shown_in_terminals_and_notebooks(task: str) -> None:
    told = gpu_eval_command("show", OLD / task)
    assert told.exit_code == 0, told.output
    score = {"semantic": MIOU[3], "instance": AP}[task]
    assert f"{score:.4f}" in told.stdout
    assert f"{score:.4f}" in gpu_eval.open_run(OLD / task)._repr_html_()


def test_they_are_compared_and_ranked(task: str, tmp_path: Path) -> None:
    shutil.copytree(OLD / task, tmp_path / "again")
    assert gpu_eval.compare(OLD / task, tmp_path / "again").difference() == 0.0
    assert gpu_eval.leaderboard([OLD / task, tmp_path / "again"]).num_rows == 2


def test_page_of_one_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    page = gpu_eval.write_html(OLD / "semantic", tmp_path / "page.html")
    assert "error: CorruptImage" in Path(page).read_text()


def test_resuming_one_says_that_it_is_old_and_changes_nothing(tmp_path: Path) -> None:
    shutil.copytree(OLD / "semantic", tmp_path / "run")
    facts = run_folder.read_facts(tmp_path / "run")
    now = {**facts, "format_version": schema.FORMAT_VERSION}
    with pytest.raises(errors.RunExists, match=r"a run of format 2; this version .* writes format 3"):
        run_folder.begin(tmp_path / "run", now, resume=True)
    assert run_folder.read_facts(tmp_path / "run") == facts


def test_an_older_or_a_newer_format_is_refused(tmp_path: Path) -> None:
    shutil.copytree(OLD / "semantic", tmp_path / "run")
    for version in (1, schema.FORMAT_VERSION + 1):
        text = (
            (OLD / "semantic" / "run.json")
            .read_text()
            .replace('"format_version": 2', f'"format_version": {version}')
        )
        (tmp_path / "run" / "run.json").write_text(text)
        with pytest.raises(errors.CorruptRun, match=f"found format {version}, expected format 2 to 3"):
            gpu_eval.open_run(tmp_path / "run")
