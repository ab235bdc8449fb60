"""Masks by the readable decoder: what the reference reads, or a refusal where it guesses."""

from __future__ import annotations

import io
import warnings

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gpu_eval.errors import CorruptImage, ImageTooLarge, InputError, WrongImageMode
from gpu_eval.inputs.masks import decode_mask
from gpu_eval.inputs.png import MAX_PIXELS
from tests.support.png_builder import (
    assemble,
    broken_adler,
    broken_crc,
    build_png,
    ihdr,
    longer_rows,
    read_chunks,
    short_rows,
    with_stream,
    zlib_stream,
)

Pixels = npt.NDArray[np.integer]

RNG = np.random.default_rng(0)
MASK = np.zeros((9, 21), np.uint8)
MASK[2:7, 3:17] = 1
MASK[4, 5] = 0
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6


def by_reference(png: bytes) -> Pixels:
    """As the public script reads a mask."""
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(png)) as image:
        return (np.array(image.convert("L")) != 0).astype(np.uint8)


def palette_png(indices: Pixels, colours: list[tuple[int, int, int]], bit_depth: int = 8) -> bytes:
    chunks = read_chunks(build_png(indices, colour_type=PALETTE, bit_depth=bit_depth))
    plte = bytes(value for colour in colours for value in colour)
    return assemble([(kind, plte if kind == b"PLTE" else data) for kind, data in chunks])


def coloured(*channels: Pixels) -> Pixels:
    return np.dstack(channels)


OPAQUE = np.full_like(MASK, 255)
ACCEPTED = {
    "8-bit grey, 255": build_png(MASK * 255),
    "8-bit grey, 1": build_png(MASK),
    "8-bit grey of many values": build_png(MASK * RNG.integers(1, 256, MASK.shape)),
    "16-bit grey, high byte only": build_png(MASK.astype(np.uint16) * 256, bit_depth=16),
    "16-bit grey, low byte only": build_png(MASK.astype(np.uint16), bit_depth=16),
    "1-bit grey": build_png(MASK, bit_depth=1),
    "2-bit grey": build_png(MASK * 3, bit_depth=2),
    "4-bit grey": build_png(MASK, bit_depth=4),
    "interlaced": build_png(MASK * 255, interlaced=True),
    "interlaced 1-bit grey": build_png(MASK, bit_depth=1, interlaced=True),
    "palette, black and red": palette_png(MASK, [(0, 0, 0), (128, 0, 0)]),
    "palette, black and nearly black": palette_png(MASK, [(0, 0, 1), (1, 1, 1)]),
    "palette whose unused colours are odd": palette_png(MASK * 2, [(0, 0, 0), (0, 0, 0), (9, 9, 9)]),
    "1-bit palette": palette_png(MASK, [(0, 0, 0), (255, 255, 255)], 1),
    "4-bit palette": palette_png(MASK * 5, [(0, 0, 0)] + [(0, 90, 0)] * 5, 4),
    "palette with tRNS": build_png(MASK, colour_type=PALETTE, before_idat=[(b"tRNS", b"\0\0")]),
    "RGB, white": build_png(coloured(*[MASK * 255] * 3), colour_type=RGB),
    "RGB, blue": build_png(coloured(MASK * 0, MASK * 0, MASK * 255), colour_type=RGB),
    "RGB, interlaced": build_png(coloured(*[MASK * 255] * 3), colour_type=RGB, interlaced=True),
    "grey, opaque": build_png(coloured(MASK * 255, OPAQUE), colour_type=GREY_ALPHA),
    "grey, alpha as the mask": build_png(coloured(MASK * 255, MASK * 255), colour_type=GREY_ALPHA),
    "RGBA, opaque": build_png(coloured(*[MASK * 255] * 3, OPAQUE), colour_type=RGB_ALPHA),
    "RGBA, alpha as the mask": build_png(coloured(*[MASK * 255] * 3, MASK * 128), colour_type=RGB_ALPHA),
}


