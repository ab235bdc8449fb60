"""Predicted instances from one COCO results file: whose they are, and which of them can be used."""

from __future__ import annotations

import math
import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from gpu_eval.errors import ExtraPrediction, MalformedPredictions
from gpu_eval.inputs.coco_file import is_image_id, read_coco
from gpu_eval.inputs.instance_split import (
    InstanceImage,
    InstanceSplit,
    Listed,
    Prediction,
    Rle,
    draw,
    sample_size,
)
from gpu_eval.inputs.naming.layouts import Meeting, meet, notes_on
from gpu_eval.inputs.naming.suffixes import GT_INSTANCES, INSTANCE_OTHERS
from gpu_eval.inputs.pairs import gts_by_key
from gpu_eval.inputs.prediction_lists import Findings, expected_label, label_problem
from gpu_eval.inputs.rle import EXPECTED_RLE, decode_rle, read_rle
from gpu_eval.inputs.source import Source, plain_name
from gpu_eval.labels.instance_readings import Reading, raw_reading
from gpu_eval.labels.instance_space import InstanceSpace

__all__ = ["decode_rle", "read_split_coco"]

_EXTENSION = re.compile(r"\.[A-Za-z]\w{0,4}\Z")  # ".png", not the ".01" of a frame's number


def read_split_coco(
    gts: Source,
    location: str | Path,
    space: InstanceSpace,
    *,
    gt_suffix: str | None = None,
    reading: Reading | None = None,
) -> InstanceSplit:
    """The split of a source of gts and a COCO results file, a path or an fsspec URL.

    An image is named by "file_name", or by "image_id" where that is text: its key, alone or with the ending
    of the gt or of the frame, with any extension. Names meet keys as `pair_up` says. Images that no
    entry names have no predictions (COCO lists nothing for them); a note counts them. `reading` says what the
    category ids mean; None: they are raw ids.

    Raises
        EmptySplit: no gt.
        UnreadableSource, UnreadableFile: the gts cannot be listed, or the file cannot be read.
        MalformedPredictions: the file is not a COCO results file at all.
    """
    usual = tuple(dict.fromkeys((space.gt_suffix, *GT_INSTANCES)))
    gt_files, gt_problems, gt_suffix = gts_by_key(
        gts.entries(), gts.location, gt_suffix, usual, INSTANCE_OTHERS
    )
    reading = raw_reading(space) if reading is None else reading
    file = str(location)
    coco = read_coco(file, space, reading)
    findings = Findings(file, "entry")
    example = f"a name such as {min(gt_files)!r}"
    names = [_name(at, entry, coco.names, example, findings) for at, entry in enumerate(coco.entries, 1)]

    endings = [posixpath.splitext(suffix)[0] for suffix in (gt_suffix, space.list_suffix)]
    candidates = {name: list(_candidates(name, endings)) for name in names if name is not None}
    every = {candidate for some in candidates.values() for candidate in some}
    met = meet(gt_files, every) if every else None
    meeting = met if isinstance(met, Meeting) else Meeting()
    gt_files = {key[len(meeting.gt_folder) :]: entry for key, entry in gt_files.items()}
    keys = {name: _key(some, meeting, gt_files) for name, some in candidates.items()}

    predictions: defaultdict[str, list[Prediction]] = defaultdict(list)
    broken = set()
    listed = Listed()
    sampled: dict[str, list[Prediction]] = {key: [] for key in _drawn(sorted(gt_files), set(keys.values()))}
    for at, (entry, name) in enumerate(zip(coco.entries, names, strict=True), 1):
        if name is None:
            continue
        key = keys[name]
        if key is None:
            findings.add(ExtraPrediction, at, "no ground truth has this name", found=name, expected=example)
            continue
        sound = _is_sound(at, entry, space, reading, findings)
        label = _label(entry)
        classes = reading.classes.get(label, ()) if label is not None else ()
        if label is not None:
            counts = (listed.counted if classes else listed.skipped) if sound else listed.unknown
            counts[label] += 1
            shown = read_rle(entry.get("segmentation")) if key in sampled else None
            if isinstance(shown, Rle):
                score = entry["score"] if _is_finite(entry.get("score")) else 0.0
                sampled[key].append(Prediction(shown, label, float(score), at))
        if sound and not classes:
            continue
        mask = _mask(at, entry, findings) if sound else None
        if mask is None:
            broken.add(key)
        else:
            predictions[key].append(Prediction(mask, classes[0], float(entry["score"]), at))

    images = tuple(
        InstanceImage(
            key,
            posixpath.dirname(key),
            gt_files[key],
            None if key in broken else tuple(predictions.get(key, ())),
            file,
        )
        for key in sorted(gt_files)
    )
    notes = notes_on(meeting, gts.location, file)
    unnamed = len(gt_files.keys() - keys.values())
    if unnamed:
        notes += (f"{file}: {unnamed} of {len(images)} images have no entry, so no predictions",)
    listed.sample = tuple(
        InstanceImage(key, posixpath.dirname(key), gt_files[key], tuple(some), file)
        for key, some in sampled.items()
    )
    return InstanceSplit(images, (*gt_problems, *coco.problems, *findings.told()), notes, listed)


