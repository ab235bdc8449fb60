"""The reference decoder: what it accepts, what it refuses and in which words."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gpu_eval.errors import CorruptImage, ImageTooLarge, InputError, WrongImageMode
from gpu_eval.inputs.png import MAX_PIXELS, PngHeader, decode, parse
from tests.support.png_builder import (
    SIGNATURE,
    assemble,
    broken_adler,
    broken_crc,
    build_png,
    chunk,
    ihdr,
    longer_rows,
    raw_data,
    read_chunks,
    short_rows,
    with_stream,
    zlib_stream,
)

Pixels = npt.NDArray[np.integer]


def street(height: int, width: int, *, top: int = 27, seed: int = 0) -> Pixels:
    """Blocks of labels, with some noise."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, top, (height // 4 + 1, width // 5 + 1))
    pixels = np.repeat(np.repeat(blocks, 4, axis=0), 5, axis=1)[:height, :width]
    noisy = random.random((height, width)) < 0.05
    pixels[noisy] = random.integers(0, top, int(noisy.sum()))
    return pixels.astype(np.uint16 if top > 256 else np.uint8)


def by_pillow(png: bytes) -> Pixels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(png)) as image:
            return np.array(image)


GOOD = build_png(street(9, 13))
CHUNKS = read_chunks(GOOD)
IHDR, IDAT, IEND = CHUNKS
STREAM = zlib_stream(GOOD)


@pytest.mark.parametrize("filters", [0, 1, 2, 3, 4, (0, 1, 2, 3, 4), (4, 3, 2, 1)])
@pytest.mark.parametrize("size", [(1, 1), (1, 17), (17, 1), (8, 8), (23, 31)])
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("colour_type", "bit_depth", "top"),
    [(0, 8, 256), (0, 16, 65536), (3, 8, 256), (3, 4, 16), (3, 2, 4), (3, 1, 2)],
)
def test_labels_come_back_whatever_the_encoding(
    filters: int, size: tuple[int, int], interlaced: bool, colour_type: int, bit_depth: int, top: int
) -> None:
    pixels = street(*size, top=top)
    png = build_png(
        pixels, filters=filters, colour_type=colour_type, bit_depth=bit_depth, interlaced=interlaced
    )
    decoded = decode(png, "a.png")
    assert decoded.dtype == (np.uint16 if bit_depth == 16 else np.uint8)
    np.testing.assert_array_equal(decoded, pixels)
    np.testing.assert_array_equal(by_pillow(png), pixels)


def test_header_says_what_ihdr_says() -> None:
    header, payload = parse(build_png(street(9, 13), colour_type=3, idat_size=7), "a.png")
    assert header == PngHeader(9, 13, 8, 3, False)
    assert header.simple
    assert header.raw_size == 9 * 14 == len(zlib.decompress(payload))


@pytest.mark.parametrize(
    ("arguments", "simple"),
    [
        ((8, 0, False), True),
        ((8, 3, False), True),
        ((16, 0, False), False),
        ((4, 3, False), False),
        ((8, 0, True), False),
    ],
)
def test_simple_is_8_bit_grey_or_palette_without_interlacing(
    arguments: tuple[int, int, bool], simple: bool
) -> None:
    assert PngHeader(5, 5, *arguments).simple is simple


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 4, 8]), st.booleans())
def test_raw_size_is_the_size_of_the_inflated_data(
    height: int, width: int, depth: int, interlaced: bool
) -> None:
    png = build_png(
        np.zeros((height, width), np.uint8), colour_type=3, bit_depth=depth, interlaced=interlaced
    )
    header, payload = parse(png, "a.png")
    assert header.raw_size == len(zlib.decompress(payload))


def test_files_of_pillow_decode() -> None:
    pixels = street(50, 60)
    for mode in ("L", "P"):
        image = Image.fromarray(pixels.astype(np.uint8), "L")
        if mode == "P":
            image.putpalette(bytes(range(256)) * 3)
        file = io.BytesIO()
        image.save(file, "PNG", optimize=mode == "P")
        np.testing.assert_array_equal(decode(file.getvalue(), "a.png"), pixels)


def test_transparency_of_a_palette_is_ignored() -> None:
    pixels = street(5, 5)
    png = build_png(pixels, colour_type=3, before_idat=[(b"tRNS", bytes(256))])
    np.testing.assert_array_equal(decode(png, "a.png"), pixels)


def test_memoryview_is_taken_and_the_payload_is_bytes() -> None:
    header, payload = parse(memoryview(GOOD), "a.png")
    assert type(payload) is bytes
    assert payload == STREAM
    assert header.height == 9
    np.testing.assert_array_equal(decode(memoryview(GOOD), "a.png"), street(9, 13))


@pytest.mark.parametrize("idat_size", [1, 2, 5, 100])
def test_stream_may_be_split_over_idat_chunks(idat_size: int) -> None:
    png = build_png(street(9, 13), idat_size=idat_size)
    assert parse(png, "a.png")[1] == STREAM
    np.testing.assert_array_equal(decode(png, "a.png"), street(9, 13))


