"""What a run of label maps says per image: the sums that its scores are made of, read back from its parts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gpu_eval.labels import LabelSpace
from gpu_eval.metrics import units as kinds
from gpu_eval.metrics.confusion import Counts, Ratios
from gpu_eval.metrics.semantic_sums import Columns, columns_of
from gpu_eval.metrics.uncertainty import Parts
from gpu_eval.metrics.units import Units
from gpu_eval.results.images import Key, ScoredImages, digest_of_keys
from gpu_eval.run_folder import parts
from gpu_eval.storage import Place

# A cell of an image's matrix, as fingerprints take it in: rows, so that the size of shards does not matter.
_CELL = np.dtype([("image", "<i8"), ("gt", "<i2"), ("pred", "<i2"), ("pixels", "<i8")])

# Units at a time, of which a dense table of cells is made.
CHUNK = 2048


@dataclass(frozen=True, eq=False, kw_only=True)
class SemanticImages(ScoredImages):
    """The matrices of a run of label maps, as the cells that are not empty.

    `image` (place in `keys`), `cell` (gt * (n + 1) + pred) and `pixels` have an entry per cell; `columns`
    says what scores are made of. `gt` has n + 1 columns, pixels of each ground-truth class, void last.
    `total` is the sum of all matrices of the run, (n + 1, n + 1), rows gt, columns prediction.
    """

    columns: Columns
    image: npt.NDArray[np.int32]
    cell: npt.NDArray[np.int32]
    pixels: Counts
    total: Counts

    def take(self, index: Counts) -> Self:
        place = np.full(len(self.keys), -1, np.int32)
        place[index] = np.arange(index.size)
        kept = np.flatnonzero(place[self.image] >= 0)
        return replace(
            self,
            **self._taken(index),
            image=place[self.image[kept]],
            cell=self.cell[kept],
            pixels=self.pixels[kept],
        )

    def sums(self, units: Units) -> Counts:
        """The columns of each unit, int64 (units, `columns.width`).

        Cells are added up by unit before they become columns: there are far fewer units than images.
        """
        unit, cell, pixels = units.of_image[self.image], self.cell, self.pixels
        if (np.diff(unit) < 0).any():
            order = np.argsort(unit, kind="stable")
            unit, cell, pixels = unit[order], cell[order], pixels[order]
        result = np.zeros((units.count, self.columns.width), np.int64)
        for first in range(0, units.count, CHUNK):
            last = min(first + CHUNK, units.count)
            begin, end = np.searchsorted(unit, (first, last))
            some = slice(begin, end)
            result[first:last] = self.columns.count(
                cell[some], unit[some] - first, pixels[some], last - first
            )
        return result

    def parts(self, units: Units, protocols: Sequence[str] | None = None) -> Mapping[Key, Parts]:
        sums = self.sums(units)
        return {
            (protocol, level): self.columns.iou(sums, protocol, level)
            for protocol, level in self.columns.scored
            if protocols is None or protocol in protocols
        }

    def accuracies(self, units: Units) -> Mapping[Key, Parts]:
        """The pixel accuracy of every protocol and level, a mean of one part."""
        sums = self.sums(units)
        return {key: self.columns.pixel_accuracy(sums, *key) for key in self.columns.scored}

    def image_scores(self) -> Mapping[int | str, Ratios]:
        """mIoU under protocol idd per level, as in the images table."""
        scores = self.columns.scores(self.sums(kinds.images(len(self.keys))), ["idd"])
        return {level: miou for (_, level), (miou, _) in scores.items()}


def read(folder: Place, facts: Mapping[str, Any], labels: LabelSpace) -> SemanticImages:
    """Read the parts of the run that `facts` (of run.json) describe, one at a time.

    Raises CorruptRun where a part is lost or cannot be read.
    """
    size = labels.n_classes + 1
    keys: list[str] = []
    drives: list[str] = []
    missing: list[str] = []
    at = [np.zeros(0, np.int32)]
    which = [np.zeros(0, np.int32)]
    counts = [np.zeros(0, np.int64)]
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
        at.append((image + len(keys)).astype(np.int32))
        which.append((gt * size + pred).astype(np.int32))
        counts.append(pixels)
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
        columns=columns_of(labels),
        keys=tuple(keys),
        drives=tuple(drives),
        image=np.concatenate(at),
        cell=np.concatenate(which),
        pixels=np.concatenate(counts),
        gt=gt_pixels,
        missing=frozenset(missing),
        gt_fingerprint=prints[0],
        pred_fingerprint=prints[1],
        total=total.reshape(size, size),
    )