def _drawn(keys: Sequence[str], named: Collection[str | None]) -> list[str]:
    """The images that the doctor looks at, those with entries first."""
    places = draw(len(keys))
    ranked = sorted(range(len(keys)), key=lambda at: (keys[at] not in named, places[at]))
    return sorted(keys[at] for at in ranked[: sample_size(len(keys))])


def _label(entry: Mapping[str, Any]) -> int | None:
    """The entry's category if it is a whole number, known or not."""
    label = entry.get("category_id")
    return int(label) if _is_number(label) and (isinstance(label, int) or label.is_integer()) else None


def _name(
    at: int, entry: Any, names: Mapping[int | str, str], example: str, findings: Findings
) -> str | None:
    """The name by which an entry calls its image."""
    if not isinstance(entry, dict):
        findings.add(MalformedPredictions, at, "not an object", found=entry, expected="a prediction")
        return None
    number, name = entry.get("image_id"), entry.get("file_name")
    if isinstance(name, str):
        return name
    if is_image_id(number) and number in names:
        return names[number]
    if isinstance(number, str):
        return number
    if is_image_id(number):
        findings.add(
            MalformedPredictions,
            at,
            "nothing says which image this number is",
            found=number,
            expected=f"image_id: {example}",
            fix='name it as text, add "file_name", or write {"images": [...], "annotations": [...]}',
        )
    else:
        findings.add(
            MalformedPredictions, at, "the image is not named", found=entry, expected=f"image_id: {example}"
        )
    return None


def _candidates(name: str, endings: Sequence[str]) -> Iterator[str]:
    """The keys that a name may stand for, the literal one first."""
    path = plain_name(name)
    for stem in dict.fromkeys((path, _EXTENSION.sub("", path))):
        yield stem
        yield from (stem.removesuffix(ending) for ending in endings if ending and stem.endswith(ending))


def _key(candidates: Sequence[str], meeting: Meeting, gts: Collection[str]) -> str | None:
    """The first candidate that is a key, as keys meet."""
    if meeting.moved is not None:
        return next((meeting.moved[one] for one in candidates if one in meeting.moved), None)
    folder = meeting.pred_folder
    below = (candidate[len(folder) :] for candidate in candidates if candidate.startswith(folder))
    return next((key for key in below if key in gts), None)


def _is_sound(
    at: int, entry: Mapping[str, Any], space: InstanceSpace, reading: Reading, findings: Findings
) -> bool:
    """Whether label and score can be used; what cannot goes to `findings`."""
    label, score = entry.get("category_id"), entry.get("score")
    problem: str | None = "there is no category_id"
    if _is_number(label):
        whole = _label(entry)  # None for nan and inf too
        not_whole = "the label id is not a whole number"
        problem = not_whole if whole is None else label_problem(whole, space, reading)
    if problem is not None:
        findings.add(MalformedPredictions, at, problem, found=label, expected=expected_label(space, reading))
        return False
    if not _is_finite(score):
        findings.add(
            MalformedPredictions, at, "the score is not a finite number", found=score, expected="a number"
        )
        return False
    return True


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(score: object) -> bool:
    try:
        return _is_number(score) and math.isfinite(score)
    except OverflowError:  # a whole number beyond float64
        return False


def _mask(at: int, entry: Mapping[str, Any], findings: Findings) -> Rle | None:
    mask = read_rle(entry.get("segmentation"))
    if isinstance(mask, Rle):
        return mask
    findings.add(MalformedPredictions, at, mask, found=entry.get("segmentation"), expected=EXPECTED_RLE)
    return None
