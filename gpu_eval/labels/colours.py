"""The colours of a label table: which class a colour-coded pixel has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint32]

# The name of the encoding of maps whose pixels are colours.
COLOUR = "colour"

# What a map of classes that was read from colours has for void.
VOID_CLASS = 255

# Above it a class would need the value of void.
MOST_CLASSES = 255


@dataclass(frozen=True)
class LabelColour:
    """One label's colour (red, green, blue), and its class of the finest level: None for void."""

    name: str
    rgb: tuple[int, int, int]
    class_id: int | None


@dataclass(frozen=True)
class Colours:
    """All colours of a table.

    Where labels of one colour are a class and void, the colour has the class in a prediction (a model has no
    reason to paint void as a class) and no meaning in a gt. A colour of two classes has no meaning in either.
    """

    labels: tuple[LabelColour, ...]

    def classes(self, *, is_gt: bool) -> dict[int, int]:
        """The class of each colour that has a meaning, by its code (see `code_of`); void is VOID_CLASS."""
        found: dict[int, set[int | None]] = {}
        for label in self.labels:
            found.setdefault(code_of(label.rgb), set()).add(label.class_id)
        classes = {}
        for code, meant in found.items():
            if len(meant) > 1 and not is_gt:
                meant = meant - {None}
            if len(meant) == 1:
                (only,) = meant
                classes[code] = VOID_CLASS if only is None else only
        return classes

    def codes(self) -> Codes:
        """The codes of all labels' colours, with a meaning or without, sorted."""
        return np.array(sorted({code_of(label.rgb) for label in self.labels}), np.uint32)

    def names(self, code: int) -> list[str]:
        """The labels of a colour, void ones marked as such; empty for a colour that is none's."""
        return [
            label.name if label.class_id is not None else f"{label.name} (void)"
            for label in self.labels
            if code_of(label.rgb) == code
        ]

    def nearest(self, code: int) -> LabelColour:
        """The label whose colour is least far from a colour, by the sum of squares."""
        red, green, blue = rgb_of(code)
        return min(
            self.labels,
            key=lambda label: sum((a - b) ** 2 for a, b in zip(label.rgb, (red, green, blue), strict=True)),
        )


def table_colours(labels: Iterable[LabelColour], n_classes: int) -> Colours | None:
    """The colours of a table; None where it has none, or more classes than such a map can hold."""
    kept = tuple(labels)
    if n_classes > MOST_CLASSES or not any(label.class_id is not None for label in kept):
        return None
    return Colours(kept)


def code_of(rgb: Sequence[int]) -> int:
    """A colour as one integer, 0xRRGGBB."""
    red, green, blue = rgb
    return red << 16 | green << 8 | blue


def rgb_of(code: int) -> tuple[int, int, int]:
    """The colour (red, green, blue) of a code."""
    return code >> 16, code >> 8 & 255, code & 255


def codes_of(pixels: npt.NDArray[np.uint8]) -> Codes:
    """The codes of pixels (..., 3 or 4 channels), shape (...); a fourth channel is left out."""
    codes: Codes = pixels[..., 0].astype(np.uint32)
    for channel in (1, 2):
        codes <<= 8
        codes |= pixels[..., channel]
    return codes
