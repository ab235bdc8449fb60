"""Whether the labels of predicted instances are what they are taken for: raw ids, or what the user said.

A mask that fits a gt instance should have its label. Every way to read labels is judged by the share of such
masks that have it, class by class, so that a frequent class does not outvote the others.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gpu_eval.doctor.doubt import Doubt
from gpu_eval.doctor.instance_gt import rewrite
from gpu_eval.inputs.instance_split import Listed
from gpu_eval.labels.instance_readings import RAW, Reading, names_of
from gpu_eval.labels.instance_space import InstanceSpace

_FITS = 0.5  # IoU of a mask that fits an instance; the share of one that lies on it
_ENOUGH = 10  # fitting masks; with fewer, those that lie on an instance are taken
_SHARE = 0.5  # of classes and of masks that the right reading explains
_SHARE_UNCLEAR = 0.7  # the same of one that does not tell classes apart
_EASIER = 0.05  # what a reading that does not tell classes apart has to be better
_CLEARLY = 0.95  # of the masks that another gt explains, the share that another label must explain
_AS_TAKEN = 0.35  # at most this share is right as the labels are taken
_SOUND = 0.5  # this share is right of labels that need no further look
_LEAST = 5  # masks
_NEXT_TO_NONE = 0.06  # of all predictions that count; labels drawn by chance count more often
_CHANCE = 1e-3  # that any reading explains as much by chance


@dataclass(frozen=True, slots=True)
class MaskSeen:
    """A mask: its label as listed, the raw id of the gt instance under it, their IoU, its share there."""

    label: int
    gt_class: int
    iou: float
    share: float


@dataclass(frozen=True)
class _Fit:
    """How well a reading explains labels: of `masks` so many are right; `mean` is the classes' mean share.

    `classes` and `labels` count those of which it explains half and more.
    """

    reading: Reading
    masks: int
    right: int
    mean: float
    classes: int
    labels: int


def judge(
    listed: Listed,
    masks: Sequence[MaskSeen],
    space: InstanceSpace,
    readings: Sequence[Reading],
    taken: Reading,
) -> Doubt | None:
    """What looks like labels of another kind; None where they may be what they are taken for."""
    of_gt = _other_gt(masks, space, readings, taken)
    fitting, words = _fitting([mask for mask in masks if mask.gt_class in space.ids])
    as_taken = _fit(taken, fitting)
    fits = [_fit(reading, fitting) for reading in readings if reading.name != taken.name]
    fits = [fit for fit in fits if _explains(fit, as_taken, space, len(readings))]
    best = max(fits, key=lambda fit: _rank(fit, listed), default=None)
    # Where both sides may be the wrong one it is the predictions, which are easier to mend.
    if of_gt is not None and (best is None or best.right < _CLEARLY * of_gt.right):
        return _of_gt(of_gt, masks, space, taken)
    if best is not None:
        alike = [fit.reading for fit in fits if _rank(fit, listed) == _rank(best, listed)]
        return _of_reading(best, alike, as_taken, words, listed, space)
    counted = listed.counted.total()
    if counted and listed.predictions >= _ENOUGH and counted <= _NEXT_TO_NONE * listed.predictions:
        few = f"next to no prediction has a label that is evaluated: {counted} of {listed.predictions}"
        return replace(_none_counts(listed, fitting, space, readings, taken), message=few, certain=False)
    if counted or not listed.predictions:
        return None
    none = _none_counts(listed, fitting, space, readings, taken)
    # Unknown labels are told line by line, unless something better can be said.
    return none if none.mend or not listed.unknown else None


def _rank(fit: _Fit, listed: Listed) -> tuple[float, int, int]:
    """What makes one reading better than another: last, how many of all predictions it gives a class."""
    # Not to tell classes apart makes it easier to be right.
    mean = fit.mean - _EASIER * bool(fit.reading.unclear)
    counted = sum(count for label, count in _labels(listed).items() if fit.reading.classes.get(label))
    return round(mean, 9), fit.right, counted


def are_as_taken(masks: Sequence[MaskSeen], space: InstanceSpace, taken: Reading) -> bool:
    """Whether enough masks have the label of their instance."""
    fitting, _ = _fitting([mask for mask in masks if mask.gt_class in space.ids])
    fit = _fit(taken, fitting)
    return fit.right >= _LEAST and fit.mean >= _SOUND


def _other_gt(
    masks: Sequence[MaskSeen], space: InstanceSpace, readings: Sequence[Reading], taken: Reading
) -> _Fit | None:
    """The reading of the ids in the gt under which the labels are right, if they are not under raw ids."""
    fitting, _ = _fitting(masks)
    as_taken = _fit(taken, fitting)
    fits = [
        _fit(taken, fitting, of_gt=reading)
        for reading in readings
        if reading.name != RAW and not reading.unclear
    ]
    fits = [fit for fit in fits if _explains(fit, as_taken, space, len(readings))]
    return max(fits, key=lambda fit: (round(fit.mean, 9), fit.right), default=None)


def _of_gt(fit: _Fit, masks: Sequence[MaskSeen], space: InstanceSpace, taken: Reading) -> Doubt:
    fitting, words = _fitting(masks)
    name = fit.reading.name
    return Doubt(
        kind="instances",
        message=f"the ids in the ground truth are {_called(name)}, not raw ids",
        evidence=f"of {fit.masks} masks that {words}, {fit.right} have its label if the ground truth is "
        f"read as {name} * 1000 + n, {_fit(taken, fitting).right} if as id * 1000 + n",
        fix=rewrite(fit.reading, space),
        certain=True,
    )


def _fitting(masks: Sequence[MaskSeen]) -> tuple[list[MaskSeen], str]:
    """The masks that say something of labels, and what they are in words."""
    fitting = [mask for mask in masks if mask.iou >= _FITS]
    if len(fitting) >= _ENOUGH:
        return fitting, "fit a ground-truth instance"
    return [mask for mask in masks if max(mask.iou, mask.share) >= _FITS], "lie on a ground-truth instance"


def _fit(reading: Reading, masks: Sequence[MaskSeen], *, of_gt: Reading | None = None) -> _Fit:
    """How well a reading of labels explains them; with `of_gt`, how well that of the gt's ids does."""
    of_class: defaultdict[int, list[bool]] = defaultdict(list)
    of_label: defaultdict[int, list[bool]] = defaultdict(list)
    for mask in masks:
        known = (mask.gt_class,) if of_gt is None else of_gt.classes.get(mask.gt_class, ())
        right = bool(set(known) & set(reading.classes.get(mask.label, ())))
        of_class[mask.gt_class].append(right)
        of_label[mask.label].append(right)
    # A class of a single mask is a coin's toss, unless there is nothing else.
    several = [some for some in of_class.values() if len(some) > 1]
    judged = several if len(several) > 1 else list(of_class.values())
    return _Fit(
        reading if of_gt is None else of_gt,
        masks=len(masks),
        right=sum(map(sum, of_class.values())),
        mean=math.fsum(sum(some) / len(some) for some in judged) / len(judged) if judged else 0.0,
        classes=sum(2 * sum(some) >= len(some) for some in of_class.values()),
        labels=sum(2 * sum(some) >= len(some) for some in of_label.values()),
    )


