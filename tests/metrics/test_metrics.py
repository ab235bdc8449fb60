"""Scores against the outputs of the public scripts, a literal evaluator, and what must hold anyway."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_eval.errors import OptionError
from gpu_eval.labels import LabelSpace, load_labels
from gpu_eval.metrics import confusion as cm
from gpu_eval.metrics import semantic
from tests.reference import semantic as reference
from tests.support.shared import SHARED, needs_shared, shared_json

IDD = load_labels("idd")
LITE = load_labels("idd-lite")
CITYSCAPES = load_labels("cityscapes")
TOLERANCE = 1e-12

Matrix = npt.NDArray[np.int64]


def floats(values: list[float | None]) -> npt.NDArray[np.float64]:
    return np.array([math.nan if value is None else value for value in values])


def close(got: Any, expected: Any) -> None:
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE, equal_nan=True)


def parity(score: semantic.LevelScore, expected: dict[str, Any], miou: str) -> None:
    close(score.iou, floats(expected["iou"]))
    close(score.miou, floats([expected[miou]])[0])


def semantic_cases() -> list[tuple[str, str]]:
    if not SHARED.is_dir():
        return []
    cases = shared_json("golden/semantic/expected.json")["cases"]
    return [(case, resolution) for case, content in cases.items() for resolution in content["resolutions"]]


@pytest.fixture(scope="module")
def golden() -> Any:
    return shared_json("golden/semantic/expected.json")


@needs_shared
class TestGolden:
    @pytest.mark.parametrize(("case", "resolution"), semantic_cases())
    def test_idd_protocol_is_the_consistent_evaluation(self, golden: Any, case: str, resolution: str) -> None:
        expected = golden["cases"][case]["resolutions"][resolution]
        confusion = np.array(expected["confusion_matrix"])
        for score in semantic.score(confusion, IDD, "idd"):
            level = expected["consistent"][f"level{score.level}"]
            parity(score, level, "miou_over_present")
            absent = np.flatnonzero(np.isnan(score.iou)).tolist()
            assert absent == level["absent"]
            assert score.classes_in_mean == len(score.names) - len(absent)

    @pytest.mark.parametrize(("case", "resolution"), semantic_cases())
    def test_autonue_protocol_is_what_the_script_prints(
        self, golden: Any, case: str, resolution: str
    ) -> None:
        expected = golden["cases"][case]["resolutions"][resolution]
        official = expected["official"]
        confusion = np.array(expected["confusion_matrix"])
        level3, level2, level1 = semantic.score(confusion, IDD, "autonue")
        parity(level3, official["level3"], "miou")
        parity(level2, official["level2"], "miou")
        parity(level1, official["level1_as_printed"], "miou")
        matrix = np.array(official["level2"]["matrix"])
        assert np.array_equal(cm.roll_up(confusion, IDD.level(2).groups)[:-1, :-1], matrix)
        assert np.array_equal(level2.tp, np.diag(matrix))
        assert np.array_equal(level2.fp, matrix.sum(axis=0) - np.diag(matrix))
        assert np.array_equal(level2.fn, matrix.sum(axis=1) - np.diag(matrix))

    @pytest.mark.parametrize("protocol", ["idd", "autonue"])
    def test_idd_lite_is_the_final_line_of_its_script_in_both_protocols(self, protocol: str) -> None:
        for expected in shared_json("golden/lite/expected.json")["resolutions"].values():
            confusion = np.array(expected["confusion_matrix"])
            (score,) = semantic.score(confusion, LITE, protocol)
            parity(score, expected["official_final_line"], "miou")

    @pytest.mark.parametrize("protocol", ["idd", "autonue"])
    def test_camvid_agrees_with_numpy(self, protocol: str) -> None:
        expected = shared_json("camvid/expected.json")
        for score in semantic.score(np.array(expected["confusion"]), IDD, protocol):
            close(score.iou, floats(expected[protocol][f"l{score.level}"]))
            miou = expected[protocol].get(f"miou_l{score.level}")
            if miou is not None:
                close(score.miou, miou)

    def test_matrices_of_the_images_scored_at_once_equal_each_alone(self, golden: Any) -> None:
        images = np.zeros((len(golden["images"]), 27, 27), np.int64)
        for confusion, image in zip(images, golden["images"].values(), strict=True):
            for gt, pred, pixels in image["confusion_nonzero"]["720"]:
                confusion[gt, pred] = pixels
        for protocol in semantic.PROTOCOLS:
            for level in IDD.levels:
                together = semantic.counts(images, IDD, protocol, level.number)
                for index, confusion in enumerate(images):
                    alone = semantic.counts(confusion, IDD, protocol, level.number)
                    for many, one in zip(together, alone, strict=True):
                        assert np.array_equal(many[index], one)


@st.composite
def matrices(draw: st.DrawFn, n: int = 26) -> Matrix:
    """A sparse matrix (n+1, n+1); about half the classes are absent on either side."""
    seed = draw(st.integers(0, 2**32 - 1))
    high = draw(st.sampled_from([2, 1000, 2**40]))
    rng = np.random.default_rng(seed)
    matrix = rng.integers(0, high, (n + 1, n + 1)) * (rng.random((n + 1, n + 1)) < draw(st.floats(0, 1)))
    rows, columns = rng.random(n + 1) < 0.5, rng.random(n + 1) < 0.5
    if draw(st.booleans()):
        matrix[rows], matrix[:, columns] = 0, 0
    return matrix


def children(labels: LabelSpace) -> list[list[list[int]]]:
    return [[list(group) for group in level.children] for level in labels.levels[1:]]


@pytest.mark.parametrize("protocol", ["idd", "autonue"])
@given(confusion=matrices())
def test_every_level_matches_the_reference_evaluator(protocol: str, confusion: Matrix) -> None:
    expected = reference.level_matrices(confusion.tolist(), protocol, children(IDD))
    for score, matrix in zip(semantic.score(confusion, IDD, protocol), expected, strict=True):
        counts = reference.tp_fp_fn(matrix)
        assert (score.tp.tolist(), score.fp.tolist(), score.fn.tolist()) == counts
        ious = reference.iou(*counts)
        close(score.iou, ious)
        close(score.miou, reference.mean_iou(ious, protocol))
        assert score.classes_in_mean == sum(not math.isnan(value) for value in ious)


@given(confusion=matrices())
def test_transposing_swaps_fp_and_fn_where_void_is_zero(confusion: Matrix) -> None:
    confusion[-1], confusion[:, -1] = 0, 0
    for protocol in semantic.PROTOCOLS:
        for level in IDD.levels:
            tp, fp, fn = semantic.counts(confusion, IDD, protocol, level.number)
            tp_t, fp_t, fn_t = semantic.counts(confusion.T, IDD, protocol, level.number)
            assert np.array_equal(tp, tp_t)
            assert np.array_equal(fp, fn_t)
            assert np.array_equal(fn, fp_t)


@given(confusion=matrices())
def test_roll_up_preserves_the_sum(confusion: Matrix) -> None:
    for level in IDD.levels:
        assert cm.roll_up(confusion, level.groups).sum() == confusion.sum()
        assert cm.roll_up(confusion, level.groups[:-1]).sum() == confusion.sum()


@given(confusion=matrices())
def test_roll_up_in_steps_equals_roll_up_at_once(confusion: Matrix) -> None:
    level2, level1 = IDD.level(2), IDD.level(1)
    in_steps = cm.roll_up(cm.roll_up(confusion, level2.groups), level1.children)
    assert np.array_equal(in_steps, cm.roll_up(confusion, level1.groups))


@given(confusion=matrices())
def test_gt_void_changes_nothing(confusion: Matrix) -> None:
    other = confusion.copy()
    other[-1] += 17
    for protocol in semantic.PROTOCOLS:
        for a, b in zip(
            semantic.score(confusion, IDD, protocol), semantic.score(other, IDD, protocol), strict=True
        ):
            assert np.array_equal(a.iou, b.iou, equal_nan=True)


@given(confusion=matrices(n=7))
def test_protocols_agree_where_there_is_one_level(confusion: Matrix) -> None:
    (idd,), (autonue,) = (semantic.score(confusion, LITE, protocol) for protocol in ("idd", "autonue"))
    assert np.array_equal(idd.iou, autonue.iou, equal_nan=True)


def test_predicted_void_is_a_miss_at_every_level_in_idd_and_at_level_3_only_in_autonue() -> None:
    confusion = np.zeros((27, 27), np.int64)
    confusion[np.arange(26), np.arange(26)] = 10
    confusion[:26, 26] = 90
    assert [score.miou for score in semantic.score(confusion, IDD, "idd")] == pytest.approx([0.1] * 3)
    level3, level2, _ = semantic.score(confusion, IDD, "autonue")
    assert level3.miou == pytest.approx(0.1)
    assert level2.miou == 1.0


def test_autonue_vehicles_are_level_3_ids_6_to_8() -> None:
    confusion = np.zeros((27, 27), np.int64)
    confusion[8, 8], confusion[9, 9], confusion[25, 25] = 3, 5, 7
    score = semantic.score(confusion, IDD, "autonue")[2]
    by_name = dict(zip(score.names, score.tp.tolist(), strict=True))
    assert by_name["vehicles"] == 3
    assert by_name["road-side-objs"] == 5
    assert by_name["sky"] == 0
    assert score.gt_pixels == 8


def test_absent_class_is_left_out_of_the_idd_mean_and_poisons_the_autonue_mean() -> None:
    confusion = np.zeros((27, 27), np.int64)
    confusion[0, 0], confusion[0, 1] = 3, 1
    idd, autonue = (semantic.score(confusion, IDD, protocol)[0] for protocol in ("idd", "autonue"))
    assert np.isnan(idd.iou[2:]).all()
    assert idd.miou == pytest.approx((0.75 + 0.0) / 2)
    assert idd.classes_in_mean == autonue.classes_in_mean == 2
    assert math.isnan(autonue.miou)


@pytest.mark.parametrize("protocol", ["idd", "autonue"])
def test_matrix_without_pixels_scores_nan_without_a_warning(protocol: str) -> None:
    for score in semantic.score(np.zeros((27, 27), np.int64), IDD, protocol):
        assert math.isnan(score.miou)
        assert math.isnan(score.pixel_accuracy)
        assert math.isnan(score.mean_accuracy)
        assert math.isnan(score.frequency_weighted_iou)
        assert score.classes_in_mean == score.gt_pixels == 0


def test_ratios_of_a_matrix_done_by_hand() -> None:
    # rows gt, columns prediction, last void
    confusion = np.zeros((8, 8), np.int64)
    confusion[0, 0], confusion[0, 1], confusion[0, 7] = 6, 2, 2
    confusion[1, 1], confusion[1, 0] = 8, 2
    confusion[7, 0] = 100
    (score,) = semantic.score(confusion, LITE, "idd")
    assert score.gt_pixels == 20
    close(score.iou[:2], [6 / 12, 8 / 12])
    close(score.precision[:2], [6 / 8, 8 / 10])
    close(score.recall[:2], [6 / 10, 8 / 10])
    close(score.dice[:2], [12 / 18, 16 / 20])
    assert np.isnan(score.precision[2:]).all()
    close(score.pixel_accuracy, 14 / 20)
    close(score.mean_accuracy, 0.7)
    close(score.frequency_weighted_iou, (10 * 0.5 + 10 * 8 / 12) / 20)


def test_mean_iou_works_on_every_leading_axis() -> None:
    iou = np.array([[[0.5, np.nan], [np.nan, np.nan]], [[0.2, 0.4], [1.0, 0.0]]])
    close(semantic.mean_iou(iou, "idd"), [[0.5, np.nan], [0.3, 0.5]])
    close(semantic.mean_iou(iou, "autonue"), [[np.nan, np.nan], [0.3, 0.5]])


def test_no_images_give_no_counts() -> None:
    for protocol in semantic.PROTOCOLS:
        tp, fp, fn = semantic.counts(np.zeros((0, 27, 27), np.int64), IDD, protocol, 1)
        assert tp.shape == fp.shape == fn.shape == (0, 7)


def test_counts_beyond_32_bits_and_from_narrow_matrices_stay_exact() -> None:
    confusion = np.zeros((27, 27), np.int64)
    confusion[4, 5] = 2**60 + 1
    assert semantic.counts(confusion, IDD, "idd", 1)[0][2] == 2**60 + 1
    narrow = np.full((27, 27), 200, np.uint8)
    tp, fp, fn = cm.tp_fp_fn(narrow)  # type: ignore[arg-type]
    assert tp.dtype == fp.dtype == fn.dtype == np.int64
    assert (tp[0], fp[0], fn[0]) == (200, 25 * 200, 26 * 200)


def test_void_gt_of_cityscapes_is_void_in_its_categories() -> None:
    confusion = np.zeros((20, 20), np.int64)
    confusion[0, 1], confusion[0, 19] = 3, 1
    train, category = semantic.score(confusion, CITYSCAPES, "idd")
    assert (train.tp[0], train.fn[0]) == (0, 4)
    assert (category.tp[0], category.fn[0]) == (3, 1)


def test_unknown_protocol_is_an_option_error_that_lists_them() -> None:
    confusion = np.zeros((27, 27), np.int64)
    for call in (
        lambda: semantic.score(confusion, IDD, "coco"),
        lambda: semantic.counts(confusion, IDD, "coco", 3),
        lambda: semantic.mean_iou(np.zeros(3), "coco"),
    ):
        with pytest.raises(OptionError, match="idd, autonue"):
            call()


def test_unknown_level_is_an_option_error_that_lists_them() -> None:
    with pytest.raises(OptionError, match="3, 2, 1"):
        semantic.counts(np.zeros((27, 27), np.int64), IDD, "idd", 4)
