"""Pillow's NEAREST resize as one index table per axis, and the sizes maps are resized to."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from gpu_eval.errors import OptionError
from gpu_eval.inputs.png import MAX_PIXELS

# (height, width) by name, as in the public script: AutoNUE public-code, evaluate/evaluate_mIoU.py, --res.
NAMED_SIZES = {"1080": (1080, 1920), "720": (720, 1280), "480": (480, 858), "240": (240, 426)}


@lru_cache(maxsize=256)
def index_table(source: int, target: int, *, sixteen_bit: bool = False) -> npt.NDArray[np.int32]:
    """The source index that each target position shows, shape (target,), read-only.

    Pillow walks an axis with a running float64 sum, `xo = 0.5 * a; index = int(xo); xo += a` with
    `a = source / target` (libImaging/Geometry.c, ImagingScaleAffine), so rounding adds up on the way: the
    table is not floor((x + 0.5) * a). 16-bit images (mode I;16) take the generic transform of the same
    file, and that is floor((x + 0.5) * a).
    """
    step = source / target
    if sixteen_bit:
        position = (np.arange(target, dtype=np.float64) + 0.5) * step
    else:
        position = np.full(target, step, dtype=np.float64)
        position[0] = 0.5 * step
        np.add.accumulate(position, out=position)  # sequential by definition, unlike np.sum
    table = np.minimum(position.astype(np.int32), np.int32(source - 1))
    table.setflags(write=False)
    return table


def starts(table: npt.NDArray[np.int32], source: int) -> npt.NDArray[np.int64]:
    """How many target positions show a source index below i, for i = 0..source; shape (source + 1,).

    So `starts[b] - starts[a]` target positions come from the source positions a..b-1.
    """
    return np.searchsorted(table, np.arange(source + 1)).astype(np.int64)


def parse_resolution(text: str) -> tuple[int, int] | None:
    """The (height, width) that `--res` asks for; None for "native", the size of each ground truth.

    Takes "1080", "720", "480", "240", each with a "p" behind it or none, "native" and "WIDTHxHEIGHT".

    Raises
        OptionError: anything else, a side of 0, or more than MAX_PIXELS pixels.
    """
    word = text.strip().lower()
    if word == "native":
        return None
    if word.removesuffix("p") in NAMED_SIZES:
        return NAMED_SIZES[word.removesuffix("p")]
    sides = re.fullmatch(r"([0-9]{1,9})\s*[x*\u00d7]\s*([0-9]{1,9})", word)
    if sides is None:
        raise OptionError(
            "not a resolution",
            found=repr(text),
            expected=f"{', '.join(NAMED_SIZES)}, native or WIDTHxHEIGHT such as 1920x1080",
        )
    width, height = int(sides[1]), int(sides[2])
    if height == 0 or width == 0 or height * width > MAX_PIXELS:
        raise OptionError(
            "a resolution that no label map can have",
            found=repr(text),
            expected=f"at least 1x1 and at most {MAX_PIXELS} pixels",
        )
    return height, width
