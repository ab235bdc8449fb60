"""The instance task's split: which list of predictions belongs to which gt, and which masks it names."""

from __future__ import annotations

import heapq
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from gpu_eval.errors import DuplicateFile, InputError, MalformedPredictions, MissingMask
from gpu_eval.inputs.naming.suffixes import GT_INSTANCES, INSTANCE_OTHERS, PRED_LISTS
from gpu_eval.inputs.pairs import Pair, pair_up
from gpu_eval.inputs.prediction_lists import MAX_LIST_BYTES, Findings, Line, parse_list
from gpu_eval.inputs.source import Entry, Source, is_hidden_path, plain_name
from gpu_eval.labels.instance_readings import Reading, raw_reading
from gpu_eval.labels.instance_space import InstanceSpace

# Lists read at once: enough for a remote source to fetch many in parallel.
BATCH_FILES, BATCH_BYTES = 1024, 2 * MAX_LIST_BYTES


@dataclass(frozen=True, slots=True)
class Rle:
    """A mask in COCO's compressed run-length encoding: runs of 0 and 1 in turn, column by column."""

    height: int
    width: int
    counts: bytes


@dataclass(frozen=True, slots=True)
class Prediction:
    """One predicted instance of an evaluated class."""

    mask: Entry | Rle
    label: int  # raw id
    confidence: float
    line: int  # in the list of predictions, or place in the JSON; from 1


@dataclass(frozen=True, slots=True)
class InstanceImage:
    """One image of the split; `predictions` is None where its list is missing or broken."""

    key: str  # path without suffix, "17/024541"
    drive: str  # folder part of the key, "17"; "" if none
    gt: Entry
    predictions: tuple[Prediction, ...] | None
    list_file: str | None  # the list's path in its source; None if missing


@dataclass
class Listed:
    """What the predictions say, whether they count or not: what the doctor judges labels by.

    `counted`, `skipped` and `unknown` count predictions by the label id that stands in the list: of
    evaluated classes, of labels that are known but not evaluated, and of labels that cannot be used.
    `swapped` counts lines that read as if the confidence stood before the label, and `fractions` the labels
    among them that are no whole numbers; `first_swapped` is the first of them. `sample` are some images with
    all of their predictions whose mask is there, `label` being the number that stands in the list.
    """

    counted: Counter[int] = field(default_factory=Counter)
    skipped: Counter[int] = field(default_factory=Counter)
    unknown: Counter[int] = field(default_factory=Counter)
    swapped: int = 0
    fractions: int = 0
    first_swapped: str | None = None
    sample: tuple[InstanceImage, ...] = ()

    @property
    def predictions(self) -> int:
        """All of them."""
        return self.counted.total() + self.skipped.total() + self.unknown.total()

    def add(self, lines: Sequence[Line], strays: Sequence[Line], file: str) -> None:
        """Count the lines of one list."""
        for line in lines:
            (self.counted if line.classes else self.skipped)[line.label] += 1
        for line in strays:
            self.unknown[line.label] += 1
        for line in (*lines, *strays):
            if line.is_swapped:
                self.swapped += 1
                self.fractions += line.is_cut
                self.first_swapped = self.first_swapped or f"{file} line {line.number}: {line.text}"


