"""A label space: the classes of a benchmark, their hierarchy, and the encodings of pixel values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gpu_eval.errors import OptionError


@dataclass(frozen=True)
class Level:
    """One level of the hierarchy; the highest number is the finest (IDD: 3), 1 the coarsest.

    `groups[c]` are the classes of the finest level in class c, `children[c]` those of the next finer
    level; at the finest level both are the class itself.
    """

    number: int
    names: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]
    children: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class Encoding:
    """How raw pixel values become classes of the finest level.

    `table` is uint16 of shape (256,), read-only: 0..n-1 a class, n void, n+1 outside the encoding
    (counted as void, and reported).
    """

    name: str
    table: npt.NDArray[np.uint16]

    def __post_init__(self) -> None:
        table = np.array(self.table, dtype=np.uint16)
        table.flags.writeable = False
        object.__setattr__(self, "table", table)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Encoding):
            return NotImplemented
        return self.name == other.name and bool(np.array_equal(self.table, other.table))

    def __hash__(self) -> int:
        return hash((self.name, self.table.tobytes()))

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        # A plain unpickling would give a writable table on the worker.
        return (Encoding, (self.name, self.table))


@dataclass(frozen=True)
class LabelSpace:
    """The classes of one benchmark: levels finest first, encodings by name, and its file conventions.

    `ambiguous` are columns of the table of which a value stands for several classes (here for the first of
    them): nothing can be scored by them, but a mix-up can be recognised. `exclude` are file-name endings that
    are no label maps although they end with a suffix; `resolution` is the default of `--res` ("1080",
    "WIDTHxHEIGHT" or "native"); `colours` are (red, green, blue) per class of the finest level.
    """

    name: str
    levels: tuple[Level, ...]
    encodings: Mapping[str, Encoding]
    default_encoding: str
    gt_suffix: str
    pred_suffix: str
    exclude: tuple[str, ...]
    resolution: str
    protocols: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    ambiguous: Mapping[str, Encoding] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.name, self.digest()))

    @property
    def n_classes(self) -> int:
        """Classes of the finest level."""
        return len(self.levels[0].names)

    @property
    def void(self) -> int:
        """The index of void in a confusion matrix: the last row and the last column."""
        return self.n_classes

    @property
    def names(self) -> tuple[str, ...]:
        """The class names of the finest level."""
        return self.levels[0].names

    def level(self, number: int | None = None) -> Level:
        """The level of that number (default: the finest). Raises OptionError where there is none."""
        if number is None:
            return self.levels[0]
        for level in self.levels:
            if level.number == number:
                return level
        there = ", ".join(str(level.number) for level in self.levels)
        raise OptionError(f"{self.name} has no such level", found=str(number), expected=f"one of {there}")

    def encoding(self, name: str) -> Encoding:
        """The encoding of that name. Raises OptionError where there is none."""
        if name not in self.encodings:
            there = ", ".join(self.encodings)
            raise OptionError(f"{self.name} has no such encoding", found=name, expected=f"one of {there}")
        return self.encodings[name]

    def css_colour(self, level: int, class_id: int) -> str:
        """The colour of a class as CSS writes it; a coarser class has that of its first member."""
        red, green, blue = self.colours[self.level(level).groups[class_id][0]]
        return f"#{red:02x}{green:02x}{blue:02x}"

    def digest(self) -> str:
        """sha256, in hex, of everything that decides numbers: the levels and the encodings."""
        levels = [[level.number, level.names, level.groups, level.children] for level in self.levels]
        encodings = [[name, self.encodings[name].table.tolist()] for name in sorted(self.encodings)]
        return hashlib.sha256(json.dumps([levels, encodings]).encode()).hexdigest()
