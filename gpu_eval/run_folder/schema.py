"""The tables of run folders: what every task's have in common, and the page that describes them all.

A task's own columns stand in `<task>_schema.py`, whose `tables()` gives its `RunTables`, and nowhere else.
`docs/schema.md` is generated from them (`python docs/make_schema.py`); a test holds it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from gpu_eval import registry
from gpu_eval.metrics.uncertainty import Interval

# Format 2 had the error of an image of label maps in six columns; such runs still open.
FORMAT_VERSION = 3
OLDEST_FORMAT = 2


def field(name: str, kind: pa.DataType, meaning: str, unit: str = "", *, nullable: bool = False) -> pa.Field:
    metadata = {"meaning": meaning}
    if unit:
        metadata["unit"] = unit
    return pa.field(name, kind, nullable=nullable, metadata=metadata)


def share(name: str, meaning: str, *, nullable: bool = False, title: str = "") -> pa.Field:
    """`title` heads the column of a score on a board."""
    made = field(name, pa.float64(), meaning, "share 0..1", nullable=nullable)
    return made.with_metadata({**made.metadata, "title": title}) if title else made


def pixels(name: str, meaning: str, *, nullable: bool = False) -> pa.Field:
    return field(name, pa.int64(), meaning, "pixels", nullable=nullable)


def size(name: str, meaning: str) -> pa.Field:
    return field(name, pa.int32(), meaning, "pixels", nullable=True)


IMAGE_ID = field("image_id", pa.int64(), "position of the image in the sorted split")
KEY = field("key", pa.string(), "drive and image name without the suffix")
DRIVE = field("drive", pa.string(), "folder of the image; frames of one drive resemble each other")
GT_FILE = field("gt_file", pa.string(), "path within the ground-truth source")
CLASS_NAME = field("class_name", pa.string(), "name of the class")

# What an error is made of, here and in run.json.
ERROR_FACTS = ("kind", "message", "file", "found", "expected", "fix")
ERRORS = field(
    "errors",
    pa.list_(pa.struct([pa.field(name, pa.string()) for name in ERROR_FACTS])),
    "everything that is wrong with the image's files; kind is a class of gpu_eval.errors",
)

# How a file of the split stands in a manifest, by the fields of `inputs.source.Entry`.
ENTRY: Mapping[str, pa.DataType] = {
    "name": pa.string(),
    "size": pa.int64(),
    "stamp": pa.string(),
    "offset": pa.int64(),
}


def entry_fields(side: str, what: str) -> list[pa.Field]:
    """The columns of a manifest for one file per image; null where there is none."""
    meanings = {
        "name": f"path of {what} within its source",
        "size": "bytes of the file, decompressed",
        "stamp": "changes when the content may have: a time, a CRC or an etag",
        "offset": "where its bytes begin in an archive; -1 elsewhere",
    }
    return [field(f"{side}_{name}", kind, meanings[name], nullable=True) for name, kind in ENTRY.items()]


CHANGE = share("difference", "second run minus first run")
DIFFERENCE = [
    share("difference", "second run minus first run; NaN where one of them has no score"),
    share("low", "lower bound of the interval of the difference, paired by units; NaN: none"),
    share("high", "upper bound of the same interval"),
    field("p", pa.float64(), "two-sided p-value of no difference, for this row alone", "probability"),
    share("detectable", "the smallest true difference that these units would show in 80 of 100 splits"),
    field("reason", pa.string(), "why there is no interval and no p", nullable=True),
]
HOLM = field("p_holm", pa.float64(), "p corrected for all classes of the table (Holm)", "probability")


def with_interval(name: str, meaning: str, *, nullable: bool = False, title: str = "") -> list[pa.Field]:
    bound = "bound of its interval (run.json: intervals); NaN or null: none"
    return [
        share(name, meaning, nullable=nullable, title=title),
        share(f"{name}_low", f"lower {bound}", nullable=nullable),
        share(f"{name}_high", f"upper {bound}", nullable=nullable),
        field(
            f"{name}_df",
            pa.float64(),
            "its degrees of freedom: one less than the equal units it is worth",
            nullable=nullable,
        ),
        field(f"{name}_reason", pa.string(), "why it has no interval; null where it has one", nullable=True),
    ]


def interval_columns(name: str, interval: Interval | None) -> dict[str, float | str | None]:
    """The columns of `with_interval` but the score's own; None is an interval that was not asked for."""
    if interval is None:
        return dict.fromkeys((f"{name}_{column}" for column in ("low", "high", "df")), math.nan) | {
            f"{name}_reason": "not asked for"
        }
    return {f"{name}_{column}": getattr(interval, column) for column in ("low", "high", "df", "reason")}


@dataclass(frozen=True)
class Compared:
    """The tables of a comparison of two runs of a task.

    Columns stand in one order for every task: `scores` and `classes` have protocol, what is scored, (class id
    and name,) the two scores and `DIFFERENCE` (classes `HOLM` too); `images` key, what is scored, two scores
    and `CHANGE`.
    """

    scores: pa.Schema
    classes: pa.Schema
    images: pa.Schema


