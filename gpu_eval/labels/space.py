"""A label space: the classes of a benchmark, their hierarchy, and the encodings of pixel values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gpu_eval.errors import OptionError
from gpu_eval.labels.colours import COLOUR, VOID_CLASS, Colours, LabelColour, table_colours
from gpu_eval.labels.words import did_you_mean, same_name, split_offset


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
    (counted as void, and reported). With `in_colour` a side's pixels are colours of the label table; its raw
    values are then the classes that they were looked up as, 255 for void.
    """

    name: str
    table: npt.NDArray[np.uint16]
    in_colour: bool = False

    def __post_init__(self) -> None:
        table = np.array(self.table, dtype=np.uint16)
        table.flags.writeable = False
        object.__setattr__(self, "table", table)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Encoding):
            return NotImplemented
        same = self.name == other.name and self.in_colour == other.in_colour
        return same and bool(np.array_equal(self.table, other.table))

    def __hash__(self) -> int:
        return hash((self.name, self.table.tobytes(), self.in_colour))

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        # A plain unpickling would give a writable table on the worker.
        return (Encoding, (self.name, self.table, self.in_colour))


@dataclass(frozen=True)
class LabelSpace:
    """The classes of one benchmark: levels finest first, encodings by name, and its file conventions.

    `ambiguous` are columns of the table of which a value stands for several classes, as the classes by value:
    nothing can be scored by them, but a mix-up can be recognised. `has_void` tells whether the table has rows
    that are void. `exclude` are file-name endings that
    are no label maps although they end with a suffix; `resolution` is the default of `--res` ("1080",
    "WIDTHxHEIGHT" or "native"); `colours` are (red, green, blue) per class of the finest level, to show them
    in; `label_colours` are those of the table's own rows, void ones among them.
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
    ambiguous: Mapping[str, Mapping[int, tuple[int, ...]]] = field(default_factory=dict)
    has_void: bool = False
    label_colours: tuple[LabelColour, ...] = ()

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
        """The encoding of that name, in any of its spellings (`trainIds`, `train_id`, ... are `train`).

        The `name` of the encoding is the one to keep. After a name, `+1` is for data that were shifted up
        by one, `-1` for data that were shifted down, modulo 256 as NumPy's uint8 wraps. 255 stays void under
        `+1`. `colour` is for pixels that are colours of the label table.

        Raises OptionError where there is none.
        """
        name = str(name)
        shifted = None if name in self.encodings else split_offset(name)
        base = same_name(shifted[0], self.encodings) if shifted else None
        if shifted and base is not None:
            return self._shifted(self.encodings[base], shifted[1])
        encoding = self._named(name)
        coarser = [f"level{level.number}" for level in self.levels[1:]]
        if encoding is None and (level := same_name(name, coarser)) is not None:
            raise OptionError(
                f"ids of {level} do not say which class of level {self.levels[0].number} a pixel has",
                found=name,
                expected=f"one of {', '.join(self.encodings)}",
                fix=f"give maps of level {self.levels[0].number}: all coarser levels are scored from them",
            )
        if encoding is None:
            known = [*self.encodings, *([COLOUR] if self.palette else [])]
            raise OptionError(
                f"{self.name} has no such encoding",
                found=name,
                expected=f"one of {', '.join(known)}",
                fix=did_you_mean(name, known),
            )
        return encoding

    def _named(self, name: str) -> Encoding | None:
        found = same_name(name, [*self.encodings, *({COLOUR} - self.encodings.keys())])
        if found is None or found in self.encodings:
            return None if found is None else self.encodings[found]
        n = self.n_classes
        if self.palette is None:
            raise OptionError(
                f"{self.name} has no colours to read a map by",
                found=f"{n} classes, {len(self.label_colours)} labels with a colour",
                expected="a label table with the columns `red`, `green` and `blue`, and at most 255 classes",
                fix="give such a table as the labels, or maps of label ids",
            )
        table = np.full(256, n + 1, np.uint16)
        table[:n] = np.arange(n)
        table[VOID_CLASS] = n
        return Encoding(COLOUR, table, in_colour=True)

    def _shifted(self, encoding: Encoding, offset: int) -> Encoding:
        table = np.roll(encoding.table, offset)
        if offset > 0 and encoding.table[VOID_CLASS] == self.n_classes:
            table[VOID_CLASS] = self.n_classes
        return Encoding(f"{encoding.name}{offset:+d}", table)

    @cached_property
    def palette(self) -> Colours | None:
        """The colours of the table, by which colour-coded maps are read; None where it has none."""
        return table_colours(self.label_colours, self.n_classes)

    def css_colour(self, level: int, class_id: int) -> str:
        """The colour of a class as CSS writes it; a coarser class has that of its first member."""
        red, green, blue = self.colours[self.level(level).groups[class_id][0]]
        return f"#{red:02x}{green:02x}{blue:02x}"

    def digest(self) -> str:
        """sha256, in hex, of everything that decides numbers: the levels and the encodings."""
        levels = [[level.number, level.names, level.groups, level.children] for level in self.levels]
        encodings = [[name, self.encodings[name].table.tolist()] for name in sorted(self.encodings)]
        return hashlib.sha256(json.dumps([levels, encodings]).encode()).hexdigest()
