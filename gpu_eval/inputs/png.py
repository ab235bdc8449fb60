"""PNGs, the literal way: every chunk checked, pixels by Pillow.

`parse` and `decode` are for label maps; `decode` is the reference that the fast paths are tested against.
`read` and `decode_pixels` are what they share with `inputs.masks`: one strictness for both.
Section numbers refer to the PNG specification, third edition (https://www.w3.org/TR/png-3/).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import numpy.typing as npt
from PIL import PngImagePlugin

from gpu_eval.errors import CorruptImage, ImageTooLarge, WrongImageMode

MAX_PIXELS = 2**27

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6

# Section 11.2.1, table 8: the bit depths that each colour type may have.
DEPTHS = {
    GREY: (1, 2, 4, 8, 16),
    RGB: (8, 16),
    PALETTE: (1, 2, 4, 8),
    GREY_ALPHA: (8, 16),
    RGB_ALPHA: (8, 16),
}
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
COLOUR_NAMES = {GREY: "grey", RGB: "RGB", PALETTE: "palette", GREY_ALPHA: "grey + alpha", RGB_ALPHA: "RGBA"}

# Section 8.1: first row, first column, row step and column step of the seven passes of Adam7.
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))

# One deflate match is at least two bits long and at most 258 bytes: 1032 bytes from one.
MAX_DEFLATE_RATIO = 1032

_LOOKALIKES = (
    (b"\xff\xd8\xff", "a JPEG"),
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"II*\0", "a TIFF"),
    (b"MM\0*", "a TIFF"),
    (b"\x1f\x8b", "gzip data"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x89PNG\n", "a PNG whose line ends were converted by a text-mode copy"),
    (b"version https://git-lfs", "a Git LFS pointer"),
)


@dataclass(frozen=True, slots=True)
class PngHeader:
    """The fields of IHDR that say how to read the pixels."""

    height: int
    width: int
    bit_depth: int
    colour_type: int
    interlaced: bool

    @property
    def raw_size(self) -> int:
        """Bytes of the inflated, still filtered data: one filter byte and the packed samples per row."""
        return sum(rows * stride for rows, stride in self.passes())

    @property
    def mode(self) -> str:
        """For people: "8-bit grey"."""
        return f"{self.bit_depth}-bit {COLOUR_NAMES[self.colour_type]}"

    @property
    def simple(self) -> bool:
        """True for 8-bit grey or palette without interlacing: what the fast kernels take."""
        return self.bit_depth == 8 and self.colour_type in (GREY, PALETTE) and not self.interlaced

    def passes(self) -> Iterator[tuple[int, int]]:
        """(rows, bytes per row with its filter byte) of each pass that holds pixels, in file order."""
        bits = self.bit_depth * CHANNELS[self.colour_type]
        for row, column, row_step, column_step in ADAM7 if self.interlaced else ((0, 0, 1, 1),):
            rows = (self.height - row + row_step - 1) // row_step
            columns = (self.width - column + column_step - 1) // column_step
            if rows > 0 and columns > 0:  # section 8.1: empty passes have no rows, nor filter bytes
                yield rows, 1 + (columns * bits + 7) // 8


@dataclass(frozen=True, slots=True)
class PngFile:
    """A PNG whose chunks were checked; its pixel data is not."""

    header: PngHeader
    palette: bytes  # the data of PLTE, empty if there is none
    payload: bytes  # of the IDAT chunks, joined: one zlib stream


def parse(data: bytes | memoryview, file: str) -> tuple[PngHeader, bytes]:
    """The header of a label map and the payload of its IDAT chunks, joined: one zlib stream.

    Raises
        InputError: as `read`; WrongImageMode for a PNG whose pixels are no labels.
    """
    read_file = read(data, file, _check_labels)
    return read_file.header, read_file.payload


def read(data: bytes | memoryview, file: str, check_mode: Callable[[PngHeader, str], None]) -> PngFile:
    """The checked chunks of a PNG; `check_mode(header, file)` raises for modes that are not wanted.

    CRCs of ancillary chunks are not checked, and what follows IEND is ignored.

    Raises
        CorruptImage: not a PNG, truncated, or against the specification.
        ImageTooLarge: more than MAX_PIXELS pixels.
    """
    view = memoryview(data)
    if len(view) == 0:
        _corrupt("the file is empty", file, found="0 bytes", expected="a PNG")
    if view[:8] != SIGNATURE:
        found = _looks_like(bytes(view[:64]))
        _corrupt("not a PNG", file, found=found, expected="a PNG signature", fix="save label maps as PNG")
    header: PngHeader | None = None
    idat: list[memoryview] = []
    palette: bytes | None = None
    idat_ended = False
    for offset, kind, body in _chunks(view, file):
        name = kind.decode("ascii")
        if header is None and kind != b"IHDR":
            _corrupt("the first chunk is not IHDR", file, found=name, expected="IHDR")
        if kind == b"IDAT":
            if idat_ended:
                _corrupt(f"IDAT chunks are not consecutive: another one at byte {offset}", file)
            idat.append(body)
            continue
        idat_ended = bool(idat)
        if kind == b"IHDR":
            if header is not None:
                _corrupt(f"a second IHDR chunk at byte {offset}", file)
            header = _header(body, file, check_mode)
        elif kind == b"PLTE":
            palette = bytes(body)
        elif kind == b"IEND":
            break
        elif kind[:1].isupper():
            _corrupt("unknown critical chunk", file, found=name, expected="IHDR, PLTE, IDAT and IEND only")
    else:
        _corrupt("truncated: the file ends without an IEND chunk", file, found=f"{len(view)} bytes")
    if header is None or not idat:
        _corrupt("there is no IDAT chunk, so no pixels", file)
    if header.colour_type == PALETTE and palette is None:
        _corrupt("a palette image without a PLTE chunk", file)
    payload = b"".join(idat)
    if header.raw_size > MAX_DEFLATE_RATIO * len(payload):
        _corrupt(
            f"too short for {header.height} rows of {header.width} pixels",
            file,
            found=f"{len(payload)} compressed bytes",
            expected=f"at least {-(-header.raw_size // MAX_DEFLATE_RATIO)}",
        )
    return PngFile(header, palette or b"", payload)


def decode(data: bytes | memoryview, file: str) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """The label values of a PNG, shape (height, width): the grey value or the palette index; tRNS is ignored.

    uint16 for 16-bit grey, else uint8.

    Raises
        InputError: as `parse`; CorruptImage also for pixel data that is short, overlong or damaged.
    """
    read_file = read(data, file, _check_labels)
    header = read_file.header
    # The palette's colours do not matter: the indices are the labels.
    colours = bytes(3 * 2**header.bit_depth) if header.colour_type == PALETTE else b""
    pixels = decode_pixels(PngFile(header, colours, read_file.payload), file)
    if header.bit_depth == 16:
        return pixels.astype(np.uint16, copy=False)
    return pixels.astype(np.uint8, copy=False)


def decode_pixels(read_file: PngFile, file: str) -> npt.NDArray[np.generic]:
    """Pillow's pixels: shape (height, width), or (height, width, channels) for colours and alpha.

    Raises CorruptImage for pixel data that is short, overlong or damaged.
    """
    header = read_file.header
    _check_pixel_data(header, read_file.payload, file)
    # Pillow sees the chunks that were checked and no others, and no Image.open: its size warning would fire.
    clean = io.BytesIO(_critical_chunks(read_file))
    try:
        with PngImagePlugin.PngImageFile(clean) as image:
            pixels: npt.NDArray[np.generic] = np.array(image)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise CorruptImage("Pillow cannot decode it", file=file, found=str(error)) from error
    if pixels.shape[:2] != (header.height, header.width):
        _corrupt(
            "Pillow decodes another size",
            file,
            found=str(pixels.shape),
            expected=f"({header.height}, {header.width})",
        )
    return pixels


def _chunks(view: memoryview, file: str) -> Iterator[tuple[int, bytes, memoryview]]:
    """(offset, type, data) of each chunk, section 5.3; the CRC of critical ones is checked."""
    offset, end = len(SIGNATURE), len(view)
    while offset < end:
        if end - offset < 12:
            _corrupt(
                f"truncated inside the chunk at byte {offset}",
                file,
                found=f"{end - offset} bytes",
                expected="at least 12",
            )
        length, kind = struct.unpack_from(">I4s", view, offset)
        if length > 2**31 - 1:
            _corrupt(
                f"the chunk at byte {offset} has an illegal length",
                file,
                found=str(length),
                expected="at most 2147483647",
            )
        if not kind.isalpha():
            _corrupt(
                f"the chunk at byte {offset} has an illegal type",
                file,
                found=repr(kind)[1:],
                expected="four letters",
            )
        name = kind.decode("ascii")
        if length > end - offset - 12:
            _corrupt(
                f"truncated inside the {name} chunk at byte {offset}",
                file,
                found=f"{end - offset} bytes",
                expected=f"{length + 12}",
            )
        body = view[offset + 8 : offset + 8 + length]
        if kind[:1].isupper():
            (stored,) = struct.unpack_from(">I", view, offset + 8 + length)
            computed = zlib.crc32(body, zlib.crc32(kind))
            if stored != computed:
                _corrupt(
                    f"bad CRC of the {name} chunk at byte {offset}",
                    file,
                    found=f"{computed:08x}",
                    expected=f"{stored:08x}",
                )
        yield offset, kind, body
        offset += 12 + length


def _header(body: memoryview, file: str, check_mode: Callable[[PngHeader, str], None]) -> PngHeader:
    """The checked IHDR chunk, section 11.2.1."""
    if len(body) != 13:
        _corrupt("the IHDR chunk has a wrong size", file, found=f"{len(body)} bytes", expected="13")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", body)
    if not (0 < height < 2**31 and 0 < width < 2**31):
        _corrupt("illegal size", file, found=f"{height} rows of {width} pixels", expected="1 to 2147483647")
    if depth not in DEPTHS.get(colour, ()):
        _corrupt(
            "illegal colour type and bit depth",
            file,
            found=f"colour type {colour}, bit depth {depth}",
            expected="a combination that PNG has",
        )
    for method, value, legal in (
        ("compression", compression, (0,)),
        ("filter", filtering, (0,)),
        ("interlace", interlace, (0, 1)),
    ):
        if value not in legal:
            _corrupt(
                f"unknown {method} method",
                file,
                found=str(value),
                expected=" or ".join(str(known) for known in legal),
            )
    header = PngHeader(height, width, depth, colour, bool(interlace))
    check_mode(header, file)
    if height * width > MAX_PIXELS:
        raise ImageTooLarge(
            "the header asks for too many pixels",
            file=file,
            found=f"{height} rows of {width} pixels",
            expected=f"at most {MAX_PIXELS} pixels",
        )
    return header


def _check_labels(header: PngHeader, file: str) -> None:
    """Raises WrongImageMode for a PNG whose pixels are no labels."""
    depth = header.bit_depth
    if header.colour_type not in (GREY, PALETTE):
        raise WrongImageMode(
            "colours are not labels",
            file=file,
            found=header.mode,
            expected="8-bit grey or palette, one label id per pixel",
            fix="save the label ids themselves, not a colour rendering: Image.fromarray(ids.astype('uint8'))",
        )
    if header.colour_type == GREY and depth < 8:
        raise WrongImageMode(
            f"{depth}-bit grey: readers scale it to 0..255, so the labels would change silently",
            file=file,
            found=f"{depth}-bit grey (Pillow multiplies the values by {255 // (2**depth - 1)})",
            expected="8-bit grey or palette",
            fix="save as 8-bit grey: Image.fromarray(ids.astype('uint8'))",
        )


def _check_pixel_data(header: PngHeader, payload: bytes, file: str) -> None:
    """Inflate, bounded by what the header allows, and hold size, Adler-32 and filter types against it."""
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(payload, header.raw_size + 1)
    except zlib.error as error:
        if "incorrect data check" in str(error):
            raise CorruptImage("bad Adler-32 of the pixel data", file=file, found=str(error)) from error
        raise CorruptImage("corrupt deflate data", file=file, found=str(error)) from error
    expected = f"{header.raw_size} bytes for {header.height} rows of {header.width} pixels"
    if len(raw) > header.raw_size:
        _corrupt(
            "holds more data than its header says",
            file,
            found=f"more than {header.raw_size} bytes",
            expected=expected,
        )
    if len(raw) < header.raw_size:
        message = "the pixel data is short"
        if not header.interlaced:
            (_, stride), *_ = header.passes()
            message += f": {len(raw) // stride} of {header.height} rows are there"
        _corrupt(message, file, found=f"{len(raw)} bytes", expected=expected)
    if not inflater.eof:
        _corrupt("the compressed data ends before its Adler-32", file)
    offset = 0
    for rows, stride in header.passes():
        span = np.frombuffer(raw, np.uint8, rows * stride, offset)
        worst = int(span[::stride].max())
        if worst > 4:
            _corrupt("a row has an unknown filter type", file, found=str(worst), expected="0 to 4")
        offset += rows * stride


def _critical_chunks(read_file: PngFile) -> bytes:
    """A PNG of nothing but header, palette, pixels and end."""
    header = read_file.header
    ihdr = struct.pack(
        ">IIBBBBB",
        header.width,
        header.height,
        header.bit_depth,
        header.colour_type,
        0,
        0,
        int(header.interlaced),
    )
    chunks = [(b"IHDR", ihdr), (b"IDAT", read_file.payload), (b"IEND", b"")]
    if header.colour_type == PALETTE:
        chunks.insert(1, (b"PLTE", read_file.palette))
    parts = [SIGNATURE]
    for kind, body in chunks:
        crc = zlib.crc32(body, zlib.crc32(kind))
        parts += [struct.pack(">I4s", len(body), kind), body, struct.pack(">I", crc)]
    return b"".join(parts)


def _looks_like(start: bytes) -> str:
    for magic, name in _LOOKALIKES:
        if start.startswith(magic):
            return name
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "a WebP"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "an HTML or XML page"
    if len(start) < 8 and SIGNATURE.startswith(start):
        return f"the first {len(start)} bytes of a PNG"
    if not start.strip(b"\0"):
        return "zero bytes"
    if all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in start):
        return "text"
    return f"bytes {start[:8].hex(' ')}"


def _corrupt(
    message: str, file: str, *, found: str | None = None, expected: str | None = None, fix: str | None = None
) -> NoReturn:
    raise CorruptImage(message, file=file, found=found, expected=expected, fix=fix)
