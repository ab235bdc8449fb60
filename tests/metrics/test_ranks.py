"""Ranges of ranks: what is told apart, what follows from it, and what cannot be ranked."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_eval.errors import OptionError
from gpu_eval.metrics.ranks import rank_ranges
from gpu_eval.metrics.semantic_sums import iou_parts
from gpu_eval.metrics.uncertainty import Parts, differences
from gpu_eval.metrics.units import Units
from tests.support.draws import Draws
from tests.support.simulated_drives import Counts, drives, runs


def test_range_leaves_out_what_is_found_better_or_worse() -> None:
    draws = Draws(16)
    [worst, middle, same, best] = runs(draws, 60, 4)
    shifted = [
        iou_parts(*_better(part, by), "idd")
        for part, by in zip((worst, middle, same, best), (0.0, 0.5, 0.5, 0.95), strict=True)
    ]
    found = rank_ranges(shifted)
    assert found.first.tolist() == [4, 2, 2, 1]
    assert found.last.tolist() == [4, 3, 3, 1]
    assert not (found.better & found.better.T).any()


def test_better_is_transitive() -> None:
    better = rank_ranges(
        [iou_parts(*_better(p, i / 12), "idd") for i, p in enumerate(runs(Draws(17), 40, 12))]
    ).better
    assert better.any()
    assert not (~better & ((better.astype(int) @ better.astype(int)) > 0)).any()


def test_two_runs_are_told_apart_as_compare_does() -> None:
    draws, units = Draws(18), Units("drives", np.arange(6), 6)
    for _ in range(50):
        a, b = runs(draws, 6, 2)
        pair, board = differences(a, b, units).mean, rank_ranges([a, b])
        assert bool(board.better.any()) == (pair.p <= 0.05)
        assert np.nanmin(board.p) == pytest.approx(pair.p, rel=1e-9)
        assert board.detectable == pytest.approx(pair.detectable, rel=1e-9)


def test_equal_runs_single_units_and_runs_without_a_score_may_have_any_rank() -> None:
    [a, b] = runs(Draws(19), 20, 2)
    nothing = iou_parts(*(np.zeros((20, 3), np.int64) for _ in range(3)), "idd")
    one_unit = runs(Draws(20), 1, 3)
    for board in ([a, a, a], [nothing, nothing], one_unit, [a, nothing]):
        found = rank_ranges(board)
        assert found.first.tolist() == [1] * len(board)
        assert found.last.tolist() == [len(board)] * len(board)
    assert rank_ranges([]).first.size == 0
    assert rank_ranges([a]).last.tolist() == [1]
    with pytest.raises(OptionError, match="share no board"):
        rank_ranges([b, one_unit[0]])


def _better(parts: Parts, by: float) -> tuple[Counts, Counts, Counts]:
    """Counts per unit like those of `parts` with this share of the errors undone, on one and the same gt."""
    tp, union, gt = drives(Draws(21), parts.count)
    wrong = np.rint(
        (union[0] - tp[0]) * (1 - by) * (0.9 + 0.2 * Draws(int(by * 100)).uniform(parts.count, 3))
    )
    return gt, gt, gt + wrong.astype(np.int64)
