"""The units that a user lists: a CSV file, or in Python a mapping from keys to units."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu_eval.errors import OptionError
from gpu_eval.metrics import unit_names
from gpu_eval.metrics import units as kinds
from gpu_eval.metrics.units import Units

# What can be asked for: "drives", "images", a CSV file, or a mapping from keys to units.
Wanted = str | os.PathLike[str] | Mapping[str, str | int]

_EXPECTED = "a CSV file with the columns key and, say, city: one line per image"
# No name of an image or a unit has these; files in another encoding, and broken ones, do.
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_MAPPING = "units"


@dataclass(frozen=True, eq=False)
class ListedUnits(Units):
    """Units of a list that may be longer than the split; `others` says by how much, None where it is not."""

    others: str | None

    @property
    def remark(self) -> str | None:
        """What there is to say of any units, and what of the list: where intervals are told, so is this."""
        return "; ".join(filter(None, (super().remark, self.others))) or None


def asked(wanted: object) -> str | Mapping[str, str | int]:
    """What was asked for, if units can be asked for in that way at all; else raises OptionError."""
    if isinstance(wanted, str | Mapping):
        return wanted
    if isinstance(wanted, os.PathLike):
        path = os.fspath(wanted)
        if isinstance(path, str):
            return path
    raise OptionError(
        "units cannot be given like that",
        found=type(wanted).__name__,
        expected="drives, images, a CSV file, or a mapping from the keys of images to units",
        fix="dict(zip(keys, units)) makes a mapping of two lists",
    )


def listed(wanted: str | Mapping[str, str | int], keys: Sequence[str]) -> Units:
    """The units of the images `keys`, of which there may be none yet, by a file or a mapping.

    A list of a whole data set fits a part of it, so what it says of other images is remarked and not refused.
    Raises OptionError for a list that cannot be read, that lacks an image, or that knows none of them.
    """
    if isinstance(wanted, str):
        name, (kind, unit_of) = wanted, read_units(wanted)
    else:
        name, (kind, unit_of) = _MAPPING, ("units", unit_names.by_key(wanted))
    there = set(keys)
    others = [key for key in unit_of if key not in there]
    if keys and len(others) == len(unit_of):
        raise OptionError(
            "not one image of the split is listed",
            file=name,
            found=f"the key {others[0][:80]}" if others else "nothing",
            expected=f"keys as in the images table, {keys[0]} say",
            fix="name the images by their keys",
        )
    try:
        units = kinds.mapped(keys, unit_of, kind)
    except OptionError as error:
        error.file = name
        raise
    told = f"{len(others):,} of {len(unit_of):,} keys in {name} are none of these images, {{}} for one"
    return ListedUnits(
        units.kind, units.of_image, units.count, told.format(others[0][:80]) if keys and others else None
    )


def read_units(path: str) -> tuple[str, dict[str, str]]:
    """What the units of a CSV file are called, in the plural, and the unit of each key."""
    lines = _lines(path)
    if not lines or len(lines[0][1]) != 2 or lines[0][1][0] != "key" or not lines[0][1][1]:
        found = ",".join(lines[0][1])[:80] if lines else "an empty file"
        raise OptionError(
            "not a list of units",
            file=path,
            found=found,
            expected=_EXPECTED,
            fix=_fix(lines[0][1]) if lines else None,
        )
    name = lines[0][1][1]
    kind = f"{name[:-1]}ies" if name.endswith("y") else f"{name.removesuffix('s')}s"
    if kind.casefold() in (kinds.DRIVES, kinds.IMAGES):
        # "3 images" would be said of a split of 60, and "12 drives" of what are not the split's folders.
        raise OptionError(
            "units of a list cannot be called that",
            file=path,
            found=f"the column {name}",
            expected="a name of its own, such as city, sequence or annotator",
            fix="rename the column",
        )
    unit_of: dict[str, str] = {}
    line_of: dict[str, int] = {}
    for line, row in lines[1:]:
        if len(row) != 2 or not all(row):
            raise OptionError(
                f"line {line}: not a key and its {name[:80]}",
                file=path,
                found=",".join(row)[:80],
                expected="two cells",
                fix=_fix(row) or "correct the line",
            )
        key, unit = row
        if key in unit_of:
            raise OptionError(
                f"line {line}: an image that line {line_of[key]} has already",
                file=path,
                found=f"{key[:80]}: {unit_of[key][:80]} and {unit[:80]}",
                expected="one line per image",
                fix="remove one of the lines",
            )
        unit_of[key], line_of[key] = unit, line
    if not unit_of:
        raise OptionError("not a list of units", file=path, found="a header only", expected=_EXPECTED)
    return kind, unit_of


def _lines(path: str) -> list[tuple[int, list[str]]]:
    """The lines that are not blank, each with its number and its cells."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: no text, or a name that no file can have
        found = getattr(error, "strerror", None) or str(error)
        raise OptionError(
            "the list of units cannot be read",
            file=path,
            found=found,
            expected=f"drives, images, or {_EXPECTED}",
        ) from error
    if control := _CONTROL.search(text):
        line = text.count("\n", 0, control.start()) + 1
        raise OptionError(
            f"line {line}: not a list of units",
            file=path,
            found=f"the character {control.group()!r}",
            expected="plain text in UTF-8",
            fix="write the file anew as UTF-8",
        )
    rows = csv.reader(io.StringIO(text), strict=True)
    try:
        return [(rows.line_num, [cell.strip() for cell in row]) for row in rows if any(map(str.strip, row))]
    except csv.Error as error:
        raise OptionError(
            f"line {rows.line_num}: not a list of units",
            file=path,
            found=str(error),
            expected=_EXPECTED,
            fix="correct the line",
        ) from error


def _fix(row: Sequence[str]) -> str | None:
    """What to do about a row of one cell that another character was meant to part."""
    return "use commas" if len(row) == 1 and re.search(r"[;\t|]", row[0]) else None
