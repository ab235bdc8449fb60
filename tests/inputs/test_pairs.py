"""Which files make a pair, and what is said about those that do not."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_eval.errors import DuplicateFile, EmptySplit, ExtraPrediction, MissingPrediction, UnreadableFile
from gpu_eval.inputs.pairs import Split, pair_up
from gpu_eval.inputs.sources import Entry

SUFFIX = "_gtFine_labellevel3Ids.png"


def files(*names: str) -> list[Entry]:
    return [Entry(name, 10 + number, "stamp") for number, name in enumerate(names)]


def maps(*keys: str) -> list[Entry]:
    return files(*(key + SUFFIX for key in keys))


def pair(
    gts: Iterable[Entry],
    preds: Iterable[Entry],
    *,
    gt_suffix: str = SUFFIX,
    pred_suffix: str = SUFFIX,
    exclude: tuple[str, ...] = (),
) -> Split:
    return pair_up(
        gts,
        preds,
        gt_suffix=gt_suffix,
        pred_suffix=pred_suffix,
        gt_location="gt",
        pred_location="pred",
        exclude=exclude,
    )


def test_pairs_are_sorted_by_key_and_know_their_drive() -> None:
    split = pair(maps("9/b", "17/a", "top"), maps("top", "17/a", "9/b"))
    assert [(one.key, one.drive) for one in split.pairs] == [("17/a", "17"), ("9/b", "9"), ("top", "")]
    assert all(one.pred is not None and one.pred.name == one.gt.name for one in split.pairs)
    assert split.problems == ()
    assert split.notes == ()


def test_suffixes_may_differ_and_other_files_are_no_label_maps() -> None:
    gts = files("1/a_gt.png", "1/a_gt.json", "readme.txt")
    split = pair(gts, files("1/a.png", "log.txt"), gt_suffix="_gt.png", pred_suffix=".png")
    assert [one.key for one in split.pairs] == ["1/a"]
    assert split.problems == ()


def test_excluded_endings_are_no_label_maps() -> None:
    gts = files("1/a_label.png", "1/a_inst_label.png")
    split = pair(gts, gts, gt_suffix="_label.png", pred_suffix="_label.png", exclude=("_inst_label.png",))
    assert [one.key for one in split.pairs] == ["1/a"]


def test_missing_prediction_is_one_problem_per_ground_truth() -> None:
    split = pair(maps("1/a", "1/b", "2/c"), maps("1/a"))
    assert [one.pred is None for one in split.pairs] == [False, True, True]
    assert [type(problem) for problem in split.problems] == [MissingPrediction, MissingPrediction]
    assert split.problems[0].file == f"pred/1/b{SUFFIX}"
    assert split.problems[0].fix is None


@pytest.mark.parametrize("name", [f"1/B{SUFFIX}", f"1/b{SUFFIX[:-3]}PNG", f"2/b{SUFFIX}", f"b{SUFFIX}"])
def test_missing_prediction_under_a_near_name_says_where_it_is(name: str) -> None:
    split = pair(maps("1/a", "1/b"), [*maps("1/a"), *files(name)])
    (problem,) = (one for one in split.problems if isinstance(one, MissingPrediction))
    assert problem.found == name
    assert problem.fix == f"rename or move it to 1/b{SUFFIX}"


def test_prediction_of_another_image_is_not_offered_as_a_near_name() -> None:
    split = pair(maps("1/a", "2/a"), maps("2/a"))
    (problem,) = split.problems
    assert problem.fix is None


def test_extra_prediction_is_a_problem() -> None:
    (problem,) = pair(maps("1/a"), maps("1/a", "1/b")).problems
    assert isinstance(problem, ExtraPrediction)
    assert problem.file == f"pred/1/b{SUFFIX}"


@pytest.mark.parametrize("side", ["gt", "pred"])
def test_duplicate_file_is_a_problem_and_the_first_is_kept(side: str) -> None:
    twice, once = maps("1/a", "1/a"), maps("1/a")
    split = pair(twice, once) if side == "gt" else pair(once, twice)
    (problem,) = split.problems
    assert isinstance(problem, DuplicateFile)
    assert problem.file == f"{side}/1/a{SUFFIX}"
    assert split.pairs[0].gt.size == 10
    assert split.pairs[0].pred is not None
    assert split.pairs[0].pred.size == 10


def test_name_that_is_not_utf8_is_a_problem() -> None:
    split = pair(maps("1/a", "1/b\udcff"), maps("1/a"))
    (problem,) = split.problems
    assert isinstance(problem, UnreadableFile)
    assert "b\\udcff" in str(problem)


def test_no_ground_truth_names_the_endings_that_are_there() -> None:
    gts = files("x/1_0001_gtFine_labelIds.png", "x/1_0002_gtFine_labelIds.png", "x/1_0001.json")
    with pytest.raises(EmptySplit) as caught:
        pair(gts, maps("x/1_0001", "x/1_0002"))
    text = str(caught.value)
    assert "among 3 files" in text
    assert "_gtFine_labelIds.png (2), .json (1)" in text
    assert "--gt-suffix _gtFine_labelIds.png" in text


@pytest.mark.parametrize(("gts", "preds", "where"), [((), ("1/a",), "gt"), (("1/a",), (), "pred")])
def test_no_files_at_all_is_said_so(gts: tuple[str, ...], preds: tuple[str, ...], where: str) -> None:
    with pytest.raises(EmptySplit, match=f"^{where}: .*no files at all"):
        pair(maps(*gts), maps(*preds))


@pytest.mark.parametrize("ending", [".png", "_pred.png", "_leftImg8bit.png", "-out.PNG"])
def test_predictions_of_another_ending_are_not_guessed_but_suggested(ending: str) -> None:
    preds = files(f"1/a1{ending}", f"1/a2{ending}", "notes_of_mine.txt")
    with pytest.raises(EmptySplit) as caught:
        pair(maps("1/a1", "1/a2"), preds)
    assert str(caught.value).endswith(f"--pred-suffix {ending}")
    assert "among 3 files" in str(caught.value)


def test_predictions_that_meet_nothing_name_an_example_of_each_side() -> None:
    with pytest.raises(EmptySplit) as caught:
        pair(maps("1/a"), maps("2/b", "3/c"))
    assert f"found such as 2/b{SUFFIX}, expected such as 1/a{SUFFIX}" in str(caught.value)


@pytest.mark.parametrize("top", ["a/", "a/b/", "a/b/c/", "a/b/c/d/", "a/" * 200])
def test_top_folders_of_an_archive_are_left_out_with_a_note(top: str) -> None:
    split = pair(maps("1/x", "2/y"), maps(f"{top}1/x", f"{top}2/y"))
    assert [one.key for one in split.pairs] == ["1/x", "2/y"]
    assert split.problems == ()
    (note,) = split.notes
    assert note.startswith("pred: ")
    assert top.rstrip("/") in note


def test_top_folders_of_both_sides_are_left_out() -> None:
    split = pair(maps("gt/val/1/x", "gt/val/2/y"), maps("mine/1/x", "mine/2/y"))
    assert [one.key for one in split.pairs] == ["1/x", "2/y"]
    assert len(split.notes) == 2


def test_missing_prediction_below_a_top_folder_is_named_with_it() -> None:
    problems = pair(maps("1/x", "2/y"), maps("top/1/x", "top/3/z")).problems
    assert [problem.file for problem in problems] == [f"pred/top/2/y{SUFFIX}", f"pred/top/3/z{SUFFIX}"]


def test_nothing_is_left_out_when_some_keys_meet() -> None:
    split = pair(maps("a/1/x", "a/1/y"), maps("a/1/x"))
    assert [one.key for one in split.pairs] == ["a/1/x", "a/1/y"]
    assert split.notes == ()


keys = st.sets(st.from_regex(r"([ab]/)?[a-c]{1,2}", fullmatch=True), min_size=1, max_size=8)


@given(keys, keys)
def test_every_file_is_paired_or_a_problem(gts: set[str], preds: set[str]) -> None:
    if not gts & preds:
        return
    split = pair(maps(*gts), maps(*preds))
    assert [one.key for one in split.pairs] == sorted(gts)
    kinds = [type(problem) for problem in split.problems]
    assert kinds.count(MissingPrediction) == len(gts - preds)
    assert kinds.count(ExtraPrediction) == len(preds - gts)
    assert len(kinds) == len(gts ^ preds)


def test_frames_of_one_drive_are_not_scored_against_those_of_another() -> None:
    with pytest.raises(EmptySplit):
        pair(maps("17/a", "17/b"), maps("18/a", "18/b"))
