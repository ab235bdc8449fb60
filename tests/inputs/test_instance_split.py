"""Which list belongs to which gt, which masks a list may name, and everything told in one pass."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpu_eval.errors import (
    DuplicateFile,
    EmptySplit,
    ExtraPrediction,
    InputError,
    MalformedPredictions,
    MissingMask,
    MissingPrediction,
    UnreadableFile,
    UnsafePath,
)
from gpu_eval.inputs import instance_split as reading
from gpu_eval.inputs.instance_split import InstanceSplit, read_split
from gpu_eval.inputs.prediction_lists import MAX_LIST_BYTES
from gpu_eval.inputs.source import Entry
from gpu_eval.inputs.sources import open_source
from gpu_eval.labels.instance_space import load_instances
from tests.support.shared import SHARED, needs_shared, shared_json

IDD = load_instances("idd")
LIST = "_leftImg8bit.txt"
GT = "_gtFine_instanceids.png"

Files = Mapping[str, str | bytes]


def write(root: Path, files: Files) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def read(tmp_path: Path, preds: Files, keys: tuple[str, ...] = ("17/a",)) -> InstanceSplit:
    """The split of gts with these keys and a folder of these files."""
    gts = write(tmp_path / "gt", {key + GT: "gt" for key in keys})
    return read_split(open_source(gts), open_source(write(tmp_path / "pred", preds)), IDD)


# The files


def test_split_is_sorted_by_key_and_masks_lie_beside_their_list(tmp_path: Path) -> None:
    preds = {
        f"9/b{LIST}": "b/0.png 6 0.5\n",
        "9/b/0.png": "mask of b",
        f"17/a{LIST}": "a/1.png 12 0.9\na/./0.png 8 0.4\n",
        "17/a/0.png": "m",
        "17/a/1.png": "mask",
        "17/a/unused.png": "m",
    }
    split = read(tmp_path, preds, ("9/b", "17/a"))
    assert (split.problems, split.notes, split.skipped) == ((), (), 0)
    assert [(image.key, image.drive, image.list_file) for image in split.images] == [
        ("17/a", "17", f"17/a{LIST}"),
        ("9/b", "9", f"9/b{LIST}"),
    ]
    assert [image.gt.name for image in split.images] == [f"17/a{GT}", f"9/b{GT}"]
    first, second = split.images[0].predictions or ()
    assert isinstance(first.mask, Entry)
    assert isinstance(second.mask, Entry)
    assert (first.mask.name, first.mask.size, first.label, first.confidence, first.line) == (
        "17/a/1.png",
        4,
        12,
        0.9,
        1,
    )
    assert (second.mask.name, second.line) == ("17/a/0.png", 2)


def test_label_that_is_not_evaluated_is_skipped_and_needs_no_mask(tmp_path: Path) -> None:
    split = read(
        tmp_path, {f"17/a{LIST}": "A.png 12 0.9\nnone.png 29 0.5\nnone2.png 7 0.4\n", "17/A.png": ""}
    )
    assert split.problems == ()
    assert split.skipped == 2
    assert [one.line for one in split.images[0].predictions or ()] == [1]


@pytest.mark.parametrize("line", ["A.png 12 1 0.87", "A.png car 1 0.87", "12 A.png 1 0.87"])
def test_fourth_field_is_not_taken_for_a_skipped_label(tmp_path: Path, line: str) -> None:
    (error,) = read(tmp_path, {f"17/a{LIST}": line, "17/A.png": ""}).problems
    assert isinstance(error, MalformedPredictions)
    assert error.message == "line 1: more than three fields, and no mask has such a name"


def test_mask_with_blanks_in_its_name_is_found(tmp_path: Path) -> None:
    split = read(
        tmp_path, {f"17/a{LIST}": "my mask.png 12 0.9\nmy 12 1 0.5", "17/my mask.png": "", "17/my 12": ""}
    )
    assert split.problems == ()
    assert len(split.images[0].predictions or ()) == 1
    assert split.skipped == 1


@pytest.mark.parametrize(
    ("mask", "there", "fix"),
    [
        ("B.png", "17/A.png", None),
        ("17/A.png", "17/A.png", "name masks relative to the folder of the list, not to the top folder"),
        ("a.PNG", "17/A.png", "a file of other case is there: 17/A.png"),
        ("a/.0.png", "17/a/.0.png", "hidden files are not read: rename it"),
    ],
)
def test_missing_mask_says_where_it_may_be(tmp_path: Path, mask: str, there: str, fix: str | None) -> None:
    split = read(tmp_path, {f"17/a{LIST}": f"{mask} 12 0.9\n", there: ""})
    (error,) = split.problems
    assert isinstance(error, MissingMask)
    assert error.file == f"{tmp_path}/pred/17/a{LIST}"
    assert error.expected == f"17/{mask}"
    assert error.fix == fix
    assert split.images[0].predictions is None
    assert split.images[0].list_file == f"17/a{LIST}"


@pytest.mark.parametrize("again", ["A.png 12 0.1", "./A.png 6 0.1", "A.png 29 0.1"])
def test_mask_twice_in_one_list_is_a_duplicate(tmp_path: Path, again: str) -> None:
    (error,) = read(tmp_path, {f"17/a{LIST}": f"A.png 12 0.9\n{again}\n", "17/A.png": ""}).problems
    assert isinstance(error, DuplicateFile)
    assert error.message == "line 2: the mask stands in the list twice"
    assert "line 1 names this one" in str(error)


def test_one_mask_may_serve_two_lists(tmp_path: Path) -> None:
    preds = {f"17/a{LIST}": "A.png 12 0.9", f"17/b{LIST}": "A.png 12 0.9", "17/A.png": ""}
    split = read(tmp_path, preds, ("17/a", "17/b"))
    assert split.problems == ()
    assert [len(image.predictions or ()) for image in split.images] == [1, 1]


def test_empty_list_has_no_predictions(tmp_path: Path) -> None:
    split = read(tmp_path, {f"17/a{LIST}": ""})
    assert split.problems == ()
    assert split.images[0].predictions == ()


def test_problems_of_all_lists_are_told_in_one_pass(tmp_path: Path) -> None:
    preds = {
        f"17/a{LIST}": "A.png 12 0.9\nA.png 12 0.8\nno.png 12 0.7\n../B.png 12 1\nA.png\n",
        f"17/c{LIST}": "A.png 40 0.5",
        f"17/d{LIST}": "A.png 12 0.5",
        f"17/x{LIST}": "A.png 12 0.5",
        "17/A.png": "",
    }
    split = read(tmp_path, preds, ("17/a", "17/b", "17/c", "17/d"))
    assert [type(error) for error in split.problems] == [
        MissingPrediction,
        ExtraPrediction,
        UnsafePath,
        MalformedPredictions,
        DuplicateFile,
        MissingMask,
        MalformedPredictions,
    ]
    assert [image.predictions is None for image in split.images] == [True, True, True, False]
    assert [image.list_file is None for image in split.images] == [False, True, False, False]


def test_list_that_is_too_long_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_LIST_BYTES", 100)
    preds = {f"17/a{LIST}": "#" * 101, f"17/b{LIST}": "#" * 100}
    split = read(tmp_path, preds, ("17/a", "17/b"))
    (error,) = split.problems
    assert isinstance(error, MalformedPredictions)
    assert error.found == "101 bytes"
    assert [image.predictions for image in split.images] == [None, ()]
    assert MAX_LIST_BYTES == 16 * 2**20


def test_lists_are_read_in_batches_and_keep_their_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BATCH_FILES", 3)
    monkeypatch.setattr(reading, "BATCH_BYTES", 40)
    keys = tuple(f"17/{number}" for number in range(10))
    preds = {f"{key}{LIST}": f"A.png 12 {int(key[3:])}\n" * (key != "17/4") for key in keys if key != "17/7"}
    split = read(tmp_path, {**preds, "17/A.png": ""}, keys)
    found = [image.predictions and image.predictions[0].confidence for image in split.images]
    assert found == [0, 1, 2, 3, (), 5, 6, None, 8, 9]


def test_list_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    gts = write(tmp_path / "gt", {f"17/a{GT}": "", f"17/b{GT}": ""})
    preds = write(tmp_path / "pred", {f"17/b{LIST}": ""})
    (preds / f"17/a{LIST}").symlink_to("nowhere")
    split = read_split(open_source(gts), open_source(preds), IDD)
    (error,) = split.problems
    assert isinstance(error, UnreadableFile)
    assert [image.predictions for image in split.images] == [None, ()]


def test_predictions_without_any_list_name_the_endings_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(EmptySplit) as caught:
        read(tmp_path, {"17/a_gtFine_labellevel3Ids.png": "", "17/b.json": ""})
    assert "no list of predictions among 2 files" in str(caught.value)
    assert f"expected *{LIST}" in str(caught.value)
    assert "--list-suffix" not in str(caught.value)


def test_lists_of_another_suffix_are_taken_with_a_note_unless_one_is_given(tmp_path: Path) -> None:
    split = read(tmp_path, {"17/a_mine.txt": "", "17/a/000.png": ""})
    assert split.images[0].predictions == ()
    (note,) = split.notes
    assert "_mine.txt" in note
    sides = open_source(tmp_path / "gt"), open_source(tmp_path / "pred")
    with pytest.raises(EmptySplit, match=r"--list-suffix _mine\.txt$"):
        read_split(*sides, IDD, list_suffix=LIST)
    assert read_split(*sides, IDD, list_suffix="_mine.txt").notes == ()


def test_suffixes_are_those_of_the_space_unless_given(tmp_path: Path) -> None:
    write(tmp_path / "gt", {"17/a.png": ""})
    write(tmp_path / "pred", {"17/a.txt": ""})
    gts, preds = open_source(tmp_path / "gt"), open_source(tmp_path / "pred")
    assert read_split(gts, preds, IDD, gt_suffix=".png", list_suffix=".txt").problems == ()
    assert read_split(gts, preds, replace(IDD, gt_suffix=".png", list_suffix=".txt")).problems == ()
    with pytest.raises(EmptySplit, match=r"--gt-suffix \.png"):
        read_split(gts, preds, IDD, gt_suffix=GT, list_suffix=".txt")


# Archives


def pack(kind: str, folder: Path, top: str) -> Path:
    archive = folder.with_suffix(f".{kind}")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for path in files:
                packed.write(path, top + path.relative_to(folder).as_posix())
    else:
        with tarfile.open(archive, "w") as packed:
            for path in files:
                packed.add(path, top + path.relative_to(folder).as_posix())
    return archive


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("top", ["", "submission/"])
def test_archive_gives_the_split_of_its_folder(tmp_path: Path, kind: str, top: str) -> None:
    gts = write(tmp_path / "gt", {f"17/a{GT}": "", f"18/b{GT}": ""})
    preds = write(
        tmp_path / "pred",
        {
            f"17/a{LIST}": "a/0.png 12 0.9\na/none.png 6 0.5\n",
            "17/a/0.png": "mask",
            f"18/b{LIST}": "0.png 6 1",
            "18/0.png": "m",
        },
    )
    folder = read_split(open_source(gts), open_source(preds), IDD)
    source = open_source(pack(kind, preds, top))
    split = read_split(open_source(gts), source, IDD)
    source.close()
    assert [(image.key, image.drive) for image in split.images] == [("17/a", "17"), ("18/b", "18")]
    assert len(split.notes) == bool(top)
    assert [type(error) for error in split.problems] == [MissingMask]
    assert split.problems[0].expected == f"{top}17/a/none.png"
    names = [
        [one.mask.name for one in image.predictions or () if isinstance(one.mask, Entry)]
        for image in split.images
    ]
    assert names == [[], [f"{top}18/0.png"]]
    assert [image.predictions is None for image in folder.images] == [True, False]


def test_mask_that_an_archive_holds_twice_is_a_duplicate(tmp_path: Path) -> None:
    gts = write(tmp_path / "gt", {f"17/a{GT}": ""})
    archive = tmp_path / "pred.tar"
    files = write(tmp_path / "files", {"list": "A.png 12 0.9", "mask": "m"})
    with tarfile.open(archive, "w") as packed:
        packed.add(files / "list", f"17/a{LIST}")
        packed.add(files / "mask", "17/A.png")
        packed.add(files / "mask", "17/A.png")
    source = open_source(archive)
    (error,) = read_split(open_source(gts), source, IDD).problems
    source.close()
    assert isinstance(error, DuplicateFile)
    assert error.message == "line 1: two files of the archive have the mask's name"


def test_hundred_thousand_predictions_share_their_entries(tmp_path: Path) -> None:
    masks = {f"17/{number:03d}.png": "" for number in range(100)}
    keys = tuple(f"17/a{number:03d}" for number in range(1000))
    lines = "".join(f"{number:03d}.png 12 0.{number}\n" for number in range(100))
    split = read(tmp_path, {**masks, **{key + LIST: lines for key in keys}}, keys)
    assert split.problems == ()
    predictions = [one for image in split.images for one in image.predictions or ()]
    assert len(predictions) == 100_000
    assert len({id(one.mask) for one in predictions}) == 100
    assert not hasattr(predictions[0], "__dict__")


# The reference's outcome and our error. What decoding and scoring decide (a mask of another size, a palette
# of blacks, ...) is accepted here.

EDGE_CASES = [
    ("plain", "ok", None),
    ("same_mask_twice", "ok", DuplicateFile),  # the reference lets the last line win
    ("float_label_truncates", "ok", None),  # a note tells it
    ("nonevaluated_label_missing_mask", "ok", None),
    ("evaluated_label_missing_mask", "error", MissingMask),
    ("unknown_label_40", "error", MalformedPredictions),
    ("blank_line_end", "error", None),  # milder
    ("crlf", "ok", None),
    ("double_space", "error", None),  # milder
    ("parent_path", "ok", UnsafePath),  # the reference reads masks outside the submission
    ("missing_txt", "error", EmptySplit),
    ("empty_txt", "ok", None),
    ("mask_smaller", "error", None),
    ("all_predictions_ignored", "error", None),
    ("only_empty_masks", "ok", None),
    ("tie_tp_fp", "ok", None),
    ("palette_index1_black", "ok", None),
    ("palette_normal", "ok", None),
    ("rgb_white", "ok", None),
    ("mask16_255", "ok", None),
    ("mask_one_bit", "ok", None),
    ("gt_value_255", "ok", None),
    ("ignored_on_animal_group", "ok", None),
    ("car_group_not_ignored", "ok", None),
]


@needs_shared
@pytest.mark.parametrize(("case", "reference", "ours"), EDGE_CASES, ids=[case for case, *_ in EDGE_CASES])
def test_edge_case_of_the_reference(case: str, reference: str, ours: type[InputError] | None) -> None:
    expected = shared_json("golden/instance_edge/expected.json")["cases"][case]
    folder = SHARED / "golden" / "instance_edge" / case
    assert expected["outcome"] == reference
    try:
        split = read_split(open_source(folder / "gt"), open_source(folder / "pred"), IDD)
    except EmptySplit:
        assert ours is EmptySplit
        return
    assert {type(error) for error in split.problems} == ({ours} if ours else set())
    if ours is None and reference == "ok" and case != "only_empty_masks" and "palette" not in case:
        used = [expected["predictions_used"][name] for name in IDD.names]
        found = [one.label for image in split.images for one in image.predictions or ()]
        assert [found.count(raw) for raw in IDD.ids] == used


@needs_shared
def test_edge_cases_are_all_of_them() -> None:
    cases = shared_json("golden/instance_edge/expected.json")["cases"]
    assert {case for case, *_ in EDGE_CASES} == set(cases)


@needs_shared
def test_golden_split_has_the_predictions_of_the_reference() -> None:
    """Labels such as 12.7 are cut as the reference cuts them; it does not use empty masks."""
    golden = SHARED / "golden" / "instance"
    lists = [path.read_text(encoding="utf-8") for path in sorted((golden / "pred").rglob("*.txt"))]
    rows = [line.split(" ") for text in lists for line in text.splitlines()]
    fractions = [label for _, label, _ in rows if not float(label).is_integer()]
    split = read_split(open_source(golden / "gt"), open_source(golden / "pred"), IDD)
    assert split.problems == ()
    assert split.notes[-1].startswith(f"{len(fractions)} label ids are no whole numbers")
    assert fractions[0] in split.notes[-1]
    labels = [one.label for image in split.images for one in image.predictions or ()]
    assert len(labels) + split.skipped == len(rows)
    assert set(labels) <= set(IDD.ids)
    full = [
        one.label
        for image in split.images
        for one in image.predictions or ()
        if isinstance(one.mask, Entry)
        and np.asarray(Image.open(golden / "pred" / one.mask.name).convert("L")).any()
    ]
    used = shared_json("golden/instance/expected.json")["cases"]["all"]["predictions_used"]
    assert {name: full.count(raw) for raw, name in zip(IDD.ids, IDD.names, strict=True)} == used
