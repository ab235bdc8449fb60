"""Where runs are kept: a folder, or an fsspec URL. A file there is whole, or it is not there.

On a disk a file is written under a temporary name, synced and renamed. An object store has neither names in
between nor renaming; there one PUT is the commit.
"""

from __future__ import annotations

import contextlib
import os
import uuid
import warnings
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from gpu_eval.errors import CorruptRun, ReportError

if TYPE_CHECKING:
    from upath import UPath

    Place = Path | UPath
else:
    Place = Path  # upath is loaded for URLs only

# What an fsspec file system may raise for a file that it cannot give.
STORAGE_ERRORS = (OSError, ValueError, pa.ArrowInvalid)


def place(location: str | os.PathLike[str]) -> Place:
    """The path of a location: pathlib's for a folder, an equivalent over fsspec for a URL.

    Raises ReportError for a URL whose protocol fsspec does not know or cannot load.
    """
    text = str(location)
    if "://" not in text:
        return location if isinstance(location, Path) else Path(text)
    if text.startswith(("file://", "local://")):
        return Path(text.partition("://")[2])
    from upath import UPath

    try:
        with warnings.catch_warnings():
            # That it has no class of its own for a protocol which fsspec knows: its default one is enough.
            warnings.simplefilter("ignore", UserWarning)
            remote = UPath(text)
        remote.fs  # noqa: B018  # the file system is loaded on first use: here, where it can be told
    except (ValueError, ImportError, OSError) as error:
        raise ReportError("cannot use this URL", file=text, found=str(error)) from error
    return remote


def write(target: Place, fill: Callable[[IO[bytes]], object]) -> None:
    """Have `fill` write the file's bytes, then give it its name.

    Raises ReportError where that fails (a full disk, a read-only folder); no half file stays behind.
    """
    try:
        if isinstance(target, Path):
            _write_local(target, fill)
        else:
            whole = BytesIO()
            fill(whole)
            target.fs.pipe_file(target.path, whole.getvalue())
    except STORAGE_ERRORS as error:
        raise ReportError(
            "cannot write the report",
            file=str(target),
            found=getattr(error, "strerror", None) or str(error),
            fix="free some space or choose another folder, then run again with --resume",
        ) from error


def _write_local(target: Path, fill: Callable[[IO[bytes]], object]) -> None:
    # Several machines may write here at once, so a process id would not do.
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    with contextlib.ExitStack() as undo:
        undo.callback(_forget, temporary)
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        undo.pop_all()


def _forget(temporary: Path) -> None:
    with contextlib.suppress(OSError):
        temporary.unlink()


def is_leftover(path: Place) -> bool:
    """Whether a file is one that `write` did not live to rename."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def write_table(target: Place, table: pa.Table, *, rows_per_group: int | None = None) -> None:
    """Write a Parquet file, zstd-compressed."""
    repeating = [field.name for field in table.schema if not _hardly_repeats(field)]
    write(
        target,
        lambda file: pq.write_table(
            table, file, rows_per_group, compression="zstd", use_dictionary=repeating
        ),
    )


def _hardly_repeats(field: pa.Field) -> bool:
    """Ratios and counts of pixels: a dictionary of their values is slower to write, and larger."""
    return pa.types.is_floating(field.type) or (field.metadata or {}).get(b"unit") == b"pixels"


def read_table(path: Place, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file as a table, without the file's own metadata.

    Raises CorruptRun where it cannot be read: a table of a run that is gone or damaged.
    """
    try:
        with opened(path) as file:
            table = file.read(None if columns is None else list(columns))
    except STORAGE_ERRORS as error:
        raise unreadable(path, error) from error
    return table.replace_schema_metadata(None)


def read_metadata(path: Place) -> dict[bytes, bytes] | None:
    """The metadata in a Parquet file's footer; None if the file is missing, truncated or not Parquet."""
    try:
        with opened(path) as file:
            return dict(file.schema_arrow.metadata or {})
    except STORAGE_ERRORS:
        return None


def opened(path: Place) -> pq.ParquetFile:
    """A Parquet file opened for reading; raises one of STORAGE_ERRORS where that fails."""
    if isinstance(path, Path):
        return pq.ParquetFile(path)
    return pq.ParquetFile(path.fs.open(path.path, "rb"))


def unreadable(path: Place, why: object) -> CorruptRun:
    return CorruptRun(
        "a table of the run cannot be read",
        file=str(path),
        found=str(why),
        fix="run again with --resume to restore it, or with --overwrite",
    )
