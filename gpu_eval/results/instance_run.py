"""An instance run: its tables of totals, and a finished run opened again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from gpu_eval.errors import CorruptRun
from gpu_eval.labels.instance_space import InstanceSpace
from gpu_eval.metrics.matching import PROTOCOLS, InstanceTable
from gpu_eval.results import instance_images as instance_counts
from gpu_eval.results.comparability import ComparableRun
from gpu_eval.results.instance_images import MEASURES, InstanceCounts
from gpu_eval.run_folder import instance_tables, schema
from gpu_eval.run_folder.folder import RunFolder, write_facts
from gpu_eval.storage import Place, write_table


def describe_space(space: InstanceSpace) -> dict[str, Any]:
    """An instance task for run.json: enough to judge every overlap again."""
    return {
        "name": space.name,
        "digest": space.digest(),
        "ids": space.ids,
        "names": space.names,
        "known_ids": sorted(space.known_ids),
        "void_ids": sorted(space.void_ids),
    }


def _space_of(facts: Mapping[str, Any]) -> InstanceSpace:
    described = facts["labels"]
    return InstanceSpace(
        name=described["name"],
        ids=tuple(described["ids"]),
        names=tuple(described["names"]),
        known_ids=frozenset(described["known_ids"]),
        void_ids=frozenset(described["void_ids"]),
        gt_suffix="",
        list_suffix="",
    )


class InstanceRun(ComparableRun):
    """A finished instance run: its tables as pyarrow tables, its scores, and SQL over all of it.

    `folder` is the run folder, `facts` the content of run.json, `area` the range of ground-truth pixels that
    counts. Tables are read on first use.
    """

    def __init__(self, folder: Place) -> None:
        super().__init__(folder, schema.INSTANCE)
        self.space = _space_of(self.facts)
        self.area = _area_of(self.facts)

    def __repr__(self) -> str:
        return (
            f"<InstanceRun {self.folder}: {self.facts['images_scored']} images, "
            f"AP {self.ap():.4f}, AP50 {self.ap50():.4f}>"
        )

    def ap(self, protocol: str = "autonue") -> float:
        """The mean AP over thresholds 0.5 to 0.95 and classes; NaN where no class has ground truth.

        Raises OptionError for an unknown protocol.
        """
        return self._score("ap", protocol)

    def ap50(self, protocol: str = "autonue") -> float:
        """The mean AP at threshold 0.5. Raises OptionError for an unknown protocol."""
        return self._score("ap50", protocol)

    def _score(self, name: str, protocol: str) -> float:
        self.check_protocol(protocol)
        return float({row["protocol"]: row[name] for row in self.scores.to_pylist()}[protocol])

    @cached_property
    def scores(self) -> pa.Table:
        """One row per protocol: AP and AP50."""
        return self.table("scores")

    @cached_property
    def classes(self) -> pa.Table:
        """One row per protocol and class: AP, AP50 and how many instances there are."""
        return self.table("classes")

    @cached_property
    def average_precision(self) -> pa.Table:
        """One row per protocol, class and threshold: AP, TP, FP, FN."""
        return self.table("ap")

    @cached_property
    def curves(self) -> pa.Table:
        """The points of the precision-recall curves at 0.5 and 0.75."""
        return self.table("curves")

    @cached_property
    def images(self) -> pa.Table:
        """One row per image of the split, also of those that could not be counted."""
        return self.table("images")

    @cached_property
    def instances(self) -> pa.Table:
        """One row per prediction and per ground-truth instance: what became of it, and why."""
        return self.table("instances")

    @cached_property
    def intersections(self) -> pa.Table:
        """Pixels that each mask shares with each instance, group and void value."""
        return self.table("intersections")

    def instance_table(self) -> InstanceTable:
        """The overlaps of the whole run in the form that `gpu_eval.metrics.matching` judges."""
        return instance_tables.to_instance_table(self.instances, self.intersections)

    @property
    def protocols(self) -> Sequence[str]:
        return tuple(PROTOCOLS)

    @property
    def board_columns(self) -> Mapping[str, tuple[int | str, str]]:
        return {measure.upper(): (measure, measure) for measure in MEASURES}

    @property
    def rules(self) -> Mapping[str, tuple[object, str]]:
        labels = self.facts["labels"]
        low, high = self.area
        return {
            "label spaces": ((labels["name"], self.space.digest()), labels["name"]),
            "area ranges": (self.area, f"{low:g} to {high:g} pixels"),
        }

    def classes_of(self, scored: int | str) -> Sequence[tuple[int, str]]:  # noqa: ARG002
        return list(zip(self.space.ids, self.space.names, strict=True))

    def image_counts(self) -> InstanceCounts:
        # Not the cached tables: a board goes through many runs.
        instances, intersections = self.table("instances"), self.table("intersections")
        table = instance_tables.to_instance_table(instances, intersections)
        return instance_counts.count(self.table("images"), table, self.space, self.area)


def finish(folder: Place, facts: Mapping[str, Any], space: InstanceSpace, area: tuple[float, float]) -> None:
    """Read the parts of a run, write the tables of the whole, then run.json as complete.

    Raises CorruptRun where the parts do not hold every image of the run.
    """
    run = _Unfinished(folder, facts)
    images = run.table("images").num_rows
    if images != facts["images"]:
        raise CorruptRun(
            "a part of the run is missing",
            file=str(folder / "images"),
            found=f"{images} images",
            expected=str(facts["images"]),
            fix="run again with --resume to restore it",
        )
    table = instance_tables.to_instance_table(run.table("instances"), run.table("intersections"))
    for name, total in instance_tables.totals(table, space, area).items():
        write_table(folder / f"{name}.parquet", total)
    write_facts(folder, {**facts, "complete": True})


class _Unfinished(RunFolder):
    """The parts of a run that is about to be complete."""

    def __init__(self, folder: Place, facts: Mapping[str, Any]) -> None:
        self.folder, self.facts = folder, dict(facts)


def area_facts(area: tuple[float, float]) -> list[float | None]:
    """An area range for run.json, which has no infinity."""
    return [None if math.isinf(bound) else bound for bound in area]


def _area_of(facts: Mapping[str, Any]) -> tuple[float, float]:
    low, high = (math.inf if bound is None else bound for bound in facts["decides"]["area"])
    return low, high
