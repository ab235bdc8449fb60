"""Which suffixes make the two sides meet: what was given, what toolchains write, what fits all files."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from gpu_eval.errors import DuplicateFile, InputError
from gpu_eval.inputs.naming.layouts import Clash, Meeting, meet, notes_on, says_its_folder
from gpu_eval.inputs.naming.side import Side
from gpu_eval.inputs.naming.suffixes import base_within, endings_after, possible_endings
from gpu_eval.inputs.source import Entry

MOST_ENDINGS = 8  # of predictions that are tried for one kind of ground truth


@dataclass(frozen=True)
class Match:
    """Two sides that meet: their files under the keys of the gts, what was wrong, what was assumed."""

    gts: Mapping[str, Entry]
    preds: Mapping[str, Entry]
    meeting: Meeting
    gt_suffix: str
    pred_suffix: str
    problems: tuple[InputError, ...]
    notes: tuple[str, ...]

    @property
    def missing(self) -> int:
        """Ground truths without a prediction."""
        return len(self.gts.keys() - self.preds.keys())


@dataclass(frozen=True)
class Ambiguous:
    """More than one pair of suffixes fits every file; they are (gt suffix, prediction suffix)."""

    choices: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Clashed:
    """Files of this suffix share names with gts and are not paired by them, for this reason."""

    clash: Clash
    pred_suffix: str


def find_match(gts: Side, preds: Side) -> Match | Ambiguous | Clashed | None:
    """How the sides meet; else the choices that the user has, a clash of names, or None."""
    own = (gts.tried[0], preds.tried[0])
    best: Match | None = None
    clash: Clashed | None = None
    for gt_suffix in gts.tried:
        gt_keys = gts.by_key(gt_suffix)[0]
        if not gt_keys or (gt_suffix != own[0] and not _covers(gts, gt_suffix)):
            continue
        for pred_suffix in preds.tried:
            pred_keys = preds.by_key(pred_suffix)[0]
            if not pred_keys:
                continue
            met = meet(gt_keys, pred_keys)
            if isinstance(met, Clash):
                clash = clash or Clashed(met, pred_suffix)
            elif met is not None:
                match = _match(gts, preds, gt_suffix, pred_suffix, met)
                # An ending such as ".png" says nothing: with it files of several kinds may look like gts.
                certain = (gt_suffix, pred_suffix) == own and gt_suffix != gts.extension
                if certain or not match.missing:
                    return match
                best = match if best is None or _rank(match) > _rank(best) else best
    if best is None or 2 * best.missing > len(best.gts):
        return _inferred(gts, preds) or _by_beginning(gts, preds) or best or clash
    # Endings may differ from file to file; those of the benchmark's own suffix are not looked at again.
    return _by_beginning(gts, preds) or best


def _rank(match: Match) -> tuple[int, int]:
    return len(match.gts) - match.missing, -match.missing


def _covers(gts: Side, suffix: str) -> bool:
    """Whether every file that may be a gt has this suffix, or shows an image that has a file with it."""
    keys = gts.by_key(suffix)[0]
    bases = {posixpath.basename(key) for key in keys}
    return all(
        name.endswith(suffix) or base_within(posixpath.basename(name), bases) is not None
        for name in gts.meant
    )


def _match(gts: Side, preds: Side, gt_suffix: str, pred_suffix: str, meeting: Meeting) -> Match:
    gt_files, gt_problems = gts.by_key(gt_suffix)
    pred_files, pred_problems = preds.by_key(pred_suffix)
    problems = [*gt_problems, *pred_problems]
    gt_cut, pred_cut = len(meeting.gt_folder), len(meeting.pred_folder)
    if gt_cut:
        gt_files = {key[gt_cut:]: entry for key, entry in gt_files.items()}
    if meeting.moved is not None:
        again = set(meeting.repeated)
        problems += [_repeated(f"{preds.location}/{pred_files[key].name}") for key in meeting.repeated]
        pred_files = {
            meeting.moved.get(key, key): entry for key, entry in pred_files.items() if key not in again
        }
    elif pred_cut:
        pred_files = {key[pred_cut:]: entry for key, entry in pred_files.items()}
    notes = [
        _taken(side, suffix)
        for side, suffix in ((gts, gt_suffix), (preds, pred_suffix))
        if suffix != side.tried[0]
    ]
    notes += notes_on(meeting, gts.location, preds.location)
    return Match(gt_files, pred_files, meeting, gt_suffix, pred_suffix, tuple(problems), tuple(notes))


def _taken(side: Side, suffix: str) -> str:
    return (
        f"{side.location}: files that end with {suffix} were taken as {side.what}s "
        f"({side.option} says otherwise)"
    )


def _repeated(file: str) -> DuplicateFile:
    return DuplicateFile(
        "two files claim this image; the first is kept",
        file=file,
        found="one file name in two folders",
        expected="one file per image",
        fix="leave one of them in the folder",
    )


def _inferred(gts: Side, preds: Side) -> Match | Ambiguous | None:
    """The suffixes by which every gt has exactly one prediction; several, if they mean different files."""
    found: dict[tuple[frozenset[str], frozenset[str]], Match] = {}
    for gt_suffix in _possible_gts(gts):
        gt_keys = gts.by_key(gt_suffix)[0]
        for pred_suffix in _possible_preds(preds, gt_keys):
            pred_keys = preds.by_key(pred_suffix)[0]
            met = meet(gt_keys, pred_keys) if pred_keys else None
            if not isinstance(met, Meeting) or met.repeated:
                continue
            match = _match(gts, preds, gt_suffix, pred_suffix, met)
            if not match.missing:
                sides = (match.gts, {key: match.preds[key] for key in match.gts})
                names = [frozenset(entry.name for entry in side.values()) for side in sides]
                found.setdefault((names[0], names[1]), match)
    # Pictures of predictions beside them fit as well as these do.
    likely = [match for match in found.values() if not preds.others.search(match.pred_suffix)]
    matches = likely or list(found.values())
    # Of several kinds of ground truth the benchmark's own is meant, where it fits.
    matches = [match for match in matches if match.gt_suffix == gts.tried[0]] or matches
    if len(matches) > 1:
        return Ambiguous(tuple((match.gt_suffix, match.pred_suffix) for match in matches))
    return matches[0] if matches else None


def _possible_gts(gts: Side) -> Iterator[str]:
    if gts.given is not None:
        yield from (suffix for suffix in gts.tried if gts.by_key(suffix)[0])
        return
    endings = possible_endings(gts.meant, gts.extension)
    for suffix in dict.fromkeys((*gts.tried, *endings)):
        if gts.by_key(suffix)[0] and not gts.others.search(suffix) and _covers(gts, suffix):
            yield suffix


def _possible_preds(preds: Side, gt_keys: Collection[str]) -> list[str]:
    if preds.given is not None:
        return list(preds.tried)
    bases = {posixpath.basename(key) for key in gt_keys}
    endings = endings_after(preds.meant, bases, preds.extension)
    return [suffix for suffix, _ in endings.most_common(MOST_ENDINGS)]


def _by_beginning(gts: Side, preds: Side) -> Match | None:
    """Predictions whose names merely begin with those of gts, as cityscapesScripts finds them.

    Only where gt names say their folder, and every gt has exactly one such prediction.
    """
    if preds.given is not None:
        return None
    for gt_suffix in gts.tried:
        gt_files, gt_problems = gts.by_key(gt_suffix)
        by_base = {posixpath.basename(key): key for key in gt_files}
        if not gt_files or len(by_base) < len(gt_files) or not all(map(says_its_folder, gt_files)):
            continue
        by_name = {entry.name: entry for entry in preds.files}
        found = [
            (by_base[base], name)
            for name in preds.meant
            if (base := base_within(posixpath.basename(name), by_base)) is not None
        ]
        once = Counter(key for key, _ in found)
        if once.keys() == gt_files.keys() and len(found) == len(once):
            return Match(
                gt_files,
                {key: by_name[name] for key, name in found},
                Meeting(tail=1),
                gt_suffix,
                preds.extension,
                tuple(gt_problems),
                (
                    f"{preds.location}: predictions were paired by how their file names begin, such as "
                    f"{min(by_base)}*{preds.extension}",
                ),
            )
    return None
