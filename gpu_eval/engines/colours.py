"""Colour-coded label maps: pixels to classes by the label table's colours, and what is said of other colours.

`inputs/png` has the pixels and knows no table; here both meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_eval.errors import InputError, UnknownColour, WrongImageMode
from gpu_eval.inputs import png
from gpu_eval.labels.colours import COLOUR, VOID_CLASS, Codes, Colours, codes_of, rgb_of

# More foreign colours than this are no palette of somebody's, but noise: JPEG, smoothed edges, a photograph.
MANY_COLOURS = 64

# Pixels of a map that is read only for a better message.
MOST_EXPLAINED = 1 << 25

# The share of pixels in the table's colours from which on the rest is noise around them.
MOSTLY = 0.5


@dataclass(frozen=True)
class Side:
    """One side of a job: whether it is the gt, and whether its pixels are colours.

    `palette` are the label table's colours, with which messages are written even where pixels are ids;
    `table` is the encoding, of `n_classes` classes.
    """

    is_gt: bool
    n_classes: int
    table: npt.NDArray[np.uint16]
    palette: Colours | None
    in_colour: bool

    @property
    def option(self) -> str:
        return "--gt-encoding" if self.is_gt else "--pred-encoding"


def decode(data: bytes | memoryview, file: str, side: Side) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """The raw values of a map of one side, shape (height, width): label ids, or classes looked up by colour.

    Raises
        InputError: as `png.decode`, with what the colours say about a map in a mode that holds no labels;
            UnknownColour for a colour that has no meaning here.
    """
    if side.in_colour and side.palette is not None:
        codes, levels = _codes(data, file)
        return _classes(codes, levels, file, side.palette, is_gt=side.is_gt)
    try:
        return png.decode(data, file)
    except WrongImageMode as error:
        raise _explained(error, data, file, side) from error


def to_classes(
    pixels: npt.NDArray[np.uint8], name: str, palette: Colours, *, is_gt: bool
) -> npt.NDArray[np.uint8]:
    """Classes of colours (..., 3 or 4 channels) in memory, shape (...); void is VOID_CLASS.

    Raises UnknownColour for a colour that has no meaning here.
    """
    return _classes(codes_of(pixels), None, name, palette, is_gt=is_gt)


def _codes(data: bytes | memoryview, file: str) -> tuple[Codes, Codes | None]:
    """The pixels' codes; or, of a palette image, its indices and the code of each."""
    read_file = png.read(data, file, _check_colours)
    pixels = png.decode_pixels(read_file, file)
    if read_file.header.colour_type == png.PALETTE:
        of_index = np.frombuffer(read_file.palette, np.uint8, len(read_file.palette) // 3 * 3).reshape(-1, 3)
        indices = pixels.astype(np.uint32)
        if indices.max() >= len(of_index):
            raise WrongImageMode(
                "pixels point beyond the palette", file=file, found=f"index {indices.max()}",
                expected=f"at most {len(of_index) - 1}", fix="save the map with its whole palette",
            )  # fmt: skip
        return indices, codes_of(of_index)
    colours = pixels.astype(np.uint8, copy=False)
    if read_file.header.colour_type == png.RGB_ALPHA and (clear := int((colours[..., 3] != 255).sum())):
        raise WrongImageMode(
            "transparent pixels have no colour of a label", file=file, found=f"{clear} pixels",
            expected="opaque colours", fix="save as RGB: Image.open(f).convert('RGB')",
        )  # fmt: skip
    return codes_of(colours), None


def _check_colours(header: png.PngHeader, file: str) -> None:
    """Raises WrongImageMode for a PNG whose pixels are no colours of eight bits a channel."""
    if header.colour_type in (png.GREY, png.GREY_ALPHA):
        raise WrongImageMode(
            "grey values are no colours of labels",
            file=file,
            found=header.mode,
            expected="8-bit RGB, RGBA or palette",
            fix="if they are label ids, leave the encoding `colour` away",
        )
    if header.bit_depth == 16:
        raise WrongImageMode(
            "no label has a colour of 16 bits a channel",
            file=file,
            found=header.mode,
            expected="8-bit RGB, RGBA or palette",
            fix="save with 8 bits a channel",
        )


def _classes(
    codes: Codes, of_index: Codes | None, file: str, palette: Colours, *, is_gt: bool
) -> npt.NDArray[np.uint8]:
    """Classes of codes, or of indices into `of_index`: one look-up per run of equal pixels."""
    if codes.size == 0:
        return np.zeros(codes.shape, np.uint8)
    runs, lengths = _runs(codes)
    distinct, which = np.unique(runs if of_index is None else of_index[runs], return_inverse=True)
    meant = palette.classes(is_gt=is_gt)
    foreign = ~np.isin(distinct, _sorted(meant))
    if foreign.any():
        counts = np.bincount(which, weights=lengths).astype(np.int64)
        raise _unknown(distinct[foreign], counts[foreign], codes.size, file, palette)
    classes = np.array([meant[code] for code in distinct.tolist()], np.uint8)
    return np.repeat(classes[which], lengths).reshape(codes.shape)


def _sorted(meant: Mapping[int, int]) -> Codes:
    return np.array(sorted(meant), np.uint32)


def _runs(codes: Codes) -> tuple[Codes, npt.NDArray[np.int64]]:
    """The values of the runs of equal pixels, row after row, and their lengths."""
    flat = codes.reshape(-1)
    begins = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    return flat[begins], np.diff(begins, append=flat.size)


def _unknown(
    distinct: Codes, counts: npt.NDArray[np.int64], pixels: int, file: str, palette: Colours
) -> UnknownColour:
    """The error of the colours `distinct`, on `counts` pixels each, that have no meaning."""
    shared = np.isin(distinct, palette.codes())
    if shared.all():
        at = int(np.argmax(counts))
        return UnknownColour(
            "a colour stands for labels that count differently",
            file=file,
            found=f"{_told(int(distinct[at]))} on {counts[at]} pixels: "
            + " or ".join(palette.names(int(distinct[at]))),
            expected="a colour per class",
            fix="colours cannot tell them apart: save the label ids themselves, as 8-bit grey",
        )
    distinct, counts = distinct[~shared], counts[~shared]
    first = int(distinct[np.argmax(counts)])
    near = palette.nearest(first)
    found = f"{_told(first)} on {counts.max()} pixels, nearest to {_plain(near.rgb)} of {near.name}"
    total = int(counts.sum())
    if distinct.size > 1:
        found += f"; {distinct.size} such colours on {total} pixels ({total / pixels:.1%})"
    if (distinct == (distinct & 255) * 0x010101).all():
        fix = (
            "greys look like label ids: leave the encoding `colour` away, and save them as 8-bit grey, with "
            "Image.open(f).convert('L')"
        )
    elif distinct.size > MANY_COLOURS:
        fix = (
            "that many look like JPEG noise or smoothed edges: save the map losslessly, and resize it by "
            "nearest neighbour only"
        )
    else:
        fix = "give the label table that has these colours, or save the label ids themselves, as 8-bit grey"
    return UnknownColour(
        "a colour that no label has", file=file, found=found, expected="colours of the label table", fix=fix
    )


def _explained(error: WrongImageMode, data: bytes | memoryview, file: str, side: Side) -> InputError:
    """What the pixels say about a map whose mode holds no labels: greys, the table's colours, or neither."""
    try:
        read_file = png.read(data, file, lambda *_: None)
        header = read_file.header
        if header.colour_type == png.GREY or header.bit_depth == 16:
            return error
        if header.height * header.width > MOST_EXPLAINED:
            return error
        pixels = png.decode_pixels(read_file, file).astype(np.uint8, copy=False)
    except InputError:  # damaged besides
        return error
    grey = header.colour_type == png.GREY_ALPHA or _is_grey(pixels)
    codes, lengths = _runs(codes_of(pixels if pixels.shape[-1] > 2 else pixels[..., [0, 0, 0]]))
    codes, which = np.unique(codes, return_inverse=True)
    meant = {} if side.palette is None else side.palette.classes(is_gt=side.is_gt)
    known = np.isin(codes, _sorted(meant))
    by_colour = {meant[code] for code in codes[known].tolist()} - {VOID_CLASS}
    by_value = {int(c) for c in side.table[codes & 255]} & set(range(side.n_classes))
    if grey and not (known.all() and len(by_colour) > len(by_value)):
        return WrongImageMode(
            "grey values saved as colours",
            file=file,
            found=f"{header.mode}, in which every pixel is grey",
            expected=error.expected,
            fix="Image.open(f).convert('L').save(f) keeps the values; `gpu-eval check --fix` writes copies",
        )
    opaque = header.colour_type != png.RGB_ALPHA or bool((pixels[..., 3] == 255).all())
    if known.all() and opaque:
        return WrongImageMode(
            "colours are not labels",
            file=file,
            found=f"{header.mode} of {codes.size} colours, all of them of the label table",
            expected=error.expected,
            fix=f"{side.option} {COLOUR} reads them",
        )
    found = f"{header.mode} of {codes.size} colours"
    of_table = known if side.palette is None else np.isin(codes, side.palette.codes())
    share = float(lengths[of_table[which]].sum() / lengths.sum())
    if side.palette is not None and of_table.all() and not known.all():
        shared = int(codes[~known][0])
        found += f", all of the label table, but {_told(shared)} is " + " or ".join(
            side.palette.names(shared)
        )
    elif share > MOSTLY:
        found += f", {int((~of_table).sum())} of them, on {1 - share:.1%} of the pixels, of no label"
    if codes.size > MANY_COLOURS:
        found += "; so many are of a photograph, of JPEG noise or of smoothed edges"
    return WrongImageMode(
        "colours are not labels", file=file, found=found, expected=error.expected, fix=error.fix
    )


def _is_grey(pixels: npt.NDArray[np.generic]) -> bool:
    return bool(
        np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(pixels[..., 0], pixels[..., 2])
    )


def _told(code: int) -> str:
    return _plain(rgb_of(code))


def _plain(rgb: tuple[int, int, int]) -> str:
    return f"({', '.join(map(str, rgb))})"
