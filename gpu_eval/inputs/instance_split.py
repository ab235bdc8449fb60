"""The instance task's split: which list of predictions belongs to which gt, and which masks it names."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gpu_eval.errors import DuplicateFile, InputError, MalformedPredictions, MissingMask
from gpu_eval.inputs.naming.suffixes import GT_INSTANCES, INSTANCE_OTHERS, PRED_LISTS
from gpu_eval.inputs.pairs import Pair, pair_up
from gpu_eval.inputs.prediction_lists import MAX_LIST_BYTES, Findings, Line, parse_list
from gpu_eval.inputs.source import Entry, Source, is_hidden_path, plain_name
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


@dataclass(frozen=True)
class InstanceSplit:
    """All images by key, what is wrong with them, and what was assumed to find them.

    `skipped` counts the predictions of labels that are known but not evaluated: they count for nothing, and
    their masks may be absent. `hint` is as in `pairs.Split`.
    """

    images: tuple[InstanceImage, ...]
    problems: tuple[InputError, ...]
    notes: tuple[str, ...]
    skipped: int
    hint: str | None = None


def read_split(
    gts: Source,
    preds: Source,
    space: InstanceSpace,
    *,
    gt_suffix: str | None = None,
    list_suffix: str | None = None,
) -> InstanceSplit:
    """The split of two sources: gts, and per image a list of predictions beside its masks.

    Every list is read, and every line that cannot be used is told. A mask's path is relative to its list. The
    suffixes are tried and keys are paired as `pair_up` says, the space's own suffixes first.

    Raises
        EmptySplit: no gt, or no list for any of them.
        UnreadableSource, UnsafePath: a source cannot be listed.
    """
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
    skipped = 0
    for pair, content in _contents(split.pairs, preds):
        found: tuple[Prediction, ...] | None = None
        if isinstance(content, InputError):
            problems.append(content)
        elif content is not None and pair.pred is not None:
            findings = Findings(f"{preds.location}/{pair.pred.name}")
            lines = parse_list(content, space, findings)
            predictions = _predictions(lines, posixpath.dirname(pair.pred.name), files, space, findings)
            problems += findings.told()
            cut += [f"{findings.file} line {line.number}: {line.text}" for line in lines if line.is_cut]
            if not findings.errors:
                found = tuple(predictions)
                skipped += len(lines) - len(predictions)
        list_file = None if pair.pred is None else pair.pred.name
        images.append(InstanceImage(pair.key, pair.drive, pair.gt, found, list_file))
    notes = list(split.notes)
    if cut:
        notes.append(
            f"{len(cut)} label ids are no whole numbers and were cut to one, as the public script does; "
            f"the first: {cut[0]}"
        )
    return InstanceSplit(tuple(images), tuple(problems), tuple(notes), skipped, split.hint)


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


def _predictions(
    lines: Sequence[Line], folder: str, files: _Files, space: InstanceSpace, findings: Findings
) -> list[Prediction]:
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
        evaluated = line.label in space.ids
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
            predictions.append(Prediction(mask, line.label, line.confidence, line.number))
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
