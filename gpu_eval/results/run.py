"""A finished run, whatever its task: the contract that showing, comparing and ranking stand on."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import pyarrow as pa

from gpu_eval import registry
from gpu_eval.doctor.doubt import Doubt
from gpu_eval.errors import CorruptRun, IncompleteRun, OptionError, WrongKind
from gpu_eval.metrics.units import Units
from gpu_eval.results import units as run_units
from gpu_eval.results.images import ScoredImages
from gpu_eval.run_folder import parts, sql
from gpu_eval.run_folder.folder import read_facts, write_facts
from gpu_eval.run_folder.schema import FORMAT_VERSION, RunTables
from gpu_eval.storage import Place, place, read_table, unreadable, write_table


@dataclass(frozen=True, slots=True)
class Score:
    """A score, the bounds of its interval and its degrees of freedom, NaN where `reason` says why."""

    value: float
    low: float
    high: float
    df: float
    reason: str | None


@dataclass(frozen=True, slots=True)
class BoardColumn:
    """What is scored, as in `ScoredImages.parts`, its column on a board, and its title in a page."""

    scored: int | str
    column: str
    title: str


@dataclass(frozen=True, slots=True)
class ClassScore:
    """A class's name and score, NaN without one, and its colour in CSS where it has one."""

    name: str
    value: float
    colour: str | None


