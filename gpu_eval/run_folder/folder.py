"""A run folder: begun, described, replaced. A fsspec URL serves as well.

    run.json              what was scored, how, by which code and engine; written first and last
    manifest.parquet      what was scored: one row per image of the split, in order
    <table>.parquet       tables of the whole run
    <table>/part-*        tables of its shards

Which tables there are depends on the run's task; `schema` describes them all.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpu_eval import registry
from gpu_eval.errors import CorruptRun, OptionError, ReportError, RunExists
from gpu_eval.run_folder import manifest, parts, schema
from gpu_eval.storage import STORAGE_ERRORS, Place, is_leftover, write

RUN_JSON = "run.json"
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
        kept = ("fingerprint", "format_version")
        if any(previous.get(name) != facts[name] for name in kept):
            raise RunExists(
                "the run cannot be resumed: its inputs or options are not those of this command",
                file=str(folder),
                found=", ".join(_differences(previous, facts)) or "files changed since",
                fix="start over with --overwrite"
                if previous.get("format_version") != facts["format_version"]
                else "repeat the first command with --resume, or start over with --overwrite",
            )
    write_facts(folder, {**facts, "complete": False})
    return previous


def _differences(previous: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    if previous.get("format_version") != facts["format_version"]:
        written = f"a run of format {previous.get('format_version')}"
        return [f"{written}; this version reads it, and writes format {facts['format_version']}"]
    before, now = previous.get("decides", {}), facts.get("decides", {})
    return [f"{name} was {before.get(name)}" for name in now if before.get(name) != now[name]]


def _remove(folder: Place) -> None:
    """Remove a run, and nothing that is not part of one."""
    tables = [schema.tables_of(task) for task in registry.TASKS]
    for name in {name for of_task in tables for name in of_task.parts}:
        if (folder / name).is_dir():
            for path in filter(parts.is_ours, (folder / name).iterdir()):
                path.unlink()
            with contextlib.suppress(OSError):  # somebody's own files keep the folder
                (folder / name).rmdir()
    whole = {f"{name}.parquet" for of_task in tables for name in of_task.whole}
    for path in (folder / name for name in (RUN_JSON, manifest.FILE, "report.html", *whole)):
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
    version = facts.get("format_version") if isinstance(facts, dict) else "unknown"
    if version not in range(schema.OLDEST_FORMAT, schema.FORMAT_VERSION + 1):
        raise CorruptRun(
            "not a run of this version",
            file=str(path),
            found=f"format {version}",
            expected=f"format {schema.OLDEST_FORMAT} to {schema.FORMAT_VERSION}",
        )
    assert isinstance(facts, dict)
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
