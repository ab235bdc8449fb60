"""What one observation is: a drive where drives are known, else an image.

Frames of one drive resemble each other, so a drive says little more than a few of its frames would: only
whole drives are independent (Cameron and Miller, A practitioner's guide to cluster-robust inference, 2015).
Their number does not matter for that: few drives mean wide intervals, not that frames become independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_eval.errors import OptionError
from gpu_eval.metrics.confusion import Counts

DRIVES = "drives"
IMAGES = "images"

# Below so many units a spread is known to within a factor of two at best, and it is said.
FEW = 10


@dataclass(frozen=True, eq=False)
class Units:
    """The units of a split: `kind` is their name in the plural, `of_image` each image's unit, int64
    (images,).

    Units are numbered from 0 to `count` - 1.
    """

    kind: str
    of_image: npt.NDArray[np.int64]
    count: int

    @property
    def remark(self) -> str | None:
        """That there are so few that bounds are a rough guess; None for none and one: no guess at all."""
        return f"only {self}: bounds are a rough guess" if 1 < self.count < FEW else None

    def __str__(self) -> str:
        """ "12 drives", "1 drive"."""
        return f"{self.count:,} {plural(self.kind, self.count)}"

    def sums(self, counts: Counts) -> Counts:
        """Columns per unit, int64 (count, width), from columns per image (images, width)."""
        if self.count == len(counts) and np.array_equal(self.of_image, np.arange(self.count)):
            return counts
        result = np.zeros((self.count, *counts.shape[1:]), np.int64)
        np.add.at(result, self.of_image, counts)
        return result


def plural(kind: str, count: int) -> str:
    """The name of so many units; "city" has a name of its own, other plurals end with s."""
    if count != 1:
        return kind
    return kind[:-3] + "y" if kind.endswith("ies") else kind.removesuffix("s")


def drives(of_image: Sequence[str]) -> Units:
    """Drives, whatever their number; images where all lie in the split's own folder: no drive is known then.

    `of_image` names the drive of each image, "" for none.
    """
    return named(of_image, DRIVES) if any(of_image) else images(len(of_image))


def images(count: int) -> Units:
    """Every image a unit of its own: right where no two images show one place or one hour."""
    return Units(IMAGES, np.arange(count), count)


def named(of_image: Sequence[str], kind: str = "units") -> Units:
    """A unit for each name, numbered in the order in which they occur."""
    numbers: dict[str, int] = {}
    numbered = [numbers.setdefault(name, len(numbers)) for name in of_image]
    return Units(kind, np.array(numbered, np.int64), len(numbers))


def mapped(keys: Sequence[str], unit_of: Mapping[str, str], kind: str = "units") -> Units:
    """A unit for each name that `unit_of` gives the images `keys`; it may name images that are not there.

    Raises OptionError for a key without a unit or with an empty one, and for an empty mapping.
    """
    lost = [key for key in keys if not unit_of.get(key)]
    if lost:
        more = f" and {len(lost) - 1:,} more" if len(lost) > 1 else ""
        raise OptionError(
            "images without a unit",
            found=f"none for {lost[0]}{more}",
            expected=f"a unit for each of the {len(keys):,} images",
            fix="name each image's unit, or leave units out",
        )
    return named([unit_of[key] for key in keys], kind)
