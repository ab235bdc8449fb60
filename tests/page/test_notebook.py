"""What notebooks and plain pages show where a run has no intervals."""

from __future__ import annotations

from pathlib import Path

from gpu_eval.page import plain
from tests.support.instance_runs import random_images, write_instance_run
from tests.support.semantic_runs import random_matrices, write_run

REASON = "1 image: no other to compare with"


def test_a_missing_bound_has_its_reason_and_no_method_is_claimed(tmp_path: Path) -> None:
    for run in (
        write_run(tmp_path / "maps", random_matrices(1)),
        write_instance_run(tmp_path / "instances", random_images(1, found=0.5)),
    ):
        shown = run._repr_html_()
        scores = len(run.protocols) * len(run.board_columns)
        assert shown.count(f"<br><small>{REASON}</small>") == scores
        assert f"<small>no intervals: {REASON}</small>" in shown
        assert "jackknife" not in shown


def test_a_run_with_bounds_names_method_and_units(tmp_path: Path) -> None:
    shown = write_run(tmp_path / "run", random_matrices(24, drives=12))._repr_html_()
    assert "<small>95% intervals: jackknife t, 12 drives</small>" in shown


def test_a_plain_page_says_that_there_are_none(tmp_path: Path) -> None:
    run = write_instance_run(
        tmp_path / "run", random_images(1, found=0.5), gts="gts", preds="preds", created="2026"
    )
    page = plain.page(run)
    assert f"no intervals: {REASON}" in page
    assert "jackknife" not in page
