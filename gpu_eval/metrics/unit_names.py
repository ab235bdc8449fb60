"""What people may call the unit of an image in Python: a string or an integer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral

import numpy as np

from gpu_eval.errors import OptionError

_FIX = "give each image its drive, city or sequence, or leave units out"


def in_order(units: object, images: int) -> list[str]:
    """The unit of each of so many images, from a list, tuple or array with one string or integer per image.

    Raises OptionError for anything else: what has no order or no length of its own, and a text, whose letters
    nobody means.
    """
    ordered = isinstance(units, Sequence) and not isinstance(units, str | bytes | bytearray)
    values: Sequence[object] | None = units if ordered and isinstance(units, Sequence) else None
    if values is None and hasattr(units, "__array__") and not isinstance(units, str | bytes):
        try:
            array = np.asarray(units)
        except (TypeError, ValueError, RuntimeError):  # of a GPU, say
            array = np.empty(())
        values = array.tolist() if array.ndim == 1 else None
    if values is None:
        shape = getattr(units, "shape", None)
        found = type(units).__name__ + (f" of shape {shape}" if shape is not None else "")
        raise OptionError(
            "units are no list",
            found=found,
            expected="a list or array with one string or integer per image",
            fix=_FIX,
        )
    if len(values) != images:
        raise OptionError("not one unit per image", found=f"{len(values):,} units", expected=f"{images:,}")
    return as_text(values, lambda image: f"image {image}")


def by_key(units: Mapping[str, object]) -> dict[str, str]:
    """The unit of each image's key. Raises OptionError for a key that is no string, a unit that is none."""
    keys = list(units)
    for key in keys:
        if not isinstance(key, str):
            raise OptionError(
                "a key of units is no image's", found=_told(key), expected="keys as in the images table"
            )
    return dict(zip(keys, as_text(units.values(), lambda at: keys[at][:80]), strict=True))


def as_text(values: Iterable[object], whose: Callable[[int], str]) -> list[str]:
    """Names and numbers as text. Raises OptionError for the empty text, None, NaN and what else is neither.

    `whose` says for the error who has the value at a place. Numbers among names are refused, since nobody can
    know whether 1 and "1" are one.
    """
    texts: list[str] = []
    kinds: set[bool] = set()
    for at, value in enumerate(values):
        number = isinstance(value, Integral) and not isinstance(value, bool)
        if not number and not (isinstance(value, str) and value.strip()):
            raise OptionError(
                f"{whose(at)} has no unit", found=_told(value), expected="a string or an integer", fix=_FIX
            )
        kinds.add(number)
        if len(kinds) > 1:
            raise OptionError(
                "some units are strings and some integers",
                found=f"{_told(value)} for {whose(at)}",
                expected="all of one kind",
                fix="make them all strings",
            )
        texts.append(str(value))
    return texts


def _told(value: object) -> str:
    return repr(value)[:80]
