"""Tables on terminals of 80 columns: no number is cut, reasons stand once, what is left out is named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from gpu_eval.cli.fitted import Column, Footnotes, show_fitted
from gpu_eval.results.semantic_run import Run
from tests.support.commands import gpu_eval_command
from tests.support.instance_runs import random_images, write_instance_run
from tests.support.semantic_runs import random_matrices, write_run


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def large(better: float = 0.0, drives: int = 12) -> dict[str, Any]:
    """24 images of IDD with millions of pixels a class; cars in one drive, walls predicted only."""
    matrices = random_matrices(24, drives=drives, better=better, classes=26)
    for i, matrix in enumerate(matrices.values()):
        matrix *= 10_000
        matrix[14] = 0
        if i >= 2:
            matrix[9] = 0
    return matrices


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return write_run(tmp_path / "run", large(), labels="idd")


def shown(*words: object) -> str:
    result = gpu_eval_command(*words)
    assert (result.exit_code, result.exception) == (0, None), result.stderr
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" not in result.stdout
    return result.stdout


def test_classes_keep_score_and_bounds_and_say_what_is_left_out(run: Run) -> None:
    text = shown("show", run.folder)
    row = next(row for row in run.classes.to_pylist() if row["class_name"] == "obs-str-bar-fallback")
    bounds = f"[{row['iou_low']:.3f}, {row['iou_high']:.3f}]"
    assert re.search(
        rf"obs-str-bar-fallback +│ +{row['iou']:.4f} │ +{row['iou']:.4f} │ +{re.escape(bounds)}", text
    )
    assert "--format json show also: precision, recall, TP px, FP px, FN" in text
    for level in run.levels.to_pylist():
        if level["miou_reason"] is None:
            assert f"[{level['miou_low']:.3f}, {level['miou_high']:.3f}]" in text


def test_wide_terminals_leave_nothing_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    text = gpu_eval_command("show", run.folder).stdout
    assert "show also" not in text
    total = next(row["fp"] for row in run.classes.to_pylist() if row["class_name"] == "car")
    assert f"{total:,}" in text


def test_a_reason_stands_once_however_many_cells_it_explains(tmp_path: Path) -> None:
    matrices = {"frame": next(iter(large().values()))}
    text = shown("show", write_run(tmp_path / "one", matrices, labels="idd").folder)
    footnotes = re.findall(r"^\((\w)\) (.*)$", text, re.MULTILINE)
    assert ("a", "1 image: no other to compare with") in footnotes
    assert len(dict(footnotes)) == len({reason for _, reason in footnotes}) == len(footnotes)
    assert re.search(r"idd +│ +0\.\d{4} \(a\)", text)
    assert text.count("(a)") > 20
    assert "no intervals: 1 image: no other to compare with" in text
    assert "jackknife" not in text


def test_bounds_of_differences_are_whole(run: Run, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", large(0.3), labels="idd")
    text = shown("compare", run.folder, other.folder)
    told = json.loads(gpu_eval_command("compare", run.folder, other.folder, "--format", "json").stdout)
    for row in [*told["scores"], *told["classes"]]:
        if row["reason"] is None:
            assert f"[{row['low']:+.4f}, {row['high']:+.4f}]" in text
    assert "show also: A, B, p" in text


def test_board_keeps_the_score_that_it_is_sorted_by(run: Run) -> None:
    text = shown("leaderboard", run.folder, "--sort", "L2")
    row = next(r for r in run.levels.to_pylist() if (r["level"], r["protocol"]) == (2, "idd"))
    assert f"{row['miou']:.4f}" in text
    assert f"[{row['miou_low']:.3f}, {row['miou_high']:.3f}]" in text
    assert "show also: mIoU L3, mIoU L1" in text


def test_classes_of_instances_have_bounds_or_reasons(tmp_path: Path) -> None:
    run = write_instance_run(
        tmp_path / "run", random_images(40, drives=10, found=0.3), decoders={"pillow": 0},
        seconds={"scoring": 1.0}, images_resumed=0,
    )  # fmt: skip
    text = shown("show", run.folder)
    rows = [row for row in run.classes.to_pylist() if row["protocol"] == "autonue"]
    assert {row["ap_reason"] is None for row in rows} == {True, False}
    for row in rows:
        if row["ap_reason"] is None:
            assert f"{row['ap']:.4f} │ [{row['ap_low']:.3f}, {row['ap_high']:.3f}]" in text
        else:
            assert re.search(rf"^\(\w\) {row['ap_reason']}$", text, re.MULTILINE)


def test_what_no_format_has_is_not_promised_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_instance_run(
        tmp_path / "run", random_images(4, drives=2, found=0.3), decoders={"pillow": 0},
        seconds={"scoring": 1.0}, images_resumed=0,
    )  # fmt: skip
    text = shown("show", run.folder)
    assert re.search(r"^wider terminals show also: .*TP, FP, FN$", text.replace(" \n", " "), re.MULTILINE)
    assert "TP, FP, FN at 50 % overlap" not in text
    monkeypatch.setenv("COLUMNS", "160")
    assert "TP, FP, FN at 50 % overlap" in gpu_eval_command("show", run.folder).stdout


def test_published_rows_are_marked(run: Run) -> None:
    text = shown("leaderboard", run.folder, "--published")
    assert re.search(r"Inplace ABN .*│ +0\.7432 │ published │", text)


def test_ap50_without_bounds_says_why(tmp_path: Path) -> None:
    run = write_instance_run(
        tmp_path / "run", random_images(1, found=0.5), decoders={"pillow": 0},
        seconds={"scoring": 1.0}, images_resumed=0,
    )  # fmt: skip
    assert re.search(rf"autonue +│ {run.ap():.4f} \(a\) │ {run.ap50():.4f} \(a\)", shown("show", run.folder))


def test_csv_says_how_intervals_came_about(run: Run, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", large(0.3), labels="idd")
    for words in (("show", run.folder), ("compare", run.folder, other.folder), ("leaderboard", run.folder)):
        head, line, *_ = gpu_eval_command(*words, "--format", "csv").stdout.splitlines()
        row = dict(zip(head.split(","), line.split(","), strict=True))
        assert (row["interval_method"], row["units"]) == ("jackknife t", "12 drives")


def test_footnotes_do_not_run_out_of_letters() -> None:
    footnotes = Footnotes()
    marks = [footnotes.mark(str(i % 30)) for i in range(60)]
    assert marks[:2] + marks[25:28] == ["(a)", "(b)", "(z)", "(aa)", "(ab)"]
    assert marks[30:] == marks[:30]
    assert list(footnotes)[27] == "(ab) 27"


def test_columns_go_by_what_they_matter_and_the_last_stay() -> None:
    columns = [Column("name", text=True), Column("x" * 20), *(Column("y" * 20, spare=i) for i in (1, 2))]
    for width, left_out in ((120, 0), (60, 1), (40, 2), (20, 2)):
        console = Console(width=width, record=True, file=None, quiet=False)
        with console.capture() as got:
            show_fitted(console, "t", columns, [[Text("n")] * 4])
        told = got.get().replace("\n", "")
        assert told.partition("show also:")[2].count("y" * 20) == left_out
