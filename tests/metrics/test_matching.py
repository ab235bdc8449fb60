"""Instance scores against the public scripts' outputs, a literal evaluator, and what must hold anyway."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_eval.errors import OptionError
from gpu_eval.labels.instance_space import load_instances
from gpu_eval.metrics import matching as instances
from gpu_eval.metrics.average_precision import AveragePrecision, average_precision, curves
from gpu_eval.metrics.matching import (
    GT_OUTCOMES,
    PRED_OUTCOMES,
    PROTOCOLS,
    THRESHOLDS,
    InstanceTable,
    Outcomes,
    concatenate,
    outcomes,
    take,
)
from tests.reference import instances as reference
from tests.reference.instances import Image, Prediction, read_drive
from tests.support.instance_runs import table_of
from tests.support.shared import SHARED, needs_shared, shared_json

IDD = load_instances("idd")
TOLERANCE = 1e-12
AREAS = [(100, math.inf), (0, math.inf), (100, 200), (0, 100), (120, 150)]

PERSON, ANIMAL, CAR = 6, 7, 12


def close(got: Any, expected: Any) -> None:
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE, equal_nan=True)


def floats(values: Any) -> npt.NDArray[np.float64]:
    """None, JSON's null, is NaN."""
    return np.array(values, dtype=object).astype(np.float64)


def score(table: InstanceTable, protocol: str, **options: Any) -> AveragePrecision:
    return average_precision(outcomes(table, IDD, protocol, **options))


def golden_cases(folder: str, wanted: Callable[[Any], bool]) -> list[str]:
    if not SHARED.is_dir():
        return []
    cases = shared_json(f"golden/{folder}/expected.json")["cases"]
    return [name for name, case in cases.items() if wanted(case)]


@pytest.fixture(scope="module")
def golden() -> Any:
    return shared_json("golden/instance/expected.json")


@pytest.fixture(scope="module")
def drives(golden: Any) -> dict[str, InstanceTable]:
    folder = SHARED / "golden" / "instance"
    names = golden["cases"]["all"]["drives"]
    return {
        drive: table_of(read_drive(folder, drive), first=1000 * number) for number, drive in enumerate(names)
    }


@needs_shared
class TestGolden:
    @pytest.fixture(params=golden_cases("instance", lambda _: True))
    def case(self, request: pytest.FixtureRequest, golden: Any) -> Any:
        return golden["cases"][request.param]

    @pytest.fixture
    def table(self, case: Any, drives: dict[str, InstanceTable]) -> InstanceTable:
        return concatenate([drives[drive] for drive in case["drives"]])

    def test_facts_of_the_task_are_those_of_the_script(self, golden: Any) -> None:
        assert list(IDD.ids) == golden["class_ids"]
        assert list(IDD.names) == golden["classes"]
        assert sorted(IDD.void_ids) == golden["void_ids"]
        assert list(THRESHOLDS) == golden["overlaps"]
        assert golden["min_region_size"] == instances.AREA[0]

    def test_autonue_protocol_is_what_the_script_saves(self, case: Any, table: InstanceTable) -> None:
        got, official = score(table, "autonue"), case["official"]
        close(got.ap, floats(official["ap_matrix"]))
        close(got.mean_ap, official["ap"])
        close(got.mean_ap50, official["ap50"])
        classes = [official["classes"][name] for name in IDD.names]
        close(got.class_ap, floats([one["ap"] for one in classes]))
        close(got.class_ap50, floats([one["ap50"] for one in classes]))

    def test_cityscapes_protocol_ignores_predictions_on_groups(self, case: Any, table: InstanceTable) -> None:
        got, expected = score(table, "cityscapes"), case["groups_ignored"]
        close(got.ap, floats(expected["ap_matrix"]))
        close(got.mean_ap, expected["ap"])
        close(got.mean_ap50, expected["ap50"])

    def test_counts_are_exact(self, case: Any, table: InstanceTable) -> None:
        result = outcomes(table, IDD, "autonue")
        got = average_precision(result)
        for c, name in enumerate(IDD.names):
            assert got.gt_count[c] == case["counted_gt"][name]
            assert got.pred_count[c] == case["predictions_used"][name]
            small = (result.gt_class == c) & (result.gts[:, 0] == GT_OUTCOMES.index("ignored_size"))
            assert np.count_nonzero(small) == case["too_small_gt"][name]
            for t, counts in enumerate(case["tp_fp_fn"][name]):
                if counts is not None:
                    assert [got.tp[c, t], got.fp[c, t], got.fn[c, t]] == counts

    def test_literal_evaluator_agrees_with_the_script(self, golden: Any) -> None:
        case = golden["cases"]["drive_204"]
        images = read_drive(SHARED / "golden" / "instance", "204")
        void = set(golden["void_ids"])
        for protocol, expected in (("autonue", case["official"]), ("cityscapes", case["groups_ignored"])):
            rows = reference.evaluate(images, IDD.ids, void, protocol, golden["overlaps"])
            close([[one.ap for one in row] for row in rows], floats(expected["ap_matrix"]))


