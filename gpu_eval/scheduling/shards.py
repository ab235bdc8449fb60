"""Shards: how a split is cut, named by a fingerprint, committed to disk and read back.

A shard's part is one file in each of the folders of `PART_TABLES`. The images file is the commit: it
is written last, so a shard whose images part reads and carries the run's fingerprint is done, and
anything else is not. Every file is written atomically (`gpu_eval.atomic`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gpu_eval.atomic import write_table
from gpu_eval.errors import CorruptRun
from gpu_eval.inputs.pairs import Pair
from gpu_eval.inputs.sources import Entry

# In the order of writing.
PART_TABLES = ("cells", "image_classes", "images")

_FINGERPRINT = b"gpu_eval.fingerprint"


@dataclass(frozen=True, slots=True)
class Shard:
    """Pairs `first` up to but not including `last` of the sorted split."""

    number: int
    first: int
    last: int

    @property
    def file_name(self) -> str:
        return f"part-{self.number:06d}.parquet"


def cut(images: int, shard_size: int) -> list[Shard]:
    """Shards of `shard_size` images that cover 0..images-1; the last one may be smaller."""
    firsts = range(0, images, shard_size)
    return [Shard(i, first, min(first + shard_size, images)) for i, first in enumerate(firsts)]


def fingerprint(pairs: Iterable[Pair], facts: Mapping[str, object]) -> str:
    """SHA-256 over everything that decides a run's numbers and how it is cut.

    `facts` are the options, the label table's digest and the code version; of every pair the names,
    sizes and stamps (mtime, CRC or etag) of both files count.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for pair in pairs:
        digest.update(
            f"\n{pair.key}\0{_identity(pair.gt)}\0{_identity(pair.pred)}".encode("utf-8", "surrogateescape")
        )
    return digest.hexdigest()


def _identity(entry: Entry | None) -> str:
    return "" if entry is None else f"{entry.name}\0{entry.size}\0{entry.stamp}"


def commit(folder: Path, shard: Shard, tables: Mapping[str, pa.Table], fingerprint: str) -> None:
    """Write the part of a shard, the images table last.

    Raises ReportError if it cannot be written (a full disk, say); then no part of it is taken for
    whole.
    """
    for name in PART_TABLES:
        table = tables[name]
        metadata = {**(table.schema.metadata or {}), _FINGERPRINT: fingerprint.encode()}
        target = folder / name / shard.file_name
        write_table(target, table.replace_schema_metadata(metadata))


def is_committed(folder: Path, shard: Shard, fingerprint: str) -> bool:
    """Whether the part of a shard is whole and of this run.

    A truncated or missing file means no: the shard is scored again. A part of another run raises
    CorruptRun, since overwriting it could lose somebody's work.
    """
    for name in reversed(PART_TABLES):
        path = folder / name / shard.file_name
        try:
            metadata = pq.read_schema(path).metadata or {}
        except (OSError, pa.ArrowInvalid):
            return False
        if metadata.get(_FINGERPRINT) != fingerprint.encode():
            raise CorruptRun(
                "a part of another run lies in the output folder",
                file=str(path),
                fix="move it away, choose another folder, or start over with --overwrite",
            )
    return True


def read_parts(folder: Path, name: str, shards: Sequence[Shard]) -> pa.Table:
    """One table of all shards' parts, in order. Raises CorruptRun for a part that does not read."""
    tables = []
    for shard in shards:
        path = folder / name / shard.file_name
        try:
            tables.append(pq.ParquetFile(path).read().replace_schema_metadata(None))
        except (OSError, pa.ArrowInvalid) as error:
            raise CorruptRun(
                "a part of the run cannot be read",
                file=str(path),
                found=str(error),
                fix="run again with --resume",
            ) from error
    return pa.concat_tables(tables)