def test_ancillary_chunks_may_be_damaged_and_bytes_may_follow() -> None:
    for png in (
        assemble([IHDR, chunk(b"tEXt", b"made by hand", crc=1), IDAT, (b"tIME", b"x"), IEND]) + b"more",
        assemble([IHDR, (b"iCCP", b"nonsense"), (b"zTXt", b"k\0\0nonsense"), IDAT, IEND]),
        with_stream(GOOD, STREAM + b"after the zlib stream"),
    ):
        np.testing.assert_array_equal(decode(png, "a.png"), street(9, 13))


@pytest.mark.filterwarnings("error")
def test_large_maps_do_not_set_off_pillows_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    np.testing.assert_array_equal(decode(GOOD, "a.png"), street(9, 13))


def webp(size: int = 20) -> bytes:
    return b"RIFF" + struct.pack("<I", size) + b"WEBPVP8 "


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "a JPEG"),
        (b"GIF89a....", "a GIF"),
        (b"BM......", "a BMP"),
        (b"II*\0....", "a TIFF"),
        (b"MM\0*....", "a TIFF"),
        (webp(), "a WebP"),
        (b"\n <!DOCTYPE html><html>", "an HTML or XML page"),
        (b"404: Not Found\n", "found text"),
        (b"\x1f\x8b\x08....", "gzip data"),
        (b"PK\x03\x04....", "a zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (GOOD.replace(b"\r\n", b"\n", 1), "text-mode copy"),
        (GOOD[:5], "the first 5 bytes of a PNG"),
        (bytes(100), "zero bytes"),
        (b"\x93NUMPY\x01\0v\0", "bytes 93 4e 55 4d"),
        (GOOD[:8], "without an IEND chunk"),
        (GOOD[:20], "truncated inside the IHDR chunk at byte 8"),
        (GOOD[:12], "truncated inside the chunk at byte 8"),
        (GOOD[:-20], "truncated inside the IDAT chunk at byte 33"),
        (GOOD[:-12], "without an IEND chunk"),
        (GOOD[:-1], "truncated inside the chunk"),
        (SIGNATURE + b"\xff\xff\xff\xffIHDR" + bytes(20), "illegal length"),
        (SIGNATURE + bytes(30), "illegal type"),
        (assemble([IDAT, IHDR, IEND]), "first chunk is not IHDR"),
        (assemble([(b"IHDR", IHDR[1][:12]), IDAT, IEND]), "12 bytes, expected 13"),
        (assemble([IHDR, IHDR, IDAT, IEND]), "a second IHDR chunk at byte 33"),
        (assemble([(b"IHDR", ihdr(0, 13)), IDAT, IEND]), "illegal size"),
        (assemble([(b"IHDR", ihdr(9, 0)), IDAT, IEND]), "illegal size"),
        (assemble([(b"IHDR", ihdr(2**31, 1)), IDAT, IEND]), "illegal size"),
        (assemble([(b"IHDR", ihdr(9, 13, bit_depth=3)), IDAT, IEND]), "bit depth 3"),
        (assemble([(b"IHDR", ihdr(9, 13, colour_type=3, bit_depth=16)), IDAT, IEND]), "colour type 3"),
        (assemble([(b"IHDR", ihdr(9, 13, colour_type=5)), IDAT, IEND]), "colour type 5"),
        (assemble([(b"IHDR", ihdr(9, 13, compression=1)), IDAT, IEND]), "unknown compression method"),
        (assemble([(b"IHDR", ihdr(9, 13, filter_method=64)), IDAT, IEND]), "unknown filter method"),
        (assemble([(b"IHDR", ihdr(9, 13, interlace=2)), IDAT, IEND]), "unknown interlace method"),
        (broken_crc(GOOD), "bad CRC of the IDAT chunk at byte 33"),
        (broken_crc(GOOD, b"IHDR"), "bad CRC of the IHDR chunk at byte 8"),
        (broken_crc(GOOD, b"IEND"), "bad CRC of the IEND chunk"),
        (assemble([IHDR, IDAT, (b"tEXt", b""), IDAT, IEND]), "IDAT chunks are not consecutive"),
        (assemble([IHDR, IEND]), "no IDAT chunk"),
        (assemble([IHDR, (b"JDAT", b""), IDAT, IEND]), "unknown critical chunk .found JDAT"),
        (assemble([(b"IHDR", ihdr(9, 13, colour_type=3)), IDAT, IEND]), "without a PLTE chunk"),
        (assemble([(b"IHDR", ihdr(5000, 5000)), IDAT, IEND]), "too short for 5000 rows of 5000 pixels"),
        (short_rows(GOOD, 8, 14), "8 of 9 rows are there"),
        (short_rows(GOOD, 0, 14), "0 of 9 rows are there"),
        (with_stream(GOOD, b""), "too short"),
        (with_stream(GOOD, STREAM[:-6]), "short|Adler-32"),
        (with_stream(GOOD, STREAM[:-1]), "ends before its Adler-32"),
        (with_stream(GOOD, STREAM[:-4]), "ends before its Adler-32"),
        (longer_rows(GOOD), "more data than its header says"),
        (longer_rows(GOOD, 10**7), "more data than its header says"),
        (broken_adler(GOOD), "bad Adler-32"),
        (with_stream(GOOD, b"\x79" + STREAM[1:]), "corrupt deflate data"),
        (with_stream(GOOD, STREAM[:2] + b"\x07" + STREAM[3:]), "corrupt deflate data"),
        (build_png(street(9, 13), filters=(0, 0, 5)), "unknown filter type .found 5"),
        (build_png(street(9, 13), filters=(0, 255), interlaced=True), "unknown filter type .found 255"),
    ],
)
def test_corrupt_file_is_refused_and_named(data: bytes, words: str) -> None:
    with pytest.raises(CorruptImage, match=words) as caught:
        decode(data, "17/a.png")
    assert caught.value.file == "17/a.png"
    assert str(caught.value).startswith("17/a.png: ")


