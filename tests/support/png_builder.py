"""PNGs made byte by byte, right or wrong in any place. Imports nothing from the package.

Section numbers refer to the PNG specification, https://www.w3.org/TR/png-3/.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))

Chunk = tuple[bytes, bytes]


def chunk(kind: bytes, data: bytes = b"", *, crc: int | None = None) -> bytes:
    """One chunk, section 5.3; `crc` overrides the right one."""
    right = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", right if crc is None else crc)


def ihdr(
    height: int,
    width: int,
    *,
    bit_depth: int = 8,
    colour_type: int = 0,
    compression: int = 0,
    filter_method: int = 0,
    interlace: int = 0,
) -> bytes:
    """The 13 bytes of an IHDR chunk's data."""
    return struct.pack(
        ">IIBBBBB", width, height, bit_depth, colour_type, compression, filter_method, interlace
    )


def assemble(chunks: Iterable[Chunk | bytes]) -> bytes:
    """Signature and chunks; a chunk given as bytes is taken as it is."""
    return SIGNATURE + b"".join(part if isinstance(part, bytes) else chunk(*part) for part in chunks)


def pack_row(row: npt.NDArray[np.integer], bit_depth: int) -> bytes:
    """The samples of one row as bytes, section 7.2: big-endian, the leftmost pixel in the high bits."""
    if bit_depth == 16:
        return row.astype(">u2").tobytes()
    if bit_depth == 8:
        return row.astype(np.uint8).tobytes()
    bits = "".join(format(int(value), f"0{bit_depth}b") for value in row)
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))


def paeth(left: int, up: int, corner: int) -> int:
    """The Paeth predictor, section 9.4."""
    estimate = left + up - corner
    to_left, to_up, to_corner = abs(estimate - left), abs(estimate - up), abs(estimate - corner)
    if to_left <= to_up and to_left <= to_corner:
        return left
    return up if to_up <= to_corner else corner


