"""The parts of a run: written shard by shard, recognised by the run's fingerprint, read back.

A shard's part is one file in each of a few tables. The last of them is the commit: it is written last, so a
shard whose part of it reads and carries the run's fingerprint is done, and anything else is not. Every file
is written whole or not at all (`gpu_eval.storage`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from gpu_eval.errors import CorruptRun
from gpu_eval.storage import Place, is_leftover, read_metadata, read_table, write_table

_FINGERPRINT = b"gpu_eval.fingerprint"


def file_name(number: int) -> str:
    """The file of a shard, by its number, in each of the tables."""
    return f"part-{number:06d}.parquet"


def is_ours(path: Place) -> bool:
    """Whether a file in the folder of a table is a part, or was going to be one."""
    return is_leftover(path) or (path.name.startswith("part-") and path.suffix == ".parquet")


def fingerprint(manifest: pa.Table, facts: Mapping[str, object]) -> str:
    """SHA-256 over everything that decides a run's numbers and how it is cut.

    `facts` are the options, the label table's digest and the code version; the manifest has the names, sizes
    and stamps (mtime, CRC or etag) of all files.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for batch in manifest.to_batches(max_chunksize=4096):
        digest.update(json.dumps(batch.to_pylist(), default=bytes.hex).encode())
    return digest.hexdigest()


def commit(folder: Place, number: int, tables: Mapping[str, pa.Table], fingerprint: str) -> None:
    """Write the part of a shard, the tables in their order: the last one is the commit.

    Raises ReportError if it cannot be written (a full disk, say); then no part of it is taken for
    whole.
    """
    for name, table in tables.items():
        metadata = {**(table.schema.metadata or {}), _FINGERPRINT: fingerprint.encode()}
        write_table(folder / name / file_name(number), table.replace_schema_metadata(metadata))


def is_committed(folder: Place, number: int, tables: Sequence[str], fingerprint: str) -> bool:
    """Whether the part of a shard is whole and of this run; `tables` in the order of writing.

    A truncated or missing file means no: the shard is scored again. A part of another run raises
    CorruptRun, since overwriting it could lose somebody's work.
    """
    for name in reversed(tables):
        path = folder / name / file_name(number)
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


def paths(folder: Place, table: str, facts: Mapping[str, object]) -> list[Place]:
    """The files of a table of the run that `facts` (of run.json) describe, shard after shard.

    Raises CorruptRun where one is missing: a lost part is lost images.
    """
    images, decides = facts["images"], facts["decides"]
    assert isinstance(images, int)
    assert isinstance(decides, Mapping)
    found = [folder / table / file_name(i) for i in range(-(-images // decides["shard_size"]))]
    for path in found:
        if not path.is_file():
            raise _missing(path, "no such file", "one part per shard")
    return found


def read(folder: Place, number: int, tables: Sequence[str]) -> dict[str, pa.Table]:
    """Some tables of the part of one shard. Raises CorruptRun for a file that does not read."""
    return {name: read_table(folder / name / file_name(number)) for name in tables}


def read_all(
    folder: Place, facts: Mapping[str, object], columns: Mapping[str, Sequence[str] | None]
) -> Iterator[dict[str, pa.Table]]:
    """The parts of a run one after the other: of the tables in `columns` these columns, None for all.

    `images` must be among them. Raises CorruptRun for a file that is missing or does not read, and where the
    parts do not hold as many images as the run has.
    """
    files = {name: paths(folder, name, facts) for name in columns}
    seen = 0
    for number in range(len(files["images"])):
        part = {name: read_table(files[name][number], wanted) for name, wanted in columns.items()}
        seen += part["images"].num_rows
        yield part
    if seen != facts["images"]:
        raise _missing(folder / "images", f"{seen} images", f"{facts['images']}")


def _missing(path: Place, found: str, expected: str) -> CorruptRun:
    return CorruptRun(
        "a part of the run is missing",
        file=str(path),
        found=found,
        expected=expected,
        fix="run again with --resume to restore it, or with --overwrite",
    )
