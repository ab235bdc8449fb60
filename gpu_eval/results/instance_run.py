"""A run of instances: its tables of totals, and a finished run opened again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from gpu_eval.metrics import uncertainty
from gpu_eval.metrics.matching import PROTOCOLS
from gpu_eval.metrics.units import Units
from gpu_eval.results import instance_images
from gpu_eval.results.instance_images import MEASURES, InstanceImages
from gpu_eval.results.run import BoardColumn, ClassScore, Score, ScoredRun
from gpu_eval.run_folder import instance_schema as schema
from gpu_eval.run_folder import instance_tables as tables
from gpu_eval.run_folder.schema import RunTables
from gpu_eval.storage import Place


class InstanceRun(ScoredRun):
    """A finished run of instances: its tables as pyarrow tables, its scores, and SQL over all of it.

    `folder` is the run folder, `facts` the content of run.json, `space` the classes and `area` the range of
    ground-truth pixels that counts. Tables are read on first use.
    """

    kind = "instance"
    void_means = "counted as without predictions"

    def __init__(self, folder: Place) -> None:
        super().__init__(folder)
        self.space = schema.space_of(self.facts)
        self.area = schema.area_of(self.facts)

    @property
    def tables(self) -> RunTables:
        return schema.tables()

    def ap(self, protocol: str = "autonue") -> float:
        """The mean AP over thresholds 0.5 to 0.95 and classes; NaN where no class has ground truth.

        Raises OptionError for an unknown protocol.
        """
        return self.score_of("ap", protocol).value

    def ap50(self, protocol: str = "autonue") -> float:
        """The mean AP at threshold 0.5. Raises OptionError for an unknown protocol."""
        return self.score_of("ap50", protocol).value

    @cached_property
    def scores(self) -> pa.Table:
        """One row per protocol: AP and AP50."""
        return self.table("scores")

    @cached_property
    def average_precision(self) -> pa.Table:
        """One row per protocol, class and threshold: AP, TP, FP, FN."""
        return self.table("ap")

    @cached_property
    def curves(self) -> pa.Table:
        """The points of the precision-recall curves at 0.5 and 0.75."""
        return self.table("curves")

    @cached_property
    def instances(self) -> pa.Table:
        """One row per prediction and per ground-truth instance: what became of it, and why."""
        return self.table("instances")

    @cached_property
    def intersections(self) -> pa.Table:
        """Pixels that each mask shares with each instance, group and void value."""
        return self.table("intersections")

    @property
    def protocols(self) -> Sequence[str]:
        return tuple(PROTOCOLS)

    @property
    def board_columns(self) -> Mapping[str, BoardColumn]:
        titles = {"ap": "AP", "ap50": "AP at 50 % overlap"}
        return {measure.upper(): BoardColumn(measure, measure, titles[measure]) for measure in MEASURES}

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

    def score_of(self, scored: int | str, protocol: str) -> Score:
        self.check_protocol(protocol)
        row = {row["protocol"]: row for row in self.scores.to_pylist()}[protocol]
        return Score(*(row[f"{scored}{column}"] for column in ("", "_low", "_high", "_df", "_reason")))

    def class_scores(self, scored: int | str, protocol: str) -> Sequence[ClassScore]:
        return [
            ClassScore(row["class_name"], row[str(scored)], None)
            for row in self.classes.to_pylist()
            if row["protocol"] == protocol
        ]

    @classmethod
    def read_images(cls, folder: Place, facts: Mapping[str, Any]) -> InstanceImages:
        return instance_images.read(folder, facts, schema.space_of(facts), schema.area_of(facts))

    @classmethod
    def totals(cls, images: InstanceImages, units: Units | None) -> Mapping[str, pa.Table]:
        scores = {} if units is None else images.parts(units)
        found = {
            key: uncertainty.intervals(parts, units) for key, parts in scores.items() if units is not None
        }
        return tables.totals(images.judged, found)


RUN = InstanceRun
