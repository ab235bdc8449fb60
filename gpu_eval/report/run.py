"""A run folder: begun, finished, opened again and queried.

    run.json              what was scored, how, by which code and engine; written first and last
    manifest.parquet      the pairs of the split, in order
    levels / classes / confusion.parquet
    images/ cells/ image_classes/part-*.parquet

The tables are described in `schema`. Everything here is recomputed from matrices, never from pixels.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gpu_eval.atomic import write, write_table
from gpu_eval.errors import CorruptRun, IncompleteRun, OptionError, ReportError, RunExists
from gpu_eval.labels import LabelSpace, Level
from gpu_eval.metrics import bootstrap
from gpu_eval.metrics import confusion as cm
from gpu_eval.report import counts, schema, tables
from gpu_eval.report.counts import ImageCounts

if TYPE_CHECKING:
    import altair as alt

RUN_JSON = "run.json"
MANIFEST = "manifest.parquet"
_FILES = (RUN_JSON, MANIFEST, "report.html", *(f"{name}.parquet" for name in schema.SINGLE_FILES))
_FOLDERS = ("images", "cells", "image_classes")


def begin(folder: Path, facts: Mapping[str, Any], *, resume: bool = False, overwrite: bool = False) -> None:
    """Make `folder` the folder of the run that `facts` describe (`fingerprint` is one of them).

    A new or empty folder is taken as it is. A run that lies there is continued with `resume` if its
    fingerprint is the same, removed with `overwrite`, and otherwise left alone.

    Raises
        RunExists: another run or other files are there.
        ReportError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = not all(_is_leftover(path) for path in folder.iterdir())
    except OSError as error:
        raise ReportError("cannot use the output folder", file=str(folder), found=error.strerror) from error
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


def _differences(previous: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    before, now = previous.get("decides", {}), facts.get("decides", {})
    return [f"{name} was {before.get(name)}" for name in now if before.get(name) != now[name]]


def _remove(folder: Path) -> None:
    """Remove a run, and nothing that is not part of one."""
    for parts in (folder / name for name in _FOLDERS if (folder / name).is_dir()):
        for path in parts.iterdir():
            if _is_leftover(path) or (path.name.startswith("part-") and path.suffix == ".parquet"):
                path.unlink()
        with contextlib.suppress(OSError):  # somebody's own files keep the folder
            parts.rmdir()
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)


def _is_leftover(path: Path) -> bool:
    """Whether a file is one that `atomic.write` did not live to rename."""
    return path.name.startswith(".") and path.suffix == ".tmp"


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    text = json.dumps(facts, indent=2, allow_nan=False) + "\n"
    write(folder / RUN_JSON, lambda file: file.write(text.encode()))


def read_facts(folder: Path) -> dict[str, Any]:
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


def finish(
    folder: Path,
    facts: Mapping[str, Any],
    total: npt.NDArray[np.int64],
    labels: LabelSpace,
    *,
    resamples: int = bootstrap.RESAMPLES,
) -> None:
    """Write the tables of the whole run, with intervals from so many resamples, then run.json as complete."""
    counted = counts.read(folder, labels, facts["images"])
    samples, units = counted.resampled(resamples, bootstrap.SEED)
    intervals = {}
    for key, (miou, iou) in samples.items():
        low, high = bootstrap.interval(miou)
        intervals[key] = tables.Interval(float(low), float(high), *bootstrap.interval(iou))
    for name, table in tables.totals(total, labels, intervals).items():
        write_table(folder / f"{name}.parquet", table)
    drawn = {
        "method": "percentile bootstrap",
        "units": units.kind,
        "unit_count": units.count,
        "resamples": resamples,
        "confidence": bootstrap.CONFIDENCE,
        "seed": bootstrap.SEED,
    }
    told = {
        "intervals": drawn if resamples else None,
        "gt_fingerprint": counted.gt_fingerprint,
        "pred_fingerprint": counted.pred_fingerprint,
    }
    write_facts(folder, {**facts, **told, "complete": True})


ENTRY = ("team", "method", "link")


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


