"""A run folder: begun, described, opened again, its tables read and queried. A fsspec URL serves as well.

    run.json              what was scored, how, by which code and engine; written first and last
    manifest.parquet      what was scored: one row per image of the split, in order
    <table>.parquet       tables of the whole run
    <table>/part-*        tables of its shards

Which tables there are depends on the run's kind; `schema` describes them all.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from gpu_eval.errors import CorruptRun, IncompleteRun, OptionError, ReportError, RunExists, WrongKind
from gpu_eval.run_folder import schema
from gpu_eval.storage import STORAGE_ERRORS, Place, is_leftover, read_table, unreadable, write

RUN_JSON = "run.json"
MANIFEST = "manifest.parquet"
ENTRY = ("team", "method", "link")


def begin(
    folder: Place, facts: Mapping[str, Any], *, resume: bool = False, overwrite: bool = False
) -> Mapping[str, Any]:
    """Make `folder` the folder of the run that `facts` describe (`fingerprint` is one of them).

    A new or empty folder is taken as it is. A run that lies there is continued with `resume` if its
    fingerprint is the same, removed with `overwrite`, and otherwise left alone. Returns what run.json said
    of a run that is continued.

    Raises
        RunExists: another run or other files are there.
        ReportError: the folder cannot be written.
    """
    try:
        if isinstance(folder, Path):  # an object store has no folders to make
            folder.mkdir(parents=True, exist_ok=True)
        taken = folder.exists() and not all(is_leftover(path) for path in folder.iterdir())
    except STORAGE_ERRORS as error:
        found = getattr(error, "strerror", None) or str(error)
        raise ReportError("cannot use the output folder", file=str(folder), found=found) from error
    if taken and not (folder / RUN_JSON).exists():
        raise RunExists(
            "the output folder holds other files",
            file=str(folder),
            expected="a new or empty folder, or one that holds a run",
            fix="choose another folder",
        )
    previous = read_facts(folder) if taken else {}  # nothing is removed before the run is known as ours
    if taken and overwrite:
        _remove(folder)
        previous = {}
    elif taken:
        if not resume:
            raise RunExists(
                "the output folder holds another run",
                file=str(folder),
                found="a complete run" if previous.get("complete") else "an unfinished run",
                fix="--resume finishes an unfinished run of the same inputs, --overwrite starts over",
            )
        if previous.get("fingerprint") != facts["fingerprint"]:
            raise RunExists(
                "the run cannot be resumed: its inputs or options are not those of this command",
                file=str(folder),
                found=", ".join(_differences(previous, facts)) or "files changed since",
                fix="repeat the first command with --resume, or start over with --overwrite",
            )
    write_facts(folder, {**facts, "complete": False})
    return previous


def _differences(previous: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    before, now = previous.get("decides", {}), facts.get("decides", {})
    return [f"{name} was {before.get(name)}" for name in now if before.get(name) != now[name]]


def _remove(folder: Place) -> None:
    """Remove a run, and nothing that is not part of one."""
    for parts in (folder / name for name in schema.PART_TABLES if (folder / name).is_dir()):
        for path in parts.iterdir():
            if is_leftover(path) or (path.name.startswith("part-") and path.suffix == ".parquet"):
                path.unlink()
        with contextlib.suppress(OSError):  # somebody's own files keep the folder
            parts.rmdir()
    files = (RUN_JSON, MANIFEST, "report.html", *(f"{name}.parquet" for name in schema.SINGLE_FILES))
    for path in (folder / name for name in files):
        if path.exists():
            path.unlink()


def write_facts(folder: Place, facts: Mapping[str, Any]) -> None:
    text = json.dumps(facts, indent=2, allow_nan=False) + "\n"
    write(folder / RUN_JSON, lambda file: file.write(text.encode()))


def read_facts(folder: Place) -> dict[str, Any]:
    """The content of run.json. Raises CorruptRun where there is none or it is not one."""
    path = folder / RUN_JSON
    try:
        facts = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CorruptRun(
            "not a run folder", file=str(folder), expected=f"a folder with {RUN_JSON}",
            fix="give the folder that `gpu-eval score -o` wrote",
        ) from error  # fmt: skip
    except (OSError, ValueError) as error:
        raise CorruptRun("cannot read the run", file=str(path), found=str(error)) from error
    if not isinstance(facts, dict) or facts.get("format_version") != schema.FORMAT_VERSION:
        raise CorruptRun(
            "not a run of this version",
            file=str(path),
            found=f"format {facts.get('format_version') if isinstance(facts, dict) else 'unknown'}",
            expected=f"format {schema.FORMAT_VERSION}",
        )
    return facts


def make_entry(given: Mapping[str, str | None]) -> dict[str, str | None]:
    """The `entry` of run.json: who stands behind a run, None where not told.

    Raises OptionError for a link that is not http(s), since pages will show it, and for other names.
    """
    unknown = set(given) - set(ENTRY)
    if unknown:
        raise OptionError("an entry has no such field", found=min(unknown), expected=", ".join(ENTRY))
    link = given.get("link")
    if link and not link.startswith(("https://", "http://")):
        raise OptionError("a link must be a web address", found=link, expected="https://...")
    return {name: given.get(name) or None for name in ENTRY}


def tag(folder: Place, given: Mapping[str, str | None]) -> dict[str, str | None]:
    """Set the given fields of a run's entry, keep the others, and return all of them.

    An empty text clears a field. Raises CorruptRun where there is no run, OptionError as `make_entry`.
    """
    facts = read_facts(folder)
    told = {name: value for name, value in given.items() if value is not None}
    entry = make_entry({**facts.get("entry", {}), **told})
    write_facts(folder, {**facts, "entry": entry})
    return entry


class RunFolder:
    """A complete run: its facts, its tables, and SQL over all of them.

    `folder` is the run folder and `facts` the content of run.json.
    """

    def __init__(self, folder: Place, kind: str) -> None:
        self.folder = folder
        self.facts = read_facts(folder)
        if self.kind != kind:
            raise WrongKind(
                f"not a run of the {kind} task", file=str(folder), found=f"a run of the {self.kind} task"
            )
        if not self.facts.get("complete"):
            raise IncompleteRun(
                "the run is not complete",
                file=str(folder),
                found=f"{self.facts.get('problem_count', 0)} problems"
                if self.facts.get("problems")
                else "stopped",
                fix="run the same command with --resume (and --on-error skip to leave broken images out)",
            )

    @property
    def kind(self) -> str:
        """What was scored: "semantic" or "instance"."""
        return str(self.facts["kind"])

    def table(self, name: str) -> pa.Table:
        """A table of the run. Raises CorruptRun where a file of it is missing or damaged."""
        return pa.concat_tables([read_table(path) for path in self.files(name)])

    def files(self, name: str) -> list[Place]:
        """The files of a table. Raises CorruptRun where one is missing: a lost part is lost images."""
        if name in schema.SINGLE_FILES:
            files = [self.folder / f"{name}.parquet"]
        else:
            parts = -(-self.facts["images"] // self.facts["decides"]["shard_size"])
            files = [self.folder / name / f"part-{number:06d}.parquet" for number in range(parts)]
        for path in files:
            if not path.is_file():
                raise unreadable(path, "no such file")
        return files

    def sql(self, query: str) -> pa.Table:
        """The answer of DuckDB to `query` over the tables of the run.

        A semantic run has levels, classes, confusion, images, cells and image_classes; an instance run has
        scores, classes, ap, curves, images, instances and intersections. Raises OptionError with DuckDB's own
        words for a query it does not take.
        """
        import duckdb

        with duckdb.connect() as connection:
            if not isinstance(self.folder, Path):
                connection.register_filesystem(self.folder.fs)
            for name in schema.tables(self.kind):
                files = ", ".join(_sql_path(path) for path in self.files(name))
                try:
                    connection.execute(
                        f"CREATE VIEW {name} AS SELECT * FROM "
                        f"read_parquet([{files}], hive_partitioning = false)"
                    )
                except duckdb.Error as error:
                    raise unreadable(self.folder / name, error) from error
            try:
                answer = connection.sql(query)
                if answer is None:
                    raise OptionError("the query gives no rows back", found=query, expected="a SELECT")
                table = answer.to_arrow_table()
            except duckdb.Error as error:
                raise OptionError("the query failed", found=str(error)) from error
        assert isinstance(table, pa.Table)
        return table


def _sql_path(path: Place) -> str:
    """A path as an SQL text in which no character is a wildcard."""
    literal = "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path))
    return "'" + literal.replace("'", "''") + "'"