@pytest.mark.parametrize("form", ACCEPTED)
def test_modes_that_say_one_thing_read_as_the_reference_reads_them(form: str) -> None:
    mask = decode_mask(ACCEPTED[form], "m.png")
    assert mask.dtype == np.uint8
    assert mask.tolist() == by_reference(ACCEPTED[form]).tolist() == MASK.tolist()


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (palette_png(MASK, [(0, 0, 0), (0, 0, 0)]), WrongImageMode, "paints index 1 black"),
        (palette_png(MASK, [(0, 0, 0), (0, 0, 4)]), WrongImageMode, "index 1 is .0, 0, 4."),
        (palette_png(MASK, [(255, 255, 255), (9, 9, 9)]), WrongImageMode, "paints index 0 in a colour"),
        (palette_png(1 - MASK, [(9, 9, 9), (0, 0, 0)]), WrongImageMode, "by index and by colour"),
        (palette_png(MASK * 2, [(0, 0, 0), (9, 9, 9)]), CorruptImage, "not in the palette .found index 2"),
        (palette_png(MASK, []), CorruptImage, "PLTE chunk has a wrong size .found 0 bytes"),
        (palette_png(MASK, [(0, 0, 0)] * 3, 1), CorruptImage, "9 bytes, expected .* at most 6"),
        (
            assemble(
                [
                    (kind, data[:4] if kind == b"PLTE" else data)
                    for kind, data in read_chunks(build_png(MASK, colour_type=PALETTE))
                ]
            ),
            CorruptImage,
            "found 4 bytes",
        ),
        (
            build_png(coloured(MASK * 0, MASK * 0, MASK * 4), colour_type=RGB),
            WrongImageMode,
            "so dark .* 69 such pixels",
        ),
        (
            build_png(coloured(MASK, MASK * 0, MASK * 0, OPAQUE), colour_type=RGB_ALPHA),
            WrongImageMode,
            "so dark",
        ),
        (build_png(coloured(OPAQUE, MASK * 255), colour_type=GREY_ALPHA), WrongImageMode, "ignores alpha"),
        (
            build_png(coloured(OPAQUE, OPAQUE, OPAQUE, MASK * 255), colour_type=RGB_ALPHA),
            WrongImageMode,
            "ignores alpha",
        ),
        (
            build_png(coloured(MASK * 0, MASK * 0, MASK * 0, MASK * 255), colour_type=RGB_ALPHA),
            WrongImageMode,
            "ignores alpha",
        ),
        (build_png(coloured(*[MASK] * 3), colour_type=RGB, bit_depth=16), WrongImageMode, "16-bit RGB"),
        (build_png(coloured(*[MASK] * 4), colour_type=RGB_ALPHA, bit_depth=16), WrongImageMode, "16-bit"),
        (build_png(coloured(*[MASK] * 2), colour_type=GREY_ALPHA, bit_depth=16), WrongImageMode, "16-bit"),
        (b"", CorruptImage, "empty"),
        (build_png(MASK)[:-12], CorruptImage, "without an IEND"),
        (broken_crc(build_png(MASK)), CorruptImage, "bad CRC"),
        (broken_adler(build_png(MASK, bit_depth=1)), CorruptImage, "Adler-32"),
        (short_rows(build_png(MASK, bit_depth=1), 8, 4), CorruptImage, "8 of 9 rows"),
        (short_rows(ACCEPTED["RGB, white"], 8, 64), CorruptImage, "8 of 9 rows"),
        (longer_rows(ACCEPTED["RGBA, opaque"]), CorruptImage, "more data"),
        (build_png(MASK, filters=(0, 5)), CorruptImage, "unknown filter type"),
        (
            assemble([(b"IHDR", ihdr(2**14, 2**13 + 1)), (b"IDAT", b"x"), (b"IEND", b"")]),
            ImageTooLarge,
            str(MAX_PIXELS),
        ),
    ],
)  # fmt: skip
def test_a_mask_that_may_be_taken_for_another_is_refused(
    data: bytes, error: type[InputError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        decode_mask(data, "17/m.png")
    assert caught.value.file == "17/m.png"


@settings(max_examples=200)
@given(
    colour_type=st.sampled_from([GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA]),
    interlaced=st.booleans(),
    top=st.sampled_from([2, 6, 256]),
    seed=st.integers(0, 2**32),
)
def test_random_colours_are_refused_or_read_as_the_reference_reads_them(
    colour_type: int, interlaced: bool, top: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    channels = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}[colour_type]
    shape = (3, 7) if channels == 1 else (3, 7, channels)
    pixels = rng.integers(0, top, shape, np.uint8)
    png = build_png(pixels, colour_type=colour_type, interlaced=interlaced)
    try:
        mask = decode_mask(png, "m.png")
    except WrongImageMode:
        return
    assert mask.tolist() == by_reference(png).tolist()


def test_every_dark_colour_is_black_exactly_where_pillow_makes_it_black() -> None:
    reds, greens, blues = (axis.ravel() for axis in np.mgrid[0:5, 0:3, 0:9])
    for colour in zip(reds.tolist(), greens.tolist(), blues.tolist(), strict=True):
        png = build_png(np.array([[colour]], np.uint8), colour_type=RGB)
        black = by_reference(png).tolist() == [[0]]
        if black and any(colour):
            with pytest.raises(WrongImageMode):
                decode_mask(png, "m.png")
        else:
            assert decode_mask(png, "m.png").tolist() == [[int(not black)]]


@settings(max_examples=300)
@given(form=st.sampled_from(sorted(ACCEPTED)), seed=st.integers(0, 2**32), inside=st.booleans())
def test_a_mutated_mask_is_refused_or_reads_as_the_reference_reads_it(
    form: str, seed: int, inside: bool
) -> None:
    rng = np.random.default_rng(seed)
    good = ACCEPTED[form]
    mutable = bytearray(zlib_stream(good) if inside else good)
    mutable[rng.integers(len(mutable))] ^= 1 << rng.integers(8)
    broken = with_stream(good, bytes(mutable)) if inside else bytes(mutable)
    try:
        mask = decode_mask(broken, "m.png")
    except InputError:
        return
    assert mask.tolist() == MASK.tolist()
