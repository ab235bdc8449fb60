"""One side of a split while its names are looked at: its files, and by which suffix they are keyed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from gpu_eval.errors import DuplicateFile, InputError, UnreadableFile
from gpu_eval.inputs.naming.suffixes import ending
from gpu_eval.inputs.source import Entry


@dataclass(frozen=True, eq=False)
class Side:
    """The files at a location; `what` is the word for one of them, `option` gives their suffix.

    `given` is the suffix that the user gave; else `usual` are tried, the benchmark's own one first.
    `extension` is that of files which may be meant, `others` what endings of other files look like; where
    `are_others_left` those are never meant.
    """

    files: Sequence[Entry]
    location: str
    given: str | None
    usual: tuple[str, ...]
    what: str
    option: str
    extension: str
    others: re.Pattern[str]
    exclude: tuple[str, ...] = ()
    are_others_left: bool = False
    _keyed: dict[str, tuple[dict[str, Entry], list[InputError]]] = field(init=False, default_factory=dict)

    @property
    def tried(self) -> tuple[str, ...]:
        """The suffixes to try, in this order."""
        return self.usual if self.given is None else (self.given,)

    def by_key(self, suffix: str) -> tuple[dict[str, Entry], list[InputError]]:
        """The files of that suffix by key, and those that cannot be used; of one key the first is kept."""
        if suffix not in self._keyed:
            entries = self.files
            if suffix == self.extension and self._other_names:
                entries = [entry for entry in entries if entry.name not in self._other_names]
            self._keyed[suffix] = _by_key(entries, suffix, self.location, self.exclude)
        return self._keyed[suffix]

    @cached_property
    def meant(self) -> list[str]:
        """The names of all files that may be meant."""
        return [
            entry.name
            for entry in self.files
            if entry.name.casefold().endswith(self.extension)
            and not entry.name.endswith(self.exclude)
            and entry.name not in self._other_names
        ]

    @cached_property
    def _other_names(self) -> frozenset[str]:
        """Files whose endings say that they are not meant; none where the user, or the table, takes all."""
        if not self.are_others_left or self.given is not None or self.usual[0] == self.extension:
            return frozenset()
        return frozenset(entry.name for entry in self.files if self.others.search(ending(entry.name)))


def _by_key(
    entries: Sequence[Entry], suffix: str, location: str, exclude: tuple[str, ...]
) -> tuple[dict[str, Entry], list[InputError]]:
    found: dict[str, Entry] = {}
    problems: list[InputError] = []
    for entry in entries:
        if not entry.name.endswith(suffix) or entry.name.endswith(exclude):
            continue
        key = entry.name.removesuffix(suffix)
        if not _is_utf8(entry.name):
            problems.append(
                UnreadableFile(
                    "the file name is not UTF-8",
                    file=f"{location}/{entry.name.encode('utf-8', 'backslashreplace').decode()}",
                    fix="rename the file",
                )
            )
        elif key in found:
            problems.append(
                DuplicateFile(
                    "two files claim this image; the first is kept",
                    file=f"{location}/{entry.name}",
                    found=f"{found[key].size} and {entry.size} bytes",
                    expected="one file per image",
                    fix="pack the archive again without the second one",
                )
            )
        else:
            found[key] = entry
    return found, problems


def _is_utf8(name: str) -> bool:
    """False for names that the file system or an archive gave in another encoding."""
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)