def filter_row(row: bytes, above: bytes, kind: int, bytes_per_pixel: int) -> bytes:
    """One row filtered by type `kind`, section 9.2, without its filter byte; above 4 it is left as it is."""
    filtered = bytearray()
    for at, value in enumerate(row):
        left = row[at - bytes_per_pixel] if at >= bytes_per_pixel else 0
        corner = above[at - bytes_per_pixel] if at >= bytes_per_pixel else 0
        up = above[at]
        predictors = {1: left, 2: up, 3: (left + up) // 2, 4: paeth(left, up, corner)}
        filtered.append((value - predictors.get(kind, 0)) % 256)
    return bytes(filtered)


def raw_data(
    pixels: npt.NDArray[np.integer],
    *,
    filters: int | Sequence[int] | None = None,
    bit_depth: int = 8,
    colour_type: int = 0,
) -> bytes:
    """Filtered rows with their filter bytes: what the zlib stream holds.

    pixels has shape (height, width) or (height, width, channels). `filters` is one type for all rows,
    one per row (repeated as needed), or None for 0.
    """
    kinds = [0] if filters is None else [filters] if isinstance(filters, int) else list(filters)
    bytes_per_pixel = max(1, CHANNELS[colour_type] * bit_depth // 8)
    raw = bytearray()
    above = b""
    for number, samples in enumerate(pixels.reshape(pixels.shape[0], -1)):
        row = pack_row(samples, bit_depth)
        kind = kinds[number % len(kinds)]
        raw.append(kind)
        raw += filter_row(row, above or bytes(len(row)), kind, bytes_per_pixel)
        above = row
    return bytes(raw)


def adam7_data(
    pixels: npt.NDArray[np.integer],
    *,
    filters: int | Sequence[int] | None = None,
    bit_depth: int = 8,
    colour_type: int = 0,
) -> bytes:
    """As `raw_data`, for the seven passes of section 8.1; passes without pixels are left out."""
    raw = b""
    for row, column, row_step, column_step in ADAM7:
        part = pixels[row::row_step, column::column_step]
        if part.size:
            raw += raw_data(part, filters=filters, bit_depth=bit_depth, colour_type=colour_type)
    return raw


def build_png(
    pixels: npt.NDArray[np.integer],
    *,
    filters: int | Sequence[int] | None = None,
    colour_type: int = 0,
    bit_depth: int = 8,
    interlaced: bool = False,
    idat_size: int | None = None,
    level: int = 6,
    strategy: int = zlib.Z_DEFAULT_STRATEGY,
    before_idat: Sequence[Chunk] = (),
    after_idat: Sequence[Chunk] = (),
    stream: bytes | None = None,
) -> bytes:
    """A PNG of `pixels`; palette images get a grey PLTE.

    `idat_size` splits the zlib stream into IDAT chunks of that many bytes; `stream` replaces the zlib stream.
    """
    height, width = pixels.shape[:2]
    if stream is None:
        make = adam7_data if interlaced else raw_data
        raw = make(pixels, filters=filters, bit_depth=bit_depth, colour_type=colour_type)
        deflater = zlib.compressobj(level, zlib.DEFLATED, zlib.MAX_WBITS, 8, strategy)
        stream = deflater.compress(raw) + deflater.flush()
    header = ihdr(height, width, bit_depth=bit_depth, colour_type=colour_type, interlace=int(interlaced))
    chunks: list[Chunk] = [(b"IHDR", header)]
    if colour_type == 3:
        chunks.append((b"PLTE", bytes(value for value in range(2**bit_depth) for _ in range(3))))
    chunks += before_idat
    size = idat_size or max(1, len(stream))
    chunks += [(b"IDAT", stream[at : at + size]) for at in range(0, max(1, len(stream)), size)]
    chunks += after_idat
    return assemble([*chunks, (b"IEND", b"")])


def read_chunks(png: bytes) -> list[Chunk]:
    """The chunks of a well-formed PNG."""
    chunks, at = [], len(SIGNATURE)
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        chunks.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def zlib_stream(png: bytes) -> bytes:
    """The joined IDAT payload of a well-formed PNG."""
    return b"".join(data for kind, data in read_chunks(png) if kind == b"IDAT")


def with_stream(png: bytes, stream: bytes) -> bytes:
    """The same PNG with another zlib stream, in one IDAT chunk with a right CRC."""
    chunks = read_chunks(png)
    first = next(number for number, (kind, _) in enumerate(chunks) if kind == b"IDAT")
    others = [part for part in chunks if part[0] != b"IDAT"]
    return assemble([*others[:first], (b"IDAT", stream), *others[first:]])


def broken_crc(png: bytes, kind: bytes = b"IDAT") -> bytes:
    """The same PNG with a wrong CRC in the first chunk of this type."""
    chunks = read_chunks(png)
    at = [part[0] for part in chunks].index(kind)
    bad = chunk(*chunks[at], crc=zlib.crc32(b"".join(chunks[at])) ^ 1)
    return assemble([*chunks[:at], bad, *chunks[at + 1 :]])


def broken_adler(png: bytes) -> bytes:
    """The same PNG with a wrong Adler-32; its CRCs are right."""
    stream = zlib_stream(png)
    return with_stream(png, stream[:-1] + bytes([stream[-1] ^ 1]))


def short_rows(png: bytes, rows: int, row_bytes: int) -> bytes:
    """The same PNG whose data, a whole and valid zlib stream, ends after `rows` rows of `row_bytes` bytes."""
    raw = zlib.decompress(zlib_stream(png))
    return with_stream(png, zlib.compress(raw[: rows * row_bytes]))


def longer_rows(png: bytes, extra: int = 1) -> bytes:
    """The same PNG whose data holds `extra` bytes more than its header says."""
    return with_stream(png, zlib.compress(zlib.decompress(zlib_stream(png)) + bytes(extra)))
