"""How toolchains end the names of their files: what is tried, what is inferred, what a suffix says."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

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

# Words in endings of what lies beside label maps, and is none.
_PICTURES = r"colou?r|vis|overlay|blend|rgb|conf|prob|score|entropy|heat|error|leftimg8bit\.|dispar|depth"
PRED_OTHERS = re.compile(_PICTURES, re.IGNORECASE)
GT_OTHERS = re.compile(rf"{_PICTURES}|inst|polygon", re.IGNORECASE)
INSTANCE_OTHERS = re.compile(rf"{_PICTURES}|label|polygon", re.IGNORECASE)

_LABELS = re.compile(r"_label(|train|cs|cstrain|level\d)_?ids\.png\Z", re.IGNORECASE)
_ENCODINGS = {"": "id", "cstrain": "cs_train"}

# A separator and a word with a letter in it: the numbers of frames and drives never belong to an ending.
_WORD = re.compile(r"[_\-. ](?=[^_\-. ]*[A-Za-z])[^_\-. ]+")
_ENDING = re.compile(rf"(?:{_WORD.pattern})+\Z")


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
    return tuple(dict.fromkeys((*named, own, *others)))


def ending(name: str) -> str:
    """What a file name has in common with its neighbours: "_gtFine.png" of "17/frame_0001_gtFine.png"."""
    found = _ENDING.search(posixpath.basename(name), 1)
    return found[0] if found else "(nothing)"


def counted_endings(names: Iterable[str]) -> str:
    """The most frequent endings, for people."""
    return ", ".join(f"{end} ({count})" for end, count in Counter(map(ending, names)).most_common(4))


def possible_endings(names: Iterable[str], extension: str, most: int = 12) -> list[str]:
    """Endings that many files with this extension have, the most frequent and the longest first."""
    counts: Counter[str] = Counter()
    for name in names:
        if name.casefold().endswith(extension):
            counts.update(_tails(ending(name)))
    ordered = sorted(counts, key=lambda end: (-counts[end], -len(end), end))
    return ordered[:most]


def _tails(whole: str) -> Iterator[str]:
    """All endings within an ending: "_a_b.png", "_b.png", ".png"."""
    for word in _WORD.finditer(whole):
        yield whole[word.start() :]


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
    return _ENDING.fullmatch(text) is not None


def base_within(base: str, bases: Collection[str]) -> str | None:
    """The longest of `bases` that a file's base name begins with, up to a separator."""
    for cut in range(len(base) - 1, 0, -1):
        if base[cut] in "_-. " and base[:cut] in bases:
            return base[:cut]
    return None
