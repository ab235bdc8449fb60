"""Predictions as one COCO results file: whose they are, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_eval.errors import (
    EmptySplit,
    ExtraPrediction,
    GpuEvalError,
    InputError,
    MalformedPredictions,
    UnreadableSource,
)
from gpu_eval.inputs import coco_file
from gpu_eval.inputs.coco import decode_rle, read_split_coco
from gpu_eval.inputs.instance_split import InstanceSplit, Rle
from gpu_eval.inputs.prediction_lists import SHOWN
from gpu_eval.inputs.rle import compress
from gpu_eval.inputs.sources import open_source
from gpu_eval.labels.instance_space import load_instances
from tests.support.instance_split import run_lengths

IDD = load_instances("idd")
GT = "_gtFine_instanceids.png"

Mask = npt.NDArray[np.uint8]


def blob(height: int = 40, width: int = 60) -> Mask:
    rows, columns = np.mgrid[:height, :width]
    return ((rows - 20) ** 2 + (columns - 25) ** 2 < 150).astype(np.uint8)


def rle_json(mask: Mask) -> dict[str, Any]:
    return {"size": list(mask.shape), "counts": compress(run_lengths(mask)).decode()}


def entry(image: object = "17/a", **change: Any) -> dict[str, Any]:
    sound = {"image_id": image, "category_id": 12, "segmentation": rle_json(blob()), "score": 0.9}
    return {**sound, **change}


def read(
    tmp_path: Path, document: object, keys: tuple[str, ...] = ("17/a", "18/b"), *, gt_suffix: str = GT
) -> InstanceSplit:
    for key in keys:
        path = tmp_path / "gt" / f"{key}{gt_suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    file = tmp_path / "preds.json"
    if isinstance(document, bytes):
        file.write_bytes(document)
    else:
        file.write_text(json.dumps(document), encoding="utf-8")
    return read_split_coco(open_source(tmp_path / "gt"), file, IDD, gt_suffix=gt_suffix)


def confidences(split: InstanceSplit) -> dict[str, list[float] | None]:
    return {
        image.key: None if image.predictions is None else [one.confidence for one in image.predictions]
        for image in split.images
    }


# The images


@pytest.mark.parametrize(
    "name",
    [
        "17/a",
        "17/a.png",
        "17/a.jpg",
        "17/a_leftImg8bit.png",
        "17/a_leftImg8bit",
        "17/a_gtFine_instanceids.png",
        "./17/a_leftImg8bit.jpeg",
        "17\\a_leftImg8bit.png",
    ],
)
def test_image_has_many_names(tmp_path: Path, name: str) -> None:
    for named in (entry(name), entry(5, file_name=name), entry(None, file_name=name)):
        split = read(tmp_path, [named])
        assert split.problems == ()
        assert confidences(split) == {"17/a": [0.9], "18/b": []}


def test_predictions_know_their_place_their_mask_and_the_file(tmp_path: Path) -> None:
    split = read(tmp_path, [entry("18/b"), entry("17/a", category_id=6, score=1), entry("17/a", score=-3.5)])
    first, second = split.images
    assert [(one.label, one.confidence, one.line) for one in first.predictions or ()] == [
        (6, 1.0, 2),
        (12, -3.5, 3),
    ]
    assert [one.line for one in second.predictions or ()] == [1]
    mask = (second.predictions or ())[0].mask
    assert isinstance(mask, Rle)
    assert np.array_equal(decode_rle(mask, "x"), blob())
    assert (first.drive, first.gt.name) == ("17", f"17/a{GT}")
    assert first.list_file == second.list_file == str(tmp_path / "preds.json")


def test_images_without_an_entry_have_no_predictions_and_a_note(tmp_path: Path) -> None:
    split = read(tmp_path, [entry()])
    assert split.images[1].predictions == ()
    assert [note.partition(": ")[2] for note in split.notes] == [
        "1 of 2 images have no entry, so no predictions"
    ]
    assert len(read(tmp_path, []).images) == 2


def test_number_of_a_frame_is_no_extension(tmp_path: Path) -> None:
    split = read(tmp_path, [entry("17/f.01"), entry("17/f.02_leftImg8bit")], ("17/f.01", "17/f.02", "17/f"))
    assert confidences(split) == {"17/f": [], "17/f.01": [0.9], "17/f.02": [0.9]}


def test_name_as_it_stands_comes_before_the_name_without_its_ending(tmp_path: Path) -> None:
    keys = ("17/a", "17/a_leftImg8bit")
    split = read(tmp_path, [entry("17/a_leftImg8bit.png")], keys, gt_suffix=".png")
    assert confidences(split) == {"17/a": [], "17/a_leftImg8bit": [0.9]}


def test_folders_above_the_drives_are_dropped_with_a_note(tmp_path: Path) -> None:
    names = ("leftImg8bit/val/17/a_leftImg8bit.png", "leftImg8bit/val/18/b_leftImg8bit.png")
    split = read(tmp_path, [entry(name) for name in names])
    assert split.problems == ()
    assert confidences(split) == {"17/a": [0.9], "18/b": [0.9]}
    assert "'leftImg8bit/val'" in split.notes[0]


def test_images_give_numbers_their_names(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "17/a_leftImg8bit.png"}, {"id": "x", "file_name": "18/b.png"}]
    split = read(tmp_path, {"images": images, "annotations": [entry(1), entry("x", score=0.5), entry(2)]})
    assert confidences(split) == {"17/a": [0.9], "18/b": [0.5]}
    (error,) = split.problems
    assert error.message == "entry 3: nothing says which image this number is"


def test_number_without_images_says_what_is_expected(tmp_path: Path) -> None:
    (error,) = read(tmp_path, [entry(24541)]).problems
    assert isinstance(error, MalformedPredictions)
    assert error.found == "24541"
    assert error.expected == "image_id: a name such as '17/a'"
    assert "file_name" in (error.fix or "")


def test_unknown_image_is_an_extra_prediction(tmp_path: Path) -> None:
    split = read(tmp_path, [entry(), entry("17/zzz")])
    (error,) = split.problems
    assert isinstance(error, ExtraPrediction)
    assert error.message == "entry 2: no ground truth has this name"
    assert confidences(split)["17/a"] == [0.9]


# The entries


def test_label_that_is_not_evaluated_is_skipped_with_its_mask_unread(tmp_path: Path) -> None:
    split = read(tmp_path, [entry(category_id=7, segmentation=None), entry(category_id=12.0)])
    assert split.problems == ()
    assert split.skipped == 1
    assert [one.label for one in split.images[0].predictions or ()] == [12]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"category_id": None}, "there is no category_id"),
        ({"category_id": "12"}, "there is no category_id"),
        ({"category_id": True}, "there is no category_id"),
        ({"category_id": 12.5}, "the label id is not a whole number"),
        ({"category_id": float("nan")}, "the label id is not a whole number"),
        ({"category_id": 40}, "no label of idd has this id"),
        ({"category_id": 10**400}, "no label of idd has this id"),
        ({"score": None}, "the score is not a finite number"),
        ({"score": "0.9"}, "the score is not a finite number"),
        ({"score": True}, "the score is not a finite number"),
        ({"score": float("inf")}, "the score is not a finite number"),
        ({"score": 10**400}, "the score is not a finite number"),
        ({"segmentation": [[0, 0, 0, 9, 9, 9]]}, "the segmentation is a polygon, not a mask"),
        ({"segmentation": None, "bbox": [0, 0, 9, 9]}, "there is no segmentation"),
        ({"segmentation": {"size": [2, 2], "counts": "1"}}, "the counts do not add up to the size"),
        ({"image_id": None}, "the image is not named"),
        ({"image_id": 1.5}, "the image is not named"),
        ({"image_id": True}, "the image is not named"),
    ],
)
def test_entry_is_refused(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    split = read(tmp_path, [entry("18/b"), entry(**change)])
    (error,) = split.problems
    assert isinstance(error, MalformedPredictions)
    assert error.message == f"entry 2: {told}"
    assert error.file == str(tmp_path / "preds.json")
    assert len(error.found or "") <= 80
    broken = "image" not in told
    assert confidences(split) == {"17/a": None if broken else [], "18/b": [0.9]}


def test_problems_are_told_in_one_pass_and_counted_after_the_first_ones(tmp_path: Path) -> None:
    some = [entry(category_id=40)] * 100 + [entry(score=None), "x", entry("zzz"), entry("18/b")]
    split = read(tmp_path, some)
    messages = [error.message for error in split.problems]
    assert len(messages) == SHOWN + 4
    assert messages[-1] == f"{100 - SHOWN} more: no label of idd has this id"
    assert confidences(split) == {"17/a": None, "18/b": [0.9]}


def test_category_that_has_the_name_of_a_class_under_another_id_is_a_problem(tmp_path: Path) -> None:
    categories = [{"id": 6, "name": "person"}, {"id": 1, "name": "car"}, {"id": 3, "name": "boat"}, 5]
    split = read(tmp_path, {"annotations": [], "categories": categories})
    (error,) = split.problems
    assert error.message == "category 2: a class under another id"
    assert error.expected == "the raw id 12"


@pytest.mark.parametrize(
    ("images", "told"),
    [
        ([{"id": 1}], "image 1: not an image"),
        ([{"id": 1.5, "file_name": "17/a"}], "image 1: not an image"),
        (["x"], "image 1: not an image"),
        ([{"id": 1, "file_name": "17/a"}, {"id": 1, "file_name": "18/b"}], "image 2: two images have one id"),
    ],
)
def test_broken_images_are_told(tmp_path: Path, images: list[object], told: str) -> None:
    (error,) = read(tmp_path, {"images": images, "annotations": []}).problems
    assert error.message == told


# The file


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "not JSON"),
        (b"not json", "not JSON"),
        (b'[{"image_id":', "not JSON"),
        (b"\xff\xfe\xfd", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'[{"score": ' + b"9" * 5000 + b"}]", "not JSON"),
        (b"{}", "not a COCO results file"),
        (b"5", "not a COCO results file"),
        (b'"x"', "not a COCO results file"),
        (b"null", "not a COCO results file"),
        (b'{"annotations": {}}', "not a COCO results file"),
        (b'{"17/a": []}', "not a COCO results file"),
    ],
)
def test_file_that_is_no_results_file_is_malformed(tmp_path: Path, content: bytes, told: str) -> None:
    with pytest.raises(MalformedPredictions) as caught:
        read(tmp_path, content)
    assert caught.value.message == told
    assert caught.value.found
    assert len(caught.value.found) <= 200


KEYS = ["image_id", "file_name", "category_id", "segmentation", "size", "counts", "score"]
KEYS += ["annotations", "images", "categories", "id", "name"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("17/a"),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(
    json_values.map(lambda value: json.dumps(value).encode())
    | json_values.map(
        lambda value: json.dumps([entry(**value) if isinstance(value, dict) else value]).encode()
    )
    | st.binary(max_size=60)
)
def test_no_file_raises_anything_but_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    problems: tuple[InputError, ...]
    try:
        problems = read(folder, content).problems
    except InputError as error:
        problems = (error,)
    assert all(isinstance(problem, InputError) and str(problem) for problem in problems)


def test_missing_file_is_unreadable(tmp_path: Path) -> None:
    read(tmp_path, [])
    with pytest.raises(UnreadableSource, match="does not exist"):
        read_split_coco(open_source(tmp_path / "gt"), tmp_path / "none.json", IDD)
    with pytest.raises(UnreadableSource, match="cannot be read"):
        read_split_coco(open_source(tmp_path / "gt"), tmp_path, IDD)


def test_file_that_is_too_long_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_file, "MAX_BYTES", 100)
    with pytest.raises(MalformedPredictions, match="the file is too long"):
        read(tmp_path, b" " * 101)
    assert read(tmp_path, b" " * 98 + b"[]").problems == ()


def test_no_ground_truth_is_an_empty_split(tmp_path: Path) -> None:
    (tmp_path / "gt").mkdir()
    with pytest.raises(EmptySplit, match="no ground truth"):
        read(tmp_path, [], ())


def test_file_url_and_remote_url_are_read(tmp_path: Path) -> None:
    read(tmp_path, [entry()])
    gts = open_source(tmp_path / "gt")
    memory = fsspec.filesystem("memory")
    memory.pipe("/coco-test/preds.json", (tmp_path / "preds.json").read_bytes())
    memory.pipe("/coco-test/other/preds.json", b"[]")
    try:
        for url in (f"file://{tmp_path}/preds.json", "memory://coco-test/preds.json"):
            assert confidences(read_split_coco(gts, url, IDD))["17/a"] == [0.9]
        with pytest.raises(GpuEvalError, match="does not exist"):
            read_split_coco(gts, "memory://coco-test/none.json", IDD)
    finally:
        memory.rm("/coco-test", recursive=True)