def _explains(fit: _Fit, as_taken: _Fit, space: InstanceSpace, readings: int) -> bool:
    """Whether the labels are certainly of this reading.

    Two classes and two labels at least: a model that knows one class only, or swaps a pair, is no mix-up.
    """
    share = _SHARE_UNCLEAR if fit.reading.unclear else _SHARE
    return (
        fit.classes > 1
        and fit.labels > 1
        and fit.right >= max(_LEAST, share * fit.masks)
        and fit.mean >= share
        and as_taken.mean <= _AS_TAKEN
        and readings * _by_chance(fit.right, fit.masks, 1 / len(space.ids)) < _CHANCE
    )


def _by_chance(right: int, masks: int, share: float) -> float:
    """How likely so many masks or more are right where each is with this probability."""
    return math.fsum(
        math.comb(masks, k) * share**k * (1 - share) ** (masks - k) for k in range(right, masks + 1)
    )


def _of_reading(
    best: _Fit, alike: Sequence[Reading], as_taken: _Fit, words: str, listed: Listed, space: InstanceSpace
) -> Doubt:
    name, taken = best.reading.name, as_taken.reading.name
    others = [one.name for one in alike if one.name != name and not one.unclear]
    also = f" (or {' or '.join(others)}, which fits alike)" if others else ""
    meant = "raw ids" if taken == RAW else f"ids of {taken}"
    none = "" if listed.counted else "; not one of them is evaluated"
    return Doubt(
        kind="encoding",
        message=f"the labels of the predictions are {_called(name)}{also}, not {meant}{none}",
        evidence=f"of {best.masks} masks that {words}, {best.right} have its label read as {name}, "
        f"{as_taken.right} as {taken}; {_held(listed)}",
        fix=_fix(best.reading, listed, space),
        certain=True,
        mend={} if _unclear(best.reading, listed) else {"pred_encoding": name},
    )


