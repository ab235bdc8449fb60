"""Do intervals cover the truth, and do equal models stay equal? `python -m bench statistics` in small.

`Draws` makes the drives, so the shares are the same everywhere. Bounds are three standard errors or more away
from what thousands of repetitions give; the shares that the percentile bootstrap of 0.1.0 gave on the same
drives stand beside them, and are not within.
"""

from __future__ import annotations

import numpy as np
import pytest

from gpu_eval.metrics import units as unit_kinds
from gpu_eval.metrics.ranks import rank_ranges
from gpu_eval.metrics.semantic_sums import iou_parts
from gpu_eval.metrics.uncertainty import differences, intervals
from gpu_eval.metrics.units import Units
from tests.support.draws import Draws
from tests.support.simulated_drives import drives, runs


@pytest.mark.parametrize("count", [2, 4, 8, 30])
def test_95_percent_intervals_cover_the_truth_at_any_number_of_drives(count: int) -> None:
    # The bootstrap: 0.50, 0.80 and 0.86 at 2, 4 and 8 (less where it drew images); 0.95 at 30.
    [everything] = runs(Draws(1), 200_000)
    truth, units, draws = everything.mean, Units("drives", np.arange(count), count), Draws(2)
    hits = 0
    for _ in range(600):
        found = intervals(*runs(draws, count), units).mean
        hits += found.low <= truth <= found.high
    assert 0.92 <= hits / 600 <= 0.98


@pytest.mark.parametrize("count", [2, 5, 8, 40])
def test_equal_models_differ_in_5_percent_of_splits(count: int) -> None:
    # The bootstrap: 0.48, 0.19, 0.15 and 0.09.
    units, draws = Units("drives", np.arange(count), count), Draws(3)
    alarms = sum(differences(*runs(draws, count, 2), units).mean.p < 0.05 for _ in range(600))
    assert 0.02 <= alarms / 600 <= 0.085


@pytest.mark.parametrize("occurs", [2, 3, 5])
def test_equal_models_do_not_differ_in_a_class_of_few_images(occurs: int) -> None:
    # The bootstrap: 0.45, 0.21 and 0.13.
    units, draws = unit_kinds.images(200), Draws(4)
    alarms = 0
    for _ in range(300):
        tp, _, gt = drives(draws, 200, 2)
        gt[occurs:, 2] = 0
        tp[:, occurs:, 2] = 0
        both = [iou_parts(side, gt, np.broadcast_to(gt, gt.shape), "idd") for side in tp]
        alarms += differences(*both, units).parts[2].p < 0.05
    assert alarms / 300 <= 0.08


@pytest.mark.parametrize(("count", "occurs"), [(40, 2), (100, 2)])
def test_equal_models_with_a_class_in_few_drives_are_not_told_apart(count: int, occurs: int) -> None:
    # Degrees of freedom from what was seen to move alone split 0.65 and 0.57 of these boards.
    draws = Draws(8)
    told_apart = 0
    for _ in range(60):
        tp, _, gt = drives(draws, count, 8)
        gt[occurs:, 2] = 0
        tp[:, occurs:, 2] = 0
        told_apart += rank_ranges([iou_parts(side, gt, gt, "idd") for side in tp]).better.any()
    assert told_apart / 60 <= 0.1


def test_two_drives_that_agree_by_luck_do_not_decide() -> None:
    """Seven classes; one is in two of 40 drives, better by nearly the same in both."""
    draws, gt = Draws(9), np.full((40, 7), 1000)
    gt[2:, 6] = 0
    tp = [800 + draws.bits(280).astype(np.int64).reshape(40, 7) % 41 for _ in range(2)]
    for side, of_class in zip(tp, ((400, 480), (500, 582)), strict=True):
        side[:2, 6] = of_class
        side[2:, 6] = 0
    a, b = (iou_parts(side, gt, gt, "idd") for side in tp)
    found = differences(a, b, Units("drives", np.arange(40), 40)).mean
    assert found.df < 3  # the six other classes alone have 39
    assert 1e-3 < found.p < 1


def test_boards_of_equal_models_are_rarely_told_apart() -> None:
    # The tiers of 0.1.0 split 0.68 of these boards.
    draws = Draws(5)
    told_apart = sum(rank_ranges(runs(draws, 15, 8)).better.any() for _ in range(200))
    assert told_apart / 200 <= 0.1


def test_detectable_difference_is_found_in_80_percent_of_splits() -> None:
    units, draws = Units("drives", np.arange(30), 30), Draws(6)
    found = [differences(*runs(draws, 30, 2), units).mean for _ in range(600)]
    shift = float(np.mean([one.detectable for one in found]))
    power = np.mean([abs(one.difference + shift) > one.high - one.difference for one in found])
    assert 0.72 <= power <= 0.88


def test_draws_are_splitmix64() -> None:
    # The first numbers of seed 0 as the paper's reference program prints them.
    assert Draws(0).bits(2).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
    again = Draws(7)
    assert np.concatenate([again.uniform(3), again.uniform(2)]).tolist() == Draws(7).uniform(5).tolist()
