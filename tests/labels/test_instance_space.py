"""The instance task of the bundled tables, and what a user's table must say to have one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gpu_eval.errors import LabelTableError
from gpu_eval.labels.instance_space import load_instances
from tests.labels.conftest import Write
from tests.support.shared import needs_shared, shared_json

HEADER = "name,id,has_instances,ignore_in_eval\n"


def test_idd_evaluates_nine_classes_and_voids_nine_ids() -> None:
    space = load_instances("idd")
    assert space.ids == (6, 8, 9, 10, 11, 12, 13, 14, 18)
    assert space.names[:2] == ("person", "rider")
    assert space.names[-1] == "vehicle fallback"
    assert space.void_ids == {7, 15, 16, 17, 35, 36, 37, 38, 39}
    assert space.known_ids == set(range(40))
    assert (space.gt_suffix, space.list_suffix) == ("_gtFine_instanceids.png", "_leftImg8bit.txt")


@needs_shared
def test_idd_is_the_task_of_the_public_script() -> None:
    expected = shared_json("golden/instance/expected.json")
    space = load_instances("idd")
    assert list(space.ids) == expected["class_ids"]
    assert list(space.names) == expected["classes"]
    assert sorted(space.void_ids) == sorted(expected["void_ids"])


def test_cityscapes_evaluates_eight_classes_under_its_own_suffix() -> None:
    space = load_instances("cityscapes")
    assert space.ids == (24, 25, 26, 27, 28, 31, 32, 33)
    assert space.gt_suffix == "_gtFine_instanceIds.png"
    assert 255 not in space.known_ids | space.void_ids


def test_cityscapes_is_the_task_of_cityscapesscripts() -> None:
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    space = load_instances("cityscapes")
    evaluated = [label for label in labels if label.hasInstances and not label.ignoreInEval]
    assert space.ids == tuple(label.id for label in evaluated)
    assert space.names == tuple(label.name for label in evaluated)
    assert space.void_ids == {label.id for label in labels if label.ignoreInEval and label.id >= 0}
    assert space.known_ids == {label.id for label in labels if label.id >= 0}


def test_idd_lite_has_no_instance_task() -> None:
    with pytest.raises(LabelTableError, match="idd-lite has no instance task"):
        load_instances("idd-lite")


def test_own_table_has_the_suffixes_of_idd_and_its_own_name(write: Write) -> None:
    space = load_instances(write(HEADER + "road,0,0,0\ncar,2,1,0\nsign,255,1,1\nego,9,0,1\ncrowd,3,1,1\n"))
    assert (space.name, space.ids, space.names) == ("mine", (2,), ("car",))
    assert (space.known_ids, space.void_ids) == ({0, 2, 9, 3}, {9, 3})
    assert space.gt_suffix == "_gtFine_instanceids.png"


def test_own_table_called_cityscapes_has_no_cityscapes_suffix(tmp_path: Path) -> None:
    path = tmp_path / "cityscapes.csv"
    path.write_text(HEADER + "car,2,1,0\n", encoding="utf-8")
    assert load_instances(path).gt_suffix == "_gtFine_instanceids.png"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name,id\ncar,1\n", "lacks `has_instances` and `ignore_in_eval`"),
        ("name,id,has_instances\ncar,1,1\n", "lacks `ignore_in_eval`"),
        (HEADER + "car,1,0,0\ntruck,2,0,1\n", "no label has instances"),
        (HEADER + "car,1,1,0\ntruck,2,1,1\nbus,0,1,0\n", "line 4: no 16-bit pixel .*found 0"),
        (HEADER + "car,1,1,0\nbus,66,1,0\n", "line 3: no 16-bit pixel .*found 66, expected 1..65"),
        (HEADER + "car,1,2,0\n", "line 2: `has_instances` is not a flag"),
        (HEADER + "car,1,yes,0\n", "line 2: `has_instances` is not an integer"),
        (HEADER + "road,0,0,0\ncar,1,1,1\nbus,1,0,1\ncow,3,1,0\n", "line 4: two labels have one id"),
        (HEADER, "the label table is empty"),
    ],
)
def test_table_without_an_instance_task_is_told_why(write: Write, text: str, told: str) -> None:
    with pytest.raises(LabelTableError, match=told):
        load_instances(write(text))


def test_missing_table_is_told() -> None:
    with pytest.raises(LabelTableError, match="no such label table"):
        load_instances("nowhere.csv")


def test_digest_changes_with_what_decides_numbers_only() -> None:
    space = load_instances("idd")
    assert space.digest() == load_instances("idd").digest()
    assert dataclasses.replace(space, gt_suffix="x", list_suffix="y").digest() == space.digest()
    for change in (
        {"ids": space.ids[1:]},
        {"void_ids": space.void_ids - {7}},
        {"known_ids": space.known_ids - {0}},
    ):
        assert dataclasses.replace(space, **change).digest() != space.digest()
