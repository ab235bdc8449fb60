"""SQL over the tables of a run, by DuckDB. The only file that imports it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from gpu_eval.errors import OptionError
from gpu_eval.storage import Place, unreadable


def answer(query: str, folder: Place, tables: Mapping[str, Sequence[Place] | pa.Table]) -> pa.Table:
    """What DuckDB answers to `query`; it sees `tables`: Parquet files in `folder`, or a table in memory.

    Raises
        OptionError: a query that DuckDB does not take, in its own words.
        CorruptRun: a file that it cannot read.
    """
    import duckdb

    with duckdb.connect() as connection:
        if not isinstance(folder, Path):
            connection.register_filesystem(folder.fs)
        for name, files in tables.items():
            if isinstance(files, pa.Table):
                connection.register(name, files)
                continue
            listed = ", ".join(_sql_path(path) for path in files)
            try:
                connection.execute(
                    f"CREATE VIEW {name} AS SELECT * FROM read_parquet([{listed}], hive_partitioning = false)"
                )
            except duckdb.Error as error:
                raise unreadable(folder / name, error) from error
        try:
            found = connection.sql(query)
            if found is None:
                raise OptionError("the query gives no rows back", found=query, expected="a SELECT")
            table = found.to_arrow_table()
        except duckdb.Error as error:
            raise OptionError("the query failed", found=str(error)) from error
    assert isinstance(table, pa.Table)
    return table


def _sql_path(path: Place) -> str:
    """A path as an SQL text in which no character is a wildcard."""
    literal = "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path))
    return "'" + literal.replace("'", "''") + "'"
