"""Label maps looked at without ground truth: are they whole, and what do they hold?"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gpu_eval.checkup.examination import Problems
from gpu_eval.errors import InputError, LabelOutOfRange, WrongImageMode
from gpu_eval.inputs import png
from gpu_eval.inputs.source import Entry, Source
from gpu_eval.labels import LabelSpace

if TYPE_CHECKING:
    from gpu_eval.engines.cpu.values import Seen

Ints = npt.NDArray[np.int64]
Map = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

# Of files that are no label maps, these many are decoded to see what they are instead.
DECODED = 256

VALUES = 2**16

# What pixels may be instead of labels. All but the last become labels by `as_labels`.
GREY_AS_COLOUR = "a grey map saved with three equal channels"
PACKED_GREY = "grey of less than 8 bits"
OPAQUE_GREY = "a grey map with an opaque alpha"
RENDERING = "a colour rendering in the table's colours"
COLOURS = "colours that are not the table's"


@dataclass
class Tally:
    """What was seen of all label maps of a side, file by file.

    `pixels` and `in_files` are by raw value, shape (65536,): how many pixels, in how many files; of files
    that are no label maps neither counts. `refused` counts the files of which most pixels are outside the
    encoding, and `outside` has the errors of the first of them.
    """

    files: int = 0
    bytes: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    size_examples: dict[tuple[int, int], str] = field(default_factory=dict)
    modes: Counter[str] = field(default_factory=Counter)
    forms: Counter[str] = field(default_factory=Counter)
    pixels: Ints = field(default_factory=lambda: np.zeros(VALUES, np.int64))
    in_files: Ints = field(default_factory=lambda: np.zeros(VALUES, np.int64))
    maps: int = 0
    constant: int = 0
    refused: int = 0
    outside: list[InputError] = field(default_factory=list)

    def add(self, entry: Entry, seen: Seen, table: npt.NDArray[np.uint16], void: int, file: str) -> None:
        """Note one file; `table` is the encoding's, `void` its class for void."""
        self.files += 1
        self.bytes += entry.size
        if seen.size is not None:
            self.sizes[seen.size] += 1
            self.size_examples.setdefault(seen.size, entry.name)
        if seen.mode is not None:
            self.modes[seen.mode] += 1
        if seen.form is not None:
            self.forms[seen.form] += 1
        if seen.values is None or seen.pixels is None:
            return
        self.maps += 1
        self.constant += seen.values.size == 1
        self.pixels[seen.values] += seen.pixels
        self.in_files[seen.values] += 1
        beyond = seen.values >= 256
        is_outside = beyond | (table[np.where(beyond, 0, seen.values)] == void + 1)
        share = float(seen.pixels[is_outside].sum() / seen.pixels.sum())
        if share > 0.5:  # as `engines.semantic.is_mostly_outside`
            self.refused += 1
            if len(self.outside) < 10:
                self.outside.append(_out_of_range(seen.values, share, file, void))


def _out_of_range(values: Ints, share: float, file: str, n_classes: int) -> LabelOutOfRange:
    listed = ", ".join(map(str, values[:12].tolist())) + (", ..." if values.size > 12 else "")
    return LabelOutOfRange(
        "most pixels are neither a class nor void",
        file=file,
        found=f"{share:.0%} outside the encoding; values {listed}",
        expected=f"a class 0..{n_classes - 1} or void after encoding",
    )