@needs_shared
class TestGoldenEdges:
    @pytest.mark.parametrize("name", golden_cases("instance_edge", lambda case: case["outcome"] == "ok"))
    def test_numbers_of_tiny_cases(self, name: str) -> None:
        expected = shared_json("golden/instance_edge/expected.json")["cases"][name]
        got = score(table_of(read_drive(SHARED / "golden" / "instance_edge" / name, "0")), "autonue")
        close(got.ap, floats(expected["ap_matrix"]))
        close(got.mean_ap, expected["ap"])
        close(got.mean_ap50, expected["ap50"])
        assert got.pred_count.tolist() == list(expected["predictions_used"].values())

    def test_class_whose_predictions_are_all_ignored_has_ap_0(self) -> None:
        folder = SHARED / "golden" / "instance_edge" / "all_predictions_ignored"
        got = score(table_of(read_drive(folder, "0")), "autonue")
        car = IDD.ids.index(CAR)
        assert got.gt_count[car] > 0
        assert got.ignored[car].tolist() == [got.pred_count[car]] * len(THRESHOLDS) != [0] * len(THRESHOLDS)
        assert got.ap[car].tolist() == [0.0] * len(THRESHOLDS)


def agree(images: list[Image], protocol: str, area: tuple[float, float]) -> None:
    got = score(table_of(images), protocol, area=area)
    rows = reference.evaluate(images, IDD.ids, set(IDD.void_ids), protocol, list(THRESHOLDS), area)
    for name in ("tp", "fp", "fn"):
        expected = [[getattr(one, name) for one in row] for row in rows]
        assert np.array_equal(getattr(got, name), expected), name
    close(got.ap, [[one.ap for one in row] for row in rows])
    close(got.mean_ap, reference.mean([one.ap for row in rows for one in row]))
    close(got.mean_ap50, reference.mean([row[0].ap for row in rows]))


class TestAgainstTheLiteralEvaluator:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize("area", AREAS)
    def test_random_split(self, protocol: str, area: tuple[float, float]) -> None:
        agree(reference.random_split(seed=5, images=12), protocol, area)

    @settings(max_examples=40)
    @given(
        st.integers(0, 2**32),
        st.integers(0, 4),
        st.sampled_from(list(PROTOCOLS)),
        st.sampled_from(AREAS),
        st.sampled_from([(CAR,), (PERSON, CAR), reference.EVALUATED]),
    )
    def test_any_split(
        self, seed: int, count: int, protocol: str, area: tuple[float, float], classes: tuple[int, ...]
    ) -> None:
        agree(reference.random_split(seed, count, classes), protocol, area)

    def test_random_splits_hold_every_outcome(self) -> None:
        result = outcomes(table_of(reference.random_split(seed=5, images=12)), IDD, "cityscapes")
        assert set(np.unique(result.preds)) == set(range(len(PRED_OUTCOMES)))
        assert set(np.unique(result.gts)) == set(range(len(GT_OUTCOMES)))

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_curves_have_a_point_per_distinct_confidence(self, protocol: str) -> None:
        images = reference.random_split(seed=6, images=8)
        rows = reference.evaluate(images, (PERSON,), set(IDD.void_ids), protocol, list(THRESHOLDS))
        result = outcomes(table_of(images), IDD, protocol)
        for curve, one in zip(curves(result, IDD.ids.index(PERSON)), rows[0], strict=True):
            assert len(one.points) > 3
            points = np.column_stack((curve.confidence, curve.precision, curve.recall))[::-1]
            close(points, one.points)
            close(curve.area, one.ap)


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
        got = score(table, "autonue")
        person, car = IDD.ids.index(PERSON), IDD.ids.index(CAR)
        assert got.ap[car].tolist() == [0.0] * len(THRESHOLDS)
        assert np.isnan(got.ap[person]).all()
        assert (got.fn[car, 0], got.fp[person, 0], got.classes_in_mean) == (1, 1, 1)
        assert got.mean_ap == got.mean_ap50 == 0.0

    @pytest.mark.parametrize("table", [concatenate([]), tiny([], [], {}), tiny([], [(0, 99)], {})])
    def test_split_without_instances_has_no_score(self, table: InstanceTable) -> None:
        got = score(table, "cityscapes")
        assert np.isnan([*got.ap.ravel(), got.mean_ap, got.mean_ap50]).all()
        assert got.classes_in_mean == 0

    def test_ap50_needs_the_threshold(self) -> None:
        table = tiny([(CAR, 0.9, 200)], [(12000, 200)], {(0, 0): 200})
        got = score(table, "autonue", thresholds=[0.75])
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


SPLIT = reference.random_split(seed=8, images=9)


def same_scores(got: AveragePrecision, expected: AveragePrecision) -> None:
    """To the last bit, NaN equal to NaN."""
    for name in ("ap", "tp", "fp", "fn", "gt_count", "pred_count"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name), name)


