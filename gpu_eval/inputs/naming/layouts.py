"""How the keys of two sides meet: by path, without shared folders, by their last folders, by file name."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

FEW_CHOICES = 16  # of folders to drop are tried without a look at depths
MOST_PARTS = 16  # of paths are compared; benchmarks have two or three


@dataclass(frozen=True)
class Meeting:
    """The way in which keys meet.

    `gt_folder` and `pred_folder` ("" or "a/b/") are dropped from all keys of a side. Where that is not
    enough, `moved` says for keys of predictions (with their folder) which gt's key each stands for; `tail` is
    how many parts of their paths agree, and `repeated` are predictions of images that others claim already.
    """

    gt_folder: str = ""
    pred_folder: str = ""
    moved: Mapping[str, str] | None = None
    tail: int = 0
    repeated: Sequence[str] = field(default=())

    def name_of(self, gt_key: str) -> str:
        """The key, with its folder, that the prediction of a gt should have."""
        if self.moved is None:
            return self.pred_folder + gt_key
        return self.pred_folder + tail_of(gt_key, self.tail)


@dataclass(frozen=True)
class Clash:
    """Why keys that share file names are not paired by them: two gts, or folders that say otherwise.

    `preds` and `gts` are keys whose names fit each other; `why` is "gts" where several gts have the name,
    "preds" where several predictions have it, "folders" where folders name different drives.
    """

    preds: tuple[str, ...]
    gts: tuple[str, ...]
    why: str


def meet(gts: Collection[str], preds: Collection[str]) -> Meeting | Clash | None:
    """The way in which some of these keys meet, why they do not although file names agree, or None."""
    dropped = folders_to_drop(gts, preds)
    if dropped is not None:
        return Meeting(*dropped)
    return _meet_by_tail(gts, preds)


def folders_to_drop(gts: Collection[str], preds: Collection[str]) -> tuple[str, str] | None:
    """The shared leading folders ("" or "a/b/") to drop from the keys of each side so that they meet.

    The fewest that do; None where none do. Where both sides lose a folder, a folder must remain: otherwise
    frame 1 of drive 17 would be scored against frame 1 of drive 18.
    """
    gt_folders, pred_folders = _shared_folders(gts), _shared_folders(preds)
    choices = sorted(product(range(len(gt_folders)), range(len(pred_folders))), key=sum)
    # Deep archives have many choices; few of them leave paths of one depth.
    depths = (_depths(gts), _depths(preds)) if len(choices) > FEW_CHOICES else None
    for gt_count, pred_count in choices:
        if depths is not None and (
            {depth - gt_count for depth in depths[0]}.isdisjoint(depth - pred_count for depth in depths[1])
        ):
            continue
        gt_folder, pred_folder = gt_folders[gt_count], pred_folders[pred_count]
        bare = gt_count and pred_count and any("/" not in key[len(gt_folder) :] for key in gts)
        if not bare and any(pred_folder + key[len(gt_folder) :] in preds for key in gts):
            return gt_folder, pred_folder
    return None


def _depths(keys: Iterable[str]) -> set[int]:
    return {key.count("/") for key in keys}


def _shared_folders(keys: Iterable[str]) -> list[str]:
    """The leading folders that all keys share: ["", "a/", "a/b/"]."""
    keys = list(keys)
    # What the smallest and the largest string share, all strings between them share too.
    low, high = min(keys).split("/")[:-1], max(keys).split("/")[:-1]
    folders = [""]
    for one, other in zip(low, high, strict=False):
        if one != other:
            break
        folders.append(f"{folders[-1]}{one}/")
    return folders


def tail_of(key: str, length: int) -> str:
    """The last parts of a path: "17/a" of "val/17/a" for a length of 2."""
    return "/".join(key.split("/")[-length:])


def _meet_by_tail(gts: Collection[str], preds: Collection[str]) -> Meeting | Clash | None:
    """Keys whose last parts agree, as many as do, down to the file name alone."""
    deepest = min(max(_depths(gts)), max(_depths(preds)), MOST_PARTS - 1)
    for length in range(deepest + 1, 0, -1):
        of_gts, of_preds = _by_tail(gts, length), _by_tail(preds, length)
        common = of_gts.keys() & of_preds.keys()
        if not common:
            continue
        repeated = min((tail for tail, keys in of_gts.items() if len(keys) > 1), default=None)
        if repeated is not None:
            shown = repeated if repeated in common else min(common)
            return Clash((of_preds[shown][0],), tuple(sorted(of_gts[repeated])), "gts")
        pairs = {tail: (of_gts[tail][0], sorted(of_preds[tail])) for tail in sorted(common)}
        clash = _folders_that_clash(gts, pairs, length)
        if clash is not None:
            return clash
        return Meeting(
            # What the paths share before the parts that agree.
            pred_folder=_shared_folders([key.removesuffix(tail_of(key, length)) + "." for key in preds])[-1],
            moved={found[0]: gt for gt, found in pairs.values()},
            tail=length,
            repeated=[key for _, found in pairs.values() for key in found[1:]],
        )
    return None


def _by_tail(keys: Iterable[str], length: int) -> dict[str, list[str]]:
    tails: defaultdict[str, list[str]] = defaultdict(list)
    for key in keys:
        tails[tail_of(key, length)].append(key)
    return tails


def _folders_that_clash(
    gts: Iterable[str], pairs: Mapping[str, tuple[str, Sequence[str]]], length: int
) -> Clash | None:
    """The first pair whose folders name two drives; names that begin with their folder's need no folder."""
    folders = {_folder(key, length) for key in gts}
    kinds = {_kind(folder) for folder in folders if re.search(r"\d", folder)}
    again = [gt for gt, found in pairs.values() if len(found) > 1]
    for gt, found in pairs.values():
        # A file or two may have been left somewhere; the same names all over are another kind of files.
        if len(found) > 1 and (2 * len(again) > len(pairs) or not says_its_folder(gt)):
            return Clash(tuple(found), (gt,), "preds")
        if says_its_folder(gt):
            continue
        there, here = _folder(gt, length), _folder(found[0], length)
        if there and here and there != here and (here in folders or _kind(here) in kinds):
            return Clash((found[0],), (gt,), "folders")
    return None


