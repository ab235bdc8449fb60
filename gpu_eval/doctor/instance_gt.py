"""Whether a ground truth holds instances as it is taken to: its raw values, under every coding.

A pixel of an instance is id * factor + n. Under the coding that it is in, nearly every such value is of a
class that has instances, and the numbers n of a class in an image are dense; under another coding they are
not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpu_eval.doctor.doubt import Doubt
from gpu_eval.doctor.maps import read_bytes
from gpu_eval.inputs.source import Entry, Source
from gpu_eval.labels.instance_coding import FACTOR, recode
from gpu_eval.labels.instance_readings import RAW, Reading
from gpu_eval.labels.instance_space import InstanceSpace

_FACTORS = (FACTOR, 256, 100)
_PLAIN = 256  # values below are plain ids in any coding
_OTHER, _TAKEN = 0.98, 0.9  # the share another coding explains at least, the one it is taken for at most
_LEAST = 5  # values
_SPARSE = 20  # numbers of a class in an image may have so many gaps, and as many again as there are instances
_LABEL_MAPS = 3  # images with plain ids of evaluated classes, and no instance in any: maps of labels
_STRANGE = 3  # values below 256 that are no ids: whatever the file's bits, they were cut
_DEPTH = 24  # where the IHDR chunk of a PNG has the bits of a sample


@dataclass(frozen=True)
class GtSeen:
    """The values of one gt, ascending."""

    entry: Entry
    values: Sequence[int]


@dataclass(frozen=True)
class _Coding:
    """A factor and a reading of ids, and how many of all instance values they explain."""

    factor: int
    reading: Reading
    explained: int
    values: int
    evaluated: int

    @property
    def words(self) -> str:
        return f"{'raw id' if self.reading.name == RAW else self.reading.name} * {self.factor} + n"

    @property
    def share(self) -> float:
        return self.explained / self.values if self.values else 0.0


def has_instance(gt: GtSeen, space: InstanceSpace, factor: int) -> bool:
    """Whether it has an instance of an evaluated class."""
    codes = recode(np.array(gt.values, np.int64), factor, space.ids)
    return bool(np.isin(codes[codes >= FACTOR] // FACTOR, space.ids).any())


def is_as_taken(
    gts: Sequence[GtSeen], space: InstanceSpace, readings: Sequence[Reading], factor: int
) -> bool:
    """Whether there are instances of evaluated classes, and nearly all values are coded as they should be."""
    raw = next(reading for reading in readings if reading.name == RAW)
    return any(has_instance(gt, space, factor) for gt in gts) and _coding(gts, factor, raw).share > _TAKEN


def other_coding(
    gts: Sequence[GtSeen], space: InstanceSpace, readings: Sequence[Reading], factor: int
) -> Doubt | None:
    """Values that are certainly coded otherwise than they are taken to be."""
    raw = next(reading for reading in readings if reading.name == RAW)
    taken = _coding(gts, factor, raw)
    if taken.values < _LEAST or taken.share > _TAKEN:
        return None
    others = [_coding(gts, other, reading) for reading in readings for other in _FACTORS]
    fitting = [one for one in others if one.share >= _OTHER and one.evaluated]
    if not fitting:
        return None
    # The simplest: raw ids before other columns, factors in their order.
    order = [reading.name for reading in readings]
    best = min(
        fitting,
        key=lambda one: (
            order.index(one.reading.name) if not one.reading.unclear else len(order),
            _FACTORS.index(one.factor),
        ),
    )
    mendable = best.reading.name == RAW
    return Doubt(
        kind="instances",
        message=f"pixels of the ground truth are {best.words}, not {taken.words}",
        evidence=f"of {taken.values} instance values in {len(gts)} images, {best.explained} are of a "
        f"class that has instances read as {best.words}, {taken.explained} as {taken.words}; {_range(gts)}",
        fix=f"give --gt-factor {best.factor}" if mendable else rewrite(best.reading, space),
        certain=True,
        mend={"gt_factor": str(best.factor)} if mendable else {},
    )


def _coding(gts: Sequence[GtSeen], factor: int, reading: Reading) -> _Coding:
    explained = values = evaluated = 0
    for gt in gts:
        coded = [value for value in gt.values if value >= _PLAIN]
        values += len(coded)
        pairs = [divmod(value, factor) for value in coded if value >= factor]
        per_class = Counter(label for label, _ in pairs)
        for label, number in pairs:
            # KITTI and Vistas write id * 256 for classes that have no instances.
            plain = factor != FACTOR and number == 0 and label in reading.classes
            dense = number < 2 * per_class[label] + _SPARSE
            if plain or (dense and label in reading.things):
                explained += 1
                evaluated += bool(reading.classes.get(label))
    return _Coding(factor, reading, explained, values, evaluated)


def rewrite(reading: Reading, space: InstanceSpace) -> str:
    """What to do with a gt of this reading: which raw id each of its values is."""
    clear = {value: ids[0] for value, ids in sorted(reading.classes.items()) if len(ids) == 1}
    pairs = ", ".join(f"{value} is {label}" for value, label in clear.items() if value != label)
    told = f" ({pairs})" if pairs and not reading.unclear else ""
    return f"save the ground truth with raw ids of {space.name}{told}, as 16-bit id * 1000 + n"


def without_instances(
    gts: Sequence[GtSeen], space: InstanceSpace, readings: Sequence[Reading], factor: int, source: Source
) -> Doubt:
    """Why the whole gt, which is `gts`, has no instance of an evaluated class."""
    coded = other_coding(gts, space, readings, factor)
    if coded is not None:
        return coded
    images = f"{len(gts)} images"
    message = "not one instance of an evaluated class is in the whole ground truth"
    expected = f"pixels of an instance are id * {factor} + n, as 16-bit grey"
    every = {value for gt in gts for value in gt.values} - {0}
    name, bits = _depth(gts[0].entry, source)
    evidence = f"{_range(gts)} in {images}, {bits} bits in {name}; {expected}"
    labelled = sum(any(value in space.ids for value in gt.values) for gt in gts)
    raw = next(reading for reading in readings if reading.name == RAW)
    strange = every - set(raw.classes) - {255}
    if every and max(every) < _PLAIN and (bits <= 8 or len(strange) >= _STRANGE):
        how = "it is saved with 8 bits" if bits <= 8 else "it went through 8 bits"
        cause, fix = _of_bytes(every, raw, space, how)
        return Doubt("instances", f"{message}: {cause}", evidence, fix, certain=True)
    taken = _coding(gts, factor, raw)
    if taken.values >= _LEAST and taken.share <= _TAKEN:
        fix = (
            f"save instances of the evaluated classes, {_ids(space)}, as id * {factor} + n, or give the "
            "label table of this ground truth as --labels"
        )
        return Doubt(
            "instances", f"{message}: its values are of no coding that is known", evidence, fix, certain=True
        )
    if labelled >= _LABEL_MAPS or 1 < labelled == len(gts):
        return Doubt("instances", f"{message}: {_MAP}", evidence, _MAP_FIX, certain=True)
    return Doubt(
        "instances",
        message,
        evidence,
        f"if there should be some, check their ids: {_ids(space)} are evaluated",
    )


_MAP = "it is a label map, not a map of instances"
_MAP_FIX = "give the maps of instances (16-bit, id * 1000 + n); --gt-suffix names how their files end"


def _of_bytes(values: set[int], raw: Reading, space: InstanceSpace, how: str) -> tuple[str, str]:
    """What became of instances in 8 bits, and what mends it."""
    fix = "save it again as 16-bit grey: Image.fromarray(values.astype('uint16'))"
    things = sorted(raw.things)
    high = {(label * FACTOR + number) >> 8 for label in things for number in range(100)}
    known = set(raw.classes)
    unknown = values - known - {255}
    if unknown and unknown <= high:
        return f"{how}, and the values are divided by 256", fix
    if unknown:
        return f"{how}, and the values are cut to their remainder by 256", fix
    plain = len(values & set(space.ids))
    if plain > 1 or (plain and 255 not in values):
        return _MAP, _MAP_FIX
    if 255 in values:
        return f"{how}, and the values are cut at 255", fix
    return f"{how}, which hold no instance", fix


def _depth(entry: Entry, source: Source) -> tuple[str, int]:
    """The name of a file, and the bits of its samples as the PNG says."""
    data = read_bytes(source, entry)
    return entry.name, data[_DEPTH] if len(data) > _DEPTH else 0


def _range(gts: Sequence[GtSeen]) -> str:
    """The values in words: "values 16 ... 248 (16, 17, 40, ...)"."""
    every = sorted({value for gt in gts for value in gt.values} - {0})
    if not every:
        return "no value but 0"
    some = every if len(every) <= 6 else [*every[:5], "..."]
    return f"values {every[0]} ... {every[-1]} ({', '.join(map(str, some))})"


def _ids(space: InstanceSpace) -> str:
    return ", ".join(map(str, space.ids))
