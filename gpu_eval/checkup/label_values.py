"""What raw values and sizes say without ground truth: only what no honest model of the encoding writes.

A model may leave out half of the classes, or predict one everywhere. It does not write values that its
encoding does not have, nor void in place of most classes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_eval.checkup.examination import Looked, Problems, Side
from gpu_eval.checkup.label_files import Tally, look_through
from gpu_eval.checkup.names import ending_of
from gpu_eval.doctor.doubt import Doubt
from gpu_eval.errors import EmptySplit
from gpu_eval.labels import LabelSpace

Table = npt.NDArray[np.uint16]

# An encoding is named where it fits so much better: overlap of the values that occur with those of classes.
BETTER = 0.15
# Fewer values that are void in the encoding may be what a model calls the rest.
FEW_VOIDS = 3
# Values from 1 are doubted where so many of the classes occur: a few do not show where counting begins.
MOST_CLASSES = 0.6
# From here on values are instance ids, id * 1000 + n.
INSTANCES = 1000
# Codecs and networks round heights and widths up to multiples of these.
STEPS = (16, 32, 64, 128)
# More is no padding: a network of square inputs answers in squares.
MOST_PADDING = 0.125


def value_doubts(space: LabelSpace, name: str, tally: Tally) -> list[Doubt]:
    """What the raw values of a split look like, held against the encoding `name`."""
    present = set(np.flatnonzero(tally.pixels).tolist())
    if not present:
        return []
    if present == {0, 255} and space.encoding(name).table[255] >= space.void:
        return [_binary(tally)]
    table = space.encoding(name).table
    outside = {value for value in present if value > 255 or table[value] > space.void}
    better = _better(space, name, present - {255}, outside)
    if better is not None:
        return [_other_encoding(space, name, better, present - {255}, outside, tally)]
    if outside and (tally.refused or min(outside) >= INSTANCES):
        return [_strangers(name, outside, tally)]
    return []


def _class(space: LabelSpace, name: str, value: int) -> int:
    """The class of a raw value in an encoding; void + 1 for those that it does not have."""
    return int(space.encoding(name).table[value]) if value < 256 else space.void + 1


def _classes(space: LabelSpace, name: str) -> set[int]:
    """The raw values that stand for a class."""
    return set(np.flatnonzero(space.encoding(name).table < space.void).tolist())


def _overlap(space: LabelSpace, name: str, present: set[int]) -> float:
    """How far the values that occur are those of classes: 1.0 where they are the same set."""
    classes = _classes(space, name)
    return len(present & classes) / len(present | classes)


def _better(space: LabelSpace, name: str, present: set[int], outside: set[int]) -> str | None:
    """The encoding that explains values which `name` does not; None where nothing is to be explained."""
    if max(present, default=0) > 255:
        return None
    own = _overlap(space, name, present)
    voids = {value for value in present if _class(space, name, value) == space.void}
    fitting = []
    for other in (*space.encodings, *_shifts(space)):
        if other == name or any(_class(space, other, value) > space.void for value in present):
            continue
        overlap = _overlap(space, other, present)
        explained = len(voids & _classes(space, other))
        if (
            (outside and overlap > own)
            or (explained >= FEW_VOIDS and overlap >= own + BETTER)
            or _counts_from_one(space, name, other, present, voids)
        ):
            # Of encodings that fit alike, a column of the table is likelier than a shift of one, and the one
            # that has the fewest other values says most.
            known = -int((space.encoding(other).table <= space.void).sum())
            fitting.append((overlap, other in space.encodings, known, other))
    return max(fitting)[-1] if fitting else None


def _shifts(space: LabelSpace) -> list[str]:
    """Every encoding shifted by one: what is left of ids that were counted from another number."""
    return [f"{name}{by}" for name in space.encodings for by in ("+1", "-1")]


def _counts_from_one(space: LabelSpace, name: str, other: str, present: set[int], voids: set[int]) -> bool:
    """Whether `other` is the encoding shifted by one, and the values run from 1 to its last class."""
    classes, shifted = _classes(space, name), _classes(space, other)
    return (
        shifted == {value + 1 for value in classes}
        and 0 in classes
        and 0 not in present
        and max(shifted) in voids
        and len(present & shifted) >= MOST_CLASSES * len(shifted)
    )


def _other_encoding(
    space: LabelSpace, name: str, better: str, present: set[int], outside: set[int], tally: Tally
) -> Doubt:
    values = f"the values are {listed(present)}"
    if outside:
        pixels = float(tally.pixels[sorted(outside)].sum() / tally.pixels.sum())
        why = f"`{name}` does not have {listed(outside)} ({pixels:.2%} of the pixels)"
    else:
        voids = {value for value in present if _class(space, name, value) == space.void}
        why = (
            f"`{name}` has {listed(voids)} for void, and for classes {_absent(space, name, present)}, which "
        )
        why += "never occur"
    return Doubt(
        kind="encoding",
        message=f"the predictions look like `{better}`, not `{name}`",
        evidence=f"{values}; {why}; `{better}` has them all{_refused(tally)}",
        fix=f"give --pred-encoding {better}",
        certain=tally.refused > 0,
        mend={"pred_encoding": better},
    )


def _refused(tally: Tally) -> str:
    return f"; {tally.refused} of {tally.maps} maps would be refused" if tally.refused else ""


def _absent(space: LabelSpace, name: str, present: set[int]) -> str:
    return listed(_classes(space, name) - present)


def _binary(tally: Tally) -> Doubt:
    total = tally.pixels.sum()
    return Doubt(
        kind="classes",
        message="only 0 and 255 occur: a binary mask, whose foreground is void here",
        evidence=f"0 in {tally.pixels[0] / total:.1%} and 255 in {tally.pixels[255] / total:.1%} of the "
        f"pixels of {tally.maps} maps",
        fix="save class ids: for two classes 0 and 1, not 0 and 255",
    )


def _strangers(name: str, outside: set[int], tally: Tally) -> Doubt:
    """Values that no encoding explains."""
    values = sorted(outside)
    share = float(tally.pixels[values].sum() / tally.pixels.sum())
    likely, fix = "", "map them to class ids"
    if min(outside) >= INSTANCES:
        likely, fix = ": they look like instance ids, id * 1000 + n", "save the class of each pixel"
    return Doubt(
        kind="values",
        message=f"pixels whose values `{name}` does not have{likely}",
        evidence=f"{listed(outside)}: {share:.2%} of the pixels, each in up to "
        f"{int(tally.in_files[values].max())} of {tally.maps} maps{_refused(tally)}",
        fix=fix,
        certain=tally.refused > 0,
    )


def _note_on_strangers(space: LabelSpace, name: str, tally: Tally) -> tuple[str, ...]:
    """What is said of values that the encoding does not have, whatever they come from."""
    table = space.encoding(name).table
    values = [v for v in np.flatnonzero(tally.pixels).tolist() if v > 255 or table[v] > space.void]
    if not values:
        return ()
    share = float(tally.pixels[values].sum() / tally.pixels.sum())
    many = "; interpolation between labels makes so many" if len(values) >= 20 and share < 0.1 else ""
    return (
        f"{share:.2%} of the pixels have values that `{name}` does not have, and count as void: "
        f"{listed(set(values))}{many}",
    )


def listed(values: set[int]) -> str:
    """Values as ranges, the first twelve: "1..26, 255"."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    texts = [str(a) if a == b else f"{a}, {b}" if b == a + 1 else f"{a}..{b}" for a, b in runs]
    return ", ".join(texts[:12]) + (", ..." if len(texts) > 12 else "")