class ScoredRun(ABC):
    """A complete run: its facts, its tables, SQL over all of them, and its scores.

    `folder` is the run folder and `facts` the content of run.json. Tables are read on first use. `kind` is
    the task's word, `void_means` what becomes of an image that is scored without its prediction.

    Raises
        CorruptRun: not a run folder, or one that cannot be read.
        IncompleteRun: the run was stopped before its end.
        WrongKind: a run of another task.
    """

    kind: ClassVar[str]
    void_means: ClassVar[str]

    def __init__(self, folder: Place) -> None:
        self.folder = folder
        self.facts = read_facts(folder)
        if self.facts["kind"] != self.kind:
            raise WrongKind(
                f"not a run of the {self.kind} task",
                file=str(folder),
                found=f"a run of the {self.facts['kind']} task",
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

    # --- what each task says of its runs, in the order in which it is asked ---------------------------

    @property
    @abstractmethod
    def tables(self) -> RunTables:
        """All its tables."""

    @property
    @abstractmethod
    def protocols(self) -> Sequence[str]:
        """The protocols it is scored by, the default first."""

    @property
    @abstractmethod
    def board_columns(self) -> Mapping[str, BoardColumn]:
        """Each score by its short name, the main one first."""

    @property
    @abstractmethod
    def rules(self) -> Mapping[str, tuple[object, str]]:
        """By name what must be equal in runs that are compared, and the same as people write it."""

    @abstractmethod
    def classes_of(self, scored: int | str) -> Sequence[tuple[int, str]]:
        """Id and name of each class in the order of `ScoredImages.parts`."""

    @abstractmethod
    def score_of(self, scored: int | str, protocol: str) -> Score:
        """A score, named as in `board_columns`. Raises OptionError for one that the run does not have."""

    @abstractmethod
    def class_scores(self, scored: int | str, protocol: str) -> Sequence[ClassScore]:
        """The same of each class."""

    @classmethod
    @abstractmethod
    def read_images(cls, folder: Place, facts: Mapping[str, Any]) -> ScoredImages:
        """The scored images of the run that `facts` describe. Raises CorruptRun for a lost part."""

    @classmethod
    @abstractmethod
    def totals(cls, images: Any, units: Units | None) -> Mapping[str, pa.Table]:
        """The tables of the whole run, with intervals if there are `units`."""

    @classmethod
    def judge(cls, images: Any) -> Sequence[Doubt]:  # noqa: ARG003
        """What in the counts of the whole run looks like a mix-up, not like a bad model."""
        return ()

    # --- what all runs have ---------------------------------------------------------------------------

    @classmethod
    def finish(
        cls, folder: Place, facts: Mapping[str, Any], units: run_units.Wanted | None = run_units.DEFAULT
    ) -> None:
        """Write the tables of the whole run, then run.json as complete.

        `units` are those of the intervals, as in `results.units`; None: no intervals. Raises CorruptRun where
        a part of the run is lost, OptionError for units that do not fit it.
        """
        images = cls.read_images(folder, facts)
        chosen = None if units is None else run_units.units_of(images, units)
        for name, table in cls.totals(images, chosen).items():
            write_table(folder / f"{name}.parquet", table)
        doubts = list(facts.get("doubts", ()))
        said = {doubt["kind"] for doubt in doubts}  # from the images themselves, which know more
        doubts += [doubt.facts() for doubt in cls.judge(images) if doubt.kind not in said]
        told = {
            "doubts": doubts,
            "intervals": None if chosen is None else run_units.describe(chosen),
            "gt_fingerprint": images.gt_fingerprint,
            "pred_fingerprint": images.pred_fingerprint,
        }
        write_facts(folder, {**facts, **told, "complete": True})

    def image_counts(self) -> ScoredImages:
        """What judging and comparing need of each scored image. Raises CorruptRun for a lost part."""
        return self.read_images(self.folder, self.facts)

    @property
    def doubts(self) -> Sequence[str]:
        """What looks like a mix-up in the run, though it was scored."""
        return tuple(str(Doubt(**doubt)) for doubt in self.facts.get("doubts", ()))

    @property
    def warnings(self) -> Sequence[str]:
        """The first warnings of its images."""
        return tuple(self.facts.get("warnings", ()))

    @property
    def sizes(self) -> Sequence[str]:
        """The sizes of what was predicted, as people write them, the most frequent first."""
        columns = self.tables.by_name["images"].names
        names = next(
            (n for n in (("pred_width", "pred_height"), ("width", "height")) if n[0] in columns), None
        )
        if names is None or not self.facts["images"]:
            return ()
        images = pa.concat_tables(
            part["images"] for part in parts.read_all(self.folder, self.facts, {"images": names})
        )
        counts = images.group_by(names).aggregate([([], "count_all")]).to_pylist()
        counts = [row for row in counts if row[names[0]] is not None]
        counts.sort(key=lambda row: (-row["count_all"], row[names[0]], row[names[1]]))
        return tuple(f"{row[names[0]]}x{row[names[1]]}" for row in counts)

    def classes_in_mean(self, scored: int | str, protocol: str) -> tuple[int, int]:
        """Over how many classes a score is the mean, and of how many."""
        scores = [one.value for one in self.class_scores(scored, protocol)]
        return sum(not math.isnan(score) for score in scores), len(scores)

    @cached_property
    def classes(self) -> pa.Table:
        """One row per protocol and class (of label maps: and level)."""
        return self.table("classes")

    @cached_property
    def images(self) -> pa.Table:
        """One row per image of the split, also of those that could not be scored."""
        return self.table("images")

    def table(self, name: str) -> pa.Table:
        """A table of the run. Raises CorruptRun where a file of it is missing or damaged.

        Of a run of format 2 the tables of the whole are computed anew: its intervals were too narrow.
        """
        if self._is_old and name in self.tables.whole:
            return self._totals[name]
        return pa.concat_tables([read_table(path) for path in self.files(name)])

    @property
    def _is_old(self) -> bool:
        return bool(self.facts["format_version"] < FORMAT_VERSION)

    @cached_property
    def _totals(self) -> Mapping[str, pa.Table]:
        images = self.image_counts()
        return self.totals(images, run_units.units_of(images))

    @cached_property
    def intervals(self) -> Mapping[str, Any] | None:
        """How the intervals came about (method, units, confidence, remark); None: they were not asked for."""
        if self._is_old:
            return run_units.describe(run_units.units_of(self.image_counts()))
        told: Mapping[str, Any] | None = self.facts["intervals"]
        return told

    def files(self, name: str) -> list[Place]:
        """The files of a table. Raises CorruptRun where one is missing: a lost part is lost images."""
        if name in self.tables.parts:
            return parts.paths(self.folder, name, self.facts)
        path = self.folder / f"{name}.parquet"
        if not path.is_file():
            raise unreadable(path, "no such file")
        return [path]

    def sql(self, query: str) -> pa.Table:
        """The answer of DuckDB to `query` over the tables of the run; `docs/schema.md` describes them.

        Raises OptionError with DuckDB's own words for a query it does not take.
        """
        anew = self.tables.whole if self._is_old else ()
        tables = {
            name: self.table(name) if name in anew else self.files(name) for name in self.tables.by_name
        }
        return sql.answer(query, self.folder, tables)

    def check_protocol(self, protocol: str) -> None:
        """Raise OptionError for a protocol that the run does not have."""
        if protocol not in self.protocols:
            raise OptionError(
                "the run has no such protocol", found=protocol, expected=" or ".join(self.protocols)
            )

    def __repr__(self) -> str:
        scores = ", ".join(
            f"{name} {self.score_of(column.scored, self.protocols[0]).value:.4f}"
            for name, column in self.board_columns.items()
        )
        score = registry.TASKS[self.kind].score
        named = scores if score in self.board_columns else f"{score} {scores}"
        return f"<{type(self).__name__} {self.folder}: {self.facts['images_scored']} images, {named}>"

    def page(self) -> str:
        """The text of the run's HTML page."""
        from gpu_eval.page import plain

        return plain.page(self)

    def _repr_html_(self) -> str:
        from gpu_eval.page.notebook import summary

        return summary(self)


def open_scored(location: str | os.PathLike[str], task: str | None = None) -> ScoredRun:
    """Open a run of this task (None: of any), in a folder or at an fsspec URL.

    Raises as `ScoredRun`, and OptionError for a task that is not in the registry.
    """
    folder = place(location)
    if task is not None and task not in registry.TASKS:
        raise OptionError("no such task", found=task, expected=" or ".join(registry.TASKS))
    kind = task or read_facts(folder).get("kind")
    if kind not in registry.TASKS:
        raise CorruptRun(
            "a run of a task that this version does not know",
            file=str(folder),
            found=str(kind),
            expected=" or ".join(registry.TASKS),
        )
    run: Any = registry.module("results", kind).RUN(folder)
    assert isinstance(run, ScoredRun)
    return run
