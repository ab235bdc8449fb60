"""The manifest: what is scored, one row per image in order. A task names a run, a first and a last row.

Workers read it instead of listing the inputs again, which a million files would make them pay for. Its
columns stand in each task's schema; here is how files become columns and come back.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from gpu_eval.inputs.source import Entry
from gpu_eval.run_folder.schema import ENTRY
from gpu_eval.storage import STORAGE_ERRORS, Place, opened, unreadable

FILE = "manifest.parquet"

# Rows that are read at once: few enough to be quick, many enough for a small footer at a million images.
ROWS_PER_GROUP = 4096


def read(folder: Place, first: int, last: int) -> pa.Table:
    """Rows first..last - 1 of a run's manifest. Raises CorruptRun where it cannot be read."""
    path = folder / FILE
    try:
        with opened(path) as file:
            groups = range(first // ROWS_PER_GROUP, -(-last // ROWS_PER_GROUP))
            return file.read_row_groups(list(groups)).slice(
                first - groups.start * ROWS_PER_GROUP, last - first
            )
    except STORAGE_ERRORS as error:
        raise unreadable(path, error) from error


def entry_columns(side: str, entries: Sequence[Entry | None]) -> dict[str, pa.Array]:
    """The columns of one file per image, `<side>_name` and so on; None where there is no file."""
    return {
        f"{side}_{name}": pa.array([None if e is None else getattr(e, name) for e in entries], kind)
        for name, kind in ENTRY.items()
    }


def entries(rows: pa.Table, side: str) -> list[Entry | None]:
    """The files of one side; None where there is none. By columns: rows as objects would take as long again
    as reading the files."""
    columns = [rows[f"{side}_{name}"].to_pylist() for name in ENTRY]
    return [
        None if name is None else Entry(name, size, stamp, offset)
        for name, size, stamp, offset in zip(*columns, strict=True)
    ]