# --- sizes ---------------------------------------------------------------------------------------


def size_doubts(
    sizes: Counter[tuple[int, int]], examples: Mapping[tuple[int, int], str], frame: tuple[int, int] | None
) -> list[Doubt]:
    """Sizes (height, width) that look like a mix-up: transposed, or padded to a multiple of a power of two.

    `frame` is the size that the benchmark scores at. Without one nothing is doubted: a data set of one's own
    may have frames of any size. Other sizes may be right with one, too: frames differ.
    """
    if frame is None:
        return []
    found = []
    for size, count in sizes.most_common():
        why = _why_odd(size, frame)
        if why is not None:
            found.append((size, count, why))
    return [_odd_size(found, sizes.total(), examples)] if found else []


def _why_odd(size: tuple[int, int], frame: tuple[int, int]) -> str | None:
    if _same_ratio(size, frame):
        return None
    if _same_ratio((size[1], size[0]), frame):
        return "height and width are exchanged"
    for axis in (0, 1):
        other = 1 - axis
        exact, rest = divmod(size[other] * frame[axis], frame[other])
        for step in STEPS:
            padding = -exact % step
            if rest == 0 and 0 < padding <= MOST_PADDING * exact and size[axis] == exact + padding:
                unpadded = (exact, size[1]) if axis == 0 else (size[0], exact)
                return f"{said(unpadded)} padded to a multiple of {step}"
    return None


def _same_ratio(size: tuple[int, int], frame: tuple[int, int]) -> bool:
    """Whether the aspect ratios are one, up to rounding to whole pixels."""
    height, width = size
    return (
        abs(height - width * frame[0] / frame[1]) <= 1.0 or abs(width - height * frame[1] / frame[0]) <= 1.0
    )


def _odd_size(
    found: Sequence[tuple[tuple[int, int], int, str]], total: int, examples: Mapping[tuple[int, int], str]
) -> Doubt:
    told = [
        f"{count} of {total} maps are {said(size)}, such as {examples[size]}: {why}"
        for size, count, why in found[:5]
    ]
    return Doubt(
        kind="size",
        message="sizes that no frame has",
        evidence="; ".join(told) + (f"; {len(found) - 5} more sizes" if len(found) > 5 else ""),
        fix="write predictions in the size of their frames; with --gts, check finds what is padded",
    )


