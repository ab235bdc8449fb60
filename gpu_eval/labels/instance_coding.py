"""How a ground-truth pixel holds a class and a number: id * 1000 + n, or another factor."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_eval.errors import OptionError

Ints = npt.NDArray[np.int64]

FACTOR = 1000  # of AutoNUE and Cityscapes; all tables of a run are in it
_LEAST, _MOST = 100, 1000


def check_factor(factor: int) -> None:
    """Raise OptionError for a factor that cannot be: plain ids lie below it, and n stays below 1000."""
    if not _LEAST <= factor <= _MOST:
        raise OptionError(
            "no factor of ground-truth pixels",
            found=str(factor),
            expected=f"{_LEAST}..{_MOST}: 1000 for id * 1000 + n, 256 for id * 256 + n",
        )


def recode(values: Ints, factor: int, ids: Collection[int]) -> Ints:
    """Pixel values `id * factor + n` as `id * 1000 + n`, int64, in their order; plain ids stay.

    Values below `factor` are plain ids. Number 0 of a class in `ids` is an instance like any other; number 0
    of another class is its plain id, as KITTI and Vistas write classes without instances.
    """
    if factor == FACTOR:
        return values
    label, number = values // factor, values % factor
    plain = (number == 0) & ~np.isin(label, list(ids))
    return np.where(values < factor, values, np.where(plain, label, label * FACTOR + number))


def merge(codes: Ints, *counts: npt.NDArray[Any]) -> tuple[Ints, list[Ints]]:
    """Equal codes as one: the codes ascending, shape (g,), and `counts` summed along their last axis."""
    merged, place = np.unique(codes, return_inverse=True)
    sums = []
    for count in counts:
        summed = np.zeros((*count.shape[:-1], merged.size), np.int64)
        np.add.at(summed.T, place, count.T)
        sums.append(summed)
    return merged, sums
