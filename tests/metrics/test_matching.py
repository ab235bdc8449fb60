"""Instance scores against the public scripts' outputs and a literal evaluator."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_eval.labels.instance_space import load_instances
from gpu_eval.metrics import matching as instances
from gpu_eval.metrics.average_precision import average_precision, curves
from gpu_eval.metrics.matching import (
    GT_OUTCOMES,
    PRED_OUTCOMES,
    PROTOCOLS,
    THRESHOLDS,
    InstanceTable,
    concatenate,
    outcomes,
)
from tests.reference import instances as reference
from tests.reference.instances import Image, read_drive
from tests.support.instance_runs import scores_of, table_of
from tests.support.numbers import close, floats
from tests.support.shared import SHARED, golden_cases, needs_shared, shared_json

IDD = load_instances("idd")
AREAS = [(100, math.inf), (0, math.inf), (100, 200), (0, 100), (120, 150)]

PERSON, ANIMAL, CAR = 6, 7, 12


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
    @pytest.fixture(params=golden_cases("instance"))
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
        got, official = scores_of(table, "autonue"), case["official"]
        close(got.ap, floats(official["ap_matrix"]))
        close(got.mean_ap, official["ap"])
        close(got.mean_ap50, official["ap50"])
        classes = [official["classes"][name] for name in IDD.names]
        close(got.class_ap, floats([one["ap"] for one in classes]))
        close(got.class_ap50, floats([one["ap50"] for one in classes]))

    def test_cityscapes_protocol_ignores_predictions_on_groups(self, case: Any, table: InstanceTable) -> None:
        got, expected = scores_of(table, "cityscapes"), case["groups_ignored"]
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
        got = scores_of(table_of(read_drive(SHARED / "golden" / "instance_edge" / name, "0")), "autonue")
        close(got.ap, floats(expected["ap_matrix"]))
        close(got.mean_ap, expected["ap"])
        close(got.mean_ap50, expected["ap50"])
        assert got.pred_count.tolist() == list(expected["predictions_used"].values())

    def test_class_whose_predictions_are_all_ignored_has_ap_0(self) -> None:
        folder = SHARED / "golden" / "instance_edge" / "all_predictions_ignored"
        got = scores_of(table_of(read_drive(folder, "0")), "autonue")
        car = IDD.ids.index(CAR)
        assert got.gt_count[car] > 0
        assert got.ignored[car].tolist() == [got.pred_count[car]] * len(THRESHOLDS) != [0] * len(THRESHOLDS)
        assert got.ap[car].tolist() == [0.0] * len(THRESHOLDS)


def agree(images: list[Image], protocol: str, area: tuple[float, float]) -> None:
    got = scores_of(table_of(images), protocol, area=area)
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
