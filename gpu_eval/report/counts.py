"""What the parts of a run say per image, read back for everything that resamples or compares images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gpu_eval.errors import CorruptRun
from gpu_eval.labels import LabelSpace
from gpu_eval.metrics import bootstrap
from gpu_eval.metrics.bootstrap import Columns
from gpu_eval.metrics.confusion import Counts, Ratios
from gpu_eval.storage import Place, read_table

# (protocol, level) -> mIoU of each resample (resamples,) and IoU of each class (resamples, n).
Samples = Mapping[tuple[str, int], tuple[Ratios, Ratios]]


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """The scored images of a run in the order of the split.

    `sums` is int64 (images, `columns.width`), see `Columns`; `gt` int64 (images, n + 1), pixels of each
    ground-truth class, void last. `missing` are the keys of images that could not be scored. The
    fingerprints are SHA-256 over keys and ground-truth pixels, and over keys and whole matrices: content,
    not files, so they are the same wherever the files lie and however they are packed.
    """

    columns: Columns
    keys: tuple[str, ...]
    drives: tuple[str, ...]
    sums: Counts
    gt: Counts
    missing: frozenset[str]
    gt_fingerprint: str
    pred_fingerprint: str

    def take(self, index: Counts) -> ImageCounts:
        """The same of some of the images; the fingerprints stay those of all."""
        return ImageCounts(
            self.columns,
            tuple(self.keys[i] for i in index),
            tuple(self.drives[i] for i in index),
            self.sums[index],
            self.gt[index],
            self.missing,
            self.gt_fingerprint,
            self.pred_fingerprint,
        )

    def scores(self) -> dict[tuple[str, int], tuple[Ratios, Ratios]]:
        """The mIoU and the classes' IoU of these images together, per protocol and level."""
        return self.columns.scores(self.sums.sum(axis=0))

    def resampled(self, resamples: int, seed: int) -> tuple[Samples, bootstrap.Units]:
        """The scores of every resample, and what was drawn; no resamples of fewer than two units."""
        units = bootstrap.units(self.drives)
        drawn = bootstrap.resample(units.sums(self.sums), resamples if units.count > 1 else 0, seed)
        return self.columns.scores(drawn), units


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
    names, matrices = hashlib.sha256(), hashlib.sha256()
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
        for one in key[scored]:
            names.update(f"{one}\0".encode("utf-8", "surrogateescape"))
        matrices.update(np.stack([image + len(keys), gt, pred, pixels], axis=1).astype("<i8").tobytes())
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
    prints = [
        hashlib.sha256(names.digest() + content).hexdigest()
        for content in (gt_pixels.astype("<i8").tobytes(), matrices.digest())
    ]
    return ImageCounts(
        columns, tuple(keys), tuple(drives), np.concatenate(sums), gt_pixels, frozenset(missing), *prints
    )
