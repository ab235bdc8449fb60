"""PNG's row filters the slow, literal way: bytes in loops, as section 9 of the specification has them.

https://www.w3.org/TR/png-3/#9Filters. Imports nothing from the package.
"""

from __future__ import annotations


def predictor(kind: int, a: int, b: int, c: int) -> int:
    """a = left, b = above, c = above left."""
    if kind == 0:
        return 0
    if kind == 1:
        return a
    if kind == 2:
        return b
    if kind == 3:
        return (a + b) // 2
    if kind == 4:
        p = a + b - c
        pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
        if pa <= pb and pa <= pc:
            return a
        return b if pb <= pc else c
    raise ValueError(f"no filter type {kind}")


def unfilter(raw: bytes, height: int, width: int, bytes_per_pixel: int) -> bytes:
    """The pixels of rows that each begin with a filter type.

    Raises
        ValueError: a filter type above 4.
    """
    size = width * bytes_per_pixel
    above = bytes(size)
    pixels = b""
    for y in range(height):
        start = y * (size + 1)
        kind, filtered = raw[start], raw[start + 1 : start + 1 + size]
        row = bytearray()
        for x, value in enumerate(filtered):
            before = x - bytes_per_pixel
            a = row[before] if before >= 0 else 0
            c = above[before] if before >= 0 else 0
            row.append((value + predictor(kind, a, above[x], c)) % 256)
        above = bytes(row)
        pixels += above
    return pixels


def apply(pixels: bytes, height: int, width: int, bytes_per_pixel: int, kinds: list[int]) -> bytes:
    """Filtered rows with their filter types; row y takes type `kinds[y % len(kinds)]`."""
    size = width * bytes_per_pixel
    above = bytes(size)
    raw = bytearray()
    for y in range(height):
        row = pixels[y * size : (y + 1) * size]
        kind = kinds[y % len(kinds)]
        raw.append(kind)
        for x, value in enumerate(row):
            before = x - bytes_per_pixel
            a = row[before] if before >= 0 else 0
            c = above[before] if before >= 0 else 0
            raw.append((value - predictor(kind, a, above[x], c)) % 256)
        above = row
    return bytes(raw)
