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
from gpu_eval.engines.colours import Side
from gpu_eval.engines.colours import decode as decode_side
from gpu_eval.errors import InputError, LabelOutOfRange, WrongImageMode
from gpu_eval.inputs import png
from gpu_eval.inputs.source import Entry, Source
from gpu_eval.labels import LabelSpace
from gpu_eval.labels.colours import VOID_CLASS, codes_of

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
COLOURS = "colours that do not name a class each"


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
    is_gt: bool = False,
) -> Tally:
    """What was seen of all these files, each read to its end; what scoring would refuse goes to `problems`.

    Of maps that are in colour by their encoding the classes are what is seen.
    """
    from gpu_eval.engines.cpu.threads import Threads
    from gpu_eval.engines.cpu.values import look
    from gpu_eval.engines.png_kernels import GREY_8, PALETTE_8

    meaning = space.encoding(encoding)
    table, colours = meaning.table, colour_values(space)
    side = Side(is_gt, space.n_classes, table, space.palette, meaning.in_colour)
    forms = () if meaning.in_colour else (GREY_8, PALETTE_8)
    step = max(1, len(entries) // DECODED)

    def slowly(data: memoryview, file: str, index: int) -> Seen:
        return _look_slowly(data, file, side, colours, decode=index % step == 0)

    found = Tally()
    undecoded: list[WrongImageMode] = []
    examples: dict[str, InputError] = {}
    pool = Threads(threads)
    try:
        for entry, seen in look(pool, source, entries, slowly, forms):
            found.add(entry, seen, table, space.void, f"{source.location}/{entry.name}")
            if seen.error is None:
                continue
            if isinstance(seen.error, WrongImageMode) and seen.form is None:
                undecoded.append(seen.error)
            else:
                if seen.form is not None:
                    examples.setdefault(seen.form, seen.error)
                problems.add(seen.error, fixable=seen.form is not None and seen.form != COLOURS)
    finally:
        pool.close()
    # What all that were decoded are, the others are most likely too.
    alike = len(examples) == 1
    for error in undecoded:
        told = _alike(error, *examples.values()) if alike else error
        problems.add(told, fixable=alike and COLOURS not in examples)
    return found


def _look_slowly(
    data: memoryview, file: str, side: Side, colours: Mapping[int, int], *, decode: bool
) -> Seen:
    """What the readable decoder says of a file; `decode` asks what the pixels of a wrong mode are."""
    from gpu_eval.engines.cpu.values import Seen

    header = _header(data)
    size = None if header is None else (header.height, header.width)
    mode = None if header is None else header.mode + (", interlaced" if header.interlaced else "")
    try:
        pixels = decode_side(data, file, side) if side.in_colour else png.decode(data, file)
    except WrongImageMode as error:
        if side.in_colour:
            return Seen(size, mode, error=error, form=COLOURS)
        try:
            read_file = png.read(data, file, _any_mode)
            decoded = png.decode_pixels(read_file, file)  # it may be damaged besides
            form = _form(read_file.header, decoded, colours) if decode else None
        except InputError as worse:
            return Seen(size, mode, error=worse)
        return Seen(size, mode, error=_explained(data, file, side, error) if decode else error, form=form)
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


def _explained(data: memoryview, file: str, side: Side, error: InputError) -> InputError:
    """What scoring says of a map that it refuses; `error` is why."""
    try:
        decode_side(data, file, side)
    except InputError as explained:
        return explained
    return error


def _alike(error: WrongImageMode, example: InputError) -> WrongImageMode:
    """The error of a file that was not decoded, in the words for one that was."""
    return WrongImageMode(
        example.message, file=error.file, found=error.found, expected=error.expected, fix=example.fix
    )


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
    if colours and set(np.unique(codes_of(values)).tolist()) <= colours.keys():
        return RENDERING
    return COLOURS


def as_labels(data: memoryview, file: str, colours: Mapping[int, int]) -> tuple[Map, str | None]:
    """The label values of a PNG, shape (height, width), and what it was instead of a label map, if anything.

    Of a rendering they are those that `colours` has for a packed colour; of anything else the raw values.

    Raises InputError where it is damaged, or where its pixels are not certainly labels.
    """
    try:
        return png.decode(data, file), None
    except WrongImageMode:
        read_file = png.read(data, file, _any_mode)
        pixels = png.decode_pixels(read_file, file)
        form = _form(read_file.header, pixels, colours)
        if form == COLOURS:
            raise
    if form == PACKED_GREY:
        # Pillow gives 1-bit grey as booleans, and spreads 2 and 4 bits over 0..255.
        depth = read_file.header.bit_depth
        spread = 1 if depth == 1 else 255 // (2**depth - 1)
        return pixels.astype(np.uint8) // np.uint8(spread), form
    values = pixels.astype(np.uint8, copy=False)
    if form != RENDERING:
        return np.ascontiguousarray(values[:, :, 0]), form
    known, places = np.unique(codes_of(values), return_inverse=True)
    labels = np.array([colours[colour] for colour in known.tolist()], np.uint8)
    return labels[places].reshape(values.shape[:2]), form


def colour_values(space: LabelSpace) -> dict[int, int]:
    """The raw value in the space's default encoding of each colour that has a meaning in a prediction.

    By the colour's code, 0xRRGGBB; empty for a table without colours.
    """
    if space.palette is None:
        return {}
    raw = raw_values(space)
    classes = space.palette.classes(is_gt=False)
    return {code: int(raw[space.void if c == VOID_CLASS else c]) for code, c in classes.items()}


def raw_values(space: LabelSpace) -> Ints:
    """The raw value in the default encoding of each class and, last, of void; shape (n_classes + 1,).

    Of several the smallest; of void 255 where that is void.
    """
    table = space.encoding(space.default_encoding).table
    raw = np.array([int(np.flatnonzero(table == number)[0]) for number in range(space.n_classes)])
    void = 255 if table[255] == space.void else int(np.append(np.flatnonzero(table == space.void), 255)[0])
    return np.append(raw, void).astype(np.int64)