def _called(name: str) -> str:
    return "raw ids" if name == RAW else f"{name} ids"


def _labels(listed: Listed) -> Counter[int]:
    return listed.counted + listed.skipped + listed.unknown


def _held(listed: Listed) -> str:
    """The labels in words, the most frequent first."""
    labels = _labels(listed)
    shown = ", ".join(f"{label} ({count} times)" for label, count in labels.most_common(8))
    return f"the lists hold labels {shown}" + (f" and {len(labels) - 8} more" if len(labels) > 8 else "")


def _unclear(reading: Reading, listed: Listed) -> list[tuple[int, ...]]:
    """The classes that labels in the lists do not tell apart."""
    return [classes for label, classes in reading.unclear.items() if _labels(listed)[label]]


def _fix(reading: Reading, listed: Listed, space: InstanceSpace) -> str:
    """What mends labels of this reading, as far as it can be mended."""
    raw = f"write raw ids ({', '.join(map(str, space.ids))})"
    unclear = _unclear(reading, listed)
    if unclear:
        return f"{reading.name} does not tell {names_of(unclear[0], space)} apart: {raw}"
    lost = sorted(label for label in _labels(listed) if label not in reading.classes)
    without = (
        f" and leave out lines of label {', '.join(map(str, lost))}, which it does not have" if lost else ""
    )
    return f"give --pred-encoding {reading.name}{without}, or {raw}"


def _none_counts(
    listed: Listed,
    fitting: Sequence[MaskSeen],
    space: InstanceSpace,
    readings: Sequence[Reading],
    taken: Reading,
) -> Doubt:
    """There are predictions, and none is of an evaluated class."""
    ids = sorted(value for value, classes in taken.classes.items() if classes)
    named = "raw ids" if taken.name == RAW else f"{taken.name} ids"
    write = f"write labels as {named} of {space.name}: {', '.join(map(str, ids))} are evaluated"
    likely, why = _likely(listed, fitting, readings)
    return Doubt(
        kind="labels",
        message="not one prediction has a label that is evaluated",
        evidence=f"{_held(listed)}{why}",
        fix=f"give --pred-encoding {likely[0]}, or {write}" if len(likely) == 1 else write,
        certain=True,
        mend={"pred_encoding": likely[0]} if len(likely) == 1 else {},
    )


def _likely(
    listed: Listed, fitting: Sequence[MaskSeen], readings: Sequence[Reading]
) -> tuple[list[str], str]:
    """The readings that may be meant, and what speaks for them.

    Where masks can be looked at, most have the label of their instance. Where none can, all labels, two at
    least, are evaluated.
    """
    labels = set(_labels(listed))
    clear = [one for one in readings if all(len(one.classes.get(label, (0, 0))) < 2 for label in labels)]
    if fitting:
        fits = [_fit(one, fitting) for one in clear]
        most = max((fit.right for fit in fits), default=0)
        if most < max(_LEAST, _SHARE * len(fitting)):
            return [], ""
        names = [fit.reading.name for fit in fits if fit.right == most]
        why = f"; of {len(fitting)} masks that lie on a ground-truth instance, {most} have its label read as "
        return names, why + " or as ".join(names)
    names = [one.name for one in clear if all(one.classes.get(label) for label in labels)]
    if len(labels) < 2 or not names:
        return [], ""
    return names, f"; all of them are evaluated read as {' or as '.join(names)}"
