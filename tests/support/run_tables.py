"""What a finished run says, whatever its task: all its tables, and whether two runs say the same."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa

import gpu_eval
from gpu_eval.run_folder import schema

# The tables of a part, in the order of writing.
SEMANTIC_PARTS, INSTANCE_PARTS = (tuple(schema.tables_of(task).parts) for task in ("semantic", "instance"))


def tables_of(folder: Path | str) -> dict[str, pa.Table]:
    """All tables of a complete run."""
    run = gpu_eval.open_run(folder)
    return {
        name: run.sql(f"SELECT * FROM {name} ORDER BY ALL") for name in schema.tables_of(run.kind).by_name
    }


def assert_same_tables(one: Path | str, other: Path | str, *, but: Collection[str] = ()) -> None:
    """Equal to the last bit, NaN equal to NaN; columns named in `but` may differ."""
    left, right = tables_of(one), tables_of(other)
    assert left.keys() == right.keys()
    for name, table in left.items():
        assert table.schema.equals(right[name].schema), name
        kept = [column for column in table.column_names if column not in but]
        sides = [side.select(kept).to_pylist() for side in (table, right[name])]
        assert repr(sides[0]) == repr(sides[1]), name
