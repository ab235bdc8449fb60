"""Intervals, differences and ranks: equal to literal ones, calibrated in simulation, and honest at the
edges."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from gpu_eval.errors import OptionError
from gpu_eval.labels import load_labels
from gpu_eval.labels.instance_space import load_instances
from gpu_eval.metrics import average_precision_units, semantic, student, uncertainty
from gpu_eval.metrics import units as unit_kinds
from gpu_eval.metrics.average_precision import average_precision
from gpu_eval.metrics.matching import PROTOCOLS, THRESHOLDS, outcomes, take
from gpu_eval.metrics.matrices import compare_confusions, miou_interval
from gpu_eval.metrics.semantic_sums import Columns, iou_parts
from gpu_eval.metrics.uncertainty import Difference, Interval, Scored, differences, intervals
from gpu_eval.metrics.units import Units
from tests.reference import uncertainty as reference
from tests.reference.instances import random_split
from tests.support.draws import Draws
from tests.support.instance_runs import table_of
from tests.support.numbers import close
from tests.support.simulated_drives import drives, runs

IDD = load_labels("idd")
LITE = load_labels("idd-lite")
INSTANCES = load_instances("idd")

Counts = npt.NDArray[np.int64]


def matrices(draws: Draws, images: int, size: int = 27, filled: float = 0.01) -> Counts:
    """int64 (images, size, size) with most cells empty and classes that few images have."""
    counts = draws.integers(2000, images, size, size)
    return counts * (draws.uniform(images, size, size) < filled)


def columns_of(columns: Columns, confusions: Counts) -> Counts:
    image, gt, pred = np.nonzero(confusions)
    size = confusions.shape[-1]
    return columns.count(gt * size + pred, image, confusions[image, gt, pred], len(confusions))


def told(scored: Scored[Interval] | Scored[Difference], name: str) -> list[float]:
    return [getattr(one, name) for one in (scored.mean, *scored.parts)]


class TestLiteralReference:
    @pytest.mark.parametrize("protocol", ["idd", "autonue"])
    @pytest.mark.parametrize("drives", [3, 7, 18])
    def test_leaving_out_drives_one_by_one_gives_the_same_errors(self, drives: int, protocol: str) -> None:
        a, b = (matrices(Draws(seed), 18) for seed in (1, 2))
        b = np.where(Draws(3).uniform(18, 27, 27) < 0.8, a, b)
        unit_of = [i % drives for i in range(18)]
        units = unit_kinds.named([f"d{unit}" for unit in unit_of], "drives")
        columns = Columns(IDD)
        children = [[list(group) for group in level.children] for level in IDD.levels[1:]]
        for place, level in enumerate(IDD.levels):
            parts = [
                columns.iou(units.sums(columns_of(columns, side)), protocol, level.number) for side in (a, b)
            ]
            single, pair = intervals(parts[0], units), differences(*parts, units)
            for found, score, sides in ((single, "estimate", [a]), (pair, "difference", [a, b])):
                expected = reference.jackknife(
                    [side.tolist() for side in sides], unit_of, protocol, children, place
                )
                for i, one in enumerate((found.mean, *found.parts)):
                    got = (getattr(one, score), one.se, one.df)
                    wanted = (expected.scores[i], expected.errors[i], expected.freedom[i])
                    if not (i == 0 and math.isnan(got[0])):  # autonue gives no mean where a class is absent
                        assert got[0] == pytest.approx(wanted[0], abs=1e-12, nan_ok=True)
                    if one.reason is None:
                        assert got[1:] == pytest.approx(wanted[1:], rel=1e-12, abs=1e-12)
                        t = float(student.quantile(0.05, wanted[2]))
                        bounds = (
                            reference.bounds(wanted[0], wanted[1], t)
                            if isinstance(one, Interval)
                            else np.clip([wanted[0] - t * wanted[1], wanted[0] + t * wanted[1]], -1, 1)
                        )
                        assert (one.low, one.high) == pytest.approx(tuple(bounds), abs=1e-12)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    @pytest.mark.parametrize("drives", [4, 12])
    def test_ap_without_a_drive_is_ap_of_the_others_judged_anew(self, drives: int, protocol: str) -> None:
        table = table_of(random_split(seed=3, images=12))
        units = unit_kinds.named([f"d{i % drives}" for i in range(12)], "drives")
        found = average_precision_units.delete_one(outcomes(table, INSTANCES, protocol), units)
        whole = average_precision(outcomes(table, INSTANCES, protocol))
        close(found.ap, whole.class_ap)
        close(found.ap50, whole.class_ap50)
        assert found.parts().mean == pytest.approx(whole.mean_ap, abs=1e-12)
        for unit in range(drives):
            rest = take(table, np.flatnonzero(units.of_image != unit))
            expected = average_precision(outcomes(rest, INSTANCES, protocol))
            close(found.without[unit], expected.class_ap)
            close(found.without50[unit], expected.class_ap50)
            assert np.array_equal(whole.gt_count - found.gt[unit], expected.gt_count)

    def test_many_units_are_dealt_into_groups_that_lose_nothing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(average_precision_units, "MAX_GROUPS", 5)
        judged = outcomes(table_of(random_split(seed=4, images=12)), INSTANCES, "autonue")
        dealt = average_precision_units.delete_one(judged, unit_kinds.images(12))
        named = unit_kinds.named([f"g{i % 5}" for i in range(12)])
        monkeypatch.undo()
        grouped = average_precision_units.delete_one(judged, named)
        assert np.array_equal(dealt.without, grouped.without, equal_nan=True)
        assert (dealt.occurs >= grouped.occurs).all()  # units are counted, not groups

    def test_thresholds_without_one_half_have_no_ap50(self) -> None:
        judged = outcomes(table_of(random_split(seed=4, images=6)), INSTANCES, "autonue", THRESHOLDS[5:])
        units = unit_kinds.images(6)
        found = average_precision_units.delete_one(judged, units)
        assert np.isnan(found.ap50).all()
        assert intervals(found.parts(at_half=True), units).mean.reason == "no class has a score"

    def test_chunks_do_not_change_what_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        counts = matrices(Draws(5), 60, 8, 0.3)
        whole = miou_interval(counts, "idd-lite")
        monkeypatch.setattr(uncertainty, "CHUNK", 7)
        cut = miou_interval(counts, "idd-lite")
        assert (cut.low, cut.high, cut.df) == pytest.approx((whole.low, whole.high, whole.df), rel=1e-12)

    @pytest.mark.parametrize("labels", [IDD, LITE], ids=["idd", "idd-lite"])
    def test_column_sums_score_as_the_matrices_do(self, labels: object) -> None:
        assert labels in (IDD, LITE)
        space = IDD if labels is IDD else LITE
        size = space.n_classes + 1
        counts = matrices(Draws(6), 30, size, 0.05)
        columns = Columns(space)
        sums = columns_of(columns, counts)
        for protocol in space.protocols:
            for score in semantic.score(counts.sum(axis=0), space, protocol):
                parts = columns.iou(sums, protocol, score.level)
                assert np.array_equal(parts.value, score.iou, equal_nan=True)
                assert parts.mean == pytest.approx(score.miou, nan_ok=True)
                accuracy = columns.pixel_accuracy(sums, protocol, score.level)
                assert accuracy.mean == pytest.approx(score.pixel_accuracy)

    def test_matrices_give_what_columns_give(self) -> None:
        counts = matrices(Draws(7), 20, filled=0.05)
        names = [f"d{i // 3}" for i in range(20)]
        units = unit_kinds.named(names)
        columns = Columns(IDD)
        for level in (3, 2, 1):
            parts = columns.iou(units.sums(columns_of(columns, counts)), "idd", level)
            assert miou_interval(counts, "idd", level, "idd", names) == intervals(parts, units).mean

    def test_holm_is_the_literal_one(self) -> None:
        p = Draws(8).uniform(12) ** 3
        p[3] = p[7]
        assert uncertainty.holm(p) == pytest.approx(reference.holm(p.tolist()))
        with_nan = uncertainty.holm(np.array([0.01, math.nan, 0.04]))
        assert with_nan == pytest.approx([0.02, math.nan, 0.04], nan_ok=True)


class TestEdges:
    """Warnings are errors in this suite: none of these may give one."""

    def test_run_against_itself_differs_by_exactly_0(self) -> None:
        counts = matrices(Draws(9), 12)
        counts[1:, 5] = 0  # a class in one image, and one in none
        counts[:, 6], counts[:, :, 6] = 0, 0
        units = unit_kinds.named([f"d{i % 4}" for i in range(12)], "drives")
        columns = Columns(IDD)
        for key in columns.scored:
            parts = columns.iou(units.sums(columns_of(columns, counts)), *key)
            found = differences(parts, parts, units)
            for one in (found.mean, *found.parts):
                if math.isnan(one.a):
                    assert one.reason is not None
                    assert math.isnan(one.p)
                else:
                    assert (one.difference, one.low, one.high, one.p, one.se) == (0, 0, 0, 1, 0)
                    assert one.reason is None
        itself = compare_confusions(counts, counts, units=["a"] * 12)
        assert (itself.difference, itself.low, itself.high, itself.p) == (0, 0, 0, 1)

    def test_ap_of_a_run_against_itself_differs_by_exactly_0(self) -> None:
        units = unit_kinds.images(10)
        judged = outcomes(table_of(random_split(seed=3, images=10)), INSTANCES, "autonue")
        parts = [average_precision_units.delete_one(judged, units).parts() for _ in range(2)]
        found = differences(*parts, units)
        assert (found.mean.difference, found.mean.low, found.mean.high, found.mean.p) == (0, 0, 0, 1)

    def test_swapped_runs_have_the_same_p_and_the_other_sign(self) -> None:
        a, b = runs(Draws(10), 6, 2)
        units = Units("drives", np.arange(6), 6)
        there, back = differences(a, b, units).mean, differences(b, a, units).mean
        assert (there.difference, there.low, there.high) == (-back.difference, -back.high, -back.low)
        assert there.p == back.p < 1
        assert (there.p < 0.05) == (there.low > 0 or there.high < 0)

    def test_rare_class_says_in_how_many_images_it_occurs(self) -> None:
        tp, _, gt = drives(Draws(11), 200, 2)
        gt[1:, 2], tp[:, 1:, 2] = 0, 0
        a, b = (iou_parts(side, gt, gt, "idd") for side in tp)
        for one in (intervals(a, unit_kinds.images(200)), differences(a, b, unit_kinds.images(200))):
            assert one.parts[2].reason == "occurs in 1 of 200 images: too few to say"
            assert math.isnan(one.parts[2].low)
            assert one.mean.reason is None
        assert math.isnan(differences(a, b, unit_kinds.images(200)).parts[2].p)

    def test_class_in_no_image_is_nan_with_a_reason_and_autonue_has_no_mean(self) -> None:
        counts = np.zeros((5, 27, 27), np.int64)
        counts[:, 0, 0] = [5, 6, 7, 8, 9]
        counts[:, 0, 1] = [1, 2, 1, 2, 5]
        found = miou_interval(counts)
        assert found.reason is None
        assert found.low < found.estimate < found.high
        strict = miou_interval(counts, protocol="autonue")
        assert math.isnan(strict.estimate)
        assert strict.reason == "24 of 26 classes in no image: autonue gives no mean"

    def test_autonue_interval_is_idds_where_every_class_is_somewhere(self) -> None:
        counts = matrices(Draws(12), 10)
        counts[:, range(26), range(26)] += 1
        counts[1:, 4], counts[1:, :, 4] = 0, 0  # without image 0, autonue would have no mean
        counts[0, 4, 4] = 100
        one, other = (miou_interval(counts, protocol=protocol) for protocol in ("idd", "autonue"))
        assert one.reason is None
        assert (one.estimate, one.low, one.high) == pytest.approx((other.estimate, other.low, other.high))

    def test_single_class_of_a_single_image_is_no_spread(self) -> None:
        counts = np.zeros((3, 8, 8), np.int64)
        counts[1, 2, 2], counts[1, 2, 3] = 9, 1
        counts[1, 3, 3] = 1
        assert miou_interval(counts, "idd-lite").reason == "all of it is in one image"

    @pytest.mark.parametrize("value", [0, 5])
    def test_perfect_and_hopeless_scores_have_no_bounds_of_no_width(self, value: int) -> None:
        counts = np.zeros((6, 8, 8), np.int64)
        counts[:, 0, 0] = value
        counts[:, 0, 1] = 5 - value
        found = miou_interval(counts, "idd-lite")
        assert found.estimate == value / 5
        assert found.reason == "the same in all 6 images: no spread to judge by"

    @pytest.mark.parametrize("images", [0, 1])
    def test_no_image_and_one_image_have_no_interval_and_say_why(self, images: int) -> None:
        counts = matrices(Draws(13), images, filled=0.5)
        other = counts[:, :, ::-1]
        found, pair = miou_interval(counts), compare_confusions(counts, other)
        reason = "1 image: no other to compare with" if images else "no class has a score"
        assert found.reason == pair.reason == reason
        assert math.isnan(found.low)
        assert math.isnan(pair.p)

    def test_few_units_are_called_few(self) -> None:
        counts = matrices(Draws(14), 12, filled=0.5)
        names = [f"d{i % 3}" for i in range(12)]
        assert miou_interval(counts, units=names).remark == "only 3 units: bounds are a rough guess"
        assert miou_interval(counts).remark is None

    def test_drives_are_units_whatever_their_number_and_one_folder_is_none(self) -> None:
        two = unit_kinds.drives(["b", "a", "b"])
        assert (str(two), two.of_image.tolist()) == ("2 drives", [0, 1, 0])
        assert str(unit_kinds.drives(["", "", ""])) == "3 images"
        assert str(unit_kinds.drives([])) == "0 images"
        cities = unit_kinds.mapped(["x", "y"], {"x": "Ulm", "y": "Ulm", "z": "Bonn"}, "cities")
        assert str(cities) == "1 city"
        with pytest.raises(OptionError, match="without a unit"):
            unit_kinds.mapped(["x", "y", "w"], {"x": "Ulm", "y": ""})
