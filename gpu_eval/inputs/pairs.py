"""Which prediction belongs to which ground truth, and everything that is wrong with a split, in one pass."""

from __future__ import annotations

import posixpath
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from gpu_eval.errors import (
    DuplicateFile,
    EmptySplit,
    ExtraPrediction,
    InputError,
    MissingPrediction,
    UnreadableFile,
)
from gpu_eval.inputs.sources import Entry

MAX_STRIPPED = 3  # leading folders that may be dropped on a side to make the keys meet


@dataclass(frozen=True, slots=True)
class Pair:
    """One image of the split; `pred` is None where the prediction is missing."""

    key: str  # path without suffix, "17/024541"
    drive: str  # folder part of the key, "17"; "" if none
    gt: Entry
    pred: Entry | None


@dataclass(frozen=True)
class Split:
    """All pairs by key, what is wrong with them, and what was assumed to find them."""

    pairs: tuple[Pair, ...]
    problems: tuple[InputError, ...]
    notes: tuple[str, ...]


def pair_up(
    gt_entries: Iterable[Entry],
    pred_entries: Iterable[Entry],
    *,
    gt_suffix: str,
    pred_suffix: str,
    gt_location: str,
    pred_location: str,
    exclude: Sequence[str] = (),
    what: str = "prediction",
    suffix_option: str = "--pred-suffix",
) -> Split:
    """The split that two lists of files make: one pair per ground truth, sorted by key.

    A key is a path without its suffix; files that end with one of `exclude` are not label maps. Where no key
    has a partner, folders that all files of a side share are dropped (archives often hold one top folder);
    a note says so. `what` is the word for a file of the prediction side, `suffix_option` the option to
    recommend where its suffix seems to be wrong.

    Raises
        EmptySplit: no ground truth, or no prediction for any of them; names the endings that are there.
    """
    gt_files, pred_files = list(gt_entries), list(pred_entries)
    gts, gt_problems = gts_by_key(gt_files, gt_suffix, gt_location, exclude)
    preds, pred_problems = _by_key(pred_files, pred_suffix, pred_location, exclude)
    if not preds:
        better = _ending_that_meets(pred_files, gts)
        raise empty_split(what, suffix_option, pred_files, pred_suffix, pred_location, better)
    dropped = folders_to_drop(gts, preds)
    if dropped is None:
        raise EmptySplit(
            f"of {len(preds)} files of predictions none has the path of one of {len(gts)} ground truths",
            file=pred_location,
            found=f"such as {min(preds)}{pred_suffix}",
            expected=f"such as {min(gts)}{pred_suffix}",
            fix="name the folder that holds the drives, or rename the files"
            + _suffix_hint(suffix_option, _ending_that_meets(pred_files, gts), pred_suffix),
        )
    gt_folder, pred_folder = dropped
    notes = notes_on_dropped((gt_location, gt_folder), (pred_location, pred_folder))
    gts = {key[len(gt_folder) :]: entry for key, entry in gts.items()}
    preds = {key[len(pred_folder) :]: entry for key, entry in preds.items()}

    pairs = tuple(Pair(key, posixpath.dirname(key), gts[key], preds.get(key)) for key in sorted(gts))
    missing = [f"{pred_folder}{pair.key}{pred_suffix}" for pair in pairs if pair.pred is None]
    used = {pair.pred.name for pair in pairs if pair.pred is not None}
    near = _near_names(missing, [entry.name for entry in pred_files if entry.name not in used])
    problems: list[InputError] = [*gt_problems, *pred_problems]
    problems += [
        MissingPrediction(
            f"no {what} for this ground truth",
            file=f"{pred_location}/{name}",
            expected=name,
            found=near.get(name),
            fix=f"rename or move it to {name}" if name in near else None,
        )
        for name in missing
    ]
    problems += [
        ExtraPrediction(
            f"no ground truth for this {what}",
            file=f"{pred_location}/{preds[key].name}",
            expected=f"{gt_folder}{key}{gt_suffix} in {gt_location}",
        )
        for key in sorted(preds.keys() - gts.keys())
    ]
    return Split(pairs, tuple(problems), notes)


def gts_by_key(
    entries: Sequence[Entry], suffix: str, location: str, exclude: Sequence[str] = ()
) -> tuple[dict[str, Entry], list[InputError]]:
    """The ground truth by key, and the files that cannot be it. Raises EmptySplit where there is none."""
    gts, problems = _by_key(entries, suffix, location, exclude)
    if not gts:
        raise empty_split("ground truth", "--gt-suffix", entries, suffix, location)
    return gts, problems


def _by_key(
    entries: Sequence[Entry], suffix: str, location: str, exclude: Sequence[str]
) -> tuple[dict[str, Entry], list[InputError]]:
    """Label maps by key; of two files with one key the first is kept."""
    found: dict[str, Entry] = {}
    problems: list[InputError] = []
    for entry in entries:
        if not entry.name.endswith(suffix) or entry.name.endswith(tuple(exclude)):
            continue
        key = entry.name.removesuffix(suffix)
        if not _is_utf8(entry.name):
            problems.append(
                UnreadableFile(
                    "the file name is not UTF-8",
                    file=f"{location}/{entry.name.encode('utf-8', 'backslashreplace').decode()}",
                    fix="rename the file",
                )
            )
        elif key in found:
            problems.append(
                DuplicateFile(
                    "two files claim this image; the first is kept",
                    file=f"{location}/{entry.name}",
                    found=f"{found[key].size} and {entry.size} bytes",
                    expected="one file per image",
                    fix="pack the archive again without the second one",
                )
            )
        else:
            found[key] = entry
    return found, problems