def tag(folder: Path, given: Mapping[str, str | None]) -> dict[str, str | None]:
    """Set the given fields of a run's entry, keep the others, and return all of them.

    An empty text clears a field. Raises CorruptRun where there is no run, OptionError as `make_entry`.
    """
    facts = read_facts(folder)
    told = {name: value for name, value in given.items() if value is not None}
    entry = make_entry({**facts.get("entry", {}), **told})
    write_facts(folder, {**facts, "entry": entry})
    return entry


def describe_labels(labels: LabelSpace) -> dict[str, Any]:
    """A label space for run.json: enough to recompute every score, and to name and colour classes."""
    return {
        "name": labels.name,
        "digest": labels.digest(),
        "protocols": labels.protocols,
        "colours": labels.colours,
        "levels": [
            {"number": v.number, "names": v.names, "groups": v.groups, "children": v.children}
            for v in labels.levels
        ],
    }


def _labels_of(facts: Mapping[str, Any]) -> LabelSpace:
    described = facts["labels"]
    return LabelSpace(
        name=described["name"],
        levels=tuple(
            Level(
                number=level["number"],
                names=tuple(level["names"]),
                groups=tuple(map(tuple, level["groups"])),
                children=tuple(map(tuple, level["children"])),
            )
            for level in described["levels"]
        ),
        encodings={},
        default_encoding="",
        gt_suffix="",
        pred_suffix="",
        exclude=(),
        resolution="",
        protocols=tuple(described["protocols"]),
        colours=tuple((int(r), int(g), int(b)) for r, g, b in described["colours"]),
    )


