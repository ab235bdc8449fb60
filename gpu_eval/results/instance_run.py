"""A run of instances: its tables of totals, and a finished run opened again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from gpu_eval.metrics import bootstrap
from gpu_eval.metrics.matching import PROTOCOLS
from gpu_eval.results import instance_images
from gpu_eval.results.instance_images import MEASURES, InstanceImages
from gpu_eval.results.run import ClassScore, Score, ScoredRun
from gpu_eval.run_folder import instance_schema as schema
from gpu_eval.run_folder import instance_tables as tables
from gpu_eval.run_folder.folder import write_facts
from gpu_eval.run_folder.schema import RunTables
from gpu_eval.storage import Place, write_table


def finish(folder: Place, facts: Mapping[str, Any], *, resamples: int = 0) -> None:
    """Write the tables of the whole run, with intervals from so many resamples, then run.json as complete.

    Raises CorruptRun where a part of the run is lost.
    """
    space, area = schema.space_of(facts), schema.area_of(facts)
    counted = instance_images.read(folder, facts, space, area)
    samples, units = counted.resampled(resamples, bootstrap.SEED)
    intervals = {
        key: tables.Interval(bootstrap.interval(mean), bootstrap.interval(per_class))
        for key, (mean, per_class) in samples.items()
    }
    for name, table in tables.totals(counted.judged, intervals).items():
        write_table(folder / f"{name}.parquet", table)
    told = {
        "intervals": bootstrap.describe(units, resamples),
        "gt_fingerprint": counted.gt_fingerprint,
        "pred_fingerprint": counted.pred_fingerprint,
    }
    write_facts(folder, {**facts, **told, "complete": True})


class InstanceRun(ScoredRun):
    """A finished run of instances: its tables as pyarrow tables, its scores, and SQL over all of it.

    `folder` is the run folder, `facts` the content of run.json, `space` the classes and `area` the range of
    ground-truth pixels that counts. Tables are read on first use.
    """

    task = "instance"

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

    def score_of(self, scored: int | str, protocol: str) -> Score:
        self.check_protocol(protocol)
        row = {row["protocol"]: row for row in self.scores.to_pylist()}[protocol]
        # Format 2 had no intervals here.
        return Score(*(row.get(f"{scored}{bound}", math.nan) for bound in ("", "_low", "_high")))

    def class_scores(self, scored: int | str, protocol: str) -> Sequence[ClassScore]:
        return [
            ClassScore(row["class_name"], row[str(scored)], None)
            for row in self.classes.to_pylist()
            if row["protocol"] == protocol
        ]

    def image_counts(self) -> InstanceImages:
        return instance_images.read(self.folder, self.facts, self.space, self.area)


RUN = InstanceRun
