"""Deflate streams made bit by bit, right or wrong in any place. Imports nothing from the package.

Section numbers refer to RFC 1951.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

# A literal is its value, a match is (length, distance).
Token = int | tuple[int, int]

CODE_LENGTH_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
LENGTH_BASES = (3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131,
                163, 195, 227, 258)  # fmt: skip
LENGTH_EXTRA = (*[0] * 8, *[1] * 4, *[2] * 4, *[3] * 4, *[4] * 4, *[5] * 4, 0)
DISTANCE_BASES = (1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537,
                  2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577)  # fmt: skip
DISTANCE_EXTRA = (0, 0, *[extra for extra in range(14) for _ in range(2)])
FIXED_LITERALS = [8] * 144 + [9] * 112 + [7] * 24 + [8] * 8
FIXED_DISTANCES = [5] * 32
END_OF_BLOCK = 256


class Bits:
    """A stream of bits, least significant first (3.1.1)."""

    def __init__(self) -> None:
        self.value = self.count = 0

    def put(self, value: int, count: int) -> None:
        self.value |= (value & ((1 << count) - 1)) << self.count
        self.count += count

    def put_code(self, code: int, count: int) -> None:
        """A Huffman code, which is packed from its most significant bit on."""
        self.put(int(format(code, f"0{count}b")[::-1], 2), count)

    def to_bytes(self) -> bytes:
        return self.value.to_bytes(-(-self.count // 8), "little")


def canonical_codes(lengths: Sequence[int]) -> dict[int, tuple[int, int]]:
    """symbol -> (code, bits), 3.2.2; symbols of length 0 have none."""
    codes, code = {}, 0
    for bits in range(1, 16):
        for symbol, length in enumerate(lengths):
            if length == bits:
                codes[symbol] = (code & ((1 << bits) - 1), bits)
                code += 1
        code <<= 1
    return codes


def random_lengths(
    rng: np.random.Generator, symbols: int, used: Sequence[int], longest: int = 15
) -> list[int]:
    """The lengths of a complete code of `used`: leaves of a tree that is split at random."""
    leaves = [0]
    while len(leaves) < max(2, len(used)):
        at = int(rng.integers(len(leaves))) if rng.random() < 0.7 else int(np.argmax(leaves))
        if leaves[at] >= longest:
            at = int(np.argmin(leaves))
        leaves[at] += 1
        leaves.append(leaves[at])
    lengths = [0] * symbols
    for symbol, bits in zip(used, rng.permutation(leaves), strict=False):
        lengths[symbol] = int(bits)
    if len(used) == 1:
        lengths[used[0]] = 1  # the one incomplete code that zlib takes
    return lengths


def put_tokens(
    bits: Bits,
    tokens: Sequence[Token],
    literals: Sequence[int],
    distances: Sequence[int],
    *,
    end: bool = True,
) -> None:
    """Tokens in the codes of these lengths (3.2.3), with the end of the block."""
    literal_codes, distance_codes = canonical_codes(literals), canonical_codes(distances)
    for token in tokens:
        if isinstance(token, int):
            bits.put_code(*literal_codes[token])
            continue
        length, distance = token
        symbol = length_symbol(length)
        bits.put_code(*literal_codes[257 + symbol])
        bits.put(length - LENGTH_BASES[symbol], LENGTH_EXTRA[symbol])
        symbol = distance_symbol(distance)
        bits.put_code(*distance_codes[symbol])
        bits.put(distance - DISTANCE_BASES[symbol], DISTANCE_EXTRA[symbol])
    if end:
        bits.put_code(*literal_codes[END_OF_BLOCK])


def length_symbol(length: int) -> int:
    """The symbol of a match length, less 257."""
    return max(symbol for symbol, base in enumerate(LENGTH_BASES) if base <= length)


def distance_symbol(distance: int) -> int:
    return max(symbol for symbol, base in enumerate(DISTANCE_BASES) if base <= distance)


def put_dynamic_header(
    bits: Bits,
    literals: Sequence[int],
    distances: Sequence[int],
    *,
    code_lengths: Sequence[int] | None = None,
) -> None:
    """3.2.7: the lengths of both codes, one symbol each, in a flat code or the one given."""
    if code_lengths is None:
        code_lengths = [4] * 13 + [5] * 6  # complete
    bits.put(len(literals) - 257, 5)
    bits.put(len(distances) - 1, 5)
    bits.put(15, 4)
    for symbol in CODE_LENGTH_ORDER:
        bits.put(code_lengths[symbol], 3)
    codes = canonical_codes(code_lengths)
    for length in (*literals, *distances):
        bits.put_code(*codes[length])


def dynamic_block(
    tokens: Sequence[Token],
    literals: Sequence[int],
    distances: Sequence[int],
    *,
    bits: Bits,
    last: bool = True,
) -> None:
    bits.put(int(last), 1)
    bits.put(2, 2)
    put_dynamic_header(bits, literals, distances)
    put_tokens(bits, tokens, literals, distances)


def fixed_block(tokens: Sequence[Token], *, bits: Bits, last: bool = True) -> None:
    bits.put(int(last), 1)
    bits.put(1, 2)
    put_tokens(bits, tokens, FIXED_LITERALS, FIXED_DISTANCES)


def stored_block(data: bytes, *, bits: Bits, last: bool = True) -> None:
    """3.2.4."""
    bits.put(int(last), 1)
    bits.put(0, 2)
    bits.put(0, -bits.count % 8)
    bits.put(len(data), 16)
    bits.put(~len(data), 16)
    for byte in data:
        bits.put(byte, 8)


def expand(tokens: Sequence[Token]) -> bytes:
    """What the tokens stand for."""
    data = bytearray()
    for token in tokens:
        if isinstance(token, int):
            data.append(token)
        else:
            length, distance = token
            for _ in range(length):
                data.append(data[-distance])
    return bytes(data)


def wrap(deflate: Bits | bytes, data: bytes, *, header: bytes = b"\x78\x9c") -> bytes:
    """A zlib stream (RFC 1950) of a deflate stream that expands to `data`."""
    body = deflate if isinstance(deflate, bytes) else deflate.to_bytes()
    return header + body + zlib.adler32(data).to_bytes(4, "big")


def fixed_stream(tokens: Sequence[Token]) -> bytes:
    bits = Bits()
    fixed_block(tokens, bits=bits)
    return wrap(bits, expand(tokens))


def dynamic_stream(tokens: Sequence[Token], literals: Sequence[int], distances: Sequence[int]) -> bytes:
    bits = Bits()
    dynamic_block(tokens, literals, distances, bits=bits)
    return wrap(bits, expand(tokens))
