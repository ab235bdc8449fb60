"""Predicted instances looked at without ground truth: their lists or COCO results, and the masks."""

from __future__ import annotations

import contextlib
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from gpu_eval.checkup.examination import Looked, Problems, Side
from gpu_eval.checkup.label_values import listed, said
from gpu_eval.doctor.doubt import Doubt
from gpu_eval.doctor.instance import judge_fields
from gpu_eval.errors import EmptySplit, InputError, MalformedPredictions, SizeMismatch
from gpu_eval.inputs.coco import read_split_coco
from gpu_eval.inputs.coco_file import read_coco
from gpu_eval.inputs.instance_split import (
    BATCH_FILES,
    InstanceImage,
    InstanceSplit,
    Listed,
    Prediction,
    Rle,
    read_split,
)
from gpu_eval.inputs.masks import FIX, decode_mask
from gpu_eval.inputs.prediction_lists import MAX_LIST_BYTES, Findings, Line, parse_list
from gpu_eval.inputs.rle import decode_rle
from gpu_eval.inputs.source import Entry, Source, plain_name
from gpu_eval.labels.instance_readings import Reading, names_of, raw_reading
from gpu_eval.labels.instance_space import InstanceSpace

# Images whose masks are held against each other for overlaps: evenly over the split.
OVERLAPS_IN = 12


class ListedImages:
    """A side of ground truth with exactly the images that the predictions are for, and no pixels.

    With it predictions are read as strictly as scoring reads them, where there is no ground truth.
    """

    def __init__(self, keys: Sequence[str], suffix: str) -> None:
        self.location = "the images of the predictions"
        self._entries = [Entry(f"{key}{suffix}", 0, "") for key in sorted(set(keys))]

    def entries(self) -> list[Entry]:
        return list(self._entries)

    def read_into(
        self,
        entries: Sequence[Entry],
        buffer: npt.NDArray[np.uint8],  # noqa: ARG002
    ) -> tuple[npt.NDArray[np.int64], dict[int, InputError]]:
        """Nothing: no file has a byte."""
        return np.zeros(len(entries) + 1, np.int64), {}

    def close(self) -> None:
        pass


@dataclass
class Lines:
    """What the lists say, line by line: the label ids that stand there, known or not, and confidences."""

    lists: int = 0
    lines: int = 0
    labels: Counter[int] = field(default_factory=Counter)
    confidences: Counter[float] = field(default_factory=Counter)

    def add(self, label: int, confidence: float) -> None:
        self.lines += 1
        self.labels[label] += 1
        self.confidences[confidence] += 1


def read_predictions(
    source: Source, entries: Sequence[Entry], space: InstanceSpace, reading: Reading, list_suffix: str
) -> tuple[InstanceSplit, Lines]:
    """The lists of a source as scoring reads them, and what their lines say.

    Of a list that cannot be used, the predictions are those whose masks are there. Raises EmptySplit where
    there is no list.
    """
    lists = [entry for entry in entries if entry.name.endswith(list_suffix)]
    keys = [entry.name.removesuffix(list_suffix) for entry in lists] or ["image"]
    split = read_split(
        ListedImages(keys, space.gt_suffix),
        source,
        space,
        gt_suffix=space.gt_suffix,
        list_suffix=list_suffix,
        reading=reading,
    )
    lines = Lines(lists=len(lists))
    files = {entry.name: entry for entry in entries}
    broken = {image.list_file for image in split.images if image.predictions is None}
    found: dict[str, tuple[Prediction, ...]] = {}
    for entry, data in _texts(source, lists):
        findings = Findings(entry.name)
        parsed = parse_list(data, space, findings, reading)
        for line in (*parsed, *findings.strays):
            lines.add(line.label, line.confidence)
        if entry.name in broken:
            found[entry.name] = tuple(_masks_there(parsed, entry.name, files))
    images = tuple(
        image
        if image.predictions is not None
        else replace(image, predictions=found.get(image.list_file or ""))
        for image in split.images
    )
    return replace(split, images=images), lines


def _masks_there(lines: Sequence[Line], file: str, files: Mapping[str, Entry]) -> Iterator[Prediction]:
    """The predictions of a list that cannot be used whose masks can be looked at, each mask once."""
    seen: set[str] = set()
    for line in lines:
        name = posixpath.join(posixpath.dirname(file), plain_name(line.mask))
        if name in files and line.classes and name not in seen:
            seen.add(name)
            yield Prediction(files[name], line.classes[0], line.confidence, line.number)


