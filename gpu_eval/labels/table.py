"""Reading a label table: one CSV row per label, into a LabelSpace.

Columns: `name` and `id`; optional `red`, `green`, `blue`, `has_instances`, `ignore_in_eval`. A level N is
the pair `levelN_id` and `levelN_name`. Any other column that ends in `_id` is one more encoding of
the finest classes, offered where none of its values stands for two of them. 255 and -1 mean void.
Without levels every row that is not ignored in evaluation is a class, in file order. There id 255 is a class
too where `ignore_in_eval` is 0, so that 256 classes fit; or where the table has no such column and the name
does not say void, as in `background,0 / foreground,255`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from gpu_eval.errors import LabelTableError
from gpu_eval.labels.colours import LabelColour
from gpu_eval.labels.rows import (
    VOID,
    Problems,
    Row,
    is_class_or_void,
    is_void_word,
    level_numbers,
    read_csv,
    read_row,
)
from gpu_eval.labels.space import Encoding, LabelSpace, Level
from gpu_eval.labels.words import did_you_mean, same_name

MAX_CLASSES = 256

# The encoding of two classes as black and white: 0 is the first, 255 the second, and nothing is void.
MASK = "mask"


@dataclass(frozen=True)
class Convention:
    """What a benchmark fixes beyond its table; the defaults are those of a user's own table."""

    suffix: str = ".png"
    exclude: tuple[str, ...] = ()
    default_encoding: str | None = None
    resolution: str = "native"
    protocols: tuple[str, ...] = ("idd",)


BUNDLED = {
    "idd": Convention("_gtFine_labellevel3Ids.png", resolution="1080", protocols=("idd", "autonue")),
    "idd-lite": Convention(
        "_label.png", exclude=("_inst_label.png",), resolution="256x128", protocols=("idd", "autonue")
    ),
    "cityscapes": Convention("_gtFine_labelIds.png", default_encoding="id"),
}


@dataclass(frozen=True)
class LabelTable:
    """The cells of a label CSV: `lines` are (line number, cells) of every row that is not blank."""

    file: str
    name: str
    convention: Convention
    header: list[str]
    lines: list[tuple[int, list[str]]]


def load_labels(name_or_path: str | Path) -> LabelSpace:
    """The label space of a bundled benchmark ("idd", "idd-lite", "cityscapes") or of a user's CSV.

    A benchmark is known in other spellings, too ("IDD", "idd_lite", "Cityscapes"), unless a file is so named.

    Raises LabelTableError, which tells everything that is wrong with the table in one pass.
    """
    return to_label_space(read_table(name_or_path))


def read_table(name_or_path: str | Path) -> LabelTable:
    """The table of a bundled benchmark or of a user's CSV. Raises LabelTableError where it is no CSV."""
    name = str(name_or_path)
    path = Path(name_or_path)
    if name not in BUNDLED and not os.path.isfile(name):
        name = same_name(name, BUNDLED) or name
    if name in BUNDLED:
        data = resources.files("gpu_eval.labels").joinpath(f"{name}.csv").read_bytes()
        return LabelTable(f"{name}.csv", name, BUNDLED[name], *read_csv(data, f"{name}.csv"))
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError for a name that no file can have
        missing = isinstance(error, FileNotFoundError | ValueError)
        raise LabelTableError(
            "no such label table" if missing else "the label table cannot be read",
            file=name,
            found="no file" if missing else (getattr(error, "strerror", None) or type(error).__name__),
            expected="the path of a CSV file, or one of " + ", ".join(BUNDLED),
            fix=did_you_mean(name, BUNDLED) or "check the name or the path",
        ) from error
    return LabelTable(name, path.stem, Convention(), *read_csv(data, name))


def numbered_labels(n: int) -> LabelSpace:
    """A flat label space of `n` classes named by their numbers: raw value v is class v, 255 is void.

    With 256 classes no value is left for void. Raises LabelTableError for n outside 1..256.
    """
    if not 0 < n <= MAX_CLASSES:
        raise LabelTableError("no such number of classes", found=str(n), expected=f"1..{MAX_CLASSES}")
    table = np.full(256, n + 1, np.uint16)
    table[VOID] = n
    table[:n] = np.arange(n)
    own = tuple((c,) for c in range(n))
    return LabelSpace(
        name=f"{n} classes",
        levels=(Level(1, tuple(str(c) for c in range(n)), own, own),),
        encodings={
            "id": Encoding("id", table),
            **({MASK: _black_and_white()} if n == 2 else {}),
        },
        default_encoding="id",
        gt_suffix=".png",
        pred_suffix=".png",
        exclude=(),
        resolution="native",
        protocols=("idd",),
        colours=tuple((c * 67 % 256, c * 131 % 256, c * 197 % 256) for c in range(n)),
    )


