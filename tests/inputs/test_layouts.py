"""Splits as benchmarks and toolchains lay them out: every gt finds its own prediction, or nobody guesses."""

from __future__ import annotations

import random

import pytest

from gpu_eval.errors import DuplicateFile, EmptySplit, ExtraPrediction, MissingPrediction
from gpu_eval.inputs.naming.suffixes import GT_MAPS, PRED_MAPS
from gpu_eval.inputs.pairs import Split, pair_up
from gpu_eval.inputs.sources import Entry
from tests.support.layouts import (
    BUNDLED,
    GT_KINDS,
    OF_ONES_OWN,
    Layout,
    cityscapes_keys,
    draw_cityscapes,
    draw_idd,
    idd_keys,
)

CITYSCAPES, IDD = "_gtFine_labelIds.png", "_gtFine_labellevel3Ids.png"


def pair(gts: object, preds: object, own: str = CITYSCAPES, **options: object) -> Split:
    sides = ([Entry(name, 9, "stamp") for name in side] for side in (gts, preds))  # type: ignore[attr-defined]
    usual = {"gt_usual": (own, *GT_MAPS), "pred_usual": (own, *PRED_MAPS)}
    return pair_up(*sides, gt_location="gt", pred_location="pred", **usual, **options)  # type: ignore[arg-type]


def found(split: Split) -> dict[str, str]:
    return {one.gt.name: one.pred.name for one in split.pairs if one.pred is not None}


def check(layout: Layout, own: str) -> None:
    split = pair(layout.gts, layout.preds, own)
    assert found(split) == layout.pairs
    assert split.problems == ()
    assert split.hint is None


@pytest.mark.parametrize("ending", [*BUNDLED, *OF_ONES_OWN])
@pytest.mark.parametrize("seed", range(12))
def test_cityscapes_is_paired_however_it_is_laid_out(seed: int, ending: str) -> None:
    check(draw_cityscapes(random.Random(f"{seed}{ending}"), ending), CITYSCAPES)


@pytest.mark.parametrize("ending", [IDD, *BUNDLED, *OF_ONES_OWN])
@pytest.mark.parametrize("seed", range(6))
def test_idd_is_paired_in_drives_below_any_folders(seed: int, ending: str) -> None:
    check(draw_idd(random.Random(f"{seed}{ending}"), ending), IDD)


@pytest.mark.parametrize("gt_ending", ["_gt.png", "-label.png", ".png", "_seg.png", "_label.png"])
@pytest.mark.parametrize("ending", ["_gt.png", "-label.png", ".png", "_pred.png", "_seg.out.png"])
def test_gts_of_ones_own_ending_are_paired_for_a_table_of_ones_own(gt_ending: str, ending: str) -> None:
    check(draw_idd(random.Random(gt_ending + ending), ending, gt_ending), ".png")


