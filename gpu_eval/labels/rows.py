"""The rows of a label CSV, each cell checked, every problem told at once."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, field

from gpu_eval.errors import LabelTableError

VOID = 255
COLOURS = ("red", "green", "blue")
FLAGS = ("has_instances", "ignore_in_eval")
SHOWN_PROBLEMS = 20


# Names of labels that are no class, without what is no letter.
_VOID_NAMES = {
    "none", "na", "nan", "nil", "null", "nolabel", "nodata", "noclass", "notlabeled", "notlabelled",
    "dontcare", "donotcare", "egovehicle", "rectificationborder", "outofroi", "licenseplate", "licenceplate",
    "padding", "pad", "reserved",
}  # fmt: skip
# Names that are a class in one benchmark and void in another.
_EITHER = {
    "border", "borders", "boundary", "boundaries", "edge", "edges", "contour", "contours", "outline",
    "other", "others", "misc", "miscellaneous", "rest", "uncertain", "ambiguous", "difficult", "crowd",
}  # fmt: skip
# And words that say so in a longer name: "void region", "ignore/unlabeled".
_VOID_WORDS = re.compile(
    r"void|ignor|unlabel|unknown|unannotated|unclassified|undefined|invalid|don'?t[ _-]?care|not[ _-]?label"
)


def is_void_word(name: str) -> bool:
    """Whether a label's name says that it is no class, whatever a table leaves unsaid."""
    lower = name.lower()
    return bool(_VOID_WORDS.search(lower)) or re.sub(r"[^a-z]+", "", lower) in _VOID_NAMES


def is_class_or_void(name: str) -> bool:
    """Whether a label's name leaves open whether it is a class."""
    return re.sub(r"[^a-z]+", "", name.lower()) in _EITHER


@dataclass(frozen=True)
class Row:
    line: int
    name: str
    ids: dict[str, int]  # per id column, void as VOID; a cell that is no integer is absent
    level_names: dict[int, str]
    ignored: bool
    void_id: int | None  # 255 or -1 where that is the id, else None
    is_class_255: bool  # where there are no levels: the id is 255, and neither flag nor name says it is void
    is_flagged: bool  # the table has `ignore_in_eval`
    colour: tuple[int, int, int] | None


@dataclass
class Problems:
    """What is wrong with a table, gathered so that it is all told at once."""

    file: str
    found: list[tuple[int, str, str, str]] = field(default_factory=list)

    def add(self, line: int, message: str, found: str, expected: str) -> None:
        self.found.append((line, message, found, expected))

    def raise_any(self) -> None:
        if not self.found:
            return
        if len(self.found) == 1:
            line, message, found, expected = self.found[0]
            raise LabelTableError(
                f"line {line}: {message}",
                file=self.file,
                found=found,
                expected=expected,
                fix="correct the line",
            )
        problems = sorted(self.found)
        lines = [
            f"line {line}: {message} (found {found}, expected {expected})"
            for line, message, found, expected in problems[:SHOWN_PROBLEMS]
        ]
        if len(problems) > SHOWN_PROBLEMS:
            lines.append(f"and {len(problems) - SHOWN_PROBLEMS} more")
        raise LabelTableError(
            "\n  ".join(["not a label table", *lines]) + "\n ",
            file=self.file,
            found=f"{len(problems)} problems",
            expected="none",
            fix="correct the lines",
        )


def level_numbers(header: list[str]) -> list[int]:
    """The numbers of the levels, finest first."""
    ids = (re.fullmatch(r"level(0|[1-9][0-9]*)_id", column) for column in header)
    return sorted((int(m[1]) for m in ids if m and f"level{m[1]}_name" in header), reverse=True)


def read_csv(data: bytes, file: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and (line number, cells) of every row that is not blank."""

    def refuse(message: str, found: str, expected: str, fix: str) -> LabelTableError:
        return LabelTableError(message, file=file, found=found, expected=expected, fix=fix)

    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refuse(
            "not UTF-8 text",
            f"byte 0x{data[error.start]:02x} at {error.start}",
            "a CSV file in UTF-8",
            "save the table as UTF-8",
        ) from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error as error:
        raise refuse(
            f"line {reader.line_num}: not CSV", str(error), "comma-separated cells", "save the table as CSV"
        ) from error
    lines = [(line, row) for line, row in lines if any(row)]
    if not lines:
        raise refuse("the label table is empty", "no lines", "a header `name,id,...` and rows", "fill it")

    first, header = lines[0]
    missing = [column for column in ("name", "id") if column not in header]
    if missing:
        raise refuse(
            f"line {first}: the header lacks " + " and ".join(f"`{column}`" for column in missing),
            ",".join(header),
            "a header with `name` and `id`",
            "add the header as the first line",
        )
    twice = sorted({column for column in header if column and header.count(column) > 1})
    if twice:
        raise refuse(
            f"line {first}: a column stands twice in the header",
            ", ".join(twice),
            "each column once",
            "remove or rename one",
        )
    if len(lines) == 1:
        raise refuse("the label table is empty", "a header only", "one row per label", "add the labels")
    problems = Problems(file)
    for line, row in lines[1:]:
        if len(row) != len(header):
            problems.add(line, "the row does not fit the header", f"{len(row)} cells", f"{len(header)} cells")
    problems.raise_any()
    return header, lines[1:]


def read_row(line: int, cells: dict[str, str], numbers: list[int], problems: Problems) -> Row:
    def integer(column: str) -> int | None:
        try:
            return int(cells[column])
        except ValueError:
            problems.add(line, f"`{column}` is not an integer", repr(cells[column]), "an integer")
            return None

    levels = {f"level{number}_id" for number in numbers}
    ids = {}
    for column in cells:
        if column != "id" and not column.endswith("_id"):
            continue
        value = integer(column)
        if value is None:
            continue
        # A column that is only an encoding may hold what no 8-bit pixel can be (IDD's csId 355).
        if (column == "id" or column in levels) and not -1 <= value <= 255:
            expected = "0..254, or 255 or -1 for void"
            problems.add(line, f"`{column}` is out of range", str(value), expected)
        ids[column] = VOID if value == -1 else value

    flags = {}
    for column in FLAGS:
        if column in cells and (value := integer(column)) is not None:
            if value not in (0, 1):
                problems.add(line, f"`{column}` is not a flag", str(value), "0 or 1")
            flags[column] = value == 1

    colour = [integer(column) for column in COLOURS] if all(c in cells for c in COLOURS) else []
    for column, value in zip(COLOURS, colour, strict=False):
        if value is not None and not 0 <= value <= 255:
            problems.add(line, f"`{column}` is out of range", str(value), "0..255")

    if not cells["name"]:
        problems.add(line, "the label has no name", "an empty cell", "a name")
    known = [value for value in colour if value is not None]
    raw_id = _number(cells["id"])
    return Row(
        line=line,
        name=cells["name"],
        ids=ids,
        level_names={number: cells[f"level{number}_name"] for number in numbers},
        ignored=flags.get("ignore_in_eval", False),
        void_id=raw_id if raw_id in (VOID, -1) else None,
        is_class_255=raw_id == VOID and not flags.get("ignore_in_eval", is_void_word(cells["name"])),
        is_flagged="ignore_in_eval" in flags,
        colour=(known[0], known[1], known[2]) if len(known) == 3 else None,
    )


def _number(cell: str) -> int | None:
    try:
        return int(cell)
    except ValueError:  # told already
        return None