class Run:
    """A finished run: its tables as pyarrow tables, its scores, and SQL over all of it.

    `folder` is the run folder and `facts` the content of run.json. Tables are read on first use.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts = read_facts(folder)
        if not self.facts.get("complete"):
            raise IncompleteRun(
                "the run is not complete",
                file=str(folder),
                found=f"{self.facts.get('problem_count', 0)} problems"
                if self.facts.get("problems")
                else "stopped",
                fix="run the same command with --resume (and --on-error skip to leave broken images out)",
            )
        self.labels = _labels_of(self.facts)

    def __repr__(self) -> str:
        means = ", ".join(f"L{v.number} {self.miou(v.number):.4f}" for v in self.labels.levels)
        return f"<Run {self.folder}: {self.facts['images_scored']} images, mIoU {means}>"

    def _repr_html_(self) -> str:
        from gpu_eval.report.notebook import summary

        return summary(self)

    def plot_confusion(self, level: int | None = None) -> alt.LayerChart:
        """The confusion matrix of a level (default: the finest) as an Altair heat map.

        Rows are gt, columns prediction; cells are shares of the row. Raises OptionError where Altair is not
        installed.
        """
        from gpu_eval.report import plots

        return plots.confusion(self, self.labels.levels[0].number if level is None else level)

    def plot_classes(self, level: int | None = None, protocol: str | None = None) -> alt.LayerChart:
        """The IoU of each class as an Altair bar chart, with intervals where the run has them.

        `level` defaults to the finest, `protocol` to the label space's first. Raises OptionError where
        Altair is not installed.
        """
        from gpu_eval.report import plots

        number = self.labels.levels[0].number if level is None else level
        return plots.classes(self, number, protocol or self.labels.protocols[0])

    def _table(self, name: str) -> pa.Table:
        tables = []
        for path in self._files(name):
            try:
                tables.append(pq.ParquetFile(path).read().replace_schema_metadata(None))
            except (OSError, pa.ArrowInvalid) as error:
                raise _unreadable(path, error) from error
        return pa.concat_tables(tables)

    def _files(self, name: str) -> list[Path]:
        """The files of a table. Raises CorruptRun where one is missing: a lost part is lost images."""
        if name in schema.SINGLE_FILES:
            files = [self.folder / f"{name}.parquet"]
        else:
            parts = -(-self.facts["images"] // self.facts["decides"]["shard_size"])
            files = [self.folder / name / f"part-{number:06d}.parquet" for number in range(parts)]
        for path in files:
            if not path.is_file():
                raise _unreadable(path, "no such file")
        return files

    @cached_property
    def levels(self) -> pa.Table:
        """One row per protocol and level: mIoU and accuracies."""
        return self._table("levels")

    @cached_property
    def classes(self) -> pa.Table:
        """One row per protocol, level and class: counts, IoU, precision, recall, Dice."""
        return self._table("classes")

    @cached_property
    def images(self) -> pa.Table:
        """One row per image of the split, also of those that could not be scored."""
        return self._table("images")

    @cached_property
    def image_classes(self) -> pa.Table:
        """One row per image, level and class that occurs in it."""
        return self._table("image_classes")

    @cached_property
    def cells(self) -> pa.Table:
        """One row per non-zero cell of each image's confusion matrix."""
        return self._table("cells")

    def image_counts(self) -> ImageCounts:
        """What resampling and comparing need of each scored image. Raises CorruptRun for a lost part."""
        counted = counts.read(self.folder, self.labels, self.facts["images"])
        found, expected = len(counted.keys) + len(counted.missing), self.facts["images"]
        if found != expected:
            raise CorruptRun(
                "images of the run are missing",
                file=str(self.folder / "images"),
                found=f"{found} images",
                expected=str(expected),
                fix="run again with --overwrite",
            )
        return counted

    def confusion(self, level: int | None = None) -> npt.NDArray[np.int64]:
        """The confusion matrix of the whole split at a level (default: the finest).

        int64, shape (n + 1, n + 1), rows gt, columns prediction, last index void. Raises OptionError
        for a level that the label space does not have.
        """
        finest = self.labels.n_classes + 1
        total = self._table("confusion")["pixels"].to_numpy().reshape(finest, finest)
        wanted = self.labels.level(self.labels.levels[0].number if level is None else level)
        return cm.roll_up(total, wanted.groups)

    def miou(self, level: int | None = None, protocol: str = "idd") -> float:
        """The mean IoU of a level (default: the finest); NaN where the protocol gives none.

        Raises OptionError for a level or protocol that the run does not have.
        """
        number = self.labels.levels[0].number if level is None else level
        self.labels.level(number)
        for row in self.levels.to_pylist():
            if row["level"] == number and row["protocol"] == protocol:
                return float(row["miou"])
        raise OptionError(
            "the run has no such protocol", found=protocol, expected=" or ".join(self.labels.protocols)
        )

    def sql(self, query: str) -> pa.Table:
        """The answer of DuckDB to `query` over the tables levels, classes, confusion, images, cells and
        image_classes. Raises OptionError with DuckDB's own words for a query it does not take.
        """
        import duckdb

        with duckdb.connect() as connection:
            for name in schema.tables():
                files = ", ".join(_sql_path(path) for path in self._files(name))
                try:
                    connection.execute(
                        f"CREATE VIEW {name} AS SELECT * FROM "
                        f"read_parquet([{files}], hive_partitioning = false)"
                    )
                except duckdb.Error as error:
                    raise _unreadable(self.folder / name, error) from error
            try:
                answer = connection.sql(query)
                if answer is None:
                    raise OptionError("the query gives no rows back", found=query, expected="a SELECT")
                table = answer.to_arrow_table()
            except duckdb.Error as error:
                raise OptionError("the query failed", found=str(error)) from error
        assert isinstance(table, pa.Table)
        return table


def _unreadable(path: Path, why: object) -> CorruptRun:
    return CorruptRun(
        "a table of the run cannot be read",
        file=str(path),
        found=str(why),
        fix="run again with --resume to restore it, or with --overwrite",
    )


def _sql_path(path: Path) -> str:
    """A path as an SQL text in which no character is a wildcard."""
    literal = "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path))
    return "'" + literal.replace("'", "''") + "'"


def open_run(folder: str | Path) -> Run:
    """Open a run folder.

    Raises
        CorruptRun: not a run folder, or one that cannot be read.
        IncompleteRun: the run was stopped before its end.
    """
    return Run(Path(folder))
