"""Which prediction belongs to which ground truth, and everything that is wrong with a split, in one pass."""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from gpu_eval.errors import ExtraPrediction, InputError, MissingPrediction
from gpu_eval.inputs.naming import advice
from gpu_eval.inputs.naming.layouts import found_elsewhere
from gpu_eval.inputs.naming.side import Side
from gpu_eval.inputs.naming.suffixes import (
    GT_MAPS,
    GT_OTHERS,
    PRED_MAPS,
    PRED_OTHERS,
    base_within,
    is_ending,
)
from gpu_eval.inputs.naming.trial import Match, find_match
from gpu_eval.inputs.source import Entry


@dataclass(frozen=True, slots=True)
class Pair:
    """One image of the split; `pred` is None where the prediction is missing."""

    key: str  # path without suffix, "17/024541"
    drive: str  # folder part of the key, "17"; "" if none
    gt: Entry
    pred: Entry | None


@dataclass(frozen=True)
class Split:
    """All pairs by key, what is wrong with them, and what was assumed to find them.

    The suffixes are those that the files were found by. `hint` is what to do where most predictions are
    missing, if anything is known.
    """

    pairs: tuple[Pair, ...]
    problems: tuple[InputError, ...]
    notes: tuple[str, ...]
    gt_suffix: str
    pred_suffix: str
    hint: str | None = None


def pair_up(
    gt_entries: Iterable[Entry],
    pred_entries: Iterable[Entry],
    *,
    gt_location: str,
    pred_location: str,
    gt_suffix: str | None = None,
    pred_suffix: str | None = None,
    gt_usual: tuple[str, ...] = GT_MAPS,
    pred_usual: tuple[str, ...] = PRED_MAPS,
    exclude: Sequence[str] = (),
    what: str = "prediction",
    suffix_option: str = "--pred-suffix",
    extension: str = ".png",
    gt_others: re.Pattern[str] = GT_OTHERS,
) -> Split:
    """The split that two lists of files make: one pair per ground truth, sorted by key.

    A key is a path without its suffix; files that end with one of `exclude` are not label maps. A suffix is
    what the user gave: no other is tried. Where none is given, the `usual` ones are tried, the benchmark's
    own one first and the others in their order where it meets nothing, and after them any suffix by which
    every ground truth has exactly one prediction. Keys meet as `naming.layouts` says: by path, by the path
    below the folders that all files of a side share, by the last folders, by file name where no two ground
    truths share one. Whatever was assumed is told in a note. `what` is the word for a file of the prediction
    side, `extension` its files'; `suffix_option` is to be recommended where its suffix seems to be wrong;
    endings like `gt_others` are no ground truth.

    Raises
        EmptySplit: no ground truth, or no prediction for any of them; says what would mend it.
    """
    others = tuple(exclude)
    gts = Side(
        list(gt_entries), gt_location, gt_suffix, gt_usual, "ground truth", "--gt-suffix", ".png", gt_others,
        others, are_others_left=True,
    )  # fmt: skip
    preds = Side(
        list(pred_entries), pred_location, pred_suffix, pred_usual, what, suffix_option, extension,
        PRED_OTHERS, others,
    )  # fmt: skip
    advice.check_kinds(gts, preds)
    match = find_match(gts, preds)
    if not isinstance(match, Match):
        raise advice.refusal(gts, preds, match)
    return _split(gts, preds, match)


def gts_by_key(
    entries: Iterable[Entry],
    location: str,
    suffix: str | None,
    usual: tuple[str, ...] = GT_MAPS,
    others: re.Pattern[str] = GT_OTHERS,
    exclude: Sequence[str] = (),
) -> tuple[dict[str, Entry], list[InputError], str]:
    """The ground truth alone: its files by key, those that cannot be used, and the suffix they have.

    The first of the `usual` suffixes that files have, if none is given. Raises EmptySplit where none is.
    """
    gts = Side(
        list(entries), location, suffix, usual, "ground truth", "--gt-suffix", ".png", others,
        tuple(exclude), are_others_left=True,
    )  # fmt: skip
    for tried in gts.tried:
        found, problems = gts.by_key(tried)
        if found:
            return found, problems, tried
    raise advice.no_gts(gts)


def _split(gts: Side, preds: Side, match: Match) -> Split:
    """The pairs of a match, and what is wrong with the files of both sides."""
    files, notes = match.preds, list(match.notes)
    missing = [key for key in match.gts if key not in files]
    unused = files.keys() - match.gts.keys()
    elsewhere = found_elsewhere(missing, unused) if missing and unused else {}
    if elsewhere:
        files = {elsewhere.get(key, key): entry for key, entry in files.items()}
        unused -= elsewhere.keys()
        notes.append(
            f"{preds.location}: {len(elsewhere)} predictions in other folders were paired by file name alone"
        )
    pairs = tuple(
        Pair(key, posixpath.dirname(key), match.gts[key], files.get(key)) for key in sorted(match.gts)
    )
    if unused:
        beside = _beside(unused, match, match.gts.keys() & files.keys())
        unused -= beside.keys()
        if beside:
            kinds = ", ".join(sorted(set(beside.values())))
            notes.append(
                f"{preds.location}: {len(beside)} files {kinds} were left out; their images have a prediction"
            )
    lacking = [pair for pair in pairs if pair.pred is None]
    problems = [*match.problems]
    if lacking:
        names = [match.meeting.name_of(pair.key) + match.pred_suffix for pair in lacking]
        used = {pair.pred.name for pair in pairs if pair.pred is not None}
        near = _near_names(names, [entry.name for entry in preds.files if entry.name not in used])
        problems += [
            MissingPrediction(
                f"no {preds.what} for this ground truth",
                file=f"{preds.location}/{name}",
                expected=name,
                found=near.get(name),
                fix=f"rename or move it to {name}" if name in near else None,
            )
            for name in names
        ]
    problems += [
        ExtraPrediction(
            f"no ground truth for this {preds.what}",
            file=f"{preds.location}/{files[key].name}",
            expected=f"{match.meeting.gt_folder}{key}{match.gt_suffix} in {gts.location}",
        )
        for key in sorted(unused)
    ]
    hint = None
    if lacking:
        paired = [pair.gt.name for pair in pairs if pair.pred is not None]
        hint = advice.on_most_missing(gts, preds, match, paired, [pair.gt.name for pair in lacking])
    return Split(pairs, tuple(problems), tuple(notes), match.gt_suffix, match.pred_suffix, hint)


def _beside(unused: Iterable[str], match: Match, paired: Collection[str]) -> dict[str, str]:
    """Keys of other files of images that have a prediction, and what tells them from it.

    "17/a_color" beside "17/a" under the suffix ".png", "color/17/a" beside the folder of drive 17.
    """
    bases = {posixpath.basename(key) for key in paired}
    anywhere = match.meeting.moved is not None
    found = {}
    for key in unused:
        folder, base = posixpath.split(key)
        known = base_within(base, bases) if match.pred_suffix.startswith(".") else None
        if known is not None and is_ending(base[len(known) :]):
            if anywhere or posixpath.join(folder, known) in paired:
                found[key] = f"that end with {base[len(known) :]}{match.pred_suffix}"
        elif base in bases:
            parts = key.split("/")
            within = ("/".join(parts[at:]) for at in range(1, len(parts) - 1))
            whole = next((one for one in within if one in paired), None)
            if whole is not None:
                found[key] = f"in {key.removesuffix(whole)}"
    return found


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