def said(size: tuple[int, int]) -> str:
    """A (height, width) as people write it: WIDTHxHEIGHT."""
    return f"{size[1]}x{size[0]}"


# --- names ---------------------------------------------------------------------------------------

# What keys of a benchmark look like below any folder, and how people write it.
_IN_DRIVES = (re.compile(r"(.*/)?[^/]+/[^/]+"), "<drive>/<image>")
KEYS = {
    "idd": _IN_DRIVES,
    "idd-lite": _IN_DRIVES,
    "cityscapes": (re.compile(r"(.*/)?[\w-]+_\d{6}_\d{6}"), "<city>/<city>_<sequence>_<frame>"),
}


def key_doubts(space: LabelSpace, keys: Collection[str]) -> list[Doubt]:
    """Whether most names are not what the benchmark's are."""
    if space.name not in KEYS or not keys:
        return []
    pattern, written = KEYS[space.name]
    strange = [key for key in keys if not pattern.fullmatch(key)]
    if len(strange) * 2 <= len(keys):
        return []
    return [
        Doubt(
            kind="names",
            message=f"names are not those of {space.name}",
            evidence=f"{len(strange)} of {len(keys)} are not {written}, such as {strange[0]}",
            fix="name predictions as their ground truth, in the same folders",
        )
    ]


# --- the whole side --------------------------------------------------------------------------------


def look_at_maps(
    side: Side,
    space: LabelSpace,
    encoding: str,
    suffix: str,
    frame: tuple[int, int] | None,
    problems: Problems,
    threads: int | None,
) -> Looked:
    """What a side of label maps comes to; `frame` is the (height, width) that they are scored at."""
    assert side.source is not None
    suffix, notes = side.ending(suffix, ".png", "--pred-suffix")
    maps = [
        entry
        for entry in side.entries
        if entry.name.endswith(suffix) and not entry.name.endswith(space.exclude)
    ]
    if not maps:
        if not side.is_listed:
            problems.add(no_maps(side, suffix))
        return Looked({}, ())
    tally = look_through(side.source, maps, space, encoding, problems, threads)
    in_colour = space.encoding(encoding).in_colour
    doubts = [] if side.is_listed or in_colour else value_doubts(space, encoding, tally)
    if not (doubts and doubts[0].certain):
        problems.extend(tally.outside, count=tally.refused)
    if not side.is_listed:
        doubts += size_doubts(tally.sizes, tally.size_examples, frame)
    keys = {entry.name.removesuffix(suffix): entry.name for entry in maps}
    if not side.is_listed:
        doubts += key_doubts(space, keys)
    facts: dict[str, Any] = {
        "label maps": tally.files,
        "bytes": tally.bytes,
        "names": f"such as {maps[0].name}",
        "sizes": {said(size): count for size, count in tally.sizes.most_common(8)},
        "modes": dict(tally.modes.most_common()),
    }
    if len(tally.sizes) > 8:
        facts["sizes"]["other sizes"] = tally.sizes.total() - sum(facts["sizes"].values())
    values = np.flatnonzero(tally.pixels)
    if values.size:
        total = int(tally.pixels.sum())
        facts["values"] = {
            str(value): round(int(tally.pixels[value]) / total, 6) for value in values[:300].tolist()
        }
        facts["classes that occur"] = f"{_occurring(space, encoding, values)} of {space.n_classes}"
        facts["maps of one value"] = tally.constant
    if tally.forms:
        facts["instead of labels"] = dict(tally.forms)
    others = Counter(ending_of(entry.name) for entry in side.entries if not entry.name.endswith(suffix))
    if others:
        facts["other files"] = dict(others.most_common(4))
    return Looked(
        keys=keys,
        endings=(suffix, space.pred_suffix, space.gt_suffix),
        doubts=tuple(doubts),
        facts=facts,
        notes=(*notes, *_note_on_strangers(space, encoding, tally)),
    )


def _occurring(space: LabelSpace, encoding: str, values: npt.NDArray[np.int64]) -> int:
    classes = space.encoding(encoding).table[values[values < 256]]
    return len(set(classes[classes < space.void].tolist()))


def no_maps(side: Side, suffix: str) -> EmptySplit:
    """The error of a side without a single label map."""
    endings = Counter(ending_of(entry.name) for entry in side.entries).most_common(4)
    return EmptySplit(
        f"no label map among {len(side.entries)} files" if side.entries else "there are no files at all",
        file=side.location,
        found=", ".join(f"{ending} ({count})" for ending, count in endings) or None,
        expected=f"*{suffix}",
        fix="give the folder or the archive that holds the predictions as PNG files",
    )
