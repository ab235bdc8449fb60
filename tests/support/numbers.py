"""Comparing numbers that were divided: to 1e-12, NaN equal to NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

TOLERANCE = 1e-12


def close(got: Any, expected: Any) -> None:
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE, equal_nan=True)


def floats(values: Any) -> npt.NDArray[np.float64]:
    """None, JSON's null, is NaN."""
    return np.array(values, dtype=object).astype(np.float64)
