"""A split of instances, looked at before it is scored: the order of fields, the ground truth, the labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gpu_eval.doctor import instance_gt, instance_labels
from gpu_eval.doctor.doubt import Doubt, Sight
from gpu_eval.doctor.instance_gt import GtSeen
from gpu_eval.doctor.instance_labels import MaskSeen
from gpu_eval.doctor.maps import count_instances_readably
from gpu_eval.engines.instance import InstanceJob, InstanceResult
from gpu_eval.inputs.instance_split import InstanceImage, Listed, Prediction
from gpu_eval.labels.instance_coding import recode
from gpu_eval.labels.instance_readings import Reading
from gpu_eval.labels.instance_space import InstanceSpace

# Where a few masks of a few images already are what they are taken for, no more is looked at.
_FIRST_IMAGES, _FIRST_MASKS = 4, 8
# Otherwise so many masks of each image of the sample, and more where there are few images.
_MASKS, _MASKS_IN_ALL = 12, 96
_BATCH = 64  # gts that are scanned at a time
_SWAPPED = 0.75  # of all lines: a confidence per cent may look like a label


@dataclass(frozen=True)
class Means:
    """What a run takes its inputs for: the classes, how labels may be read and are, and the gt's factor."""

    space: InstanceSpace
    readings: Sequence[Reading]
    reading: Reading
    factor: int


def examine(
    listed: Listed, images: Iterable[Sequence[InstanceImage]], means: Means, sight: Sight
) -> list[Doubt]:
    """What looks like a mix-up in a split of instances.

    `listed` has what its predictions say, and the images that are looked at. `images` are all images in
    batches: they are taken only while no instance of an evaluated class has been seen in a gt.
    """
    exchanged = judge_fields(listed)
    if exchanged is not None:
        return [exchanged]
    few = listed.sample[:: max(1, len(listed.sample) // _FIRST_IMAGES)]
    first = _look(few, _FIRST_MASKS, means, sight)
    if (
        instance_gt.is_as_taken(first.gts, means.space, means.readings, means.factor)
        and instance_labels.are_as_taken(first.masks, means.space, means.reading)
    ):  # fmt: skip
        return []
    seen = _look(listed.sample, max(_MASKS, _MASKS_IN_ALL // max(1, len(listed.sample))), means, sight)
    coded = instance_gt.other_coding(seen.gts, means.space, means.readings, means.factor)
    if coded is not None:
        return [coded]
    if not any(instance_gt.has_instance(gt, means.space, means.factor) for gt in seen.gts):
        every = _scan(images, means, sight)
        if every:
            none = instance_gt.without_instances(every, means.space, means.readings, means.factor, sight.gts)
            return [none]
    doubt = instance_labels.judge(listed, seen.masks, means.space, means.readings, means.reading)
    return [] if doubt is None else [doubt]


def _count(images: Sequence[InstanceImage], sight: Sight) -> list[InstanceResult]:
    if sight.engine is None:
        return count_instances_readably(images, sight.gts, sight.preds)
    return sight.engine.count(InstanceJob(), images, sight.gts, sight.preds)


@dataclass(frozen=True)
class _Seen:
    """What some images show: their gts, and the masks that lie on instances."""

    gts: Sequence[GtSeen]
    masks: Sequence[MaskSeen]


def _look(images: Sequence[InstanceImage], masks: int, means: Means, sight: Sight) -> _Seen:
    """Count at most so many masks of each image on its gt."""
    looked = [replace(image, predictions=_chosen(image.predictions or (), masks)) for image in images]
    pairs = list(zip(looked, _count(looked, sight), strict=True))
    return _Seen(
        [
            GtSeen(image.gt, result.gt_values.tolist())
            for image, result in pairs
            if result.gt_values is not None
        ],
        [mask for image, result in pairs for mask in _masks(image.predictions or (), result, means)],
    )


def judge_fields(listed: Listed) -> Doubt | None:
    """Lists with the confidence before the label: fractions where labels are due, and labels after them."""
    if not listed.fractions or listed.swapped < _SWAPPED * listed.predictions:
        return None
    return Doubt(
        kind="order",
        message="labels and confidences are exchanged: in the lists the confidence stands before the label",
        evidence=f"in {listed.swapped} of {listed.predictions} lines the second field is a fraction and the "
        f"third is a label id; the first: {listed.first_swapped}",
        fix="write each line as `mask.png labelID confidence`",
        certain=True,
    )


def _chosen(predictions: Sequence[Prediction], most: int) -> tuple[Prediction, ...]:
    """At most so many predictions: of every label the most confident, then of every label the next."""
    of_label: defaultdict[int, list[Prediction]] = defaultdict(list)
    for one in sorted(predictions, key=lambda one: -one.confidence):
        of_label[one.label].append(one)
    turns = sorted(
        ((turn, -one.confidence, one.line), one)
        for some in of_label.values()
        for turn, one in enumerate(some)
    )
    return tuple(one for _, one in turns[:most])


def _scan(images: Iterable[Sequence[InstanceImage]], means: Means, sight: Sight) -> list[GtSeen]:
    """What all gts hold, if none has an instance of an evaluated class; otherwise nothing."""
    every = []
    for batch in images:
        for first in range(0, len(batch), _BATCH):
            some = [replace(image, predictions=()) for image in batch[first : first + _BATCH]]
            for image, result in zip(some, _count(some, sight), strict=True):
                if result.gt_values is None:
                    continue
                gt = GtSeen(image.gt, result.gt_values.tolist())
                if instance_gt.has_instance(gt, means.space, means.factor):
                    return []
                every.append(gt)
    return every


def _masks(predictions: Sequence[Prediction], result: InstanceResult, means: Means) -> Iterable[MaskSeen]:
    """Each mask that lies on an instance, with the class of the one that it shares most pixels with."""
    if result.overlaps is None or result.gt_values is None or result.gt_pixels is None:
        return
    codes = recode(result.gt_values, means.factor, means.space.ids)
    instances = codes >= 1000
    if not instances.any():
        return
    for prediction, shared in zip(predictions, result.overlaps, strict=True):
        on = np.where(instances, shared, 0)
        best = int(on.argmax())
        pixels = int(shared.sum())
        if on[best] == 0:
            continue
        iou = on[best] / (pixels + result.gt_pixels[best] - on[best])
        yield MaskSeen(prediction.label, int(codes[best]) // 1000, float(iou), float(on[best] / pixels))
