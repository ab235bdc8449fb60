"""Agreement beyond chance, and the best of all relabellings."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from gpu_eval.doctor.agreement import agreement, best_relabelling


def joint_of(gt: list[int], pred: list[int], n: int) -> np.ndarray:
    counted = np.zeros((n + 2, n + 2), np.int64)
    np.add.at(counted, (gt, pred), 1)
    return counted


def test_constant_prediction_knows_nothing_however_common_its_class() -> None:
    found = agreement(joint_of([0] * 90 + [1] * 10, [0] * 100, 2))
    assert found.kappa == 0.0
    assert found.weight == 0.0
    assert found.miou == pytest.approx(0.45)


def test_perfect_prediction_has_kappa_1() -> None:
    found = agreement(joint_of([0, 1, 2] * 5, [0, 1, 2] * 5, 3))
    assert (found.kappa, found.miou, found.labelled, found.classes, found.present) == (1.0, 1.0, 1.0, 3, 3)


def test_kappa_is_that_of_the_formula() -> None:
    # Cohen 1960: 35 of 50 agree, by chance 0.5.
    found = agreement(joint_of([0] * 25 + [1] * 25, [0] * 20 + [1] * 5 + [0] * 10 + [1] * 15, 2))
    assert found.kappa == pytest.approx((0.7 - 0.5) / 0.5)


def test_void_of_gt_is_not_judged_but_lowers_the_weight() -> None:
    found = agreement(joint_of([0, 1, 2, 2], [0, 1, 0, 1], 2))
    assert (found.kappa, found.labelled, found.weight) == (1.0, 0.5, 0.5)


def test_predicted_void_and_unknown_values_disagree() -> None:
    found = agreement(joint_of([0, 0, 1, 1], [0, 2, 1, 3], 2))
    assert found.miou == 0.5


def test_nothing_labelled_is_no_agreement() -> None:
    assert agreement(joint_of([2, 3], [0, 1], 2)).weight == 0.0


@pytest.mark.parametrize("seed", range(30))
def test_best_relabelling_is_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(1, 6))
    columns = int(rng.integers(rows, 7))
    joint = rng.integers(0, 50, (rows, columns))
    chosen = best_relabelling(joint)
    assert len(set(chosen.tolist())) == rows
    best = max(
        sum(joint[row, column] for row, column in enumerate(columns_))
        for columns_ in permutations(range(columns), rows)
    )
    assert joint[np.arange(rows), chosen].sum() == best
