"""A finished run, whatever its task: the contract that showing, comparing and ranking stand on."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import pyarrow as pa

from gpu_eval import registry
from gpu_eval.errors import CorruptRun, IncompleteRun, OptionError, WrongKind
from gpu_eval.results.images import ScoredImages
from gpu_eval.run_folder import parts, sql
from gpu_eval.run_folder.folder import read_facts
from gpu_eval.run_folder.schema import RunTables
from gpu_eval.storage import Place, place, read_table, unreadable


@dataclass(frozen=True, slots=True)
class Score:
    """A score and the bounds of its interval; NaN where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ClassScore:
    """A class's name and score, NaN without one, and its colour in CSS where it has one."""

    name: str
    value: float
    colour: str | None


class ScoredRun(ABC):
    """A complete run: its facts, its tables, SQL over all of them, and its scores.

    `folder` is the run folder and `facts` the content of run.json. Tables are read on first use.

    Raises
        CorruptRun: not a run folder, or one that cannot be read.
        IncompleteRun: the run was stopped before its end.
        WrongKind: a run of another task.
    """

    task: ClassVar[str]

    def __init__(self, folder: Place) -> None:
        self.folder = folder
        self.facts = read_facts(folder)
        if self.kind != self.task:
            raise WrongKind(
                f"not a run of the {self.task} task", file=str(folder), found=f"a run of the {self.kind} task"
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
    def board_columns(self) -> Mapping[str, tuple[int | str, str]]:
        """Per score by its short name, the main one first: what is scored, as in `ScoredImages.scores`, and
        its column on a board."""

    @property
    @abstractmethod
    def rules(self) -> Mapping[str, tuple[object, str]]:
        """By name what must be equal in runs that are compared, and the same as people write it."""

    @abstractmethod
    def classes_of(self, scored: int | str) -> Sequence[tuple[int, str]]:
        """Id and name of each class in the order of `ScoredImages.scores`."""

    @abstractmethod
    def score_of(self, scored: int | str, protocol: str) -> Score:
        """A score, named as in `board_columns`. Raises OptionError for one that the run does not have."""

    @abstractmethod
    def class_scores(self, scored: int | str, protocol: str) -> Sequence[ClassScore]:
        """The same of each class."""

    @abstractmethod
    def image_counts(self) -> ScoredImages:
        """What resampling and comparing need of each scored image. Raises CorruptRun for a lost part."""

    # --- what all runs have ---------------------------------------------------------------------------

    @property
    def kind(self) -> str:
        """What was scored: "semantic" or "instance"."""
        return str(self.facts["kind"])

    @property
    def warnings(self) -> Sequence[str]:
        """What looks wrong in the run but was scored: the first warnings of its images, and doubts."""
        return tuple(self.facts.get("warnings", ()))

    @cached_property
    def classes(self) -> pa.Table:
        """One row per protocol and class (of label maps: and level)."""
        return self.table("classes")

    @cached_property
    def images(self) -> pa.Table:
        """One row per image of the split, also of those that could not be scored."""
        return self.table("images")

    def table(self, name: str) -> pa.Table:
        """A table of the run. Raises CorruptRun where a file of it is missing or damaged."""
        return pa.concat_tables([read_table(path) for path in self.files(name)])

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
        return sql.answer(query, self.folder, {name: self.files(name) for name in self.tables.by_name})

    def check_protocol(self, protocol: str) -> None:
        """Raise OptionError for a protocol that the run does not have."""
        if protocol not in self.protocols:
            raise OptionError(
                "the run has no such protocol", found=protocol, expected=" or ".join(self.protocols)
            )

    def __repr__(self) -> str:
        scores = ", ".join(
            f"{name} {self.score_of(scored, self.protocols[0]).value:.4f}"
            for name, (scored, _) in self.board_columns.items()
        )
        score = registry.TASKS[self.kind].score
        named = scores if scores.startswith(score) else f"{score} {scores}"
        return f"<{type(self).__name__} {self.folder}: {self.facts['images_scored']} images, {named}>"

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
