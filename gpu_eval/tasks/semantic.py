"""The semantic task: a shard's label maps are counted, its part is committed, a tally comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from gpu_eval.engines.engine import ImageResult, ScoreTask
from gpu_eval.errors import FatalImage, MissingPrediction, UnreadableFile
from gpu_eval.inputs.pairs import Pair
from gpu_eval.labels import LabelSpace
from gpu_eval.run_folder import manifest
from gpu_eval.run_folder import semantic_tables as tables
from gpu_eval.run_folder.semantic_tables import ImageRow
from gpu_eval.tasks.process_cache import Tools, Workplace
from gpu_eval.tasks.summary import FACTS, WARNINGS_KEPT, Tally, count_values, to_error
from gpu_eval.tasks.task import ShardWork

# In the order of writing: the images table is the commit.
PART_TABLES = ("cells", "image_classes", "images")


@dataclass(frozen=True)
class SemanticWork(ShardWork[Pair, ImageResult]):
    """The work on label maps."""

    part_tables = PART_TABLES
    told_by = ("images", "cells")

    workplace: Workplace
    task: ScoreTask
    labels: LabelSpace

    def images(self, rows: pa.Table) -> list[Pair]:
        return manifest.to_pairs(rows)

    def count(self, images: Sequence[Pair], tools: Tools) -> list[ImageResult]:
        return tools.engine.score(images, tools.gts, tools.preds, self.task)

    def is_unread(self, result: ImageResult) -> bool:
        return isinstance(result.error, UnreadableFile)

    def given_up(self, error: FatalImage) -> ImageResult:
        return ImageResult(error=error)

    def part(self, first: int, images: Sequence[Pair], results: Sequence[ImageResult]) -> dict[str, pa.Table]:
        rows = [_row(first + i, pair, results[i]) for i, pair in enumerate(images)]
        return tables.part(rows, [result.confusion for result in results], self.labels)

    def tally(self, part: dict[str, pa.Table]) -> Tally:
        images = part["images"]
        tally = Tally(images.num_rows, confusion=tables.total_of_cells(part["cells"], self.labels.n_classes))
        for name in ("status", "decoder"):
            count_values(tally, name, images[name].drop_null().value_counts().to_pylist())
        for name in ("gt_outside", "pred_outside"):
            tally.counts[name] += int(images[name].drop_null().to_numpy().sum())
        tally.counts["warnings"] += images.num_rows - images["warning"].null_count
        tally.warnings = [
            f"{key}: {warning}"
            for key, warning in zip(images["key"].to_pylist(), images["warning"].to_pylist(), strict=True)
            if warning is not None
        ][:WARNINGS_KEPT]
        columns = ["error_kind", "error", *(f"error_{name}" for name in FACTS[1:])]
        failed = images.filter(images["error_kind"].is_valid()).select(columns)
        problems = [to_error(row) for row in failed.rename_columns(["kind", *FACTS]).to_pylist()]
        # Missing predictions are left out: pairing has told them.
        tally.problems = [e for e in problems if not isinstance(e, MissingPrediction)]
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