def _folder(key: str, length: int) -> str:
    """The folder right before the last parts of a path."""
    parts = key.split("/")[:-length]
    return parts[-1] if parts else ""


def _kind(folder: str) -> str:
    """ "drive_0" of "drive_17": folders of one kind are drives of one set."""
    return re.sub(r"\d+", "0", folder)


def says_its_folder(key: str) -> bool:
    """Whether a file name begins with its folder's name, as "aachen/aachen_000000_000019" does."""
    folder, base = posixpath.split(key)
    folder = posixpath.basename(folder)
    return bool(folder) and base.startswith(folder) and base[len(folder) : len(folder) + 1] in tuple("_-. ")


def found_elsewhere(missing: Iterable[str], unused: Collection[str]) -> dict[str, str]:
    """For gts without a prediction whose names say their folder: the one unused prediction of that name."""
    asked = {posixpath.basename(key): key for key in missing if says_its_folder(key)}
    if not asked:
        return {}
    by_base = _by_tail(unused, 1)
    return {found[0]: asked[base] for base, found in by_base.items() if base in asked and len(found) == 1}


def notes_on(meeting: Meeting, gt_location: str, pred_location: str) -> tuple[str, ...]:
    """What is told about the way in which keys met."""
    if meeting.moved is None:
        return notes_on_dropped((gt_location, meeting.gt_folder), (pred_location, meeting.pred_folder))
    if meeting.tail == 1:
        return (
            f"{pred_location}: predictions were paired by file name alone, whatever their folder; no two "
            "ground truths share one",
        )
    return (
        f"{pred_location}: predictions were paired by the last {meeting.tail} parts of their paths, such as "
        f"{tail_of(min(meeting.moved.values()), meeting.tail)}",
    )


def notes_on_dropped(*dropped: tuple[str, str]) -> tuple[str, ...]:
    """What is told about folders that were dropped, each given as (location, folder or "")."""
    return tuple(
        f"{location}: the folder {folder.rstrip('/')!r}, which holds all files, was left out of the keys"
        for location, folder in dropped
        if folder
    )
