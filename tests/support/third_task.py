"""A third task, all rooms of it in one file: label maps, scored by the share of pixels that are right.

What a real one has in a file per room stands here from the engine to the terminal, in the order of
docs/adding_a_task.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self
from unittest import mock

import numpy as np
import pyarrow as pa

from gpu_eval import registry
from gpu_eval.cli.comparison_words import ComparisonWords
from gpu_eval.cli.console import out, print_json
from gpu_eval.engines.engine import Job
from gpu_eval.errors import FatalImage, InputError, MissingPrediction, UnreadableFile
from gpu_eval.inputs import png
from gpu_eval.inputs.pairs import Pair, pair_up
from gpu_eval.inputs.source import Entry, Source
from gpu_eval.metrics import uncertainty
from gpu_eval.metrics import units as kinds
from gpu_eval.metrics.confusion import Counts, Ratios, ratio
from gpu_eval.metrics.semantic_sums import ratio_parts
from gpu_eval.metrics.uncertainty import Parts
from gpu_eval.metrics.units import Units
from gpu_eval.results.images import Key, ScoredImages, digest_of_keys
from gpu_eval.results.run import BoardColumn, ClassScore, Score, ScoredRun
from gpu_eval.run_folder import parts, schema
from gpu_eval.run_folder.schema import RunTables, field, interval_columns, pixels, share, with_interval
from gpu_eval.storage import Place
from gpu_eval.tasks.semantic import to_manifest, to_pairs
from gpu_eval.tasks.summary import Summary, error_facts, summary_of
from gpu_eval.tasks.task import Listing, Task

WORD = "right"

# --- engines/right.py, engines/cpu/right.py -------------------------------------------------------


@dataclass(frozen=True)
class RightJob(Job[Pair, "RightResult"]):
    task = WORD


@dataclass
class RightResult:
    """Pixels, and those that are right; None where a map cannot be read."""

    pixels: int | None = None
    right: int | None = None
    error: InputError | None = None


def count(threads: object, job: RightJob, pairs: Sequence[Pair], gts: Source, preds: Source) -> list[Any]:  # noqa: ARG001
    results = []
    for pair in pairs:
        try:
            if pair.pred is None:
                raise MissingPrediction("no prediction", file=pair.key)
            gt, pred = _decoded(gts, pair.gt), _decoded(preds, pair.pred)
            results.append(RightResult(gt.size, int(np.count_nonzero(gt == pred))))
        except InputError as error:
            results.append(RightResult(error=error))
    return results


def _decoded(source: Source, entry: Entry) -> Any:
    buffer = np.zeros(entry.size, np.uint8)
    _, problems = source.read_into([entry], buffer)
    for problem in problems.values():
        raise problem
    return png.decode(buffer.tobytes(), entry.name)


# --- run_folder/right_schema.py -------------------------------------------------------------------

PROTOCOL = field("protocol", pa.string(), "plain: the only one")
WHAT = field("what", pa.string(), "right: the share of right pixels")
CLASS_ID = field("class_id", pa.int32(), "0: all there is")
RIGHT = with_interval("right", "right pixels over all")
SIDES = [share("right_a", "of the first run"), share("right_b", "of the second run")]


def tables() -> RunTables:
    images = [schema.IMAGE_ID, schema.KEY, schema.DRIVE, schema.GT_FILE,
              field("status", pa.string(), "ok or error"), schema.ERRORS,
              pixels("pixels", "all", nullable=True), pixels("right", "right", nullable=True)]  # fmt: skip
    return RunTables(
        manifest=pa.schema(
            [schema.KEY, schema.DRIVE, *schema.entry_fields("gt", "it"), *schema.entry_fields("pred", "it")]
        ),
        whole={
            "shares": pa.schema([PROTOCOL, *RIGHT]),
            "classes": pa.schema([PROTOCOL, CLASS_ID, schema.CLASS_NAME, *RIGHT]),
        },
        parts={"images": pa.schema(images)},
        compared=schema.Compared(
            scores=pa.schema([PROTOCOL, WHAT, *SIDES, *schema.DIFFERENCE]),
            classes=pa.schema(
                [PROTOCOL, WHAT, CLASS_ID, schema.CLASS_NAME, *SIDES, *schema.DIFFERENCE, schema.HOLM]
            ),
            images=pa.schema([schema.KEY, WHAT, *SIDES, schema.CHANGE]),
        ),
        board=schema.board(*with_interval("right", "right pixels over all", nullable=True, title="RIGHT")),
    )


# --- tasks/right.py -------------------------------------------------------------------------------


@dataclass(frozen=True)
class RightTask(Task[Pair, RightResult]):
    word = WORD
    suffix_option = "--pred-suffix"
    decoders = ()
    summarized = ("images",)

    suffix: str

    def list_split(self, gts: str, preds: str, open_source: Callable[[str], Source]) -> Listing:
        split = pair_up(
            open_source(gts).entries(),
            open_source(preds).entries(),
            gt_suffix=self.suffix,
            pred_suffix=self.suffix,
            gt_location=gts,
            pred_location=preds,
        )
        return Listing(to_manifest(split.pairs), split.problems, split.notes)

    def decides(self) -> Mapping[str, Any]:
        return {"version": "0"}

    def labels(self) -> Mapping[str, Any]:
        return {"name": "none"}

    @property
    def tables(self) -> RunTables:
        return tables()

    def images(self, rows: pa.Table) -> list[Pair]:
        return to_pairs(rows)

    @property
    def job(self) -> RightJob:
        return RightJob()

    def is_unread(self, result: RightResult) -> bool:
        return isinstance(result.error, UnreadableFile)

    def given_up(self, error: FatalImage) -> RightResult:
        return RightResult(error=error)

    def part(
        self,
        first: int,
        images: Sequence[Pair],
        results: Sequence[RightResult],
        preds: str | None,  # noqa: ARG002
    ) -> dict[str, pa.Table]:
        rows = [
            {
                "image_id": first + i,
                "key": pair.key,
                "drive": pair.drive,
                "gt_file": pair.gt.name,
                "status": "ok" if result.error is None else "error",
                "errors": [] if result.error is None else [error_facts(result.error)],
                "pixels": result.pixels,
                "right": result.right,
            }
            for i, (pair, result) in enumerate(zip(images, results, strict=True))
        ]
        return {"images": pa.Table.from_pylist(rows, schema=tables().parts["images"])}

    def summary(self, part: Mapping[str, pa.Table]) -> Summary:
        return summary_of(part["images"], told=(MissingPrediction,))


# --- results/right_images.py, results/right_run.py ------------------------------------------------


@dataclass(frozen=True, eq=False, kw_only=True)
class RightImages(ScoredImages):
    right: Counts  # (images, 2): right, all

    def take(self, index: Counts) -> Self:
        return replace(self, **self._taken(index), right=self.right[index])

    def parts(self, units: Units, protocols: Sequence[str] | None = None) -> Mapping[Key, Parts]:  # noqa: ARG002
        sums = units.sums(self.right)
        right, pixels = sums[:, :1], sums[:, 1:]
        return {("plain", WORD): ratio_parts(right, pixels, pixels, all_or_none=False)}

    def image_scores(self) -> Mapping[int | str, Ratios]:
        return {WORD: ratio(self.right[:, 0], self.right[:, 1])}


def read(folder: Place, facts: Mapping[str, Any]) -> RightImages:
    images = pa.concat_tables(part["images"] for part in parts.read_all(folder, facts, {"images": None}))
    scored = images["status"].to_numpy() == "ok"
    kept = images.filter(pa.array(scored))
    keys = tuple(kept["key"].to_pylist())
    sums = np.stack([kept[name].to_numpy() for name in ("right", "pixels")], axis=1).astype(np.int64)
    digest = digest_of_keys(keys).hex()
    return RightImages(
        keys=keys,
        drives=tuple(kept["drive"].to_pylist()),
        gt=sums[:, 1:],
        missing=frozenset(images.filter(pa.array(~scored))["key"].to_pylist()),
        gt_fingerprint=digest,
        pred_fingerprint=digest,
        right=sums,
    )


class RightRun(ScoredRun):
    kind = WORD
    void_means = "counted as wrong"

    @property
    def tables(self) -> RunTables:
        return tables()

    @property
    def protocols(self) -> Sequence[str]:
        return ("plain",)

    @property
    def board_columns(self) -> Mapping[str, BoardColumn]:
        return {"RIGHT": BoardColumn(WORD, WORD, "right pixels")}

    @property
    def rules(self) -> Mapping[str, tuple[object, str]]:
        return {}

    def classes_of(self, scored: int | str) -> Sequence[tuple[int, str]]:  # noqa: ARG002
        return [(0, "all")]

    def score_of(self, scored: int | str, protocol: str) -> Score:  # noqa: ARG002
        (row,) = self.table("shares").to_pylist()
        return Score(row["right"], row["right_low"], row["right_high"], row["right_df"], row["right_reason"])

    def class_scores(self, scored: int | str, protocol: str) -> Sequence[ClassScore]:
        return [ClassScore("all", self.score_of(scored, protocol).value, None)]

    @classmethod
    def read_images(cls, folder: Place, facts: Mapping[str, Any]) -> RightImages:
        return read(folder, facts)

    @classmethod
    def totals(cls, images: RightImages, units: Units | None) -> Mapping[str, pa.Table]:
        chosen = units or kinds.images(len(images.keys))
        interval = uncertainty.intervals(images.parts(chosen)["plain", WORD], chosen).mean
        columns = interval_columns("right", None if units is None else interval)
        row = {"protocol": "plain", "right": interval.estimate, **columns}
        of_class = {**row, "class_id": 0, "class_name": "all"}
        return {
            name: pa.Table.from_pylist([found], schema=tables().whole[name])
            for name, found in (("shares", row), ("classes", of_class))
        }


RUN = RightRun

# --- cli/show_right.py ----------------------------------------------------------------------------


def notes(run: RightRun) -> None:
    """Nothing to tell."""


def show(run: RightRun, output: str, *, level: int | None = None, protocol: str | None = None) -> None:  # noqa: ARG001
    score = run.score_of(WORD, "plain").value
    if output == "json":
        print_json({"right": score})
    else:
        out().print(f"right pixels: {score:.4f}")


def comparison_words(level: int | None, protocol: str) -> ComparisonWords:  # noqa: ARG001
    return ComparisonWords("right pixels", "classes", "right pixels")


@contextmanager
def registered() -> Iterator[None]:
    """Have this file in every room, and its line in the registry."""
    rooms = [pattern.format(WORD) for pattern in registry.ROOMS.values()]
    line = {WORD: registry.Registered(command="right", score="RIGHT", shard_size=2)}
    try:
        sys.modules.update(dict.fromkeys(rooms, sys.modules[__name__]))
        with mock.patch.dict(registry.TASKS, line):
            yield
    finally:
        for name in rooms:
            del sys.modules[name]
