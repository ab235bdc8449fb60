"""Student's t against tables, closed forms and itself."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpu_eval.metrics import student


def test_quantiles_are_those_of_the_tables() -> None:
    table = {
        1: 12.706204736174705,
        2: 4.302652729749464,
        5: 2.5705818356363155,
        10: 2.2281388519862753,
        30: 2.042272456301238,
        120: 1.9799304050824411,
    }
    found = student.quantile(0.05, list(table))
    assert found == pytest.approx(list(table.values()), rel=1e-12)


def test_tails_have_the_closed_form_of_1_and_2_degrees_and_the_normal_limit() -> None:
    t = np.array([0.0, 1e-3, 0.5, 1.0, 3.0, 12.7, 1e4])
    assert student.two_sided(t, 1) == pytest.approx(2 / np.pi * np.arctan2(1, t), rel=1e-12)
    # 1 - t / sqrt(2 + t^2), without the cancellation
    root = np.sqrt(2 + t * t)
    assert student.two_sided(t, 2) == pytest.approx(2 / (root * (root + t)), rel=1e-11)
    normal = [math.erfc(x / math.sqrt(2)) for x in t[:5]]
    assert student.two_sided(t[:5], 1e7) == pytest.approx(normal, rel=1e-5)


@pytest.mark.parametrize("tails", [0.5, 0.4, 0.05, 1e-4])
def test_quantile_and_tail_are_each_others_inverse(tails: float) -> None:
    df = np.array([1, 1.01, 1.7, 2.3, 6.5, 40.2, 180, 5e3, 1e5])
    assert student.two_sided(student.quantile(tails, df), df) == pytest.approx(tails, rel=1e-8)


def test_nan_stays_nan() -> None:
    assert np.isnan(student.quantile(0.05, math.nan))
    assert np.isnan(student.two_sided([math.nan, 1.0], [1.0, math.nan])).all()
