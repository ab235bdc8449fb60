"""A shard's work, where engines meet the report: score the pairs, commit the part, return a tally."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gpu_eval import errors
from gpu_eval.engines.engine import Engine, ImageResult, ScoreTask
from gpu_eval.errors import GpuEvalError, MissingPrediction
from gpu_eval.inputs.pairs import Pair
from gpu_eval.inputs.sources import Source
from gpu_eval.labels import LabelSpace
from gpu_eval.report import tables
from gpu_eval.report.tables import ImageRow
from gpu_eval.scheduling import shards as sharding
from gpu_eval.scheduling.shards import Shard

# Warnings and errors differ per image; of each kind the first few are told, the rest are in the tables.
WARNINGS_KEPT = 5


@dataclass(slots=True)
class Tally:
    """What is known of a shard after its work, and of a run after all of it.

    `confusion`: int64, shape (n + 1, n + 1), rows gt, columns prediction, void last. `problems` leaves
    missing predictions out: the pairing has told them already.
    """

    confusion: npt.NDArray[np.int64]
    images: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[GpuEvalError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def __iadd__(self, other: Tally) -> Tally:
        self.confusion += other.confusion
        self.images += other.images
        self.counts += other.counts
        self.problems += other.problems
        self.warnings = (self.warnings + other.warnings)[:WARNINGS_KEPT]
        return self


@dataclass(frozen=True)
class ShardWork:
    """Everything needed to score any shard of a run."""

    folder: Path
    fingerprint: str
    pairs: Sequence[Pair]
    engine: Engine
    gts: Source
    preds: Source
    task: ScoreTask
    labels: LabelSpace

    def __call__(self, shard: Shard) -> Tally:
        """Score a shard and commit its part."""
        pairs = self.pairs[shard.first : shard.last]
        results = self.engine.score(pairs, self.gts, self.preds, self.task)
        rows = [_row(shard.first + i, pair, results[i]) for i, pair in enumerate(pairs)]
        part = tables.part(rows, [result.confusion for result in results], self.labels)
        sharding.commit(self.folder, shard, part, self.fingerprint)
        return self._tally(part)

    def is_done(self, shard: Shard) -> bool:
        """Whether an earlier run has committed the shard. Raises CorruptRun for a foreign part."""
        return sharding.is_committed(self.folder, shard, self.fingerprint)

    def recall(self, shard: Shard) -> Tally:
        """The tally of a shard that an earlier run has committed."""
        return self._tally(
            {name: sharding.read_parts(self.folder, name, [shard]) for name in ("images", "cells")}
        )

    def _tally(self, part: dict[str, pa.Table]) -> Tally:
        images = part["images"]
        tally = Tally(tables.total_of_cells(part["cells"], self.labels.n_classes), images.num_rows)
        for name in ("status", "decoder"):
            values = images[name].drop_null().value_counts().to_pylist()
            tally.counts.update({f"{name} {value['values']}": value["counts"] for value in values})
        for name in ("gt_outside", "pred_outside"):
            tally.counts[name] += int(images[name].drop_null().to_numpy().sum())
        tally.counts["warnings"] += images.num_rows - images["warning"].null_count
        tally.warnings = [
            f"{key}: {warning}"
            for key, warning in zip(images["key"].to_pylist(), images["warning"].to_pylist(), strict=True)
            if warning is not None
        ][:WARNINGS_KEPT]
        columns = ["error_kind", "error", "error_file", "error_found", "error_expected", "error_fix"]
        failed = images.filter(images["error_kind"].is_valid()).select(columns)
        tally.problems = [_error(row) for row in failed.to_pylist()]
        tally.problems = [e for e in tally.problems if not isinstance(e, MissingPrediction)]
        return tally


def _row(image_id: int, pair: Pair, result: ImageResult) -> ImageRow:
    gt_height, gt_width = result.gt_size or (None, None)
    pred_height, pred_width = result.pred_size or (None, None)
    counted = result.confusion is not None
    status = "error" if not counted else "ok" if result.error is None else "void"
    return ImageRow(
        image_id=image_id,
        key=pair.key,
        drive=pair.drive,
        gt_file=pair.gt.name,
        pred_file=pair.pred.name if pair.pred else None,
        gt_height=gt_height,
        gt_width=gt_width,
        pred_height=pred_height,
        pred_width=pred_width,
        decoder=result.decoder,
        status=status,
        error_kind=result.error.kind if result.error else None,
        error=result.error.message if result.error else None,
        error_file=result.error.file if result.error else None,
        error_found=result.error.found if result.error else None,
        error_expected=result.error.expected if result.error else None,
        error_fix=result.error.fix if result.error else None,
        warning=result.warning,
        gt_outside=result.gt_outside if counted else None,
        pred_outside=result.pred_outside if counted else None,
    )


def _error(row: dict[str, str]) -> GpuEvalError:
    """The error that a row of the images table tells of."""
    kind: type[GpuEvalError] = getattr(errors, row["error_kind"])
    return kind(
        row["error"],
        file=row["error_file"],
        found=row["error_found"],
        expected=row["error_expected"],
        fix=row["error_fix"],
    )
