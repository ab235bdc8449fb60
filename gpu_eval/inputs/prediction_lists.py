"""The list of an image's predicted instances: a text file with a line `mask.png labelID confidence` per mask.

The rules of a prediction's label and confidence stand here for the COCO file too.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections import Counter
from dataclasses import dataclass, field

from gpu_eval.errors import InputError, MalformedPredictions, UnsafePath
from gpu_eval.labels.instance_readings import RAW, Reading, names_of, raw_reading
from gpu_eval.labels.instance_space import InstanceSpace

MAX_LIST_BYTES = 2**24  # a list of 400,000 masks; no image has as many
MAX_LINE = 4096  # characters; Linux opens no longer path
SHOWN = 20

EXPECTED = "mask.png labelID confidence"

# What leads out of the list's folder, on any system that may unpack the same submission.
_UNSAFE = re.compile(r"\A[/\\]|\A[A-Za-z]:|\\|\0|(?:\A|/)\.\.(?:/|\Z)")


@dataclass(frozen=True, slots=True)
class Line:
    """One prediction of a list; `mask` is a path relative to the list's folder.

    `label` is the number that stands in the list, `classes` the evaluated raw ids that it stands for: one or
    none in lines that can be used.
    """

    number: int  # from 1
    mask: str
    label: int
    confidence: float
    text: str
    is_cut: bool  # the label was no whole number
    classes: tuple[int, ...] = ()
    is_swapped: bool = False  # as if the confidence stood before the label


@dataclass
class Findings:
    """What is wrong with one file of predictions: of each kind the first SHOWN, then how many more.

    `strays` are lines that would do, had they a label that counts: the doctor may know what it means.
    """

    file: str
    unit: str = "line"
    strays: list[Line] = field(default_factory=list)
    errors: list[InputError] = field(default_factory=list)
    counts: Counter[tuple[type[InputError], str]] = field(default_factory=Counter)

    def add(
        self,
        kind: type[InputError],
        number: int,
        message: str,
        *,
        found: object,
        expected: str = EXPECTED,
        fix: str | None = None,
    ) -> None:
        """Note what is wrong in that line; `found` is shown as Python writes it, shortened."""
        self.counts[kind, message] += 1
        if self.counts[kind, message] <= SHOWN:
            told = f"{self.unit} {number}: {message}"
            self.errors.append(kind(told, file=self.file, found=shown(found), expected=expected, fix=fix))

    def told(self) -> list[InputError]:
        """One error per problem, and one per kind for those that are not shown."""
        return self.errors + [
            kind(f"{count - SHOWN} more: {message}", file=self.file)
            for (kind, message), count in self.counts.items()
            if count > SHOWN
        ]


def shown(value: object) -> str:
    """A value of a foreign file, safe to print and short."""
    text = repr(value[:80]) if isinstance(value, str) else reprlib.repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def parse_list(
    data: bytes, space: InstanceSpace, findings: Findings, reading: Reading | None = None
) -> list[Line]:
    """The predictions of a list, of labels that are not evaluated too; what is wrong goes to `findings`.

    UTF-8 with or without BOM; lines end as Python's text mode has it. Blanks and tabs separate fields. The
    last two fields are numbers, so a mask's name may hold blanks. Empty lines are passed over, and so are
    comments: "#" and text that the reference would not take for a prediction.

    `reading` says what a label means; None: it is a raw id. A label is cut to a whole number as the
    reference's int(float(text)) does (`is_cut` tells of it). Stricter
    than the reference: the confidence must be finite, and the path must stay below the list.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        findings.add(
            MalformedPredictions,
            1 + data.count(b"\n", 0, error.start),
            "not UTF-8 text",
            found=data[error.start : error.start + 8],
            fix="save the list as UTF-8",
        )
        return []
    reading = raw_reading(space) if reading is None else reading
    lines = []
    for at, raw in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1):
        line = raw.strip()
        if not line or _is_comment(line):
            continue
        parsed = _parse_line(at, line, space, reading, findings)
        if parsed is not None:
            lines.append(parsed)
    return lines


def _is_comment(line: str) -> bool:
    """True for "# text", false for "#1.png 12 0.9", by which the reference names a mask "#1.png"."""
    if not line.startswith("#"):
        return False
    fields = line.split(maxsplit=3)
    return len(fields) != 3 or _as_number(fields[1]) is None or _as_number(fields[2]) is None


def _parse_line(
    at: int, line: str, space: InstanceSpace, reading: Reading, findings: Findings
) -> Line | None:
    if len(line) > MAX_LINE:
        expected = f"at most {MAX_LINE} characters"
        findings.add(MalformedPredictions, at, "too long", found=line, expected=expected)
        return None
    fields = line.rsplit(maxsplit=2)
    if len(fields) < 3:
        findings.add(
            MalformedPredictions, at, "less than three fields", found=line, fix="put blanks between them"
        )
        return None
    mask, label, confidence = fields[0], _as_number(fields[1]), _as_number(fields[2])
    if label is None:
        findings.add(
            MalformedPredictions, at, "the label id is not a number", found=line, fix="write the raw id"
        )
    elif confidence is None or not math.isfinite(confidence):
        findings.add(MalformedPredictions, at, "the confidence is not a finite number", found=line)
    elif not math.isfinite(label):
        problem = "the label id is not finite"
        findings.add(MalformedPredictions, at, problem, found=line, expected=expected_label(space, reading))
    elif _UNSAFE.search(mask):
        findings.add(
            UnsafePath,
            at,
            "the mask's path leads out of the folder of the list",
            found=line,
            expected="a relative path without '..', '\\' and drive letters",
            fix="put the masks beside the list or below it",
        )
    else:
        whole, is_cut = int(label), not label.is_integer()
        # Confidences are fractions of 1, or per cent.
        no_label = 0 <= label <= 1 or is_cut or whole not in reading.classes
        is_swapped = no_label and label <= 100 and confidence in reading.classes
        read = Line(at, mask, whole, confidence, line, is_cut, reading.classes.get(whole, ()), is_swapped)
        unknown = label_problem(whole, space, reading)
        if unknown is None:
            return read
        expected = expected_label(space, reading)
        findings.add(MalformedPredictions, at, unknown, found=line, expected=expected)
        findings.strays.append(read)
    return None


def _as_number(text: str) -> float | None:
    """The number that Python reads, as the reference does; None for other text."""
    try:
        return float(text)
    except ValueError:
        return None


def label_problem(label: int, space: InstanceSpace, reading: Reading) -> str | None:
    """What is wrong with a label id, if anything."""
    classes = reading.classes.get(label)
    if classes is None:
        return f"no label of {space.name} has this id" + (
            "" if reading.name == RAW else f" in {reading.name}"
        )
    if len(classes) > 1:
        return f"{reading.name} does not tell {names_of(classes, space)} apart"
    return None


def expected_label(space: InstanceSpace, reading: Reading) -> str:
    """The label ids that count, in words."""
    counted = [value for value, classes in reading.classes.items() if len(classes) == 1]
    if reading.name == RAW:
        counted = list(space.ids)
    kind = "a raw id" if reading.name == RAW else f"an id in {reading.name}"
    return f"{kind} of {space.name}: " + ", ".join(map(str, counted)) + " are evaluated"