def sample_size(images: int) -> int:
    """How many images the doctor looks at: one in a hundred, but at least 8 and at most 32."""
    return min(images, max(8, min(32, images // 100)))


def draw(images: int) -> list[int]:
    """Each image's place in a draw that is always the same."""
    places: list[int] = np.random.default_rng(0).permutation(images).tolist()
    return places


@dataclass(frozen=True)
class InstanceSplit:
    """All images by key, what is wrong with them, and what was assumed to find them.

    `listed` counts predictions of labels that are not evaluated, too: they count for nothing, and their masks
    may be absent. `hint` is as in `pairs.Split`.
    """

    images: tuple[InstanceImage, ...]
    problems: tuple[InputError, ...]
    notes: tuple[str, ...]
    listed: Listed
    hint: str | None = None

    @property
    def skipped(self) -> int:
        """The predictions of labels that are known but not evaluated."""
        return self.listed.skipped.total()


def read_split(
    gts: Source,
    preds: Source,
    space: InstanceSpace,
    *,
    gt_suffix: str | None = None,
    list_suffix: str | None = None,
    reading: Reading | None = None,
) -> InstanceSplit:
    """The split of two sources: gts, and per image a list of predictions beside its masks.

    Every list is read, and every line that cannot be used is told. A mask's path is relative to its list. The
    suffixes are tried and keys are paired as `pair_up` says, the space's own suffixes first. `reading` says
    what the labels mean; None: they are raw ids.

    Raises
        EmptySplit: no gt, or no list for any of them.
        UnreadableSource, UnsafePath: a source cannot be listed.
    """
    reading = raw_reading(space) if reading is None else reading
    gt_entries, pred_entries = gts.entries(), preds.entries()
    extension = posixpath.splitext(space.list_suffix if list_suffix is None else list_suffix)[1].casefold()
    lists = [entry for entry in pred_entries if entry.name.casefold().endswith(extension)]
    split = pair_up(
        gt_entries,
        lists or pred_entries,  # without a list, what there is decides what is said
        gt_suffix=gt_suffix,
        pred_suffix=list_suffix,
        gt_location=gts.location,
        pred_location=preds.location,
        gt_usual=tuple(dict.fromkeys((space.gt_suffix, *GT_INSTANCES))),
        pred_usual=tuple(dict.fromkeys((space.list_suffix, *PRED_LISTS))),
        what="list of predictions",
        suffix_option="--list-suffix",
        extension=extension,
        gt_others=INSTANCE_OTHERS,
    )
    files = _Files(pred_entries)
    images: list[InstanceImage] = []
    problems = list(split.problems)
    cut: list[str] = []
    listed, sample = Listed(), _Sample(len(split.pairs))
    for number, (pair, content) in enumerate(_contents(split.pairs, preds)):
        seen: Iterable[Prediction] = ()
        found: tuple[Prediction, ...] | None = None
        if isinstance(content, InputError):
            problems.append(content)
        elif content is not None and pair.pred is not None:
            findings = Findings(f"{preds.location}/{pair.pred.name}")
            lines = parse_list(content, space, findings, reading)
            predictions = _predictions(lines, posixpath.dirname(pair.pred.name), files, findings)
            problems += findings.told()
            cut += [f"{findings.file} line {line.number}: {line.text}" for line in lines if line.is_cut]
            listed.add(lines, findings.strays, findings.file)
            seen = _seen((*lines, *findings.strays), posixpath.dirname(pair.pred.name), files)
            if not findings.errors:
                found = tuple(predictions)
        list_file = None if pair.pred is None else pair.pred.name
        images.append(InstanceImage(pair.key, pair.drive, pair.gt, found, list_file))
        sample.offer(number, images[-1], seen)
    notes = list(split.notes)
    if cut:
        notes.append(
            f"{len(cut)} label ids are no whole numbers and were cut to one, as the public script does; "
            f"the first: {cut[0]}"
        )
    listed.sample = sample.images()
    return InstanceSplit(tuple(images), tuple(problems), tuple(notes), listed, split.hint)


class _Sample:
    """Some of the images, those with predictions first."""

    def __init__(self, images: int) -> None:
        self._places, self._size = draw(images), sample_size(images)
        self._kept: list[tuple[tuple[int, int], InstanceImage]] = []  # a heap, the last to be kept on top

    def offer(self, number: int, image: InstanceImage, predictions: Iterable[Prediction]) -> None:
        """Keep the image if the draw has it; `predictions` are looked at only then."""
        full = len(self._kept) == self._size
        place = -self._places[number]
        if full and (1, place) < self._kept[0][0]:
            return
        seen = tuple(predictions)
        rank = (1 if seen else 0, place)
        kept = (rank, InstanceImage(image.key, image.drive, image.gt, seen, image.list_file))
        if not full:
            heapq.heappush(self._kept, kept)
        elif rank > self._kept[0][0]:
            heapq.heapreplace(self._kept, kept)

    def images(self) -> tuple[InstanceImage, ...]:
        return tuple(sorted((image for _, image in self._kept), key=lambda image: image.key))


def _seen(lines: Iterable[Line], folder: str, files: _Files) -> Iterator[Prediction]:
    """The lines whose mask is there, with the label that stands in them."""
    for line in lines:
        mask = files.by_name.get(posixpath.join(folder, plain_name(line.mask)))
        if mask is not None:
            yield Prediction(mask, line.label, line.confidence, line.number)


class _Files:
    """The files of the prediction side by name; of an archive's files of one name, the first."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.by_name: dict[str, Entry] = {}
        self.repeated: set[str] = set()
        for entry in entries:
            if self.by_name.setdefault(entry.name, entry) is not entry:
                self.repeated.add(entry.name)

    @cached_property
    def by_folded_name(self) -> dict[str, str]:
        return {name.casefold(): name for name in self.by_name}


def _contents(pairs: Sequence[Pair], preds: Source) -> Iterator[tuple[Pair, bytes | InputError | None]]:
    """Each pair with the bytes of its list, or why they cannot be had; None without a list."""
    batch: list[Pair] = []
    size = 0
    for pair in pairs:
        more = 0 if pair.pred is None else min(pair.pred.size, MAX_LIST_BYTES)
        if batch and (len(batch) == BATCH_FILES or size + more > BATCH_BYTES):
            yield from _read_batch(batch, preds)
            batch, size = [], 0
        batch.append(pair)
        size += more
    yield from _read_batch(batch, preds)


def _read_batch(pairs: Sequence[Pair], preds: Source) -> Iterator[tuple[Pair, bytes | InputError | None]]:
    entries = [pair.pred for pair in pairs if pair.pred is not None and pair.pred.size <= MAX_LIST_BYTES]
    buffer = np.empty(sum(entry.size for entry in entries), np.uint8)
    offsets, problems = preds.read_into(entries, buffer)
    at = 0
    for pair in pairs:
        if pair.pred is None:
            yield pair, None
        elif pair.pred.size > MAX_LIST_BYTES:
            yield (
                pair,
                MalformedPredictions(
                    "the list is too long",
                    file=f"{preds.location}/{pair.pred.name}",
                    found=f"{pair.pred.size} bytes",
                    expected=f"at most {MAX_LIST_BYTES} bytes",
                ),
            )
        else:
            yield pair, problems.get(at) or buffer[offsets[at] : offsets[at + 1]].tobytes()
            at += 1


def _predictions(lines: Sequence[Line], folder: str, files: _Files, findings: Findings) -> list[Prediction]:
    """The lines of evaluated labels, their masks looked up; what is wrong goes to `findings`."""
    predictions = []
    first: dict[str, int] = {}
    for line in lines:
        path = plain_name(line.mask)
        name = posixpath.join(folder, path)
        before = first.setdefault(name, line.number)
        if before != line.number:
            findings.add(
                DuplicateFile,
                line.number,
                "the mask stands in the list twice",
                found=line.text,
                expected=f"a mask of its own; line {before} names this one",
            )
            continue
        mask = files.by_name.get(name)
        evaluated = bool(line.classes)
        if mask is None and (evaluated or " " in path or "\t" in path):
            _add_missing(line, path, name, files, findings)
        elif evaluated and name in files.repeated:
            findings.add(
                DuplicateFile,
                line.number,
                "two files of the archive have the mask's name",
                found=line.text,
                expected="one file per mask",
                fix="pack the archive again without the second one",
            )
        elif evaluated and mask is not None:
            predictions.append(Prediction(mask, line.classes[0], line.confidence, line.number))
    return predictions


def _add_missing(line: Line, path: str, name: str, files: _Files, findings: Findings) -> None:
    # A fourth field, "a.png 12 1 0.9", reads as a mask "a.png 12" of label 1: never skipped unseen.
    if len(line.mask.split()) > 1:
        findings.add(
            MalformedPredictions,
            line.number,
            "more than three fields, and no mask has such a name",
            found=line.text,
        )
        return
    fix = None
    if path in files.by_name:
        fix = "name masks relative to the folder of the list, not to the top folder"
    elif name.casefold() in files.by_folded_name:
        fix = f"a file of other case is there: {files.by_folded_name[name.casefold()]}"
    elif is_hidden_path(name):
        fix = "hidden files are not read: rename it"
    findings.add(MissingMask, line.number, "the mask is not there", found=line.text, expected=name, fix=fix)