class TestFileNames:
    """Predictions paired by file name alone."""

    keys = cityscapes_keys(random.Random(1))
    gts = tuple(key + CITYSCAPES for key in keys)

    def test_a_note_says_so_and_which_suffix_was_taken(self) -> None:
        split = pair(self.gts, [f"{key[key.index('/') + 1 :]}_leftImg8bit.png" for key in self.keys])
        assert [one.drive for one in split.pairs] == [key.split("/")[0] for key in self.keys]
        suffix, layout = split.notes
        assert "_leftImg8bit.png were taken as predictions" in suffix
        assert "by file name alone" in layout

    def test_missing_and_extra_predictions_are_told_where_they_belong(self) -> None:
        names = [f"out/{key[key.index('/') + 1 :]}.png" for key in self.keys]
        split = pair(self.gts, [*names[1:], "out/paris_000000_000019.png"])
        missing, extra = split.problems
        assert isinstance(missing, MissingPrediction)
        assert missing.file == f"pred/{names[0]}"
        assert isinstance(extra, ExtraPrediction)
        assert extra.file == "pred/out/paris_000000_000019.png"
        assert pair(self.gts, names).problems == ()

    def test_one_name_in_two_folders_is_a_duplicate(self) -> None:
        names = [f"a/{key[key.index('/') + 1 :]}.png" for key in self.keys]
        (problem,) = pair(self.gts, [*names, f"b/{names[0][2:]}"]).problems
        assert isinstance(problem, DuplicateFile)
        assert problem.file == f"pred/b/{names[0][2:]}"

    def test_all_names_in_two_folders_are_a_choice_of_the_user(self) -> None:
        names = [f"{kind}/{key[key.index('/') + 1 :]}.png" for key in self.keys for kind in ("color", "ids")]
        with pytest.raises(EmptySplit, match=r"give one of these folders: pred/color, pred/ids$"):
            pair(self.gts, names)

    def test_endings_of_every_kind_are_found_as_cityscapesscripts_does(self) -> None:
        names = [f"x/{key[key.index('/') + 1 :]}_{number:x}a7.png" for number, key in enumerate(self.keys)]
        split = pair(self.gts, names)
        assert found(split) == dict(zip(self.gts, names, strict=True))
        assert "how their file names begin" in split.notes[0]

    def test_predictions_of_other_frames_are_never_taken(self) -> None:
        others = [f"{key.removesuffix('19')}18.png" for key in self.keys]
        with pytest.raises(EmptySplit, match="none has the path"):
            pair(self.gts, others)

    def test_some_in_other_folders_are_found_beside_those_by_path(self) -> None:
        names = [*self.gts[:-2], *(name.split("/")[1] for name in self.gts[-2:])]
        split = pair(self.gts, names)
        assert found(split) == dict(zip(self.gts, names, strict=True))
        assert split.notes == ("pred: 2 predictions in other folders were paired by file name alone",)

    @pytest.mark.parametrize("ending", [IDD, "_pred.png", "_mine.png", ".png"])
    def test_names_that_repeat_over_drives_are_refused(self, ending: str) -> None:
        keys = idd_keys(random.Random(2))
        flat = sorted({key.split("/")[1] for key in keys})
        with pytest.raises(EmptySplit, match="share their file names") as caught:
            pair([key + IDD for key in keys], [name + ending for name in flat], IDD, pred_suffix=ending)
        assert caught.value.fix is not None
        assert caught.value.fix.endswith(f"such as {keys[0]}{ending}")

    @pytest.mark.parametrize(
        ("gts", "preds"),
        [
            (("17/a", "18/b"), ("18/a", "17/b")),
            (("17/a", "18/b"), ("19/a", "20/b")),
            (("17/a", "17/b"), ("out/18/a", "out/18/b")),
            (("seq1/a", "seq2/b"), ("seq3/a", "seq3/b")),
            (("val/17/a", "val/18/b"), ("18/a", "17/b")),
        ],
    )
    def test_folders_that_name_other_drives_are_refused(
        self, gts: tuple[str, ...], preds: tuple[str, ...]
    ) -> None:
        with pytest.raises(EmptySplit, match="name other drives"):
            pair([key + IDD for key in gts], [key + IDD for key in preds], IDD)

    def test_folders_that_two_sides_need_below_different_tops_pair_without_being_shared(self) -> None:
        gts = [f"train/17/a{IDD}", f"val/18/a{IDD}"]
        split = pair(gts, [f"17/a{IDD}", f"18/a{IDD}"], IDD)
        assert found(split) == dict(zip(gts, (f"17/a{IDD}", f"18/a{IDD}"), strict=True))
        assert "the last 2 parts of their paths" in split.notes[0]


class TestOtherFiles:
    @pytest.mark.parametrize("other", ["_color.png", "_overlay.png", "_conf.png"])
    @pytest.mark.parametrize("ending", [".png", "_mine.png", "_pred.png"])
    def test_pictures_beside_predictions_are_left_out(self, ending: str, other: str) -> None:
        keys = idd_keys(random.Random(3))
        names = [key + kind for key in keys for kind in (ending, other)]
        split = pair([key + IDD for key in keys], names, IDD)
        assert found(split) == {key + IDD: key + ending for key in keys}
        assert split.problems == ()

    def test_copies_in_another_folder_are_left_out_with_a_note(self) -> None:
        keys = idd_keys(random.Random(3))
        split = pair(
            [key + IDD for key in keys], [top + key + IDD for key in keys for top in ("", "color/")], IDD
        )
        assert found(split) == {key + IDD: key + IDD for key in keys}
        assert split.problems == ()
        assert split.notes == ("pred: 12 files in color/ were left out; their images have a prediction",)

    def test_a_number_behind_a_name_is_another_image(self) -> None:
        (problem,) = pair(["1/a.png"], ["1/a.png", "1/a_2.png"], ".png").problems
        assert isinstance(problem, ExtraPrediction)

    def test_two_kinds_that_fit_every_file_are_a_choice_of_the_user(self) -> None:
        keys = idd_keys(random.Random(4))
        gts = [key + IDD for key in keys]
        names = [key + ending for key in keys for ending in ("_one.png", "_two.png")]
        with pytest.raises(EmptySplit, match=r"give --pred-suffix _one\.png, or --pred-suffix _two\.png$"):
            pair(gts, names, IDD)
        assert found(pair(gts, names, IDD, pred_suffix="_two.png")) == {
            key + IDD: f"{key}_two.png" for key in keys
        }

    def test_an_ending_that_not_every_gt_has_a_prediction_for_is_named_and_not_taken(self) -> None:
        keys = idd_keys(random.Random(5))
        sides = [key + IDD for key in keys], [f"{key}_mine.png" for key in keys[1:]]
        with pytest.raises(EmptySplit, match=r"give --pred-suffix _mine\.png$"):
            pair(*sides, IDD)
        assert len(found(pair(*sides, IDD, pred_suffix="_mine.png"))) == len(keys) - 1

    def test_the_kinds_of_cityscapes_gt_are_told_apart_for_a_table_of_ones_own(self) -> None:
        keys = cityscapes_keys(random.Random(6))
        gts = [key + kind for key in keys for kind in GT_KINDS]
        for ending in (".png", CITYSCAPES, "_mine.png"):
            split = pair(gts, [key + ending for key in keys], ".png")
            assert found(split) == {key + CITYSCAPES: key + ending for key in keys}
            assert split.problems == ()