def _texts(source: Source, lists: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
    usable = [entry for entry in lists if entry.size <= MAX_LIST_BYTES]
    for first in range(0, len(usable), BATCH_FILES):
        batch = usable[first : first + BATCH_FILES]
        buffer = np.empty(sum(entry.size for entry in batch), np.uint8)
        offsets, problems = source.read_into(batch, buffer)
        for at, entry in enumerate(batch):
            if at not in problems:
                yield entry, buffer[offsets[at] : offsets[at + 1]].tobytes()


def read_coco_predictions(file: str, space: InstanceSpace, reading: Reading) -> tuple[InstanceSplit, Lines]:
    """A COCO results file as scoring reads it, and what its entries say.

    Raises UnreadableSource, UnreadableFile or MalformedPredictions where it is none.
    """
    coco = read_coco(file, space, reading)
    lines = Lines(lists=1)
    keys = set()
    for entry in coco.entries:
        if not isinstance(entry, dict):
            continue
        name = entry.get("file_name", coco.names.get(_hashable(entry.get("image_id")), entry.get("image_id")))
        if isinstance(name, str) and plain_name(name):
            keys.add(_stem(plain_name(name), space))
        label, score = entry.get("category_id"), entry.get("score")
        if _is_number(label) and _is_number(score):
            lines.add(int(label), float(score))
    images = ListedImages(sorted(keys) or ["image"], space.gt_suffix)
    split = read_split_coco(images, file, space, gt_suffix=space.gt_suffix, reading=reading)
    return split, lines


def _hashable(value: Any) -> int | str:
    return value if isinstance(value, int | str) else ""


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _stem(name: str, space: InstanceSpace) -> str:
    """The key that a file name of a COCO file stands for."""
    for suffix in (space.gt_suffix, space.list_suffix):
        stem = posixpath.splitext(suffix)[0]
        bare, extension = posixpath.splitext(name)
        if extension[1:2].isalpha() and bare.endswith(stem):
            return bare.removesuffix(stem)
        if name.endswith(stem):
            return name.removesuffix(stem)
    bare, extension = posixpath.splitext(name)
    return bare if extension[1:2].isalpha() else name


# --- what lines look like --------------------------------------------------------------------------


def line_doubts(
    space: InstanceSpace, readings: Sequence[Reading], reading: Reading, lines: Lines, seen: Listed
) -> list[Doubt]:
    """What the labels and confidences of all lines look like."""
    exchanged = judge_fields(seen)
    if exchanged is not None:
        return [exchanged]
    doubt = _other_ids(space, readings, reading, lines) if lines.lines else None
    return [doubt] if doubt is not None else []


def _other_ids(
    space: InstanceSpace, readings: Sequence[Reading], reading: Reading, lines: Lines
) -> Doubt | None:
    """Labels that mean something else: some are of no thing as they are read, otherwise all would count.

    Models of all things write labels that evaluation ignores, beside others: no reason to doubt.
    """
    present = set(lines.labels)
    counted = sum(count for label, count in lines.labels.items() if reading.classes.get(label))
    strange = {label for label in present if not reading.classes.get(label)} - reading.things
    if counted and not strange:
        return None
    fits = _fitting(readings, reading, present)
    if not fits and counted:
        return None
    names = " or ".join(f"`{fit.name}`" for fit in fits)
    evaluated = {label for label, ids in reading.classes.items() if ids}
    (best, *others) = fits or (None,)
    mend, fix = {}, f"write raw ids: {_mapping(raw_reading(space), set(space.ids), space)}"
    if others:  # each is another mapping, and masks without ground truth do not say which
        options = ", or ".join(f"--pred-encoding {one.name}" for one in fits)
        fix = f"give {options}: --gts GTS tells which"
    elif best is not None:
        fix = f"write raw ids: {_mapping(best, present, space)}"
        if not any(best.unclear.get(label) for label in present):
            mend, fix = {"pred_encoding": best.name}, f"give --pred-encoding {best.name}, or {fix}"
    return Doubt(
        kind="instances",
        message=f"the labels look like {names} ids, not `{reading.name}` ids"
        if fits
        else "no label is one of an evaluated class",
        evidence=f"labels {listed(present)}; evaluated `{reading.name}` ids are {listed(evaluated)}; "
        f"{counted} of {lines.lines} predictions would count",
        fix=fix,
        certain=not counted,
        mend=mend,
    )


def _fitting(readings: Sequence[Reading], reading: Reading, present: set[int]) -> list[Reading]:
    """The readings by which all labels, two at least, are evaluated; one of those that mean the same.

    Shifts of a column are likely only where nothing else fits.
    """
    if len(present) < 2:
        return []
    fits = [
        one
        for one in readings
        if one.name != reading.name and all(one.classes.get(label) for label in present)
    ]
    plain = [one for one in fits if not one.name.endswith(("+1", "-1"))] or fits
    by_meaning: dict[tuple[object, ...], Reading] = {}
    for one in sorted(plain, key=lambda one: len(one.classes)):
        by_meaning.setdefault(tuple(one.classes[label] for label in sorted(present)), one)
    return list(by_meaning.values())


def _mapping(reading: Reading, present: set[int], space: InstanceSpace) -> str:
    """Which raw ids are meant by which labels, in words."""
    return ", ".join(f"{label} is {names_of(reading.classes[label], space)}" for label in sorted(present))


def line_facts(space: InstanceSpace, reading: Reading, lines: Lines, split: InstanceSplit) -> dict[str, Any]:
    """What is so: counts by label, confidences."""
    names = dict(zip(space.ids, space.names, strict=True))

    def said(label: int) -> str:
        classes = reading.classes.get(label)
        if classes is None:
            return f"{label}, unknown"
        return (
            f"{label} {' or '.join(names[one] for one in classes)}" if classes else f"{label}, not evaluated"
        )

    facts: dict[str, Any] = {
        "lists": lines.lists,
        "predictions": lines.lines,
        "labels": {said(label): count for label, count in sorted(lines.labels.items())},
        "images without predictions": sum(image.predictions == () for image in split.images),
    }
    if lines.confidences:
        low, high = min(lines.confidences), max(lines.confidences)
        equal = len(lines.confidences) == 1 and lines.lines > 1
        facts["confidences"] = f"all {low:g}" if equal else f"{low:g} to {high:g}"
        beyond = sum(count for value, count in lines.confidences.items() if not 0 <= value <= 1)
        if beyond:
            facts["confidences outside 0..1"] = beyond
    return facts


# --- masks -----------------------------------------------------------------------------------------


def mask_facts(
    source: Source | None, split: InstanceSplit, problems: Problems, threads: int | None
) -> tuple[dict[str, Any], list[Doubt]]:
    """What all masks of the predictions are; what scoring would refuse goes to `problems`.

    `source` is None where they stand in a COCO file.
    """
    images = [image for image in split.images if image.predictions]
    entries = [p.mask for image in images for p in image.predictions or () if isinstance(p.mask, Entry)]
    areas, sizes = _look_at_masks(source, entries, problems, threads) if source is not None else ({}, {})
    empty = full = 0
    size_counts: Counter[tuple[int, int]] = Counter()
    for image in images:
        here: Counter[tuple[int, int]] = Counter()
        for prediction in image.predictions or ():
            mask = prediction.mask
            if isinstance(mask, Rle):
                try:
                    area = int(decode_rle(mask, f"{image.list_file}, entry {prediction.line}").sum())
                except InputError as error:
                    problems.add(error)
                    continue
                size = (mask.height, mask.width)
            elif mask.name in areas:
                size, area = sizes[mask.name], areas[mask.name]
            else:
                continue
            here[size] += 1
            empty += area == 0
            full += area == size[0] * size[1]
        size_counts += here
        if len(here) > 1:
            problems.add(_sizes_differ(image, here))
    masks = size_counts.total()
    facts: dict[str, Any] = {"masks": masks}
    if masks:
        facts["mask sizes"] = {said(size): count for size, count in size_counts.most_common(8)}
        facts["empty masks"] = empty
        facts["masks of the whole image"] = full
        facts["overlap of masks"] = _overlap(source, images, areas)
    doubts = []
    if masks > 1 and empty == masks:
        doubts.append(
            Doubt(
                kind="instances",
                message="every mask is empty",
                evidence=f"{masks} masks without a pixel",
                fix=FIX,
                certain=True,
            )
        )
    return facts, doubts


def _sizes_differ(image: InstanceImage, here: Mapping[tuple[int, int], int]) -> SizeMismatch:
    return SizeMismatch(
        "masks of one image differ in size",
        file=f"{image.list_file}",
        found=", ".join(f"{count} of {said(size)}" for size, count in here.items()),
        expected="the size of the image",
        fix="write every mask in the size of its image",
    )


def _look_at_masks(
    source: Source, entries: Sequence[Entry], problems: Problems, threads: int | None
) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
    """Pixels and size of every mask that can be used, by name; the others go to `problems`."""
    from gpu_eval.engines.cpu.threads import Threads
    from gpu_eval.engines.cpu.values import Seen, look
    from gpu_eval.engines.png_kernels import GREY_8

    def slowly(data: memoryview, file: str, index: int) -> Seen:  # noqa: ARG001
        try:
            mask = decode_mask(data, file)
        except InputError as error:
            return Seen(error=error)
        return Seen(mask.shape, "mask", np.array([0, 1]), np.bincount(mask.ravel(), minlength=2))

    areas: dict[str, int] = {}
    sizes: dict[str, tuple[int, int]] = {}
    pool = Threads(threads)
    try:
        for entry, seen in look(pool, source, entries, slowly, forms=(GREY_8,)):
            if seen.error is not None:
                problems.add(seen.error)
            elif seen.values is not None and seen.pixels is not None and seen.size is not None:
                areas[entry.name] = int(seen.pixels[seen.values != 0].sum())
                sizes[entry.name] = seen.size
    finally:
        pool.close()
    return areas, sizes


def _overlap(source: Source | None, images: Sequence[InstanceImage], sound: Mapping[str, int]) -> str:
    """The share of pixels under a mask that lie under more than one, in a few images."""
    several = [image for image in images if len(image.predictions or ()) > 1]
    looked = several[:: max(1, -(-len(several) // OVERLAPS_IN))]
    covered = twice = 0
    for image in looked:
        layers: npt.NDArray[np.int64] | None = None
        for mask in _masks(source, image, sound):
            if layers is None:
                layers = np.zeros(mask.shape, np.int64)
            if mask.shape == layers.shape:
                layers += mask
        if layers is not None:
            covered += int((layers > 0).sum())
            twice += int((layers > 1).sum())
    return f"{twice / covered:.1%} of the pixels under masks, in {len(looked)} images" if covered else "none"


def _masks(
    source: Source | None, image: InstanceImage, sound: Mapping[str, int]
) -> Iterator[npt.NDArray[np.uint8]]:
    predictions = image.predictions or ()
    for rle in (p.mask for p in predictions if isinstance(p.mask, Rle)):
        with contextlib.suppress(InputError):  # told before
            yield decode_rle(rle, "")
    entries = [p.mask for p in predictions if isinstance(p.mask, Entry) and p.mask.name in sound]
    if source is None or not entries:
        return
    buffer = np.empty(sum(entry.size for entry in entries), np.uint8)
    offsets, broken = source.read_into(entries, buffer)
    for at, entry in enumerate(entries):
        if at not in broken:
            yield decode_mask(buffer[offsets[at] : offsets[at + 1]].data, entry.name)


# --- the whole side --------------------------------------------------------------------------------


def look_at_lists(
    side: Side,
    space: InstanceSpace,
    readings: Sequence[Reading],
    reading: Reading,
    list_suffix: str,
    problems: Problems,
    threads: int | None,
) -> Looked:
    """What a side of lists and masks, or a COCO results file, comes to."""
    notes: tuple[str, ...] = ()
    suffix = list_suffix
    # What is wrong with lists is told by listing the split, where that was done.
    of_lists = Problems() if side.is_listed else problems
    try:
        if side.source is None:
            split, lines = read_coco_predictions(side.location, space, reading)
        else:
            extension = posixpath.splitext(list_suffix)[1]
            suffix, notes = side.ending(list_suffix, extension, "--list-suffix")
            split, lines = read_predictions(side.source, side.entries, space, reading, suffix)
    except (EmptySplit, MalformedPredictions) as error:
        of_lists.add(error)
        return Looked({}, ())
    of_lists.extend(split.problems)
    facts = line_facts(space, reading, lines, split)
    of_masks, doubts = mask_facts(side.source, split, problems, threads)
    keys = {image.key: image.list_file or image.key for image in split.images}
    if side.source is None:
        keys = {image.key: image.key for image in split.images}
    # With ground truth the masks say what labels mean.
    of_lines = [] if side.is_listed else line_doubts(space, readings, reading, lines, split.listed)
    return Looked(
        keys=keys,
        endings=(suffix, space.gt_suffix),
        doubts=(*of_lines, *doubts),
        facts={**facts, **of_masks},
        notes=(*notes, *(note for note in split.notes if not side.is_listed)),
    )
