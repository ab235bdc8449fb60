"""How the label ids of instances may be read: as raw ids, as another column of the table, or shifted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from gpu_eval.errors import OptionError
from gpu_eval.labels.instance_space import InstanceSpace
from gpu_eval.labels.rows import FLAGS, VOID, Problems, level_numbers, read_row
from gpu_eval.labels.table import read_table
from gpu_eval.labels.words import did_you_mean, same_name, split_offset

RAW = "id"

# COCO's categories by the names that label tables give them, from 1 with gaps; and their places from 0.
_COCO = {"person": 1, "bicycle": 2, "car": 3, "motorcycle": 4, "bus": 6, "train": 7, "truck": 8}
_COCO_IDS, _COCO_PLACES = range(1, 91), range(80)
_COCO_PLACE = {"person": 0, "bicycle": 1, "car": 2, "motorcycle": 3, "bus": 5, "train": 6, "truck": 7}


@dataclass(frozen=True)
class Reading:
    """One way to read a label id.

    `classes[v]` are the raw ids of the evaluated classes that v stands for: none for a label that is known
    but not evaluated, several where the reading does not tell them apart. `things` are the values of labels
    that have instances, evaluated or not.
    """

    name: str
    classes: Mapping[int, tuple[int, ...]] = field(hash=False)
    things: frozenset[int]

    @property
    def unclear(self) -> dict[int, tuple[int, ...]]:
        """The values that stand for several evaluated classes."""
        return {value: ids for value, ids in self.classes.items() if len(ids) > 1}

    def shifted(self, by: int) -> Reading:
        """The same, all values moved by one number: `level3+1`."""
        return Reading(
            f"{self.name}{by:+d}",
            {value + by: ids for value, ids in self.classes.items()},
            frozenset(value + by for value in self.things),
        )


def raw_reading(space: InstanceSpace) -> Reading:
    """Label ids as the benchmark means them: raw ids."""
    classes: dict[int, tuple[int, ...]] = {
        value: (value,) if value in space.ids else () for value in sorted(space.known_ids)
    }
    return Reading(RAW, classes, frozenset(space.ids))


def load_readings(name_or_path: str | Path, space: InstanceSpace) -> tuple[Reading, ...]:
    """Every way to read label ids that a label table offers, the raw ids first.

    They are `id` and every `*_id` column, each of them also one above and one below (`submission` is the
    finest level one above); the places of the evaluated classes (`from0`, `from1`), and COCO's categories
    (`coco`, and `coco0` for their places from 0) where the table has names of theirs.

    The table is one that `load_instances` has taken. Raises LabelTableError where it can no longer be read.
    """
    table = read_table(name_or_path)
    problems = Problems(table.file)
    numbers = level_numbers(table.header)
    cells = [(line, dict(zip(table.header, row, strict=True))) for line, row in table.lines]
    rows = [read_row(line, row, numbers, problems) for line, row in cells]
    problems.raise_any()
    things = [int(row[FLAGS[0]]) == 1 for _, row in cells]
    raw = [row.ids[RAW] for row in rows]

    def reading(name: str, values: Iterable[int], others: Iterable[int] = ()) -> Reading:
        classes: dict[int, tuple[int, ...]] = dict.fromkeys(others, ())
        counted = set()
        for value, label, thing in zip(values, raw, things, strict=True):
            if value == VOID:
                continue
            classes[value] = classes.get(value, ()) + ((label,) if label in space.ids else ())
            if thing:
                counted.add(value)
        return Reading(name, classes, frozenset(counted))

    columns = [column for column in table.header if column == RAW or column.endswith("_id")]
    # Of columns that read alike those with a name that people know come first, then the benchmark's classes.
    finest = f"level{numbers[0]}_id" if numbers else RAW
    columns.sort(key=lambda column: (column != RAW, column.startswith("level"), column != finest))
    found = [reading(column.removesuffix("_id"), (row.ids[column] for row in rows)) for column in columns]
    found += [one.shifted(by) for one in found for by in (1, -1)]
    if numbers:
        above = f"level{numbers[0]}+1"
        found = [replace(one, name="submission") if one.name == above else one for one in found]
    places = {label: place for place, label in enumerate(space.ids)}
    found += [
        reading(f"from{first}", (places[label] + first if label in places else VOID for label in raw))
        for first in (0, 1)
    ]
    for name, ids, known in (("coco", _COCO, _COCO_IDS), ("coco0", _COCO_PLACE, _COCO_PLACES)):
        values = [ids.get(row.name, VOID) for row in rows]
        if any(value != VOID for value in values):
            found.append(reading(name, values, known))
    return tuple({one.name: one for one in reversed(found)}.values())[::-1]


def choose_reading(readings: Iterable[Reading], name: str | None) -> Reading:
    """The reading of that name, in any of its spellings; None: the raw ids.

    Raises OptionError for a name that the table does not have.
    """
    by_name = {one.name: one for one in readings}
    wanted = RAW if name is None else name
    shifted = None if wanted in by_name else split_offset(wanted)
    base = same_name(shifted[0] if shifted else wanted, by_name)
    if base is not None:
        wanted = f"{base}{shifted[1]:+d}" if shifted else base
    if wanted not in by_name:
        unshifted = ", ".join(one for one in by_name if one[-2:] not in ("+1", "-1"))
        raise OptionError(
            "the label table has no such encoding of instance labels",
            found=wanted,
            expected=f"one of {unshifted}; or a column with +1 or -1, as id+1",
            fix=did_you_mean(wanted, by_name),
        )
    return by_name[wanted]


def names_of(row_ids: Iterable[int], space: InstanceSpace) -> str:
    """Evaluated classes in words: "motorcycle (9) or bicycle (10)"."""
    names = dict(zip(space.ids, space.names, strict=True))
    return " or ".join(f"{names[value]} ({value})" for value in row_ids)
