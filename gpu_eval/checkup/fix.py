"""A corrected copy of a side of label maps: what is certain is mended, everything else copied and told."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from gpu_eval.checkup.label_files import RENDERING, Map, as_labels, colour_values, raw_values
from gpu_eval.engines.colours import Side, decode
from gpu_eval.errors import InputError, OptionError, ReportError
from gpu_eval.inputs.source import Entry, Source
from gpu_eval.labels import LabelSpace
from gpu_eval.storage import write

SHOWN = 10
FILES_PER_TURN, FILES_PER_BLOCK = 4, 256


Region = tuple[int, int, int, int]


@dataclass(frozen=True)
class Plan:
    """What is to be mended.

    `encoding` is what the maps are in. `regions` are (top, left, height, width), the part to keep of maps of
    a size (height, width). `renames` has new names by name.
    """

    encoding: str
    regions: Mapping[tuple[int, int], Region] = field(default_factory=dict)
    renames: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Outcome:
    what: tuple[str, ...] = ()  # what was done
    why_not: str | None = None  # why the file was copied although something is wrong with it


def parse_regions(text: str) -> dict[tuple[int, int], Region]:
    """(top, left, height, width) by (height, width), of a doubt's "pred_region"."""
    regions = {}
    for one in text.split(";"):
        size, _, region = one.partition(":")
        width, height = (int(part) for part in size.split("x"))
        top, left, rows, columns = (int(part) for part in region.split(","))
        regions[height, width] = (top, left, rows, columns)
    return regions


def check_target(target: str, preds: str) -> Path:
    """The folder of the copy. Raises OptionError for one that is not empty, or that meets the predictions."""
    out = Path(target)
    if "://" in target:
        raise OptionError(
            "a corrected copy needs a folder on a disk", found=target, fix="give the path of a new folder"
        )
    try:
        taken = out.exists() and (not out.is_dir() or any(out.iterdir()))
    except OSError as error:
        raise OptionError(
            "the folder for the corrected copy cannot be read", file=target, found=error.strerror
        ) from error
    if taken:
        raise OptionError(
            "there is something at the place of the corrected copy",
            file=target,
            expected="a folder that is empty or does not exist",
            fix="give another folder, or remove this one",
        )
    if "://" not in preds:
        here, there = out.resolve(), Path(preds).resolve()
        if here.is_relative_to(there) or there.is_relative_to(here):
            raise OptionError(
                "the corrected copy and the predictions lie in one another",
                found=f"{target} and {preds}",
                expected="two folders side by side",
                fix="give a folder beside the predictions",
            )
    return out


def write_copy(
    source: Source,
    entries: Sequence[Entry],
    maps: Collection[str],
    plan: Plan,
    space: LabelSpace,
    out: Path,
    threads: int | None,
) -> dict[str, Any]:
    """Write all files to `out`, those named in `maps` corrected, and say what became of them.

    Label maps are written as 8-bit grey PNGs in the space's default encoding, void as 255.

    Raises ReportError where a file cannot be written.
    """
    from gpu_eval.engines.cpu.threads import Threads

    done: Counter[str] = Counter()
    told: list[str] = []
    unchanged = 0
    named: set[str] = set()
    mend = _mender(plan, space)
    pool = Threads(threads)
    try:
        for first in range(0, len(entries), FILES_PER_BLOCK):
            block = []
            for entry in entries[first : first + FILES_PER_BLOCK]:
                target = plan.renames.get(entry.name, entry.name)
                if target in named:
                    told.append(f"{entry.name}: another file has its name, it was left out")
                    continue
                named.add(target)
                block.append((entry, target))
            turns = [block[at : at + FILES_PER_TURN] for at in range(0, len(block), FILES_PER_TURN)]

            def run(ws: object, turn: Sequence[tuple[Entry, str]]) -> list[_Outcome]:  # noqa: ARG001
                return _write_some(source, turn, maps, mend, out)

            outcomes = [outcome for some in pool.map(run, turns) for outcome in some]
            for (entry, target), outcome in zip(block, outcomes, strict=True):
                done.update(outcome.what)
                done["renamed"] += target != entry.name
                unchanged += not outcome.what and target == entry.name
                if outcome.why_not is not None:
                    told.append(f"{entry.name}: {outcome.why_not}")
    finally:
        pool.close()
    return {
        "out": str(out),
        "files": len(named),
        "done": {what: count for what, count in done.items() if count},
        "unchanged": unchanged,
        "not_fixed": len(told),
        "first_not_fixed": told[:SHOWN],
    }


