"""What every kind of source shares: the entry, the contract, the checks of names, the words of errors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from gpu_eval.errors import InputError, UnreadableFile, UnreadableSource, UnsafePath


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a source."""

    name: str  # POSIX path relative to the source's root
    size: int  # bytes of the file, decompressed
    stamp: (
        str  # changes when the content may have: mtime in ns, offset and mtime in a tar, CRC in a zip, etag
    )
    offset: int = -1  # tar: where the bytes start; zip: where the local header starts


class Source(Protocol):
    """A set of files that may be listed, and read by many threads at once."""

    @property
    def location(self) -> str:
        """What the user gave: a path or a URL."""
        ...

    def entries(self) -> list[Entry]:
        """All regular files but hidden ones, sorted by name. An archive may hold a name twice.

        Raises
            UnreadableSource: it cannot be listed to its end.
            UnsafePath: an archive member climbs out of its archive.
        """
        ...

    def read_into(
        self, entries: Sequence[Entry], buffer: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.int64], dict[int, InputError]]:
        """Put file i at `buffer[offsets[i]:offsets[i + 1]]`; (offsets, problems by index).

        offsets has shape (n + 1,) and is the running sum of the sizes; the buffer must be as large. A file
        that cannot be read, or is not as it was listed, becomes a problem, its span zeros; the others are
        read.
        """
        ...

    def close(self) -> None:
        """Let go of handles and maps; reading afterwards is an error of the caller."""
        ...


def spans(entries: Sequence[Entry]) -> npt.NDArray[np.int64]:
    offsets = np.zeros(len(entries) + 1, np.int64)
    np.cumsum([entry.size for entry in entries], out=offsets[1:])
    return offsets


def by_name(entry: Entry) -> str:
    return entry.name


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def is_hidden_path(name: str) -> bool:
    return any(is_hidden(part) for part in name.split("/"))


def plain_name(name: str) -> str:
    """An archive's name as a relative POSIX path: no "./", and the separators of Windows packers turned."""
    parts = name.replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def check_names(names: Iterable[str], location: str) -> None:
    """Refuse members that name a place outside: nothing is unpacked here, but others unpack this archive."""
    unsafe = [
        name
        for name in names
        if name.startswith(("/", "\\"))
        or "\0" in name
        or re.match(r"[A-Za-z]:", name)
        or (".." in name and ".." in re.split(r"[/\\]", name))
    ]
    if unsafe:
        raise UnsafePath(
            "a member's name leads out of the archive",
            file=location,
            found=repr(unsafe[0]) + (f" and {len(unsafe) - 1} more" if len(unsafe) > 1 else ""),
            expected="relative paths without '..'",
            fix="pack it again from inside the folder",
        )


def reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def refuse(
    message: str,
    location: str,
    *,
    found: str | None = None,
    expected: str | None = None,
    fix: str | None = None,
) -> NoReturn:
    raise UnreadableSource(message, file=location, found=found, expected=expected, fix=fix)


def changed(path: str, found: str, entry: Entry) -> UnreadableFile:
    return unreadable(
        path, "changed since it was listed", found=found, expected=f"{entry.size} bytes", fix="run again"
    )


def unreadable(
    path: str,
    message: str,
    *,
    found: str | None = None,
    expected: str | None = None,
    fix: str | None = None,
    cause: BaseException | None = None,
) -> UnreadableFile:
    error = UnreadableFile(message, file=path, found=found, expected=expected, fix=fix)
    error.__cause__ = cause
    return error
