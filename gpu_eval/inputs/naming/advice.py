"""What is said where the names of a split do not meet: every advice here, followed, leads to a score."""

from __future__ import annotations

import posixpath
import shlex
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from gpu_eval.errors import EmptySplit
from gpu_eval.inputs.naming.layouts import tail_of
from gpu_eval.inputs.naming.side import Side
from gpu_eval.inputs.naming.suffixes import counted_endings, endings_after, possible_endings
from gpu_eval.inputs.naming.trial import Ambiguous, Clashed, Match, find_match

_SAVE = "save label maps as 8-bit PNG: Image.fromarray(ids.astype('uint8')).save({name!r})"
_POLYGONS = (
    "polygons must be drawn first: cityscapesscripts.preparation.json2labelImg (cityscapesScripts) or "
    "preperation/createLabels.py (AutoNUE's public-code) makes label maps of them"
)
_LOSSY = "JPEG is lossy and cannot hold labels: " + _SAVE
_ARRAYS, _LOSSY_KINDS = (".npy", ".npz", ".pt", ".pth", ".pkl", ".mat", ".h5"), (".jpg", ".jpeg", ".webp")
_PICTURES = (".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
# Extensions of files that are no label maps, and the one sentence that helps.
_OF_MAPS = {
    **dict.fromkeys(_ARRAYS + _PICTURES, _SAVE),
    **dict.fromkeys(_LOSSY_KINDS, _LOSSY),
    ".json": _POLYGONS,
    ".txt": "lists of instances and their masks are scored by gpu-eval instances",
}
_LIST = "write a list per image with a line `mask.png labelID confidence` per mask, such as {name}"
_COCO = "a COCO results file is named itself, in place of its folder: {file}"
_OF_LISTS = (".json", ".png", *_ARRAYS, *_PICTURES, *_LOSSY_KINDS)
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


def refusal(gts: Side, preds: Side, why: Ambiguous | Clashed | None) -> EmptySplit:
    """The error of sides that do not meet."""
    for side in (gts, preds):
        if not side.files:
            return EmptySplit(
                f"no {side.what}: there are no files at all", file=side.location, expected=f"*{side.tried[0]}"
            )
    better = _options_that_fit(gts, preds)
    for side in (gts, preds):
        sentence = None if better else _other_kind(side, gts)
        if sentence is not None:
            return _no_files(side, sentence)
    if isinstance(why, Ambiguous):
        return _ambiguous(gts, preds, why)
    for side in (gts, preds):
        if not any(side.by_key(suffix)[0] for suffix in side.tried):
            return _no_files(side, better or f"give the right folder, or say by {side.option} how names end")
    if isinstance(why, Clashed) and better is None:
        return _clash(preds, why)
    gt_suffix, pred_suffix = _in_use(gts), _in_use(preds)
    gt_keys, pred_keys = gts.by_key(gt_suffix)[0], preds.by_key(pred_suffix)[0]
    example = f"{min(gt_keys)}{pred_suffix}"
    return EmptySplit(
        f"of {len(pred_keys)} files of predictions none has the path of one of {len(gt_keys)} ground truths",
        file=preds.location,
        found=f"such as {min(pred_keys)}{pred_suffix}",
        expected=f"such as {example}",
        fix=better or _on_lists(gts, preds, gt_keys, example),
    )


def _on_lists(gts: Side, preds: Side, gt_keys: Collection[str], example: str) -> str:
    """What to do where names do not agree: masks of instances lie beside their lists."""
    bases = {posixpath.basename(key) for key in gt_keys}
    if preds.extension == ".png" and endings_after((entry.name for entry in preds.files), bases, ".txt"):
        return f"{_OF_MAPS['.txt']}: gpu-eval instances {gts.location} {preds.location}"
    return f"give the right folders, or name each {preds.what} after its ground truth: {example}"


def check_kinds(*sides: Side) -> None:
    """Raise EmptySplit for a given suffix of files that cannot be what is wanted, such as ".jpg"."""
    for side in sides:
        if side.given is not None and side.by_key(side.given)[0]:
            sentence = _of_kind(side, _extension(side.given), sides[0])
            if sentence is not None:
                raise _no_files(side, sentence)


def no_gts(gts: Side) -> EmptySplit:
    """The error of ground truth that is not there, where nothing is known of predictions."""
    if not gts.files:
        return refusal(gts, gts, None)
    endings = possible_endings(gts.meant, gts.extension)
    likely = next((end for end in (*gts.usual, *endings) if gts.by_key(end)[0]), None)
    if likely is not None:
        return _no_files(gts, f"give the right folder, or --gt-suffix {shlex.quote(likely)}")
    return _no_files(gts, _other_kind(gts, gts) or "give the right folder")


def _in_use(side: Side) -> str:
    """The suffix to speak of: the first that any file has."""
    return next(suffix for suffix in side.tried if side.by_key(suffix)[0])


def _no_files(side: Side, fix: str) -> EmptySplit:
    return EmptySplit(
        f"no {side.what} among {len(side.files)} files",
        file=side.location,
        found="files that end with " + counted_endings(entry.name for entry in side.files),
        expected=f"*{side.tried[0]}",
        fix=fix,
    )


def _other_kind(side: Side, gts: Side) -> str | None:
    """What to do where no file can be what is wanted, whatever its suffix; None if some can be."""
    if side.meant:
        return None
    kinds = Counter(_extension(entry.name) for entry in side.files)
    told = (_of_kind(side, kind, gts) for kind, _ in kinds.most_common())
    return next((sentence for sentence in told if sentence is not None), None)


def _of_kind(side: Side, kind: str, gts: Side) -> str | None:
    """What to do with files of this extension; None if nothing is known about it, or it is right."""
    if kind == side.extension or kind not in (_OF_MAPS if side.extension == ".png" else _OF_LISTS):
        return None
    names = [entry.name for entry in side.files if _extension(entry.name) == kind]
    example = min(names)[: -len(kind)]
    if side.extension == ".png":
        return f"{len(names)} {kind} files: " + _OF_MAPS[kind].format(name=f"{example}.png")
    if kind == ".json":
        return _COCO.format(file=f"{side.location}/{min(names)}")
    keys = (key for suffix in gts.tried for key in gts.by_key(suffix)[0])
    return _LIST.format(name=f"{min(keys, default='image')}{side.usual[0]}")


def _extension(name: str) -> str:
    return posixpath.splitext("x" + posixpath.basename(name))[1].casefold()


def _options_that_fit(gts: Side, preds: Side) -> str | None:
    """The suffixes by which the sides would meet, where those that were given do not."""
    free_gts, free_preds = replace(gts, given=None), replace(preds, given=None)
    choices = [(gts, free_preds)] if preds.given is not None else []
    if gts.given is not None:
        choices += [(free_gts, preds), (free_gts, free_preds)]
    for one, other in choices:
        match = find_match(one, other)
        if not isinstance(match, Match):
            continue
        suffixes = (match.gt_suffix, match.pred_suffix)
        named = [
            (side, suffix)
            for side, tried, suffix in zip((gts, preds), (one, other), suffixes, strict=True)
            if tried is not side and suffix != side.given
        ]
        again = find_match(
            *(
                replace(side, given=suffix) if side.given is not None else side
                for side, suffix in zip((gts, preds), suffixes, strict=True)
            )
        )
        if named and isinstance(again, Match):
            return "give " + " ".join(f"{side.option} {shlex.quote(suffix)}" for side, suffix in named)
        return "leave away " + " and ".join(side.option for side in (gts, preds) if side.given is not None)
    return None if preds.given is not None else _ending_of_some(gts, preds)


def _ending_of_some(gts: Side, preds: Side) -> str | None:
    """The suffix by which some gts have a prediction, though not all have."""
    for gt_suffix in gts.tried:
        bases = {posixpath.basename(key) for key in gts.by_key(gt_suffix)[0]}
        for ending, _ in endings_after(preds.meant, bases, preds.extension).most_common(1):
            if isinstance(find_match(gts, replace(preds, given=ending)), Match):
                return f"give {preds.option} {shlex.quote(ending)}"
    return None


def _ambiguous(gts: Side, preds: Side, why: Ambiguous) -> EmptySplit:
    options = [
        " ".join(
            f"{side.option} {shlex.quote(suffix)}"
            for side, suffix, tried in zip((gts, preds), choice, zip(*why.choices, strict=True), strict=True)
            if side.given is None and len(set(tried)) > 1
        )
        for choice in why.choices
    ]
    return EmptySplit(
        "more than one kind of files fits",
        file=preds.location,
        found=f"{preds.what}s that end with " + " or ".join(sorted({pred for _, pred in why.choices}))
        + ", ground truths with " + " or ".join(sorted({gt for gt, _ in why.choices})),
        expected="one kind of each",
        fix="give " + ", or ".join(options),
    )  # fmt: skip


def _clash(preds: Side, clashed: Clashed) -> EmptySplit:
    clash, suffix = clashed.clash, clashed.pred_suffix
    messages = {
        "gts": "ground truths in several folders share their file names, so those of predictions do not say "
        "which image they are of",
        "preds": "predictions in several folders share their file names, and no folder says which is meant",
        "folders": "the folders of predictions name other drives than those of the ground truth",
    }
    right = f"{clash.gts[0]}{suffix}"
    fix = f"put each {preds.what} into the folder of its ground truth, such as {right}"
    if clash.why == "preds":
        archive = preds.location.casefold().endswith(_ARCHIVES)
        inside = "/" + tail_of(clash.gts[0], 2)
        folders = [
            key.removesuffix(inside) if key.endswith(inside) else posixpath.dirname(key)
            for key in clash.preds
        ]
        fix = "leave only one of these folders in the archive: " if archive else "give one of these folders: "
        fix += ", ".join(
            posixpath.join("" if archive else preds.location, folder) for folder in folders if folder
        )
    return EmptySplit(
        messages[clash.why],
        file=preds.location,
        found=f"{' and '.join(key + suffix for key in clash.preds[:2])} for {' or '.join(clash.gts[:2])}",
        expected=f"such as {right}",
        fix=fix,
    )


def on_most_missing(
    gts: Side, preds: Side, match: Match, paired: Sequence[str], missing: Sequence[str]
) -> str | None:
    """What to do where most gts have no prediction: the suffix, or the folder of gts, by which more have."""
    if len(missing) <= len(paired):
        return None
    bases = {posixpath.basename(key) for key in match.gts}
    for end, _ in endings_after(preds.meant, bases, preds.extension).most_common(2):
        other = find_match(replace(gts, given=match.gt_suffix), replace(preds, given=end))
        if isinstance(other, Match) and other.missing < len(paired):
            return f"give {preds.option} {shlex.quote(end)}"
    if not paired or gts.location.casefold().endswith(_ARCHIVES):
        return None
    shared = posixpath.commonpath([posixpath.dirname(name) for name in paired])
    if not shared or any(name.startswith(f"{shared}/") for name in missing):
        return None
    return f"if only {shared} was predicted, give {gts.location.rstrip('/')}/{shared} as the ground truth"