@pytest.mark.parametrize("protocol", PROTOCOLS)
class TestProperties:
    def test_order_of_images_and_predictions_does_not_matter(self, protocol: str) -> None:
        rng = np.random.default_rng(1)
        images = [
            Image(image.gt, [image.predictions[i] for i in rng.permutation(len(image.predictions))])
            for image in (SPLIT[i] for i in rng.permutation(len(SPLIT)))
        ]
        same_scores(score(table_of(images), protocol), score(table_of(SPLIT), protocol))

    def test_order_of_overlap_rows_does_not_matter(self, protocol: str) -> None:
        table = table_of(SPLIT)
        order = np.random.default_rng(2).permutation(table.overlap_pixels.size)
        names = ("overlap_pred", "overlap_gt", "overlap_pixels")
        shuffled = dataclasses.replace(table, **{name: getattr(table, name)[order] for name in names})
        got, expected = outcomes(shuffled, IDD, protocol), outcomes(table, IDD, protocol)
        for name in ("preds", "gts", "found_by", "best_gt", "best_iou"):
            assert np.array_equal(getattr(got, name), getattr(expected, name)), name

    def test_any_shards_give_the_same_outcomes(self, protocol: str) -> None:
        whole = outcomes(table_of(SPLIT), IDD, protocol)
        for cuts in ([4], [0, 1, 2, 8], [9], list(range(10))):
            bounds = [0, *cuts, len(SPLIT)]
            shards = [table_of(SPLIT[first:last], first) for first, last in pairwise(bounds)]
            joined = concatenate(shards)
            for field in dataclasses.fields(InstanceTable):
                column, expected = getattr(joined, field.name), getattr(whole.table, field.name)
                assert column.dtype == expected.dtype
                assert np.array_equal(column, expected), field.name
            parts = [outcomes(shard, IDD, protocol) for shard in shards]
            assert np.array_equal(np.concatenate([part.preds for part in parts]), whole.preds)
            assert np.array_equal(np.concatenate([part.gts for part in parts]), whole.gts)
            for name in ("tp", "fp", "fn", "gt_count", "pred_count"):
                counts = [getattr(average_precision(part), name) for part in parts]
                assert np.array_equal(sum(counts), getattr(average_precision(whole), name)), name

    def test_some_of_the_images_are_judged_as_if_they_were_all(self, protocol: str) -> None:
        empty = [SPLIT[0], SPLIT[1]._replace(predictions=[]), *SPLIT[2:]]
        for chosen in ([1, 2, 6], [7, 0, 3, 1], [], [*range(9)]):
            some = take(table_of(empty), np.array(chosen, np.int64))
            same_scores(score(some, protocol), score(table_of([empty[i] for i in chosen]), protocol))
            sizes = np.bincount(some.pred_image, minlength=len(chosen)).tolist()
            assert sizes == [len(empty[i].predictions) for i in chosen]

    def test_ap_knows_only_the_order_of_confidences(self, protocol: str) -> None:
        table = table_of(SPLIT)
        for change in (np.exp, lambda c: 1000 * c - 7, np.cbrt):
            changed = dataclasses.replace(table, confidence=change(table.confidence))
            same_scores(score(changed, protocol), score(table, protocol))

    def test_every_gt_is_found_by_one_true_positive(self, protocol: str) -> None:
        result = outcomes(table_of(SPLIT), IDD, protocol)
        table = result.table
        for t, threshold in enumerate(result.thresholds):
            rows = np.flatnonzero(result.found_by[:, t] >= 0)
            finders = result.found_by[rows, t]
            assert rows.size > 0
            assert np.array_equal(np.sort(finders), np.flatnonzero(result.tp[:, t]))
            assert np.array_equal(result.best_gt[finders], rows)
            assert (result.best_iou[finders] > threshold).all()
            assert np.array_equal(table.pred_image[finders], table.gt_image[rows])
            assert np.array_equal(table.gt_value[rows] // 1000, table.pred_class[finders])

    def test_area_ranges_that_tile_count_every_gt_once(self, protocol: str) -> None:
        table = table_of(SPLIT)
        parts = [score(table, protocol, area=area) for area in ((0, 80), (80, 150), (150, math.inf))]
        whole = score(table, protocol, area=(0, math.inf))
        assert all(part.gt_count.any() for part in parts)
        assert np.array_equal(sum(part.gt_count for part in parts), whole.gt_count)
        assert np.array_equal(sum(part.tp for part in parts), whole.tp)
        assert np.array_equal(sum(part.fn for part in parts), whole.fn)

    def test_ap_of_gt_as_its_own_prediction_is_1(self, protocol: str) -> None:
        images = []
        for image in SPLIT:
            values = [v for v in np.unique(image.gt).tolist() if v >= 1000]
            preds = [Prediction(image.gt == v, v // 1000, 0.1 * n) for n, v in enumerate(values)]
            images.append(Image(image.gt, preds))
        got = score(table_of(images), protocol)
        present = got.gt_count > 0
        assert np.count_nonzero(present) == 3
        close(got.ap[present], 1.0)
        assert not got.fp.any()
        assert not got.fn.any()
