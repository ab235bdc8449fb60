"""What a run of instances says per image: the overlaps that its scores are made of, read from its parts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Self

import numpy as np
import pyarrow as pa

from gpu_eval.labels.instance_space import InstanceSpace
from gpu_eval.metrics import confusion as cm
from gpu_eval.metrics.average_precision_units import delete_one
from gpu_eval.metrics.confusion import Counts, Ratios
from gpu_eval.metrics.matching import PROTOCOLS, InstanceTable, Outcomes, gt_classes, outcomes, take
from gpu_eval.metrics.uncertainty import Parts
from gpu_eval.metrics.units import Units
from gpu_eval.results.images import Key, ScoredImages, digest_of_keys
from gpu_eval.run_folder import parts
from gpu_eval.run_folder.instance_tables import to_instance_table
from gpu_eval.storage import Place

# What is scored, as in the scores table.
MEASURES = ("ap", "ap50")


@dataclass(frozen=True, eq=False, kw_only=True)
class InstanceImages(ScoredImages):
    """The overlaps of an instance run: `table` numbers images by their place in `keys`.

    `gt` is the SHA-256, as int64 (images, 4), of an image's instances and groups of evaluated classes: values
    and pixels. Of void the run keeps only what predictions lie on, so a change of void alone is not seen.
    """

    table: InstanceTable
    space: InstanceSpace
    area: tuple[float, float]

    @cached_property
    def judged(self) -> Mapping[str, Outcomes]:
        """What became of every instance, per protocol."""
        return {name: outcomes(self.table, self.space, name, area=self.area) for name in PROTOCOLS}

    def take(self, index: Counts) -> Self:
        return replace(self, **self._taken(index), table=take(self.table, index))

    def parts(self, units: Units, protocols: Sequence[str] | None = None) -> Mapping[Key, Parts]:
        found: dict[Key, Parts] = {}
        for protocol in PROTOCOLS if protocols is None else protocols:
            without = delete_one(self.judged[protocol], units)
            found[protocol, "ap"], found[protocol, "ap50"] = without.parts(), without.parts(at_half=True)
        return found

    def image_scores(self) -> Mapping[int | str, Ratios]:
        """F1 at 50 % overlap over all classes, per protocol; NaN for an image without TP, FP and FN.

        AP ranks the predictions of many images; of a single one it says little.
        """
        return {protocol: self._f1(judged) for protocol, judged in self.judged.items()}

    def _f1(self, judged: Outcomes) -> Ratios:
        missed = judged.counted & (judged.found_by[:, 0] < 0)
        tp, fp, fn = (
            np.bincount(image[marked], minlength=len(self.keys))
            for image, marked in (
                (self.table.pred_image, judged.tp[:, 0]),
                (self.table.pred_image, judged.fp[:, 0]),
                (self.table.gt_image, missed),
            )
        )
        return cm.dice(tp, fp, fn)


def read(
    folder: Place, facts: Mapping[str, Any], space: InstanceSpace, area: tuple[float, float]
) -> InstanceImages:
    """Read the parts of the run that `facts` (of run.json) describe.

    Raises CorruptRun where a part is lost or cannot be read.
    """
    columns = {"images": ["image_id", "key", "drive", "status"], "instances": None, "intersections": None}
    read = list(parts.read_all(folder, facts, columns))
    images, instances, intersections = (pa.concat_tables([part[name] for part in read]) for name in columns)
    scored = images["status"].to_numpy() != "error"
    key, drive = images["key"].to_numpy(), images["drive"].to_numpy()
    table = to_instance_table(instances, intersections)
    table = take(table, images["image_id"].to_numpy()[scored])
    keys = tuple(key[scored].tolist())
    names = digest_of_keys(keys)
    gt = _gt_digests(table, space, len(keys))
    content = gt.astype("<i8").tobytes()
    return InstanceImages(
        keys=keys,
        drives=tuple(drive[scored].tolist()),
        gt=gt,
        missing=frozenset(key[~scored].tolist()),
        gt_fingerprint=hashlib.sha256(names + content).hexdigest(),
        pred_fingerprint=hashlib.sha256(names + content + _pred_digest(table)).hexdigest(),
        table=table,
        space=space,
        area=area,
    )


def _gt_digests(table: InstanceTable, space: InstanceSpace, images: int) -> Counts:
    """SHA-256 of the values and pixels of each image's gt, as int64 (images, 4)."""
    kept = np.flatnonzero(gt_classes(table, space) >= 0)
    kept = kept[np.lexsort((table.gt_value[kept], table.gt_image[kept]))]
    rows = np.stack([table.gt_value[kept], table.gt_pixels[kept]], axis=1).astype("<i8")
    ends = np.searchsorted(table.gt_image[kept], np.arange(images + 1))
    digests = [hashlib.sha256(rows[a:b].tobytes()).digest() for a, b in pairwise(ends)]
    return np.frombuffer(b"".join(digests), "<i8").astype(np.int64).reshape(images, 4)


def _pred_digest(table: InstanceTable) -> bytes:
    """SHA-256 of all predictions and of what they lie on."""
    order = np.lexsort((table.gt_value[table.overlap_gt], table.overlap_pred))
    overlaps = table.overlap_pred[order], table.gt_value[table.overlap_gt[order]], table.overlap_pixels[order]
    digest = hashlib.sha256()
    for column in (table.pred_image, table.pred_class, table.confidence, table.pred_pixels, *overlaps):
        digest.update(hashlib.sha256(column.astype(column.dtype.newbyteorder("<")).tobytes()).digest())
    return digest.digest()
