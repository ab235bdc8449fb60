"""What a run of label maps says per image: the sums that its scores are made of, read back from its parts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from gpu_eval.labels import LabelSpace
from gpu_eval.metrics import bootstrap
from gpu_eval.metrics.bootstrap import Units
from gpu_eval.metrics.confusion import Counts, Ratios
from gpu_eval.metrics.semantic_sums import Columns
from gpu_eval.results.images import ScoredImages, Scores, digest_of_keys
from gpu_eval.run_folder import parts
from gpu_eval.storage import Place

# A cell of an image's matrix, as fingerprints take it in: rows, so that the size of shards does not matter.
_CELL = np.dtype([("image", "<i8"), ("gt", "<i2"), ("pred", "<i2"), ("pixels", "<i8")])


@dataclass(frozen=True, eq=False, kw_only=True)
class SemanticImages(ScoredImages):
    """The matrices of a semantic run: `sums` is int64 (images, `columns.width`), see `Columns`.

    `gt` has n + 1 columns, pixels of each ground-truth class, void last. `total` is the sum of all matrices
    of the run, (n + 1, n + 1), rows gt, columns prediction.
    """

    columns: Columns
    sums: Counts
    total: Counts

    def take(self, index: Counts) -> Self:
        return replace(self, **self._taken(index), sums=self.sums[index])

    def scores(self) -> Scores:
        return self.columns.scores(self.sums.sum(axis=0))

    def resampled(
        self, resamples: int, seed: int, protocols: Sequence[str] | None = None
    ) -> tuple[Scores, Units]:
        units = bootstrap.units(self.drives)
        drawn = bootstrap.resample(units.sums(self.sums), resamples if units.count > 1 else 0, seed)
        return self.columns.scores(drawn, protocols), units

    def image_scores(self) -> Mapping[int | str, Ratios]:
        """mIoU under protocol idd per level, as in the images table."""
        return {level: miou for (_, level), (miou, _) in self.columns.scores(self.sums, ["idd"]).items()}


def read(folder: Place, facts: Mapping[str, Any], labels: LabelSpace) -> SemanticImages:
    """Read the parts of the run that `facts` (of run.json) describe, one at a time.

    Raises CorruptRun where a part is lost or cannot be read.
    """
    columns = Columns(labels)
    size = labels.n_classes + 1
    keys: list[str] = []
    drives: list[str] = []
    missing: list[str] = []
    sums = [np.zeros((0, columns.width), np.int64)]
    gts = [np.zeros((0, size), np.int64)]
    matrices = hashlib.sha256()
    total = np.zeros(size**2, np.int64)
    wanted = {"images": ["image_id", "key", "drive", "status"], "cells": ["image_id", "gt", "pred", "pixels"]}
    for part in parts.read_all(folder, facts, wanted):
        images, cells = part["images"], part["cells"]
        scored = images["status"].to_numpy() != "error"
        key, drive = images["key"].to_numpy(), images["drive"].to_numpy()
        missing += key[~scored].tolist()
        ids = images["image_id"].to_numpy()[scored]
        image = np.searchsorted(ids, cells["image_id"].to_numpy())
        gt = cells["gt"].to_numpy().astype(np.int64)
        pred, pixels = cells["pred"].to_numpy().astype(np.int64), cells["pixels"].to_numpy()
        content = np.empty(pixels.size, _CELL)
        content["image"], content["gt"] = image + len(keys), gt
        content["pred"], content["pixels"] = pred, pixels
        matrices.update(content.tobytes())
        of_gt = np.bincount(image * size + gt, pixels, ids.size * size)  # below 2^53: exact in float64
        gts.append(of_gt.astype(np.int64).reshape(ids.size, size))
        sums.append(columns.count(gt * size + pred, image, pixels, ids.size))
        total += np.bincount(gt * size + pred, pixels, size**2).astype(np.int64)
        keys += key[scored].tolist()
        drives += drive[scored].tolist()
    gt_pixels = np.concatenate(gts)
    names = digest_of_keys(keys)
    prints = [
        hashlib.sha256(names + of_side).hexdigest()
        for of_side in (gt_pixels.astype("<i8").tobytes(), matrices.digest())
    ]
    return SemanticImages(
        columns=columns,
        keys=tuple(keys),
        drives=tuple(drives),
        sums=np.concatenate(sums),
        gt=gt_pixels,
        missing=frozenset(missing),
        gt_fingerprint=prints[0],
        pred_fingerprint=prints[1],
        total=total.reshape(size, size),
    )