def look_through(
    source: Source,
    entries: Sequence[Entry],
    space: LabelSpace,
    encoding: str,
    problems: Problems,
    threads: int | None,
    *,
    colours_are_labels: bool = False,
) -> Tally:
    """What was seen of all these files, each read to its end; what scoring would refuse goes to `problems`.

    `colours_are_labels` takes renderings in the table's colours as they are.
    """
    from gpu_eval.engines.cpu.threads import Threads
    from gpu_eval.engines.cpu.values import look

    table, colours = space.encoding(encoding).table, colour_values(space)
    step = max(1, len(entries) // DECODED)

    def slowly(data: memoryview, file: str, index: int) -> Seen:
        return _look_slowly(data, file, colours, decode=index % step == 0)

    found = Tally()
    undecoded: list[WrongImageMode] = []
    pool = Threads(threads)
    try:
        for entry, seen in look(pool, source, entries, slowly):
            found.add(entry, seen, table, space.void, f"{source.location}/{entry.name}")
            if seen.error is None or (colours_are_labels and seen.form == RENDERING):
                continue
            if isinstance(seen.error, WrongImageMode) and seen.form is None:
                undecoded.append(seen.error)
            else:
                problems.add(seen.error, fixable=seen.form is not None and seen.form != COLOURS)
    finally:
        pool.close()
    # What all that were decoded are, the others are most likely too.
    form = next(iter(found.forms)) if len(found.forms) == 1 else None
    for error in undecoded:
        problems.add(_told(error, form), fixable=form is not None and form != COLOURS)
    return found


def _look_slowly(data: memoryview, file: str, colours: Mapping[int, int], *, decode: bool) -> Seen:
    """What the readable decoder says of a file; `decode` asks what the pixels of a wrong mode are."""
    from gpu_eval.engines.cpu.values import Seen

    header = _header(data)
    size = None if header is None else (header.height, header.width)
    mode = None if header is None else header.mode + (", interlaced" if header.interlaced else "")
    try:
        pixels = png.decode(data, file)
    except WrongImageMode as error:
        try:
            form = form_of(data, file, colours) if decode else None
            if not decode:
                png.decode_pixels(png.read(data, file, _any_mode), file)
        except InputError as worse:
            return Seen(size, mode, error=worse)
        return Seen(size, mode, error=_told(error, form), form=form)
    except InputError as error:
        return Seen(size, mode, error=error)
    counts = np.bincount(pixels.ravel())
    values = np.flatnonzero(counts)
    return Seen(size, mode, values, counts[values])


def _header(data: memoryview) -> png.PngHeader | None:
    """The header of a PNG that has one, whatever follows it."""
    found: list[png.PngHeader] = []
    with contextlib.suppress(InputError):  # told by who decodes it
        png.read(data, "", lambda header, _: found.append(header))
    return found[0] if found else None


def _any_mode(header: png.PngHeader, file: str) -> None:
    """All that PNG has."""


def _told(error: WrongImageMode, form: str | None) -> WrongImageMode:
    """The error of scoring, with what the pixels are."""
    if form is None:
        return error
    fix = error.fix
    if form == RENDERING:
        fix = "write the label ids of the colours"
    elif form != COLOURS:
        fix = "write them as 8-bit grey"
    return WrongImageMode(
        f"{error.message.split(':')[0]}: {form}",
        file=error.file,
        found=error.found,
        expected=error.expected,
        fix=fix,
    )


def form_of(data: memoryview, file: str, colours: Mapping[int, int]) -> str:
    """What the pixels of a PNG that is no label map are.

    Raises InputError as `png.read` and `png.decode_pixels`.
    """
    read_file = png.read(data, file, _any_mode)
    return _form(read_file.header, png.decode_pixels(read_file, file), colours)


def _form(header: png.PngHeader, pixels: npt.NDArray[np.generic], colours: Mapping[int, int]) -> str:
    if header.colour_type == png.GREY:
        return PACKED_GREY
    if header.bit_depth == 16 or pixels.ndim != 3:
        return COLOURS
    values = pixels.astype(np.uint8, copy=False)
    has_alpha = values.shape[2] in (2, 4)
    if has_alpha and int(values[:, :, -1].min()) != 255:
        return COLOURS
    if values.shape[2] == 2:
        return OPAQUE_GREY
    first = values[:, :, 0]
    if np.array_equal(first, values[:, :, 1]) and np.array_equal(first, values[:, :, 2]):
        return GREY_AS_COLOUR
    if set(np.unique(_packed(values)).tolist()) <= colours.keys():
        return RENDERING
    return COLOURS


def as_labels(data: memoryview, file: str, colours: Mapping[int, int]) -> tuple[Map, str | None]:
    """The label values of a PNG, shape (height, width), and what it was instead of a label map, if anything.

    Of a rendering they are those that `colours` has for a packed colour; of anything else the raw values.

    Raises InputError where it is damaged, or where its pixels are not certainly labels.
    """
    try:
        return png.decode(data, file), None
    except WrongImageMode as error:
        read_file = png.read(data, file, _any_mode)
        pixels = png.decode_pixels(read_file, file)
        form = _form(read_file.header, pixels, colours)
        if form == COLOURS:
            raise _told(error, form) from error
    if form == PACKED_GREY:
        # Pillow gives 1-bit grey as booleans, and spreads 2 and 4 bits over 0..255.
        depth = read_file.header.bit_depth
        spread = 1 if depth == 1 else 255 // (2**depth - 1)
        return pixels.astype(np.uint8) // np.uint8(spread), form
    values = pixels.astype(np.uint8, copy=False)
    if form != RENDERING:
        return np.ascontiguousarray(values[:, :, 0]), form
    known, places = np.unique(_packed(values), return_inverse=True)
    labels = np.array([colours[colour] for colour in known.tolist()], np.uint8)
    return labels[places].reshape(values.shape[:2]), form


def _packed(colours: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    red, green, blue = (colours[:, :, channel].astype(np.uint32) for channel in range(3))
    return np.asarray(red << 16 | green << 8 | blue, np.uint32)


def colour_values(space: LabelSpace) -> dict[int, int]:
    """The raw value in the space's default encoding of each colour, as red << 16 | green << 8 | blue.

    Black is void unless it is a class's. Colours that two classes share are left out.
    """
    raw = raw_values(space)
    values: dict[int, int] = {}
    shared = set()
    for number, (red, green, blue) in enumerate(space.colours):
        colour = red << 16 | green << 8 | blue
        if colour in values:
            shared.add(colour)
        values[colour] = int(raw[number])
    values.setdefault(0, int(raw[space.void]))
    return {colour: value for colour, value in values.items() if colour not in shared}


def raw_values(space: LabelSpace) -> Ints:
    """The raw value in the default encoding of each class and, last, of void; shape (n_classes + 1,).

    Of several the smallest; of void 255 where that is void.
    """
    table = space.encoding(space.default_encoding).table
    raw = np.array([int(np.flatnonzero(table == number)[0]) for number in range(space.n_classes)])
    void = 255 if table[255] == space.void else int(np.append(np.flatnonzero(table == space.void), 255)[0])
    return np.append(raw, void).astype(np.int64)