def _write_some(
    source: Source,
    turn: Sequence[tuple[Entry, str]],
    maps: Collection[str],
    mend: Callable[[memoryview, str], tuple[Map | None, _Outcome]],
    out: Path,
) -> list[_Outcome]:
    entries = [entry for entry, _ in turn]
    buffer = np.empty(sum(entry.size for entry in entries), np.uint8)
    offsets, broken = source.read_into(entries, buffer)
    outcomes = []
    for at, (entry, target) in enumerate(turn):
        if at in broken:
            outcomes.append(_Outcome(why_not=f"it was left out: {broken[at].message}"))
            continue
        data = buffer[offsets[at] : offsets[at + 1]].data
        fixed, outcome = mend(data, entry.name) if entry.name in maps else (None, _Outcome())
        outcomes.append(outcome)
        place = out / posixpath.normpath(target)
        if fixed is None:
            _write_bytes(place, data)
        else:
            _write_png(place, fixed)
    return outcomes


def _write_bytes(place: Path, data: memoryview) -> None:
    _write(place, lambda file: file.write(data))


def _write_png(place: Path, labels: Map) -> None:
    image = Image.fromarray(labels.astype(np.uint8, copy=False))
    _write(place, lambda file: image.save(file, "PNG"))


def _write(place: Path, fill: Callable[[IO[bytes]], object]) -> None:
    try:
        write(place, fill)
    except ReportError as error:
        raise ReportError(
            "cannot write the corrected copy",
            file=str(place),
            found=error.found,
            fix="free some space, or choose another folder",
        ) from error


def _mender(plan: Plan, space: LabelSpace) -> Callable[[memoryview, str], tuple[Map | None, _Outcome]]:
    """What makes of a file its corrected map, or None where it is to be copied as it is."""
    colours, raw = colour_values(space), raw_values(space).astype(np.uint8)
    encoding = space.encoding(plan.encoding)
    table, void = encoding.table, space.void
    side = Side(False, space.n_classes, table, space.palette, encoding.in_colour)

    def mend(data: memoryview, file: str) -> tuple[Map | None, _Outcome]:
        form: str | None
        try:
            if encoding.in_colour:
                values, form = decode(data, file, side), None
            else:
                values, form = as_labels(data, file, colours)
        except InputError as error:
            return None, _Outcome(why_not=error.message)
        what = []
        if form is not None:
            what.append(f"was {form}")
        if values.dtype == np.uint16:
            if int(values.max()) > 255:
                return None, _Outcome(why_not="values above 255, which 8 bits do not hold")
            values = values.astype(np.uint8)
            what.append("was 16-bit grey")
        rewrite = plan.encoding != space.default_encoding
        if form != RENDERING and (rewrite or form is not None):
            classes = table[values]
            if int(classes.max()) > void:
                strange = sorted(set(values[classes > void].ravel().tolist()))
                listed = ", ".join(map(str, strange[:SHOWN]))
                return None, _Outcome(why_not=f"values that `{plan.encoding}` does not have: {listed}")
            if rewrite:
                values = raw[classes]
                what.append(f"was in `{plan.encoding}`")
        region = plan.regions.get((values.shape[0], values.shape[1]))
        if region is not None:
            top, left, height, width = region
            values = values[top : top + height, left : left + width].copy()
            what.append("was padded")
        return (values, _Outcome(tuple(what))) if what else (None, _Outcome())

    return mend