def to_label_space(table: LabelTable) -> LabelSpace:
    """The label space that a table describes. Raises LabelTableError, which tells all that is wrong."""
    header, convention = table.header, table.convention
    problems = Problems(table.file)
    numbers = level_numbers(header)
    rows = [
        read_row(line, dict(zip(header, row, strict=True)), numbers, problems) for line, row in table.lines
    ]
    problems.raise_any()

    if not numbers:
        levels, classes = _flat(rows, problems)
    else:
        levels, classes = _hierarchy(rows, numbers, problems)
    encodings, ambiguous = _encodings(header, rows, classes, levels[0], problems) if levels else ({}, {})
    problems.raise_any()
    identity = f"level{levels[0].number}"
    return LabelSpace(
        name=table.name,
        levels=levels,
        encodings=encodings,
        default_encoding=convention.default_encoding or (identity if numbers else "id"),
        gt_suffix=convention.suffix,
        pred_suffix=convention.suffix,
        exclude=convention.exclude,
        resolution=convention.resolution,
        protocols=convention.protocols,
        colours=_colours(rows, classes, len(levels[0].names)),
        ambiguous=ambiguous,
        has_void=any(c is None for c in classes),
        label_colours=_label_colours(rows, classes),
    )


def _flat(rows: list[Row], problems: Problems) -> tuple[tuple[Level, ...], list[int | None]]:
    """A single level 1, one class per row that is not ignored; and the class of every row."""
    classes: list[int | None] = []
    seen: dict[str, int] = {}
    _check_255(rows, problems)
    for row in rows:
        if row.ignored or (row.ids["id"] == VOID and not row.is_class_255):
            classes.append(None)
            continue
        if row.name in seen:
            problems.add(
                row.line,
                "two classes with one name",
                f"{row.name!r} as in line {seen[row.name]}",
                "a name per class, or level columns that join them",
            )
        seen.setdefault(row.name, row.line)
        classes.append(sum(c is not None for c in classes))
    names = [row.name for row, c in zip(rows, classes, strict=True) if c is not None]
    if not _sane_count(len(names), rows, problems):
        return (), classes
    own = tuple((c,) for c in range(len(names)))
    return (Level(1, tuple(names), own, own),), classes


def _check_255(rows: list[Row], problems: Problems) -> None:
    """Tell of labels whose id leaves open whether they are a class, in a table without levels."""
    both = "`ignore_in_eval` 0 for a class, 1 for void"
    voids = [row for row in rows if row.void_id == VOID and not row.is_class_255]
    for row in rows:
        if row.is_class_255 and not row.is_flagged and is_class_or_void(row.name):
            problems.add(row.line, "at 255 this name may be a class or void", repr(row.name), both)
        elif row.is_class_255 and voids:
            found = f"255 for {row.name!r}, and for void in line {voids[0].line}"
            problems.add(row.line, "one id for a class and for void", found, "an id per class")
        elif row.void_id == -1 and not row.ignored and not is_void_word(row.name):
            found = f"-1 for {row.name!r}"
            problems.add(
                row.line,
                "no pixel is -1, so that this label is void",
                found,
                "the value that its pixels have (255 if they wrapped), or `ignore_in_eval` 1 for void",
            )


def _sane_count(n: int, rows: list[Row], problems: Problems) -> bool:
    if n == 0:
        problems.add(rows[0].line, "the table has no class", "only void labels", "at least one class")
    if n > MAX_CLASSES:
        problems.add(rows[-1].line, "too many classes", str(n), f"at most {MAX_CLASSES}")
    return 0 < n <= MAX_CLASSES


