"""The rules of matching one by one, each on an instance or two."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from gpu_eval.errors import OptionError
from gpu_eval.labels.instance_space import load_instances
from gpu_eval.metrics.average_precision import average_precision, curves
from gpu_eval.metrics.matching import (
    GT_OUTCOMES,
    PRED_OUTCOMES,
    THRESHOLDS,
    InstanceTable,
    Outcomes,
    concatenate,
    outcomes,
)
from tests.support.instance_runs import scores_of

IDD = load_instances("idd")
AREAS = [(100, math.inf), (0, math.inf), (100, 200), (0, 100), (120, 150)]

PERSON, ANIMAL, CAR = 6, 7, 12


def tiny(
    preds: Sequence[tuple[int, float, int]],
    gts: Sequence[tuple[int, int]],
    overlaps: dict[tuple[int, int], int],
) -> InstanceTable:
    """One image of predictions (label, confidence, pixels) and gt rows (value, pixels)."""
    labels, confidences, areas = zip(*preds, strict=True) if preds else ((), (), ())
    values, pixels = zip(*gts, strict=True) if gts else ((), ())
    pairs = np.array(list(overlaps), np.int64).reshape(-1, 2)
    return InstanceTable(
        pred_image=np.zeros(len(preds), np.int64),
        pred_class=np.array(labels, np.int64),
        confidence=np.array(confidences, np.float64),
        pred_pixels=np.array(areas, np.int64),
        gt_image=np.zeros(len(gts), np.int64),
        gt_value=np.array(values, np.int64),
        gt_pixels=np.array(pixels, np.int64),
        overlap_pred=pairs[:, 0],
        overlap_gt=pairs[:, 1],
        overlap_pixels=np.array(list(overlaps.values()), np.int64),
    )


def words(result: Outcomes, threshold: float = 0.5) -> list[str]:
    """What became of each prediction at that threshold."""
    column = int(np.argmin(np.abs(result.thresholds - threshold)))
    return [PRED_OUTCOMES[code] for code in result.preds[:, column]]


def gt_words(result: Outcomes) -> list[str]:
    return [GT_OUTCOMES[code] for code in result.gts[:, 0]]


class TestRules:
    @pytest.mark.parametrize(
        ("shared", "threshold", "word"),
        [
            (100, 0.5, "fp_unmatched"),  # 100 / 200
            (101, 0.5, "tp"),
            (130, 0.65, "fp_unmatched"),  # 0.65 < 0.6500000000000001
            (131, 0.65, "tp"),
            (110, 0.55, "fp_unmatched"),  # 0.55 has no residue
            (190, 0.95, "fp_unmatched"),  # 0.95 < 0.9500000000000004
            (200, 0.95, "tp"),
        ],
    )
    def test_iou_must_be_greater_than_the_threshold(self, shared: int, threshold: float, word: str) -> None:
        table = tiny([(CAR, 0.9, shared)], [(12000, 200)], {(0, 0): shared})
        result = outcomes(table, IDD, "autonue")
        assert result.best_iou[0] == shared / 200
        assert words(result, threshold) == [word]

    def test_gt_of_100_pixels_counts_and_of_99_does_not(self) -> None:
        table = tiny(
            [(CAR, 0.9, 100), (CAR, 0.8, 99)], [(12000, 100), (12001, 99)], {(0, 0): 100, (1, 1): 99}
        )
        result = outcomes(table, IDD, "autonue")
        assert words(result) == ["tp", "ignored_size"]
        assert gt_words(result) == ["tp", "ignored_size"]
        assert result.counted.tolist() == [True, False]

    def test_area_takes_its_first_number_and_not_its_second(self) -> None:
        table = tiny([], [(12000, 100), (12001, 150), (12002, 200)], {})
        assert gt_words(outcomes(table, IDD, "autonue", area=(100, 200))) == ["fn", "fn", "ignored_size"]
        assert gt_words(outcomes(table, IDD, "autonue", area=(101, 201))) == ["ignored_size", "fn", "fn"]

    def test_prediction_on_nothing_is_a_false_positive_in_every_area_range(self) -> None:
        table = tiny([(CAR, 0.9, 5000)], [(0, 9000), (12000, 150)], {(0, 0): 5000})
        for area in AREAS:
            assert words(outcomes(table, IDD, "autonue", area=area)) == ["fp_unmatched"]

    def test_second_prediction_on_a_gt_is_a_false_positive_at_its_own_confidence(self) -> None:
        table = tiny(
            [(CAR, 0.4, 200), (CAR, 0.9, 180), (CAR, 0.4, 120)],
            [(12000, 200)],
            {(0, 0): 200, (1, 0): 180, (2, 0): 120},
        )
        result = outcomes(table, IDD, "autonue")
        assert words(result) == ["fp_duplicate", "tp", "fp_duplicate"]
        assert words(result, 0.6) == ["fp_duplicate", "tp", "fp_unmatched"]  # 0.6 < 0.6000000000000001
        assert words(result, 0.95) == ["tp", "fp_unmatched", "fp_unmatched"]
        assert result.found_by[0].tolist() == [1] * 8 + [0] * 2
        curve = curves(result, IDD.ids.index(CAR))[0]
        assert curve.confidence.tolist() == [0.9, 0.4]
        assert (curve.tp.tolist(), curve.fp.tolist()) == ([1, 1], [0, 2])

    def test_first_of_equally_confident_predictions_is_the_true_positive(self) -> None:
        table = tiny([(CAR, 0.0, 190), (CAR, -0.0, 200)], [(12000, 200)], {(0, 0): 190, (1, 0): 200})
        assert words(outcomes(table, IDD, "autonue")) == ["tp", "fp_duplicate"]

    def test_prediction_of_another_class_does_not_match(self) -> None:
        table = tiny([(PERSON, 0.9, 200)], [(12000, 200)], {(0, 0): 200})
        result = outcomes(table, IDD, "autonue")
        assert words(result) == ["fp_unmatched"]
        assert result.best_gt.tolist() == [-1]
        assert gt_words(result) == ["fn"]

    @pytest.mark.parametrize(
        ("on_void", "threshold", "word"),
        [
            (50, 0.5, "fp_unmatched"),
            (51, 0.5, "ignored_void"),
            (51, 0.55, "fp_unmatched"),
            (65, 0.65, "fp_unmatched"),
        ],
    )
    def test_prediction_is_ignored_if_more_than_the_threshold_is_void(
        self, on_void: int, threshold: float, word: str
    ) -> None:
        table = tiny([(CAR, 0.9, 100)], [(0, 999), (36, 999)], {(0, 0): 100 - on_void, (0, 1): on_void})
        assert words(outcomes(table, IDD, "autonue"), threshold) == [word]

    def test_instances_of_void_classes_and_255_are_not_void(self) -> None:
        table = tiny(
            [(CAR, 0.9, 100), (CAR, 0.9, 100), (CAR, 0.9, 100)],
            [(ANIMAL * 1000 + 1, 500), (255, 500), (ANIMAL, 500)],
            {(0, 0): 100, (1, 1): 100, (2, 2): 100},
        )
        result = outcomes(table, IDD, "autonue")
        assert words(result) == ["fp_unmatched", "fp_unmatched", "ignored_void"]
        assert gt_words(result) == ["not_evaluated", "not_evaluated", "void"]

    def test_group_is_background_to_autonue_and_ignorable_to_cityscapes(self) -> None:
        table = tiny(
            [(CAR, 0.9, 400), (CAR, 0.9, 100), (PERSON, 0.9, 100)],
            [(CAR, 400)],
            {(0, 0): 400, (1, 0): 100, (2, 0): 100},
        )
        assert words(outcomes(table, IDD, "autonue")) == ["fp_unmatched"] * 3
        result = outcomes(table, IDD, "cityscapes")
        assert words(result) == ["ignored_group", "ignored_mixed", "fp_unmatched"]
        assert gt_words(result) == ["ignored_group"]
        assert np.isnan(average_precision(result).ap[IDD.ids.index(CAR)]).all()

    def test_small_group_weighs_twice_as_in_the_script(self) -> None:
        # 30 of 100 pixels: 0.6 if counted twice, once as a group and once as too small.
        table = tiny([(CAR, 0.9, 100)], [(0, 999), (CAR, 99)], {(0, 0): 70, (0, 1): 30})
        result = outcomes(table, IDD, "cityscapes")
        assert words(result, 0.55) == ["ignored_mixed"]
        assert words(result, 0.6) == ["fp_unmatched"]
        assert words(outcomes(table, IDD, "cityscapes", area=(0, math.inf)), 0.5) == ["fp_unmatched"]

    def test_void_and_small_gt_together_can_ignore_a_prediction(self) -> None:
        table = tiny(
            [(CAR, 0.9, 100), (PERSON, 0.9, 100)],
            [(0, 999), (35, 999), (12000, 60)],
            {(0, 0): 40, (0, 1): 30, (0, 2): 30, (1, 0): 40, (1, 1): 30, (1, 2): 30},
        )
        assert words(outcomes(table, IDD, "autonue")) == ["ignored_mixed", "fp_unmatched"]

    def test_prediction_without_pixels_is_as_if_it_were_not_there(self) -> None:
        table = tiny([(CAR, 0.9, 0), (CAR, 0.1, 200)], [(12000, 200)], {(1, 0): 200})
        result = outcomes(table, IDD, "autonue")
        assert words(result) == ["empty", "tp"]
        got = average_precision(result)
        car = IDD.ids.index(CAR)
        assert got.pred_count[car] == 1
        # One point at recall 1 and precision 1, beside the artificial one.
        assert got.ap[car].tolist() == [1.0] * len(THRESHOLDS)

    def test_class_that_is_not_evaluated_has_no_part(self) -> None:
        table = tiny([(ANIMAL, 0.9, 200), (29, 0.9, 0)], [(7001, 200)], {(0, 0): 200})
        result = outcomes(table, IDD, "autonue")
        assert words(result) == ["not_evaluated", "not_evaluated"]
        assert average_precision(result).pred_count.tolist() == [0] * len(IDD.ids)

    def test_class_with_gt_alone_has_ap_0_and_one_with_predictions_alone_none(self) -> None:
        table = tiny([(PERSON, 0.9, 300)], [(0, 900), (12000, 200)], {(0, 0): 300})
        got = scores_of(table, "autonue")
        person, car = IDD.ids.index(PERSON), IDD.ids.index(CAR)
        assert got.ap[car].tolist() == [0.0] * len(THRESHOLDS)
        assert np.isnan(got.ap[person]).all()
        assert (got.fn[car, 0], got.fp[person, 0], got.classes_in_mean) == (1, 1, 1)
        assert got.mean_ap == got.mean_ap50 == 0.0

    @pytest.mark.parametrize("table", [concatenate([]), tiny([], [], {}), tiny([], [(0, 99)], {})])
    def test_split_without_instances_has_no_score(self, table: InstanceTable) -> None:
        got = scores_of(table, "cityscapes")
        assert np.isnan([*got.ap.ravel(), got.mean_ap, got.mean_ap50]).all()
        assert got.classes_in_mean == 0

    def test_ap50_needs_the_threshold(self) -> None:
        table = tiny([(CAR, 0.9, 200)], [(12000, 200)], {(0, 0): 200})
        got = scores_of(table, "autonue", thresholds=[0.75])
        assert (got.mean_ap, math.isnan(got.mean_ap50)) == (1.0, True)

    @pytest.mark.parametrize(
        "thresholds",
        [[], [0.49], [0.25, 0.5], [0.5, 0.5], [0.6, 0.5], [0.5, 1.0], [math.nan], [0.5, math.nan]],
    )
    def test_thresholds_that_do_not_rise_from_one_half_are_refused(self, thresholds: list[float]) -> None:
        with pytest.raises(OptionError, match=r"from 0\.5 to below 1"):
            outcomes(concatenate([]), IDD, "autonue", thresholds)

    @pytest.mark.parametrize("area", [(200, 100), (100, 100), (-1, 100), (math.nan, 5), (0, math.nan)])
    def test_area_that_is_no_range_is_refused(self, area: tuple[float, float]) -> None:
        with pytest.raises(OptionError, match="from < to"):
            outcomes(concatenate([]), IDD, "autonue", area=area)

    def test_unknown_protocol_is_refused(self) -> None:
        with pytest.raises(OptionError, match="autonue, cityscapes"):
            outcomes(concatenate([]), IDD, "coco")