class TestGivenSuffix:
    def test_it_is_never_overridden_and_the_one_that_fits_is_named(self) -> None:
        keys = idd_keys(random.Random(7))
        gts, names = [key + IDD for key in keys], [f"{key}_pred.png" for key in keys]
        with pytest.raises(EmptySplit, match=r"give --pred-suffix _pred\.png$"):
            pair(gts, names, IDD, pred_suffix=".png")
        with pytest.raises(EmptySplit, match=f"give --gt-suffix {IDD}$"):
            pair(gts, names, IDD, gt_suffix="_gt.png")
        with pytest.raises(EmptySplit, match=rf"give --gt-suffix {IDD} --pred-suffix _pred\.png$"):
            pair(gts, names, IDD, gt_suffix="_gt.png", pred_suffix="_out.png")

    def test_most_missing_names_the_folder_that_was_predicted(self) -> None:
        keys = cityscapes_keys(random.Random(8))
        others = [
            f"{top}/{key.replace('000019', top)}{CITYSCAPES}" for key in keys for top in ("test", "train")
        ]
        predicted = [f"val/{key}{CITYSCAPES}" for key in keys]
        assert pair([*others, *predicted], predicted).hint == (
            "if only val was predicted, give gt/val as the ground truth"
        )

    def test_most_missing_names_the_suffix_that_more_have(self) -> None:
        keys = idd_keys(random.Random(9))
        gts = [key + IDD for key in keys]
        names = [gts[0], *(f"{key}_mine.png" for key in keys)]
        assert pair(gts, names, IDD).hint == "give --pred-suffix _mine.png"
        assert pair(gts, names, IDD, pred_suffix="_mine.png").hint is None

    @pytest.mark.parametrize("endings", [(".png", "_pred.png"), ("_leftImg8bit.png", "_x.png", "_7.png")])
    def test_endings_that_differ_from_file_to_file_are_found(self, endings: tuple[str, ...]) -> None:
        keys = cityscapes_keys(random.Random(10))
        names = [f"{key.split('/')[1]}{endings[at % len(endings)]}" for at, key in enumerate(keys)]
        assert found(pair([key + CITYSCAPES for key in keys], names)) == dict(
            zip([key + CITYSCAPES for key in keys], names, strict=True)
        )

    @pytest.mark.parametrize("kinds", [("_leftImg8bit.png", "_gtFine_polygons.json"), ("_gtFine_color.png",)])
    def test_images_and_pictures_are_no_ground_truth(self, kinds: tuple[str, ...]) -> None:
        keys = cityscapes_keys(random.Random(11))
        sides = [key + kind for key in keys for kind in kinds], [f"{key}_leftImg8bit.png" for key in keys]
        with pytest.raises(EmptySplit, match="no ground truth among") as caught:
            pair(*sides)
        assert ("polygons must be drawn first" in str(caught.value)) == (len(kinds) == 2)

    def test_masks_beside_lists_are_said_to_be_instances(self) -> None:
        keys = cityscapes_keys(random.Random(12))
        stems = [f"{key.split('/')[1]}_leftImg8bit" for key in keys]
        names = [
            name for stem in stems for name in (f"{stem}_pred.txt", f"{stem}_0_car.png", f"{stem}_1_car.png")
        ]
        with pytest.raises(EmptySplit, match=r"scored by gpu-eval instances: gpu-eval instances gt pred$"):
            pair([key + CITYSCAPES for key in keys], names)