def _hierarchy(
    rows: list[Row], numbers: list[int], problems: Problems
) -> tuple[tuple[Level, ...], list[int | None]]:
    """The levels, finest first, checked to be a tree; and the finest class of every row."""
    for row in rows:
        # Where the raw id is another, the 255 of the level was chosen to mean void.
        if (
            row.void_id == VOID
            and row.is_class_255
            and not row.is_flagged
            and _class(row, numbers[0]) is None
        ):
            problems.add(
                row.line,
                "255 is void where a table has levels, but the label has the name of a class",
                repr(row.name),
                "a table without levels, where 255 may be a class; or `ignore_in_eval` 1 for void",
            )
    names = {number: _level_classes(rows, number, problems) for number in numbers}
    parents = {
        (finer, coarser): _parents(rows, finer, coarser, problems)
        for finer, coarser in itertools.pairwise(numbers)
    }
    classes = [_class(row, numbers[0]) for row in rows]
    if problems.found:
        return (), classes

    levels: list[Level] = []
    for number in numbers:
        n = len(names[number])
        if not levels:
            own = tuple((c,) for c in range(n))
            levels.append(Level(number, names[number], own, own))
            continue
        finer = levels[-1]
        parent = parents[finer.number, number]
        children = tuple(tuple(child for child in sorted(parent) if parent[child] == c) for c in range(n))
        groups = tuple(tuple(sorted(g for child in own for g in finer.groups[child])) for own in children)
        levels.append(Level(number, names[number], groups, children))
    return tuple(levels), classes


def _class(row: Row, number: int) -> int | None:
    value = row.ids[f"level{number}_id"]
    return None if value == VOID else value


def _level_classes(rows: list[Row], number: int, problems: Problems) -> tuple[str, ...]:
    """The class names of a level, in the order of their ids."""
    first: dict[int, Row] = {}
    by_name: dict[str, int] = {}
    for row in rows:
        c = _class(row, number)
        if c is None:
            continue
        name = row.level_names[number]
        before = first.setdefault(c, row)
        if name != before.level_names[number]:
            problems.add(
                row.line,
                f"class {c} of level {number} has two names",
                repr(name),
                f"{before.level_names[number]!r} as in line {before.line}",
            )
        elif not name:
            problems.add(row.line, f"class {c} of level {number} has no name", "an empty cell", "a name")
        elif by_name.setdefault(name, c) != c:
            problems.add(
                row.line,
                f"two classes of level {number} with one name",
                f"{name!r} for {by_name[name]} and {c}",
                "a name per class",
            )
    if _sane_count(len(first), rows, problems) and (gaps := set(range(max(first) + 1)) - set(first)):
        last = first[max(first)]
        problems.add(
            last.line,
            f"the ids of level {number} have gaps",
            f"no class {min(gaps)} below {max(first)}",
            f"0..{len(first) - 1}",
        )
    return tuple(first[c].level_names[number] for c in sorted(first))


def _parents(rows: list[Row], finer: int, coarser: int, problems: Problems) -> dict[int, int | None]:
    """The class of the coarser level, or None for void, of every class of the finer one."""

    def word(value: int | None) -> str:
        return "void" if value is None else str(value)

    parent: dict[int, int | None] = {}
    first: dict[int, int] = {}
    for row in rows:
        child, above = _class(row, finer), _class(row, coarser)
        if child is None:
            if above is not None:
                problems.add(
                    row.line,
                    f"void at level {finer} but a class at level {coarser}",
                    str(above),
                    "void (255) at every coarser level",
                )
            continue
        first.setdefault(child, row.line)
        if parent.setdefault(child, above) != above:
            problems.add(
                row.line,
                f"class {child} of level {finer} has two parents at level {coarser}",
                word(above),
                f"{word(parent[child])} as in line {first[child]}",
            )
    return parent


