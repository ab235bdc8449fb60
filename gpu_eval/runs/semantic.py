"""The semantic task: a shard's label maps are counted, its part is committed, a tally comes back."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pyarrow as pa

from gpu_eval.engines.engine import ImageResult, ScoreTask
from gpu_eval.errors import MissingPrediction
from gpu_eval.inputs.pairs import Pair
from gpu_eval.labels import LabelSpace
from gpu_eval.report import tables
from gpu_eval.report.tables import ImageRow
from gpu_eval.runs import manifest, workplace
from gpu_eval.runs.tally import FACTS, WARNINGS_KEPT, Tally, count_values, fatal_image, to_error
from gpu_eval.runs.workplace import Workplace
from gpu_eval.scheduling import shards as sharding
from gpu_eval.scheduling.isolate import find_poison
from gpu_eval.scheduling.shards import Shard

# In the order of writing: the images table is the commit.
PART_TABLES = ("cells", "image_classes", "images")


@dataclass(frozen=True)
class SemanticWork:
    """Everything needed to score any shard of a semantic run, in any process that sees its files."""

    workplace: Workplace
    task: ScoreTask
    labels: LabelSpace

    def __call__(self, shard: Shard) -> Tally:
        """Score a shard and commit its part."""
        pairs = manifest.to_pairs(workplace.rows(self.workplace, shard.first, shard.last))
        results, seconds = self._score(pairs, shard)
        scored = time.perf_counter()
        rows = [_row(shard.first + i, pair, results[i]) for i, pair in enumerate(pairs)]
        part = tables.part(rows, [result.confusion for result in results], self.labels)
        sharding.commit(self.workplace.folder, shard, {n: part[n] for n in PART_TABLES}, self._fingerprint)
        tally = self._tally(part)
        tally.seconds.update({**seconds, "write": time.perf_counter() - scored})
        return tally

    def _score(self, pairs: list[Pair], shard: Shard) -> tuple[list[ImageResult], dict[str, float]]:
        """Results in the order of the pairs, and the engine's seconds.

        Images that kill the process are not touched again.
        """
        fatal = {image - shard.first for image in shard.poisoned}
        with workplace.at(self.workplace) as tools:
            healthy = [pair for i, pair in enumerate(pairs) if i not in fatal]
            results = iter(tools.engine.score(healthy, tools.gts, tools.preds, self.task))
            ordered = [
                ImageResult(error=fatal_image(f"{tools.gts.location}/{pair.gt.name}"))
                if i in fatal
                else next(results)
                for i, pair in enumerate(pairs)
            ]
            return ordered, tools.engine.take_seconds()

    def try_image(self, image: int) -> None:
        """Score one image and forget it: what it does to the process is the answer."""
        pairs = manifest.to_pairs(workplace.rows(self.workplace, image, image + 1))
        with workplace.at(self.workplace) as tools:
            tools.engine.score(pairs, tools.gts, tools.preds, self.task)

    def isolate(self, shard: Shard) -> tuple[int, ...]:
        """The images of a shard that kill the process that scores them."""
        return find_poison(self.try_image, shard.first, shard.last, known=shard.poisoned)

    def is_done(self, shard: Shard) -> bool:
        """Whether an earlier run has committed the shard. Raises CorruptRun for a foreign part."""
        return sharding.is_committed(self.workplace.folder, shard, PART_TABLES, self._fingerprint)

    def recall(self, shard: Shard) -> Tally:
        """The tally of a shard that an earlier run has committed."""
        folder = self.workplace.folder
        return self._tally({name: sharding.read_parts(folder, name, [shard]) for name in ("images", "cells")})

    @property
    def _fingerprint(self) -> str:
        return self.workplace.fingerprint

    def _tally(self, part: dict[str, pa.Table]) -> Tally:
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
