"""What an examination of a split comes to: what is refused, what is doubted, what is so, and what to do."""

from __future__ import annotations

import itertools
import os
import posixpath
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpu_eval.checkup.names import ending_of
from gpu_eval.doctor.doubt import Doubt
from gpu_eval.errors import InputError
from gpu_eval.inputs.source import Entry, Source

# Of problems of one kind these many are kept; the others are counted.
SHOWN = 10

# What a doubt's `mend` may hold that `check --fix` carries out.
FIXED = ("pred_encoding", "pred_region")


@dataclass(frozen=True)
class ProblemKind:
    """Problems that scoring would refuse, alike but for the file: how many, the first, what mends them."""

    count: int
    first: tuple[InputError, ...]
    command: str | None = None

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        head = self.first[0]
        return {
            "kind": head.kind,
            "message": head.message,
            "count": self.count,
            "command": self.command,
            "first": [
                {
                    "message": error.message,
                    "file": error.file,
                    "found": error.found,
                    "expected": error.expected,
                    "fix": error.fix,
                }
                for error in self.first
            ],
        }


class Problems:
    """Problems as they are found, gathered by kind; a million of a kind cost no more than ten."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], list[InputError]] = {}
        self._counts: dict[tuple[str, str], int] = {}
        self._fixable: set[tuple[str, str]] = set()

    def add(self, error: InputError, *, count: int = 1, fixable: bool = False) -> None:
        """Note a problem, or one that stands for `count`; `fixable` where `--fix` mends it."""
        kind = (error.kind, re.sub(r"\d+", "0", error.message))
        self._counts[kind] = self._counts.get(kind, 0) + count
        first = self._first.setdefault(kind, [])
        if len(first) < SHOWN:
            first.append(error)
        if fixable:
            self._fixable.add(kind)

    def extend(self, errors: Sequence[InputError], *, count: int | None = None) -> None:
        """Note these problems; `count` says how many there are of the first one's kind, those included."""
        for error in errors:
            self.add(error)
        if errors and count is not None and count > len(errors):
            self.add(errors[0], count=count - len(errors))

    def kinds(self, fix_command: str | None) -> tuple[ProblemKind, ...]:
        """Kind by kind, in the order in which they were met; `fix_command` mends those that are fixable."""
        return tuple(
            ProblemKind(count, tuple(self._first[kind]), fix_command if kind in self._fixable else None)
            for kind, count in self._counts.items()
        )


@dataclass(frozen=True)
class Asked:
    """What was asked: where the files lie, and the options that were given, by `score`'s names.

    `command` scores such a split; `correctable`: `--fix` can write a corrected copy.
    """

    command: str
    preds: str
    gts: str | None
    options: Mapping[str, str] = field(default_factory=dict)
    check_options: Mapping[str, str] = field(default_factory=dict)  # those that only `check` knows
    correctable: bool = True

    def score_command(
        self, mend: Mapping[str, str] | None = None, preds: str | None = None, without: Sequence[str] = ()
    ) -> str:
        """The command that scores the split, or the corrected copy `preds`."""
        options = {name: value for name, value in self.options.items() if name not in without}
        gts = "GTS" if self.gts is None else quoted(self.gts)
        there = quoted(self.preds if preds is None else preds)
        return f"gpu-eval {self.command} {gts} {there} -o RUN{_said({**options, **(mend or {})})}"

    def fix_command(self, mend: Mapping[str, str] | None = None) -> str:
        """The command that writes a corrected copy."""
        target = _free_name(self.preds)
        gts = "" if self.gts is None else f" --gts {quoted(self.gts)}"
        said = _said({**self.options, **self.check_options, **(mend or {})})
        return f"gpu-eval check {quoted(self.preds)}{gts}{said} --fix {quoted(target)}"

    def mending(self, doubt: Doubt) -> str | None:
        """The whole command that mends a doubt; None where no command does."""
        if "pred_region" in doubt.mend:
            return self.fix_command()
        if not doubt.mend or any(not name.isidentifier() for name in doubt.mend):
            return None
        if self.gts is None and self.correctable:
            return self.fix_command(doubt.mend) if set(doubt.mend) <= set(FIXED) else None
        return self.score_command(doubt.mend)