def test_short_interlaced_stream_is_corrupt() -> None:
    png = build_png(street(9, 13), interlaced=True)
    raw = zlib.decompress(zlib_stream(png))
    with pytest.raises(CorruptImage, match="the pixel data is short"):
        decode(with_stream(png, zlib.compress(raw[:-1])), "a.png")


@pytest.mark.parametrize(
    ("colour_type", "bit_depth", "words"),
    [
        (2, 8, "8-bit RGB"),
        (2, 16, "16-bit RGB"),
        (6, 8, "8-bit RGBA"),
        (4, 8, r"8-bit grey \+ alpha"),
        (0, 1, "multiplies the values by 255"),
        (0, 2, "multiplies the values by 85"),
        (0, 4, "multiplies the values by 17"),
    ],
)
def test_pixels_that_are_no_labels_are_refused(colour_type: int, bit_depth: int, words: str) -> None:
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    pixels = np.zeros((3, 5, channels), np.uint8)
    with pytest.raises(WrongImageMode, match=words) as caught:
        decode(build_png(pixels, colour_type=colour_type, bit_depth=bit_depth), "a.png")
    assert caught.value.fix is not None
    assert "uint8" in caught.value.fix


def test_header_that_asks_for_too_many_pixels_is_refused_before_inflating() -> None:
    with pytest.raises(ImageTooLarge, match=str(MAX_PIXELS)):
        parse(assemble([(b"IHDR", ihdr(2**14, 2**13 + 1)), IDAT, IEND]), "a.png")


def test_whole_palette_of_one_value_compresses_within_the_deflate_bound() -> None:
    pixels = np.zeros((2000, 3000), np.uint8)
    raw = raw_data(pixels[:1]) * 2000
    png = build_png(pixels, stream=zlib.compress(raw, 9))
    assert not decode(png, "a.png").any()


def fixed_crcs(data: bytes) -> bytes:
    """The file with the CRC of every chunk that lies wholly in it made right."""
    fixed, at = bytearray(data), 8
    while at + 12 <= len(fixed):
        (length,) = struct.unpack_from(">I", fixed, at)
        end = at + 8 + length
        if end + 4 > len(fixed):
            break
        struct.pack_into(">I", fixed, end, zlib.crc32(fixed[at + 4 : end]))
        at = end + 4
    return bytes(fixed)


SEEDS: list[tuple[bytes, Pixels]] = [
    (build_png(pixels, **options), pixels)  # type: ignore[arg-type]
    for pixels, options in [
        (street(9, 13), {"filters": (0, 1, 2, 3, 4)}),
        (street(9, 13), {"colour_type": 3, "idat_size": 20}),
        (street(9, 13, top=16), {"colour_type": 3, "bit_depth": 4, "interlaced": True}),
        (street(7, 5, top=65536), {"bit_depth": 16, "level": 0}),
        (street(9, 13), {"before_idat": [(b"tEXt", b"Comment\0hello")], "level": 0}),
    ]
]


@st.composite
def mutations(draw: st.DrawFn) -> tuple[bytes, Pixels]:
    png, pixels = draw(st.sampled_from(SEEDS))
    data = bytearray(png)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1))
        data[at] = draw(st.integers(0, 255))
    size = draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))
    cut = bytes(data[:size])
    return (fixed_crcs(cut) if draw(st.booleans()) else cut), pixels


@given(mutations())
def test_mutated_file_is_refused_or_gives_what_pillow_gives(mutated: tuple[bytes, Pixels]) -> None:
    data, original = mutated
    try:
        decoded = decode(data, "a.png")
    except InputError:
        return
    try:
        expected = by_pillow(data)
    except (OSError, SyntaxError, ValueError):  # Pillow minds ancillary chunks; they do not touch the labels
        expected = original
    np.testing.assert_array_equal(decoded, expected)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_without_another_exception(data: bytes) -> None:
    for attempt in (data, SIGNATURE + data):
        with pytest.raises(CorruptImage):
            decode(attempt, "a.png")
