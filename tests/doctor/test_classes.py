"""Classes that never occur while much of the ground truth is void."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gpu_eval
from gpu_eval import errors
from tests.support.commands import gpu_eval_command


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    """Maps of 0 and 255; predictions of nothing."""
    rng = np.random.default_rng(0)
    for i in range(3):
        gt = np.where(rng.random((8, 8)) < 0.5, 0, 255).repeat(4, 0).repeat(4, 1).astype(np.uint8)
        for side, values in (("gt", gt), ("pred", np.zeros_like(gt))):
            (tmp_path / side).mkdir(exist_ok=True)
            Image.fromarray(values).save(tmp_path / side / f"{i}.png")
    (tmp_path / "01.csv").write_text("name,id\nbackground,0\nforeground,1\n")
    return tmp_path


def test_class_that_never_occurs_beside_much_void_is_refused_and_named(binary: Path) -> None:
    told = gpu_eval_command(
        "score", binary / "gt", binary / "pred", "--labels", binary / "01.csv", "-o", binary / "run"
    )
    assert told.exit_code == 2
    assert "`foreground` of 01 never occurs" in told.stderr
    assert "255, which is void" in told.stderr
    assert "--labels" in told.stderr
    assert not (binary / "run").exists()


def test_encoding_that_is_advised_reads_black_and_white(binary: Path) -> None:
    run = gpu_eval.score(
        binary / "gt", binary / "pred", out=binary / "run", labels=binary / "01.csv", gt_encoding="mask",
        pred_encoding="mask",
    )  # fmt: skip
    assert run.classes["iou"].to_pylist()[1] == 0.0
    assert run.doubts == ()


def test_black_and_white_predictions_of_ids_are_named(binary: Path) -> None:
    for i in range(3):
        values = np.array(Image.open(binary / "gt" / f"{i}.png"))
        Image.fromarray(values).save(binary / "pred" / f"{i}.png")
        Image.fromarray((values > 0).astype(np.uint8)).save(binary / "gt" / f"{i}.png")
    with pytest.raises(errors.Doubtful, match=r"look like `mask`, not `id`.*--pred-encoding mask"):
        gpu_eval.score(binary / "gt", binary / "pred", out=binary / "run", labels=binary / "01.csv")
    run = gpu_eval.score(
        binary / "gt", binary / "pred", out=binary / "run", labels=binary / "01.csv", pred_encoding="mask"
    )
    assert run.miou() == 1.0


def test_little_foreground_is_enough_to_ask_for_it(binary: Path) -> None:
    for i in range(3):
        values = np.zeros((32, 32), np.uint8)
        values[:5, :5] = 255
        Image.fromarray(values).save(binary / "gt" / f"{i}.png")
    with pytest.raises(errors.Doubtful, match="give --gt-encoding mask --pred-encoding mask"):
        gpu_eval.score(binary / "gt", binary / "pred", out=binary / "run", labels=binary / "01.csv")


def test_table_that_gives_it_the_value_counts_it(binary: Path) -> None:
    (binary / "0255.csv").write_text("name,id,ignore_in_eval\nbackground,0,0\nforeground,255,0\n")
    run = gpu_eval.score(binary / "gt", binary / "pred", out=binary / "run", labels=binary / "0255.csv")
    assert run.classes["iou"].to_pylist()[1] == 0.0
    assert run.doubts == ()


def test_absent_class_without_much_void_is_no_doubt(binary: Path) -> None:
    (binary / "more.csv").write_text(
        "name,id,ignore_in_eval\nbackground,0,0\nforeground,255,0\nrare,7,0\nrarer,8,0\n"
    )
    run = gpu_eval.score(binary / "gt", binary / "pred", out=binary / "run", labels=binary / "more.csv")
    assert run.doubts == ()


def test_several_classes_left_are_doubted_not_refused(binary: Path) -> None:
    path = binary / "gt" / "0.png"
    values = np.array(Image.open(path))
    values[:2] = 2
    Image.fromarray(values).save(path)
    (binary / "three.csv").write_text("name,id\nbackground,0\nforeground,1\nother,2\n")
    told = gpu_eval_command(
        "score", binary / "gt", binary / "pred", "--labels", binary / "three.csv", "-o", binary / "run"
    )
    assert told.exit_code == 0, told.output
    assert "DOUBT: `foreground` of three never occurs" in told.stderr
    run = gpu_eval.open_run(binary / "run")
    assert len(run.doubts) == 1
    assert "never occurs" in run.page()
    assert "never occurs" in run._repr_html_()


def test_whole_run_is_judged_at_its_end(binary: Path) -> None:
    for side in ("gt", "pred"):  # more images than are looked at before
        for i in range(3, 40):
            (binary / side / f"{i}.png").write_bytes((binary / side / "0.png").read_bytes())
    values = np.array(Image.open(binary / "gt" / "0.png"))
    values[values == 0] = 2
    for i in range(0, 40, 2):
        Image.fromarray(values).save(binary / "gt" / f"{i}.png")
    (binary / "three.csv").write_text("name,id\nbackground,0\nforeground,1\nother,2\n")
    run = gpu_eval.score(binary / "gt", binary / "pred", out=binary / "run", labels=binary / "three.csv")
    (doubt,) = run.doubts
    assert "`foreground` of three never occurs, and much of the ground truth is void" in doubt


def test_refusal_is_an_error_of_its_own(binary: Path) -> None:
    with pytest.raises(errors.Doubtful, match="never occurs"):
        gpu_eval.score(binary / "gt", binary / "pred", out=binary / "run", labels=binary / "01.csv")
