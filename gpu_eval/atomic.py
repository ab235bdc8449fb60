"""Writing files that are either whole or not there: temporary name, fsync, rename."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from gpu_eval.errors import ReportError


def write(target: Path, fill: Callable[[IO[bytes]], object]) -> None:
    """Have `fill` write the file's bytes, then give it its name.

    Raises ReportError where that fails (a full disk, a read-only folder); no half file stays behind.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ReportError(
            "cannot write the report",
            file=str(target),
            found=error.strerror or str(error),
            fix="free some space or choose another folder, then run again with --resume",
        ) from error


def write_table(target: Path, table: pa.Table) -> None:
    """Write a Parquet file, zstd-compressed."""
    write(target, lambda file: pq.write_table(table, file, compression="zstd"))
