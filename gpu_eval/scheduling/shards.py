"""Shards: how a split is cut, named by a fingerprint, committed to disk and read back.

A shard's part is one file in each of a few tables. The last of them is the commit: it is written last, so a
shard whose part of it reads and carries the run's fingerprint is done, and anything else is not. Every file
is written whole or not at all (`gpu_eval.storage`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from gpu_eval.errors import CorruptRun
from gpu_eval.storage import Place, read_metadata, read_table, write_table

_FINGERPRINT = b"gpu_eval.fingerprint"


@dataclass(frozen=True, slots=True)
class Shard:
    """Images `first` up to but not including `last` of the sorted split.

    `poisoned` are those of them that kill the process that scores them: they become error rows.
    """

    number: int
    first: int
    last: int
    poisoned: tuple[int, ...] = ()

    @property
    def file_name(self) -> str:
        return f"part-{self.number:06d}.parquet"


def cut(images: int, shard_size: int) -> list[Shard]:
    """Shards of `shard_size` images that cover 0..images-1; the last one may be smaller."""
    firsts = range(0, images, shard_size)
    return [Shard(i, first, min(first + shard_size, images)) for i, first in enumerate(firsts)]


def fingerprint(manifest: pa.Table, facts: Mapping[str, object]) -> str:
    """SHA-256 over everything that decides a run's numbers and how it is cut.

    `facts` are the options, the label table's digest and the code version; the manifest has the names, sizes
    and stamps (mtime, CRC or etag) of all files.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for batch in manifest.to_batches(max_chunksize=4096):
        digest.update(json.dumps(batch.to_pylist(), default=bytes.hex).encode())
    return digest.hexdigest()


def commit(folder: Place, shard: Shard, tables: Mapping[str, pa.Table], fingerprint: str) -> None:
    """Write the part of a shard, the tables in their order: the last one is the commit.

    Raises ReportError if it cannot be written (a full disk, say); then no part of it is taken for
    whole.
    """
    for name, table in tables.items():
        metadata = {**(table.schema.metadata or {}), _FINGERPRINT: fingerprint.encode()}
        write_table(folder / name / shard.file_name, table.replace_schema_metadata(metadata))


def is_committed(folder: Place, shard: Shard, tables: Sequence[str], fingerprint: str) -> bool:
    """Whether the part of a shard is whole and of this run; `tables` in the order of writing.

    A truncated or missing file means no: the shard is scored again. A part of another run raises
    CorruptRun, since overwriting it could lose somebody's work.
    """
    for name in reversed(tables):
        path = folder / name / shard.file_name
        metadata = read_metadata(path)
        if metadata is None:
            return False
        if metadata.get(_FINGERPRINT) != fingerprint.encode():
            raise CorruptRun(
                "a part of another run lies in the output folder",
                file=str(path),
                fix="move it away, choose another folder, or start over with --overwrite",
            )
    return True


def read_parts(folder: Place, name: str, shards: Sequence[Shard]) -> pa.Table:
    """One table of all shards' parts, in order. Raises CorruptRun for a part that does not read."""
    return pa.concat_tables([read_table(folder / name / shard.file_name) for shard in shards])
