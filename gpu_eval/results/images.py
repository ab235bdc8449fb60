"""What the parts of a run say per image, read back for everything that resamples or compares images."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from gpu_eval.errors import CorruptRun
from gpu_eval.labels import LabelSpace
from gpu_eval.metrics import bootstrap
from gpu_eval.metrics.bootstrap import Columns, Units
from gpu_eval.metrics.confusion import Counts, Ratios
from gpu_eval.storage import Place, read_table

# A cell of an image's matrix, as fingerprints take it in: rows, so that the size of shards does not matter.
_CELL = np.dtype([("image", "<i8"), ("gt", "<i2"), ("pred", "<i2"), ("pixels", "<i8")])

# Protocol and what is scored under it: the number of a level of label maps, or "ap" and "ap50" of instances.
Score = tuple[str, Any]

# The mean over classes (...), and each class's own score (..., n).
Scores = Mapping[Score, tuple[Ratios, Ratios]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Counted(ABC):
    """The scored images of a run in the order of the split: all that comparing and ranking need of it.

    `gt` is int64 (images, k), equal where the ground truth of an image is. `missing` are the keys of images
    that could not be scored. The fingerprints are SHA-256 over keys and ground truth, and over these and the
    predictions: content, not files, so they are the same wherever the files lie and however they are packed.
    """

    keys: tuple[str, ...]
    drives: tuple[str, ...]
    gt: Counts
    missing: frozenset[str]
    gt_fingerprint: str
    pred_fingerprint: str

    @abstractmethod
    def take(self, index: Counts) -> Self:
        """The same of some of the images; the fingerprints stay those of all."""

    @abstractmethod
    def scores(self) -> Scores:
        """The scores of these images together."""

    @abstractmethod
    def resampled(
        self, resamples: int, seed: int, protocols: Sequence[str] | None = None
    ) -> tuple[Scores, Units]:
        """The scores of every resample (first axis) under these protocols (default: all), and what was drawn.

        There are no resamples of fewer than two units.
        """

    @abstractmethod
    def image_scores(self) -> Mapping[int | str, Ratios]:
        """A score of each image alone, (images,): per level of label maps, per protocol of instances."""

    def _taken(self, index: Counts) -> dict[str, Any]:
        """The fields that every kind of run has, of some of the images."""
        return {
            "keys": tuple(self.keys[i] for i in index),
            "drives": tuple(self.drives[i] for i in index),
            "gt": self.gt[index],
        }


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageCounts(Counted):
    """The matrices of a semantic run: `sums` is int64 (images, `columns.width`), see `Columns`.

    `gt` has n + 1 columns, pixels of each ground-truth class, void last.
    """

    columns: Columns
    sums: Counts

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


def digest_of_keys(keys: Sequence[str]) -> bytes:
    """SHA-256 of the names of images, each with a zero byte behind it: what all fingerprints begin with."""
    return hashlib.sha256("".join(f"{key}\0" for key in keys).encode("utf-8", "surrogateescape")).digest()


def read(folder: Place, labels: LabelSpace, images_expected: int) -> ImageCounts:
    """Read the parts of a run folder, one at a time.

    Raises CorruptRun for a part that cannot be read, or where the parts do not hold as many images as the
    run has: a lost part is lost images.
    """
    columns = Columns(labels)
    size = labels.n_classes + 1
    keys: list[str] = []
    drives: list[str] = []
    missing: list[str] = []
    sums = [np.zeros((0, columns.width), np.int64)]
    gts = [np.zeros((0, size), np.int64)]
    matrices = hashlib.sha256()
    for name in sorted(path.name for path in (folder / "images").glob("part-*.parquet")):
        images = read_table(folder / "images" / name, ["image_id", "key", "drive", "status"])
        cells = read_table(folder / "cells" / name, ["image_id", "gt", "pred", "pixels"])
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
        keys += key[scored].tolist()
        drives += drive[scored].tolist()
    if len(keys) + len(missing) != images_expected:
        raise CorruptRun(
            "a part of the run is missing",
            file=str(folder / "images"),
            found=f"{len(keys) + len(missing)} images",
            expected=f"{images_expected}",
            fix="run again with --resume to restore it, or with --overwrite",
        )
    gt_pixels = np.concatenate(gts)
    names = digest_of_keys(keys)
    prints = [
        hashlib.sha256(names + of_side).hexdigest()
        for of_side in (gt_pixels.astype("<i8").tobytes(), matrices.digest())
    ]
    return ImageCounts(
        columns=columns,
        keys=tuple(keys),
        drives=tuple(drives),
        sums=np.concatenate(sums),
        gt=gt_pixels,
        missing=frozenset(missing),
        gt_fingerprint=prints[0],
        pred_fingerprint=prints[1],
    )