def _free_name(preds: str) -> str:
    """A name beside the predictions that nothing has yet."""
    if "://" in preds:
        return "FIXED"
    name = preds.rstrip("/")
    if posixpath.basename(name) in ("", ".", ".."):
        name = os.path.abspath(name)
    name = name.removesuffix(".zip").removesuffix(".tar")
    return next(
        free
        for number in itertools.count(1)
        if not os.path.lexists(free := f"{name}-fixed{'' if number == 1 else f'-{number}'}")
    )


def quoted(path: str) -> str:
    """A path as a shell takes it, and no option."""
    return shlex.quote(f"./{path}" if path.startswith("-") else path)


def _said(options: Mapping[str, str]) -> str:
    return "".join(f" --{name.replace('_', '-')} {shlex.quote(value)}" for name, value in options.items())


@dataclass(frozen=True)
class Side:
    """The predictions: where they lie, and what was said about them before they are looked at.

    `source` is None where the location is one file. `is_listed`: the split was listed with its ground truth,
    and its problems told; its values and sizes were judged with it, which knows better. `suffix` is how names
    end by the pairs of the listing, or as the user says.
    """

    location: str
    source: Source | None
    entries: Sequence[Entry]
    is_listed: bool = False
    suffix: str | None = None

    def ending(self, suffix: str, extension: str, option: str) -> tuple[str, tuple[str, ...]]:
        """How the names of the files that count end, and what was assumed.

        The side's own where it is known; else `suffix` where any name has it; else what all files with the
        extension have in common.
        """
        if self.suffix is not None:
            return self.suffix, ()
        if any(entry.name.endswith(suffix) for entry in self.entries):
            return suffix, ()
        likely = Counter(
            ending_of(entry.name) for entry in self.entries if entry.name.casefold().endswith(extension)
        )
        if not likely:
            return suffix, ()
        found, count = likely.most_common(1)[0]
        if count < likely.total():
            found = extension
        note = f"no name ends with {suffix}: files that end with {found} were looked at ({option} says which)"
        return found, (note,)


@dataclass(frozen=True)
class Looked:
    """What a side comes to by itself: its files by key, how names of the split may end, and what was seen."""

    keys: Mapping[str, str]
    endings: tuple[str, ...]
    doubts: tuple[Doubt, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Examination:
    """What `check` found out.

    `problems` are refused by scoring, kind by kind. `doubts` look like mix-ups. `facts` are what is so, by
    name, for people who know what they expect; `notes` what was assumed or not looked at. `fixed` says what
    a corrected copy became, if one was asked for.
    """

    asked: Asked
    problems: tuple[ProblemKind, ...]
    doubts: tuple[Doubt, ...]
    facts: Mapping[str, Any]
    notes: tuple[str, ...]
    fixed: Mapping[str, Any] | None = None

    @property
    def ok(self) -> bool:
        """Nothing would be refused, and nothing looks like a mix-up."""
        return not self.problems and not self.doubts

    @property
    def certain(self) -> bool:
        """Something would be refused, or is certainly wrong."""
        return bool(self.problems) or any(doubt.certain for doubt in self.doubts)

    def command(self, doubt: Doubt) -> str | None:
        """The whole command that mends a doubt of this examination; None where no command does."""
        return self.asked.mending(doubt)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON has it."""
        return {
            "preds": self.asked.preds,
            "gts": self.asked.gts,
            "ok": self.ok,
            "certain": self.certain,
            "problems": [kind.facts() for kind in self.problems],
            "doubts": [{**doubt.facts(), "command": self.command(doubt)} for doubt in self.doubts],
            "facts": dict(self.facts),
            "notes": list(self.notes),
            "fixed": None if self.fixed is None else dict(self.fixed),
        }
