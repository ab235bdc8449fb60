"""How toolchains end the names of their files: what is tried, what is inferred, what a suffix says."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from gpu_eval.labels.colours import COLOUR

# Tried in this order where the benchmark's own suffix meets nothing.
PRED_MAPS = (
    "_leftImg8bit.png",  # mmsegmentation
    "_leftImg8bit_pred.png",  # detectron2
    "_pred.png",
    "_gtFine_labelIds.png",
    "_gtFine_labelTrainIds.png",
    "_gtFine_labellevel3Ids.png",
    "_leftImg8bit_labelids.png",
    "_label.png",
    ".png",
)
GT_MAPS = (
    "_gtFine_labelIds.png",
    "_gtFine_labelids.png",  # as AutoNUE's createLabels writes it
    "_gtFine_labelTrainIds.png",
    "_gtFine_labellevel3Ids.png",
    "_gtFine_labelcsIds.png",
    "_gtFine_labelcsTrainIds.png",
    "_gtCoarse_labelIds.png",
    "_label.png",
    ".png",
)
PRED_LISTS = ("_leftImg8bit.txt", "_leftImg8bit_pred.txt", "_pred.txt", ".txt")
GT_INSTANCES = (
    "_gtFine_instanceids.png",
    "_gtFine_instanceIds.png",
    "_gtCoarse_instanceIds.png",
    "_instanceids.png",
    "_instanceIds.png",
)

# Maps of colours, looked for where the encoding is of colours; else they are pictures.
COLOUR_MAPS = ("_gtFine_color.png", "_leftImg8bit_color.png", "_color.png")

# Words in endings of what lies beside label maps, and is none.
_PICTURES = (
    r"[a-z0-9]*colou?rs?|vi[sz]|visual[a-z0-9]*|overlays?|blend|rgb|conf|confidence|probs?|scores?|entropy|"
    r"heat[a-z0-9]*|errors?|leftimg8bit(?=\.)|disparity|depth"
)


def _words(words: str) -> re.Pattern[str]:
    return re.compile(rf"[_\-. ](?:{words})(?=[_\-. ]|\Z)", re.IGNORECASE)


PRED_OTHERS = _words(_PICTURES)
GT_OTHERS = _words(rf"{_PICTURES}|inst[a-z0-9]*|polygons?")
INSTANCE_OTHERS = _words(rf"{_PICTURES}|label[a-z0-9]*|polygons?")

_LABELS = re.compile(r"_label(|train|cs|cstrain|level\d)_?ids\.png\Z", re.IGNORECASE)
_ENCODINGS = {"": "id", "cstrain": "cs_train"}

_SEPARATOR = re.compile(r"[_\-. ]")
_LETTER = re.compile(r"[A-Za-z]")


def encoding_named(suffix: str) -> str | None:
    """The encoding that a suffix names: "train" of "_gtFine_labelTrainIds.png"; None if it names none."""
    found = _LABELS.search(suffix)
    if found is None:
        return None
    word = found[1].lower()
    return _ENCODINGS.get(word, word)


def in_order(own: str, others: Sequence[str], encoding: str, usual: str) -> tuple[str, ...]:
    """The suffixes to try for files in `encoding`; the benchmark's own one comes first for its `usual` one.

    For another encoding those come first that name it.
    """
    if encoding == usual:
        return tuple(dict.fromkeys((own, *others)))
    named = [suffix for suffix in others if encoding_named(suffix) == encoding]
    named += COLOUR_MAPS if encoding == COLOUR else ()
    return tuple(dict.fromkeys((*named, own, *others)))


def ending(name: str) -> str:
    """What a file name has in common with its neighbours: "_gtFine.png" of "17/frame_0001_gtFine.png"."""
    starts = _starts(posixpath.basename(name))
    return posixpath.basename(name)[starts[-1] :] if starts else "(nothing)"


def _starts(base: str) -> list[int]:
    """Where the words at the end of a file name start, the last one first; each has a letter.

    The numbers of frames and drives are no such words: they end the search.
    """
    starts: list[int] = []
    end = len(base)
    for separator in reversed([found.start() for found in _SEPARATOR.finditer(base, 1)]):
        if not _LETTER.search(base, separator + 1, end):
            break
        starts.append(separator)
        end = separator
    return starts


def counted_endings(names: Iterable[str]) -> str:
    """The most frequent endings, for people."""
    return ", ".join(f"{end} ({count})" for end, count in Counter(map(ending, names)).most_common(4))


def possible_endings(names: Iterable[str], extension: str, most: int = 12) -> list[str]:
    """Endings that many files with this extension have, the most frequent and the longest first."""
    counts: Counter[str] = Counter()
    for name in names:
        if name.casefold().endswith(extension):
            base = posixpath.basename(name)
            counts.update(base[start:] for start in _starts(base))
    ordered = sorted(counts, key=lambda end: (-counts[end], -len(end), end))
    return ordered[:most]


def endings_after(names: Iterable[str], bases: Collection[str], extension: str) -> Counter[str]:
    """What stands in file names after one of these base names, and how often; only whole words count."""
    endings: Counter[str] = Counter()
    for name in names:
        if name.casefold().endswith(extension):
            base = posixpath.basename(name)
            known = base_within(base, bases)
            if known is not None and is_ending(base[len(known) :]):
                endings[base[len(known) :]] += 1
    return endings


def is_ending(text: str) -> bool:
    """Whether a text is words with a letter in each, after separators: "_color", not "_0002"."""
    return bool(text) and _starts(f"x{text}")[-1:] == [1]


def base_within(base: str, bases: Collection[str]) -> str | None:
    """The longest of `bases` that a file's base name begins with, up to a separator."""
    for found in reversed(list(_SEPARATOR.finditer(base, 1))):
        if base[: found.start()] in bases:
            return base[: found.start()]
    return None
