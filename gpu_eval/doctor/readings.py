"""Every way in which the raw values of one side of a split may have been meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_eval.labels import BUNDLED, LabelSpace, Level, load_labels
from gpu_eval.labels.table import MASK

Table = npt.NDArray[np.uint16]

# Raw values in a joint count of a sample: those of a byte, and one for all above.
VALUES = 257

# The number of a level that a column makes, below those of the table.
OWN = 0


@dataclass(frozen=True, eq=False)
class Reading:
    """One meaning of raw values.

    `table` is uint16 (257,): the class of each raw value at `level`, n for void, n + 1 for what the reading
    does not have; the last entry is for values above a byte. `option` is the name by which it can be asked
    for, None where nothing can be scored by it.
    """

    name: str
    level: Level
    table: Table
    option: str | None

    @property
    def n_classes(self) -> int:
        return len(self.level.names)

    def at(self, level: Level) -> Table:
        """The table at its own level, or at a coarser one."""
        if level.number == self.level.number:
            return self.table
        n = len(level.names)
        coarser = np.full(self.n_classes + 2, n, np.uint16)
        coarser[-1] = n + 1
        above = {finest: c for c, group in enumerate(level.groups) for finest in group}
        for c, group in enumerate(self.level.groups):
            coarser[c] = above.get(group[0], n)
        coarsened: Table = coarser[self.table]
        return coarsened


def readings(space: LabelSpace, used: str) -> list[Reading]:
    """All readings of `space`, the one in use first; of two that read alike, the first.

    The columns of the table, those shifted by one, the ids of the coarser levels, and for numbered classes
    what the bundled tables of as many classes have.
    """
    found: list[Reading] = []
    tables: set[tuple[int, bytes]] = set()
    for reading in _all(space, used):
        key = (reading.level.number, reading.table.tobytes())
        if key not in tables:
            tables.add(key)
            found.append(reading)
    return found


def _all(space: LabelSpace, used: str) -> Iterator[Reading]:
    finest = space.levels[0]

    def extended(table: Table) -> Table:
        return np.append(table, np.uint16(space.n_classes + 1)).astype(np.uint16)

    yield Reading(used, finest, extended(space.encoding(used).table), used)
    # Columns have names that people know; a level's own name comes after them.
    names = sorted(space.encodings, key=lambda name: (name.startswith("level"), name == "submission"))
    if space.default_encoding in names:
        names = [space.default_encoding, *(name for name in names if name != space.default_encoding)]
    for name in names:
        yield Reading(name, finest, extended(space.encodings[name].table), name)
    for level in space.levels[1:]:
        yield from _of_level(f"level{level.number}", level, {c: c for c in range(len(level.names))})
    for name, values in space.ambiguous.items():
        if name not in [f"level{level.number}" for level in space.levels]:
            level, group_of = _joined(space, values)
            yield from _of_level(name, level, group_of)
    for name in names:
        if name not in ("submission", MASK):  # a shift itself, and no numbers
            for by in (1, -1):
                shifted = f"{name}{by:+d}"
                yield Reading(shifted, finest, extended(space.encoding(shifted).table), shifted)
    if space.name == f"{space.n_classes} classes":
        yield from _bundled(space)


def plain_encoding(table: str) -> str:
    """The encoding of a bundled table that numbers its classes from 0, a column's rather than a level's."""
    space = load_labels(table)
    numbers = np.arange(space.n_classes)
    plain = [name for name, one in space.encodings.items() if np.array_equal(one.table[numbers], numbers)]
    return min(plain, key=lambda name: name.startswith("level"))


def _of_level(name: str, level: Level, groups: Mapping[int, int]) -> Iterator[Reading]:
    """Ids of a coarser level by raw value, and the same counted from 1, as category ids often are."""
    n = len(level.names)
    for by in (0, 1):
        table = np.full(VALUES, n + 1, np.uint16)
        table[255] = n
        for value, group in groups.items():
            table[value + by] = group
        if by:
            table[0] = n
        yield Reading(f"{name}+1" if by else name, level, table, None)


def _joined(space: LabelSpace, values: Mapping[int, tuple[int, ...]]) -> tuple[Level, dict[int, int]]:
    """A column that does not tell classes apart as a level of its own: joined are those that share a value.

    And the group of each value.
    """
    root = list(range(space.n_classes))
    for classes in values.values():
        roots = {root[c] for c in classes}
        root = [min(roots) if r in roots else r for r in root]
    named = sorted({root[classes[0]] for classes in values.values()})
    groups = tuple(tuple(c for c in range(space.n_classes) if root[c] == r) for r in named)
    names = tuple("/".join(space.names[c] for c in group) for group in groups)
    level = Level(OWN, names, groups, groups)
    return level, {value: named.index(root[classes[0]]) for value, classes in values.items()}


def _bundled(space: LabelSpace) -> Iterator[Reading]:
    """What the bundled tables of as many classes make of raw values, for classes that are only numbered."""
    for name in BUNDLED:
        other = load_labels(name)
        if other.n_classes != space.n_classes:
            continue
        for encoding in other.encodings.values():
            table = np.append(encoding.table, np.uint16(space.n_classes + 1)).astype(np.uint16)
            yield Reading(f"{name} {encoding.name}", space.levels[0], table, None)
