"""A run of label maps: its tables of totals, and a finished run opened again.

Everything here is recomputed from matrices, never from pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gpu_eval.doctor.classes import judge_total
from gpu_eval.doctor.doubt import Doubt
from gpu_eval.metrics import confusion as cm
from gpu_eval.metrics import uncertainty
from gpu_eval.metrics.units import Units
from gpu_eval.results import semantic_images
from gpu_eval.results.run import BoardColumn, ClassScore, Score, ScoredRun
from gpu_eval.results.semantic_images import SemanticImages
from gpu_eval.run_folder import semantic_schema as schema
from gpu_eval.run_folder import semantic_tables as tables
from gpu_eval.run_folder.schema import RunTables
from gpu_eval.storage import Place

if TYPE_CHECKING:
    import altair as alt

    from gpu_eval.page.worst_images import Pictures


class Run(ScoredRun):
    """A finished run of label maps: its tables as pyarrow tables, its scores, and SQL over all of it.

    `folder` is the run folder, `facts` the content of run.json, `labels` the label space without its
    encodings. Tables are read on first use.
    """

    kind = "semantic"
    void_means = "counted as predicted void"

    def __init__(self, folder: Place) -> None:
        super().__init__(folder)
        self.labels = schema.labels_of(self.facts)

    @property
    def tables(self) -> RunTables:
        return schema.tables([level.number for level in self.labels.levels])

    def page(self, pictures: Pictures | None = None) -> str:
        """The text of the run's HTML page. Raises OptionError where the plotting libraries are missing."""
        from gpu_eval.page import html

        return html.page(self, pictures)

    def plot_confusion(self, level: int | None = None) -> alt.LayerChart:
        """The confusion matrix of a level (default: the finest) as an Altair heat map.

        Rows are gt, columns prediction; cells are shares of the row. Raises OptionError where Altair is not
        installed.
        """
        from gpu_eval.page import charts as plots

        return plots.confusion(self, self.labels.level(level).number)

    def plot_classes(self, level: int | None = None, protocol: str | None = None) -> alt.LayerChart:
        """The IoU of each class as an Altair bar chart, with intervals where the run has them.

        `level` defaults to the finest, `protocol` to the label space's first. Raises OptionError where
        Altair is not installed.
        """
        from gpu_eval.page import charts as plots

        return plots.classes(self, self.labels.level(level).number, protocol or self.labels.protocols[0])

    @cached_property
    def levels(self) -> pa.Table:
        """One row per protocol and level: mIoU and accuracies."""
        return self.table("levels")

    @cached_property
    def image_classes(self) -> pa.Table:
        """One row per image, level and class that occurs in it."""
        return self.table("image_classes")

    @cached_property
    def cells(self) -> pa.Table:
        """One row per non-zero cell of each image's confusion matrix."""
        return self.table("cells")

    @property
    def protocols(self) -> Sequence[str]:
        return self.labels.protocols

    @property
    def board_columns(self) -> Mapping[str, BoardColumn]:
        return {
            f"L{v.number}": BoardColumn(
                v.number, f"miou_level{v.number}", f"mIoU, level {v.number} ({len(v.names)} classes)"
            )
            for v in self.labels.levels
        }

    @property
    def rules(self) -> Mapping[str, tuple[object, str]]:
        labels, size = self.facts["labels"], self.facts["decides"]["resolution"]
        return {
            "label spaces": ((labels["name"], labels["levels"]), labels["name"]),
            "protocols": (labels["protocols"], ", ".join(labels["protocols"])),
            # Of all maps, (height, width); people write the width first.
            "resolutions": (size, str(size) if isinstance(size, str) else f"{size[1]}x{size[0]}"),
        }

    def classes_of(self, scored: int | str) -> Sequence[tuple[int, str]]:
        assert isinstance(scored, int)
        return list(enumerate(self.labels.level(scored).names))

    def score_of(self, scored: int | str, protocol: str) -> Score:
        assert isinstance(scored, int)
        row = self._means[self.labels.level(scored).number, protocol]
        return Score(row["miou"], *(row[f"miou_{column}"] for column in ("low", "high", "df", "reason")))

    def class_scores(self, scored: int | str, protocol: str) -> Sequence[ClassScore]:
        assert isinstance(scored, int)
        return [
            ClassScore(row["class_name"], row["iou"], self.labels.css_colour(scored, row["class_id"]))
            for row in self.classes.to_pylist()
            if (row["level"], row["protocol"]) == (scored, protocol)
        ]

    @classmethod
    def read_images(cls, folder: Place, facts: Mapping[str, Any]) -> SemanticImages:
        return semantic_images.read(folder, facts, schema.labels_of(facts))

    @classmethod
    def totals(cls, images: SemanticImages, units: Units | None) -> Mapping[str, pa.Table]:
        scores = ({}, {}) if units is None else (images.parts(units), images.accuracies(units))
        found = (
            {key: uncertainty.intervals(parts, units) for key, parts in of.items() if units is not None}
            for of in scores
        )
        return tables.totals(images.total, images.columns.labels, *found)

    @classmethod
    def judge(cls, images: SemanticImages) -> Sequence[Doubt]:
        return judge_total(images.total, images.columns.labels)

    def table(self, name: str) -> pa.Table:
        table = super().table(name)
        return schema.with_errors(table) if name == "images" else table

    def confusion(self, level: int | None = None) -> npt.NDArray[np.int64]:
        """The confusion matrix of the whole split at a level (default: the finest).

        int64, shape (n + 1, n + 1), rows gt, columns prediction, last index void. Raises OptionError
        for a level that the label space does not have.
        """
        finest = self.labels.n_classes + 1
        total = self.table("confusion")["pixels"].to_numpy().reshape(finest, finest)
        wanted = self.labels.level(level)
        return cm.roll_up(total, wanted.groups)

    def miou(self, level: int | None = None, protocol: str = "idd") -> float:
        """The mean IoU of a level (default: the finest); NaN where the protocol gives none.

        Raises OptionError for a level or protocol that the run does not have.
        """
        number = self.labels.level(level).number
        self.check_protocol(protocol)
        return float(self._means[number, protocol]["miou"])

    @cached_property
    def _means(self) -> Mapping[tuple[int, str], Mapping[str, Any]]:
        return {(row["level"], row["protocol"]): row for row in self.levels.to_pylist()}


RUN = Run
