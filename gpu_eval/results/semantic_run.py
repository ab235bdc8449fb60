"""A semantic run: its tables of totals, and a finished run opened again.

Everything here is recomputed from matrices, never from pixels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gpu_eval.labels import LabelSpace, Level
from gpu_eval.metrics import bootstrap
from gpu_eval.metrics import confusion as cm
from gpu_eval.results import images as counts
from gpu_eval.results.comparability import ComparableRun
from gpu_eval.results.images import ImageCounts
from gpu_eval.run_folder import schema
from gpu_eval.run_folder import semantic_tables as tables
from gpu_eval.run_folder.folder import write_facts
from gpu_eval.storage import Place, place, write_table

if TYPE_CHECKING:
    import altair as alt


def finish(
    folder: Place,
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


class Run(ComparableRun):
    """A finished semantic run: its tables as pyarrow tables, its scores, and SQL over all of it.

    `folder` is the run folder and `facts` the content of run.json. Tables are read on first use.
    """

    def __init__(self, folder: Place) -> None:
        super().__init__(folder, schema.SEMANTIC)
        self.labels = _labels_of(self.facts)

    def __repr__(self) -> str:
        means = ", ".join(f"L{v.number} {self.miou(v.number):.4f}" for v in self.labels.levels)
        return f"<Run {self.folder}: {self.facts['images_scored']} images, mIoU {means}>"

    def _repr_html_(self) -> str:
        from gpu_eval.page.notebook import summary

        return summary(self)

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
    def classes(self) -> pa.Table:
        """One row per protocol, level and class: counts, IoU, precision, recall, Dice."""
        return self.table("classes")

    @cached_property
    def images(self) -> pa.Table:
        """One row per image of the split, also of those that could not be scored."""
        return self.table("images")

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
    def board_columns(self) -> Mapping[str, tuple[int | str, str]]:
        return {f"L{v.number}": (v.number, f"miou_level{v.number}") for v in self.labels.levels}

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

    def image_counts(self) -> ImageCounts:
        return counts.read(self.folder, self.labels, self.facts["images"])

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
        means = {(row["level"], row["protocol"]): row["miou"] for row in self.levels.to_pylist()}
        return float(means[number, protocol])


def open_run(location: str | os.PathLike[str]) -> Run:
    """Open a semantic run, in a folder or at an fsspec URL.

    Raises
        CorruptRun: not a run folder, or one that cannot be read.
        IncompleteRun: the run was stopped before its end.
        WrongKind: a run of instances.
    """
    return Run(place(location))
