"""A named class at 255 is a class, or the table is refused with the way to say which it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gpu_eval
from gpu_eval.errors import LabelTableError
from gpu_eval.labels import load_labels
from tests.labels.conftest import Write


@pytest.mark.parametrize("name", ["foreground", "lesion", "road", "1", "mask"])
def test_a_named_class_at_255_is_a_class(write: Write, name: str) -> None:
    space = load_labels(write(f"name,id\nbackground,0\n{name},255\n"))
    assert space.names == ("background", name)
    assert [int(space.encoding("id").table[v]) for v in (0, 1, 255)] == [0, 3, 1]


@pytest.mark.parametrize(
    "name",
    [
        "void",
        "Void",
        "ignore",
        "ignored",
        "ignore region",
        "unlabeled",
        "Unlabelled",
        "unknown",
        "don't care",
    ],
)
@pytest.mark.parametrize("raw", [255, -1])
def test_a_void_word_at_255_is_void(write: Write, name: str, raw: int) -> None:
    space = load_labels(write(f'name,id\na,0\nb,1\n"{name}",{raw}\n'))
    assert space.names == ("a", "b")
    assert space.encoding("id").table[255] == space.void


@pytest.mark.parametrize(("flag", "names"), [(0, ("a", "border")), (1, ("a",))])
def test_a_name_that_may_be_either_asks_for_the_flag_that_settles_it(
    write: Write, flag: int, names: tuple[str, ...]
) -> None:
    with pytest.raises(LabelTableError, match=r"line 3: .*`ignore_in_eval` 0 for a class, 1 for void"):
        load_labels(write("name,id\na,0\nborder,255\n"))
    space = load_labels(write(f"name,id,ignore_in_eval\na,0,0\nborder,255,{flag}\n"))
    assert space.names == names


def test_the_flag_wins_over_the_name(write: Write) -> None:
    space = load_labels(write("name,id,ignore_in_eval\na,0,0\nforeground,255,1\n"))
    assert space.names == ("a",)
    space = load_labels(write("name,id,ignore_in_eval\na,0,0\nvoid,255,0\n"))
    assert space.names == ("a", "void")


def test_a_class_at_minus_one_is_refused_with_the_way_out(write: Write) -> None:
    with pytest.raises(LabelTableError, match=r"line 3: no pixel is -1.*255 if they wrapped"):
        load_labels(write("name,id\na,0\nforeground,-1\n"))
    assert load_labels(write("name,id\na,0\nforeground,255\n")).names == ("a", "foreground")
    assert load_labels(write("name,id,ignore_in_eval\na,0,0\nforeground,-1,1\n")).names == ("a",)


def test_minus_one_is_void_beside_a_class_at_255(write: Write) -> None:
    space = load_labels(write("name,id\na,0\nforeground,255\nvoid,-1\n"))
    assert space.encoding("id").table[255] == 1


def test_255_is_not_both_a_class_and_void(write: Write) -> None:
    with pytest.raises(LabelTableError, match="line 3: one id for a class and for void"):
        load_labels(write("name,id\na,0\nforeground,255\nvoid,255\n"))


def test_a_model_that_predicts_nothing_has_no_foreground(write: Write, tmp_path: Path) -> None:
    gt = np.zeros((20, 30), np.uint8)
    gt[5:15] = 255
    for side, values in (("gt", gt), ("pred", np.zeros_like(gt))):
        (tmp_path / side).mkdir()
        Image.fromarray(values).save(tmp_path / side / "a.png")
    table = write("name,id\nbackground,0\nforeground,255\n")
    run = gpu_eval.score(tmp_path / "gt", tmp_path / "pred", labels=table, out=tmp_path / "run", threads=1)
    iou = dict(zip(run.classes["class_name"].to_pylist(), run.classes["iou"].to_pylist(), strict=True))
    assert iou == {"background": 0.5, "foreground": 0.0}


def test_a_class_at_255_in_a_table_with_levels_is_refused_with_both_ways_out(write: Write) -> None:
    header, rows = "name,id,level1_id,level1_name", ("no,0,0,no", "yes,255,255,yes")
    with pytest.raises(LabelTableError, match=r"line 3: 255 is void where a table has levels.*'yes'"):
        load_labels(write("\n".join([header, *rows])))
    assert load_labels(write("name,id\nno,0\nyes,255\n")).names == ("no", "yes")
    flagged = [f"{line},{flag}" for line, flag in zip((header, *rows), ("ignore_in_eval", 0, 1), strict=True)]
    assert load_labels(write("\n".join(flagged))).names == ("no",)
    # A label with another id was put at 255 on purpose.
    assert load_labels(write("\n".join([header, rows[0], "yes,1,255,yes"]))).names == ("no",)
