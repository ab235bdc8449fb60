"""What the images of a run are counted as: drives, images, or the units of a user's own list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpu_eval.metrics import uncertainty
from gpu_eval.metrics import units as kinds
from gpu_eval.metrics.units import Units
from gpu_eval.results import units_file
from gpu_eval.results.images import ScoredImages

DEFAULT = kinds.DRIVES
Wanted = units_file.Wanted


def units_of(images: ScoredImages, wanted: Wanted = DEFAULT) -> Units:
    """The units of a run's scored images.

    `wanted` is "drives" (images where all lie in one folder: then no drive is known), "images", a CSV file
    with two columns (the images' keys, and what each belongs to), or a mapping from one to the other.

    Raises OptionError for what is none of these, for a file that cannot be read, is no such table or names an
    image twice, and for a list that lacks an image.
    """
    wanted = units_file.asked(wanted)
    if wanted == kinds.DRIVES:
        return kinds.drives(images.drives)
    if wanted == kinds.IMAGES:
        return kinds.images(len(images.keys))
    return units_file.listed(wanted, images.keys)


def check_units(wanted: Wanted, keys: Sequence[str] = ()) -> None:
    """Raise OptionError where the images `keys` cannot have these units, before anything is scored."""
    wanted = units_file.asked(wanted)
    if wanted not in (kinds.DRIVES, kinds.IMAGES):
        units_file.listed(wanted, keys)


def describe(units: Units, confidence: float = uncertainty.CONFIDENCE) -> dict[str, Any]:
    """How intervals came about, for run.json."""
    return {
        "method": uncertainty.METHOD,
        "units": str(units),
        "unit_kind": units.kind,
        "unit_count": units.count,
        "remark": units.remark,
        "confidence": confidence,
    }


def sentence(described: Mapping[str, Any] | None) -> str:
    """The same for people."""
    if described is None:
        return "no intervals: they were not asked for"
    told = f"{described['confidence']:.0%} intervals: {described['method']}, {described['units']}"
    return f"{told}; {described['remark']}" if described["remark"] else told