@dataclass(frozen=True)
class RunTables:
    """All tables of a task by their name in SQL and on disk.

    `whole` are those of the whole run, a file each; `parts` those with a file per shard, in the order of
    writing: the last one is the shard's commit. `manifest` is what was to be scored, `board` a leaderboard.
    `note` is what a reader of their description must know.
    """

    manifest: pa.Schema
    whole: Mapping[str, pa.Schema]
    parts: Mapping[str, pa.Schema]
    compared: Compared
    board: pa.Schema
    note: str = ""

    @property
    def by_name(self) -> dict[str, pa.Schema]:
        """The tables that SQL sees."""
        return {**self.whole, **self.parts}


def tables_of(task: str) -> RunTables:
    """The tables of a task by its word; of label maps with the columns for levels 3, 2 and 1."""
    tables = registry.module("run_folder", task).tables()
    assert isinstance(tables, RunTables)
    return tables


def board(*scores: pa.Field) -> pa.Schema:
    """The leaderboard of runs of a task with these columns for its scores, which have a title."""
    return pa.schema(
        [
            field("rank", pa.int32(), "1 is best; null: published, or images missing", nullable=True),
            field("rank_first", pa.int32(), "the best rank that the data allow the run", nullable=True),
            field("rank_last", pa.int32(), "the last rank that they allow it", nullable=True),
            field("team", pa.string(), "who", nullable=True),
            field("method", pa.string(), "how", nullable=True),
            field("link", pa.string(), "web address of a paper or code", nullable=True),
            *scores,
            field("source", pa.string(), "scored: by this program; published: copied, not scored here"),
            field("published_rank", pa.int32(), "rank on the published board", nullable=True),
            field("protocol", pa.string(), "protocol of the scores with intervals", nullable=True),
            field("interval_method", pa.string(), "how the intervals were computed", nullable=True),
            field("units", pa.string(), 'of what the intervals are: "12 drives"', nullable=True),
            share("detectable", "the smallest difference that the ranked runs would show", nullable=True),
            field("classes_in_mean", pa.int32(), "classes in the mean that is sorted by", nullable=True),
            field("classes", pa.int32(), "of how many", nullable=True),
            field("sizes", pa.string(), "of predictions, WIDTHxHEIGHT, most frequent first", nullable=True),
            field("doubts", pa.string(), "what looks like a mix-up in the run", nullable=True),
            field("images_scored", pa.int64(), "images in the scores", "images", nullable=True),
            field("images", pa.int64(), "images of the split", "images", nullable=True),
            share("completeness", "images scored over images of the split", nullable=True),
            field("images_void", pa.int64(), "of the scored, counted as without prediction", nullable=True),
            field("gt_fingerprint", pa.string(), "SHA-256 of the ground truth's content", nullable=True),
            field("pred_fingerprint", pa.string(), "SHA-256 of the counts of all images", nullable=True),
            field("version", pa.string(), "gpu-eval that counted the pixels", nullable=True),
            field("engine", pa.string(), "engine that counted the pixels", nullable=True),
            field("run", pa.string(), "the run folder; of a published row, where it was copied from"),
        ]
    )


def markdown() -> str:
    """The text of docs/schema.md; label maps with the columns of a label space of three levels."""
    lines: list[str] = []
    for task, registered in registry.TASKS.items():
        tables = tables_of(task)
        made = f"Generated from `gpu_eval/run_folder/{task}_schema.py` by `python docs/make_schema.py`."
        title = f"# Tables of a run folder: `gpu-eval {registered.command}`"
        lines += ["", title, "", f"{made} {tables.note}".rstrip()]
        for name, table in tables.whole.items():
            lines += _described(name, f"`{name}.parquet`", table)
        for name, table in tables.parts.items():
            lines += _described(name, f"`{name}/part-*.parquet`", table)
        where = "`manifest.parquet`: what was to be scored, in the order of `image_id`; SQL does not see it."
        lines += _described("manifest", where, tables.manifest)
    lines += [
        "",
        "# Tables over several runs",
        "",
        "Of `gpu_eval.compare` (`Comparison`; differences are B - A) and `gpu_eval.leaderboard`.",
    ]
    for task in registry.TASKS:
        tables, of = tables_of(task), f"of {task} runs"
        compared = tables.compared
        what, alone = compared.scores.names[1], compared.images.names[1]
        lines += _described(f"Comparison.scores {of}", f"One row per protocol and {what}.", compared.scores)
        lines += _described(
            f"Comparison.classes {of}", f"One row per protocol, {what} and class.", compared.classes
        )
        lines += _described(
            f"Comparison.images {of}", f"One row per {alone} and compared image.", compared.images
        )
        lines += _described(f"leaderboard {of}", "`leaderboard.parquet`, `leaderboard.csv`", tables.board)
    return "\n".join(lines[1:]) + "\n"


def _described(title: str, where: str, table: pa.Schema) -> list[str]:
    lines = ["", f"## {title}", "", where, "", "| column | type | unit | meaning |", "|---|---|---|---|"]
    for column in table:
        facts = {key.decode(): value.decode() for key, value in column.metadata.items()}
        kind = f"{column.type}, may be null" if column.nullable else str(column.type)
        lines.append(f"| {column.name} | {kind} | {facts.get('unit', '')} | {facts['meaning']} |")
    return lines