def _encodings(
    header: list[str], rows: list[Row], classes: list[int | None], finest: Level, problems: Problems
) -> tuple[dict[str, Encoding], dict[str, Mapping[int, tuple[int, ...]]]]:
    """The encodings by name: the finest level's own first, then `id`, the other columns, `submission`.

    And those of the columns that no encoding can be: a value of theirs stands for several classes.
    """
    n = len(finest.names)
    own = f"level{finest.number}"
    ambiguous: dict[str, Mapping[int, tuple[int, ...]]] = {}
    encodings = {own: _encoding(own, n, [*((c, c) for c in range(n)), (n, n)], is_class_255=n > VOID)}
    flat = finest.number == 1 and f"{own}_name" not in header
    is_class_255 = flat and any(row.is_class_255 for row in rows)
    targets = [n if c is None else c for c in classes]
    for column in header:
        if column != "id" and not column.endswith("_id"):
            continue
        name = column if column == "id" else column.removesuffix("_id")
        if column == f"{own}_id" and f"{own}_name" in header:
            continue
        if name in (own, "submission") or (column != "id" and name == "id"):
            problems.add(1, f"the encoding name of column `{column}` is taken", name, "another column name")
            continue
        pairs = [(row.ids[column], target, row) for row, target in zip(rows, targets, strict=True)]
        clash = _clashes(pairs)
        if column == "id":
            for row, before in clash:
                problems.add(
                    row.line,
                    "one id for two classes",
                    f"{row.ids['id']} as in line {before.line}",
                    "an id per class",
                )
            for row, target in zip(rows, targets, strict=True):
                if row.ids["id"] == VOID and target != n and not is_class_255:
                    problems.add(
                        row.line,
                        "255 and -1 are always void, but the label has a class",
                        f"class {target}",
                        "an id in 0..254",
                    )
        usable = any(0 <= raw < VOID and target != n for raw, target, _ in pairs)
        if column == "id" or (usable and not clash):
            encodings[name] = _encoding(
                name,
                n,
                [(raw, target) for raw, target, _ in pairs],
                is_class_255=column == "id" and is_class_255,
            )
        elif usable:
            ambiguous[name] = _shared(pairs, n)
    if n == 2 and flat and not is_class_255:
        encodings.setdefault(MASK, _black_and_white())
    if n + 1 <= VOID:  # beyond that a class would need the value 255
        pairs_ = [*((c + 1, c) for c in range(n)), (n + 1, n)]
        encodings["submission"] = _encoding("submission", n, pairs_)
    return encodings, ambiguous


def _clashes(pairs: list[tuple[int, int, Row]]) -> list[tuple[Row, Row]]:
    """The rows whose raw value another row uses for another class, each with that row."""
    first: dict[int, tuple[int, Row]] = {}
    clashes = []
    for raw, target, row in pairs:
        if raw == VOID:
            continue
        before = first.setdefault(raw, (target, row))
        if before[0] != target:
            clashes.append((row, before[1]))
    return clashes


def _shared(pairs: Iterable[tuple[int, int, Row]], n: int) -> Mapping[int, tuple[int, ...]]:
    """The classes that each value of a column stands for, void left out."""
    classes: dict[int, set[int]] = {}
    for raw, target, _ in pairs:
        if 0 <= raw < VOID and target != n:
            classes.setdefault(raw, set()).add(target)
    return {raw: tuple(sorted(found)) for raw, found in sorted(classes.items())}


def _black_and_white() -> Encoding:
    return _encoding(MASK, 2, [(0, 0), (VOID, 1)], is_class_255=True)


def _encoding(name: str, n: int, pairs: Iterable[tuple[int, int]], *, is_class_255: bool = False) -> Encoding:
    table = np.full(256, n + 1, np.uint16)
    for raw, target in pairs:
        if 0 <= raw <= 255 and not (raw == VOID and target == n):
            table[raw] = target
    if not is_class_255:
        table[VOID] = n
    return Encoding(name, table)


def _colours(rows: list[Row], classes: list[int | None], n: int) -> tuple[tuple[int, int, int], ...]:
    """Per class the colour of its first row, or one of the PASCAL VOC colour map where the table has none."""
    colours: dict[int, tuple[int, int, int]] = {}
    for row, c in zip(rows, classes, strict=True):
        if c is not None and row.colour is not None:
            colours.setdefault(c, row.colour)
    return tuple(colours.get(c) or _voc_colour(c + 1) for c in range(n))


def _label_colours(rows: list[Row], classes: list[int | None]) -> tuple[LabelColour, ...]:
    """The table's own colours, one per row that has one."""
    of_classes = {row.colour for row, c in zip(rows, classes, strict=True) if c is not None}
    return tuple(
        LabelColour(row.name, row.colour, c)
        for row, c in zip(rows, classes, strict=True)
        # Cityscapes' license plate has a car's colour, but no id, and so is drawn in no map.
        if row.colour is not None and not (c is None and row.ids["id"] == VOID and row.colour in of_classes)
    )


def _voc_colour(index: int) -> tuple[int, int, int]:
    red, green, blue = (
        sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)
    )
    return red, green, blue
