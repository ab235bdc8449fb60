"""Which labels the instance task evaluates, which pixels are void to it, and how its files are named."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from gpu_eval.errors import LabelTableError
from gpu_eval.labels.rows import FLAGS, VOID, Problems, read_row
from gpu_eval.labels.table import BUNDLED, LabelTable, read_table, to_label_space

# A gt pixel is an id (a group, or stuff) or id * 1000 + n in 16 bits: ids from 66 do not fit, and the
# instances of id 0 could not be told from plain ids.
FIRST_ID, LAST_ID = 1, 65

_LIST_SUFFIX = "_leftImg8bit.txt"
_USER_GT_SUFFIX = "_gtFine_instanceids.png"
_GT_SUFFIXES = {"idd": "_gtFine_instanceids.png", "cityscapes": "_gtFine_instanceIds.png"}


@dataclass(frozen=True)
class InstanceSpace:
    """The instance task of one benchmark.

    `ids` are the raw ids of the evaluated classes in the table's order, `names` their names. `known_ids` are
    all raw ids of the table but 255 and -1, `void_ids` the raw pixel values of labels that evaluation
    ignores; a pixel of 255 is not void. The suffixes turn a key into the names of its gt and its list of
    predictions.
    """

    name: str
    ids: tuple[int, ...]
    names: tuple[str, ...]
    known_ids: frozenset[int]
    void_ids: frozenset[int]
    gt_suffix: str
    list_suffix: str

    def digest(self) -> str:
        """sha256, in hex, of everything that decides numbers: the classes, the known and the void ids."""
        facts = [self.ids, self.names, sorted(self.known_ids), sorted(self.void_ids)]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def load_instances(name_or_path: str | Path) -> InstanceSpace:
    """The instance task of a bundled benchmark ("idd", "cityscapes") or of a user's CSV.

    A class is a row with `has_instances` 1 and `ignore_in_eval` 0; every row with `ignore_in_eval` 1 is void.
    Both rules are those of the public script (AutoNUE public-code and cityscapesScripts,
    evalInstanceLevelSemanticLabeling.py).

    Raises LabelTableError for what `load_labels` refuses, and for a table that has no instance task.
    """
    table = read_table(name_or_path)
    to_label_space(table)  # tells whatever else is wrong with the table
    bundled = table.convention is BUNDLED.get(table.name)
    if bundled and table.name not in _GT_SUFFIXES:
        raise LabelTableError(
            f"{table.name} has no instance task",
            found=table.name,
            expected=", ".join(_GT_SUFFIXES) + ", or the path of a CSV file",
        )
    return _parse(table, _GT_SUFFIXES[table.name] if bundled else _USER_GT_SUFFIX)


def _parse(table: LabelTable, gt_suffix: str) -> InstanceSpace:
    file, header, lines = table.file, table.header, table.lines
    lacking = [column for column in FLAGS if column not in header]
    if lacking:
        raise LabelTableError(
            "no instance task: the header lacks " + " and ".join(f"`{column}`" for column in lacking),
            file=file,
            found=",".join(header),
            expected="the columns `has_instances` and `ignore_in_eval`, 0 or 1",
            fix="add the columns",
        )
    problems = Problems(file)
    rows = [dict(zip(header, row, strict=True)) for _, row in lines]
    checked = [read_row(line, row, [], problems) for (line, _), row in zip(lines, rows, strict=True)]
    problems.raise_any()

    classes: dict[int, str] = {}
    first: dict[int, int] = {}
    void = set()
    for label, row in zip(checked, rows, strict=True):
        raw = label.ids["id"]
        if raw == VOID:
            continue
        before = first.setdefault(raw, label.line)
        if before != label.line:
            problems.add(label.line, "two labels have one id", str(raw), f"another id than line {before}")
        if label.ignored:
            void.add(raw)
        elif int(row["has_instances"]):
            if not FIRST_ID <= raw <= LAST_ID:
                expected = f"{FIRST_ID}..{LAST_ID}"
                problems.add(label.line, "no 16-bit pixel id * 1000 + n has this id", str(raw), expected)
            classes[raw] = label.name
    problems.raise_any()
    if not classes:
        raise LabelTableError(
            "no label has instances",
            file=file,
            found="no row with has_instances 1 and ignore_in_eval 0",
            expected="one such row per class of the instance task",
            fix="set has_instances to 1 where gt pixels are id * 1000 + n",
        )
    return InstanceSpace(
        name=table.name,
        ids=tuple(classes),
        names=tuple(classes.values()),
        known_ids=frozenset(first),
        void_ids=frozenset(void),
        gt_suffix=gt_suffix,
        list_suffix=_LIST_SUFFIX,
    )