def _is_utf8(name: str) -> bool:
    """False for names that the file system or an archive gave in another encoding."""
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def folders_to_drop(gts: Collection[str], preds: Collection[str]) -> tuple[str, str] | None:
    """The shared leading folders ("" or "a/b/") to drop from the keys of each side so that they meet.

    The fewest that do; None where none do. Where both sides lose a folder, a folder must remain: otherwise
    frame 1 of drive 17 would be scored against frame 1 of drive 18.
    """
    gt_folders, pred_folders = _shared_folders(gts), _shared_folders(preds)
    choices = product(range(len(gt_folders)), range(len(pred_folders)))
    for gt_count, pred_count in sorted(choices, key=sum):
        gt_folder, pred_folder = gt_folders[gt_count], pred_folders[pred_count]
        bare = any("/" not in key[len(gt_folder) :] for key in gts)
        if gt_count and pred_count and bare:
            continue
        if any(pred_folder + key[len(gt_folder) :] in preds for key in gts):
            return gt_folder, pred_folder
    return None


def notes_on_dropped(*dropped: tuple[str, str]) -> tuple[str, ...]:
    """What is told about folders that were dropped, each given as (location, folder or "")."""
    return tuple(
        f"{location}: the folder {folder.rstrip('/')!r}, which holds all files, was left out of the keys"
        for location, folder in dropped
        if folder
    )


def _shared_folders(keys: Iterable[str]) -> list[str]:
    """The leading folders that all keys share: ["", "a/", "a/b/"], at most MAX_STRIPPED deep."""
    keys = list(keys)
    # What the smallest and the largest string share, all strings between them share too.
    low, high = min(keys).split("/")[:-1], max(keys).split("/")[:-1]
    folders = [""]
    for one, other in zip(low[:MAX_STRIPPED], high[:MAX_STRIPPED], strict=False):
        if one != other:
            break
        folders.append(f"{folders[-1]}{one}/")
    return folders


def empty_split(
    what: str, option: str, entries: Sequence[Entry], suffix: str, location: str, better: str | None = None
) -> EmptySplit:
    """The error of a side without a single file of its suffix; `better` is the suffix to recommend."""
    if not entries:
        return EmptySplit(f"no {what}: there are no files at all", file=location, expected=f"*{suffix}")
    endings = Counter(_ending(entry.name) for entry in entries).most_common(4)
    if better is None and what == "ground truth":
        better = endings[0][0]
    return EmptySplit(
        f"no {what} among {len(entries)} files",
        file=location,
        found="files that end with " + ", ".join(f"{ending} ({count})" for ending, count in endings),
        expected=f"*{suffix}",
        fix=f"give the right folder{_suffix_hint(option, better, suffix)}",
    )


def _suffix_hint(option: str, ending: str | None, suffix: str) -> str:
    return f", or {option} {ending}" if ending is not None and ending != suffix else ""


def _ending(name: str) -> str:
    """What a file name has in common with its neighbours: "_gtFine.png" of "17/frame_0001_gtFine.png"."""
    stem, extension = posixpath.splitext(posixpath.basename(name))
    words = stem.split("_")
    first = len(words)
    while first > 1 and words[first - 1] and not words[first - 1].isdigit():
        first -= 1
    return "".join(f"_{word}" for word in words[first:]) + extension or "(nothing)"


def _ending_that_meets(entries: Sequence[Entry], gts: Mapping[str, Entry]) -> str | None:
    """The ending most predictions have after the key of a ground truth; None if none starts with one."""
    bases = {posixpath.basename(key) for key in gts}
    endings: Counter[str] = Counter()
    for entry in entries:
        base = posixpath.basename(entry.name)
        cut = next((cut for cut in range(len(base) - 1, 0, -1) if base[:cut] in bases), None)
        if cut is not None:
            endings[base[cut:]] += 1
    return endings.most_common(1)[0][0] if endings else None


def _near_names(missing: Sequence[str], unused: Sequence[str]) -> dict[str, str]:
    """For missing predictions, an unused file that differs in case only, or lies in another folder."""
    if not missing:
        return {}
    same_but_case: dict[str, str] = {}
    same_base: defaultdict[str, list[str]] = defaultdict(list)
    for name in unused:
        same_but_case.setdefault(name.casefold(), name)
        same_base[posixpath.basename(name).casefold()].append(name)
    near: dict[str, str] = {}
    for name in missing:
        elsewhere = same_base.get(posixpath.basename(name).casefold(), [])
        if name.casefold() in same_but_case:
            near[name] = same_but_case[name.casefold()]
        elif len(elsewhere) == 1:
            near[name] = elsewhere[0]
    return near
