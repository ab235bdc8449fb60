"""`kernels/inflate.cu` refuses what zlib refuses, with the status that says why."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from gpu_eval.engines.cuda.kernels import InflateStatus
from tests.kernels.fuzz_inflate import by_kernel, by_zlib, fuzz
from tests.kernels.inflate_streams import (
    CORRUPT,
    HELLO,
    OK,
    REFUSED,
    SHORT,
    STREAM,
    TOO_LONG,
    TRUNCATED,
    assert_inflates,
    statuses,
)
from tests.support import deflate_builder as deflate
from tests.support.host_cuda.build import SCHEDULES
from tests.support.host_cuda.targets import Target

CI_STREAMS = 20_000  # over the three schedules of the host


class TestBadStreams:
    def test_every_prefix_is_truncated(self, target: Target) -> None:
        streams = [(STREAM[:cut], len(HELLO)) for cut in range(len(STREAM))]
        streams += [(zlib.compress(HELLO, 0)[:cut], len(HELLO)) for cut in range(len(HELLO) + 11)]
        assert statuses(target, streams) == [TRUNCATED] * len(streams)

    def test_a_truncated_stream_stops_soon_instead_of_filling_its_slot(self, target: Target) -> None:
        # The code of the literal 0 is a zero bit, which is also what reads beyond the end give.
        literals = [1, *[0] * 255, 1]
        stream = deflate.dynamic_stream([0] * 100, literals, [0])[:-6]
        (status,), (slot,) = by_kernel(target, [(stream, 1 << 20)])
        assert status == TRUNCATED
        assert slot[4096:] == bytes([0xA5]) * ((1 << 20) - 4096)

    def test_short_stream_is_short_and_long_stream_is_too_long(self, target: Target) -> None:
        fills = zlib.compress(bytes(1000))
        sizes = [len(HELLO) + 1, len(HELLO) - 1, 0]
        found = statuses(target, [(STREAM, size) for size in sizes] + [(fills, 999), (fills, 1001)])
        assert found == [SHORT, TOO_LONG, TOO_LONG, TOO_LONG, SHORT]

    def test_a_wrong_checksum_is_corrupt(self, target: Target) -> None:
        streams = []
        for byte in range(1, 5):
            broken = bytearray(STREAM)
            broken[-byte] ^= 1
            streams.append((bytes(broken), len(HELLO)))
        assert statuses(target, streams) == [CORRUPT] * 4

    @pytest.mark.parametrize("length", [1, 31, 32, 33, 258])
    def test_the_checksum_counts_bytes_of_every_kind(self, target: Target, length: int) -> None:
        data = bytes([255]) * 66_000 + bytes(range(256)) * 5  # both sums wrap around many times
        tokens: list[deflate.Token] = [255, *[(258, 1)] * 300, 3, 4]
        tokens += [(max(length, 3), distance) for distance in (1, 2, 300, 5000)]
        assert_inflates(target, [zlib.compress(data), zlib.compress(data, 0), deflate.fixed_stream(tokens)])

    @pytest.mark.parametrize(
        ("header", "accepted"),
        [
            (b"\x78\x01", True),
            (b"\x18\x19", True),  # a window of 512 bytes
            (b"\x78\x02", False),  # not a multiple of 31
            (b"\x79\x9b", False),  # method 9
            (b"\x88\x1c", False),  # a window of 65,536 bytes
            (b"\x78\xbb", False),  # a preset dictionary
        ],
    )
    def test_the_header_is_checked(self, target: Target, header: bytes, accepted: bool) -> None:
        stream = header + STREAM[2:]
        assert by_zlib(stream, len(HELLO))[0] == (OK if accepted else CORRUPT)
        assert statuses(target, [(stream, len(HELLO))]) == [OK if accepted else CORRUPT]

    def test_block_type_3_is_corrupt(self, target: Target) -> None:
        assert statuses(target, [(b"\x78\x9c\x07" + bytes(20), 9)]) == [CORRUPT]

    def test_a_stored_block_with_a_wrong_complement_is_corrupt(self, target: Target) -> None:
        stream = bytearray(zlib.compress(HELLO, 0))
        stream[5] ^= 1
        assert statuses(target, [(bytes(stream), len(HELLO))]) == [CORRUPT]

    @pytest.mark.parametrize("length", [3, 258])
    def test_a_distance_before_the_beginning_is_corrupt(self, target: Target, length: int) -> None:
        streams = []
        for distance in (1, 2, 33, 32768):
            bits = deflate.Bits()
            have = list(range(min(distance - 1, 200)))
            deflate.fixed_block([*have, (length, distance)], bits=bits)
            streams.append((deflate.wrap(bits, b""), 1000))
        assert statuses(target, streams) == [CORRUPT] * 4

    def test_symbols_that_deflate_does_not_have_are_corrupt(self, target: Target) -> None:
        streams = []
        for symbol in (286, 287):
            bits = deflate.Bits()
            bits.put(0b011, 3)
            bits.put_code(*deflate.canonical_codes(deflate.FIXED_LITERALS)[symbol])
            streams.append((deflate.wrap(bits, b"") + bytes(9), 100))
        for symbol in (30, 31):
            bits = deflate.Bits()
            bits.put(0b011, 3)
            deflate.put_tokens(bits, [0, 0], deflate.FIXED_LITERALS, [], end=False)
            bits.put_code(1, 7)  # length 3
            bits.put_code(symbol, 5)
            streams.append((deflate.wrap(bits, b"") + bytes(9), 100))
        assert statuses(target, streams) == [CORRUPT] * 4

    @pytest.mark.parametrize(
        ("literals", "distances"),
        [
            ([1, 1, *[0] * 254, 1], [0]),  # over-subscribed
            ([2, 2, *[0] * 254, 2], [0]),  # incomplete
            ([*[0] * 256, 2], [0]),  # one symbol, but of two bits
            ([1, 1, *[0] * 255], [0]),  # no end of block
            ([1, *[0] * 255, 1], [1, 1, 1]),
            ([1, *[0] * 255, 1], [2, 2, 2]),
            ([1, *[0] * 255, 1], [2]),
        ],
    )
    def test_a_code_that_is_no_prefix_code_is_corrupt(
        self, target: Target, literals: list[int], distances: list[int]
    ) -> None:
        bits = deflate.Bits()
        deflate.dynamic_block([], literals, distances, bits=bits) if literals[256] else no_end(bits, literals)
        stream = deflate.wrap(bits, b"") + bytes(9)
        assert by_zlib(stream, 0)[0] == CORRUPT
        assert statuses(target, [(stream, 0)]) == [CORRUPT]

    def test_code_lengths_in_a_bad_code_are_corrupt(self, target: Target) -> None:
        streams = []
        for lengths in ([0] * 19, [1, *[0] * 18], [1, 1, 1, *[0] * 16], [2, 2, 2, *[0] * 16]):
            bits = deflate.Bits()
            bits.put(0b101, 3)
            bits.put(0, 5)
            bits.put(0, 5)
            bits.put(15, 4)
            for symbol in deflate.CODE_LENGTH_ORDER:
                bits.put(lengths[symbol], 3)
            streams.append((deflate.wrap(bits, b"") + bytes(200), 10))
        assert [by_zlib(*stream)[0] for stream in streams] == [CORRUPT] * 4
        assert statuses(target, streams) == [CORRUPT] * 4

    def test_too_many_symbols_or_repeats_are_corrupt(self, target: Target) -> None:
        streams = []
        for literals, distances, code in (
            (30, 0, 0),
            (31, 0, 0),
            (0, 30, 0),
            (0, 31, 0),
            (0, 0, 16),
            (29, 29, 18),
        ):
            bits = deflate.Bits()
            bits.put(0b101, 3)
            bits.put(literals, 5)
            bits.put(distances, 5)
            bits.put(15, 4)
            for symbol in deflate.CODE_LENGTH_ORDER:
                bits.put(1 if symbol in (0 if code else 17, code) else 0, 3)
            bits.put(~0, 100)  # the symbol of the higher value, again and again
            streams.append((deflate.wrap(bits, b""), 10))
        assert [by_zlib(*stream)[0] for stream in streams] == [CORRUPT] * 6
        assert statuses(target, streams) == [CORRUPT] * 6

    def test_a_corrupt_stream_does_not_disturb_its_neighbours(self, target: Target) -> None:
        rng = np.random.default_rng(2)
        noise = b"\x78\x9c" + rng.integers(0, 256, 100, dtype=np.uint8).tobytes()
        found, slots = by_kernel(target, [(STREAM, len(HELLO)), (noise, 50), (STREAM, len(HELLO))])
        assert found[0] == found[2] == OK
        assert slots[0] == slots[2] == HELLO

    def test_fuzzed_streams_agree_with_zlib(self, target: Target) -> None:
        seed = len(SCHEDULES) if target.name == "device" else SCHEDULES.index(target.name[5:])
        seen = fuzz(target, seed, CI_STREAMS // 3 + 1)
        assert sum(seen.values()) == CI_STREAMS // 3 + 1
        assert set(seen) == set(InflateStatus) - {REFUSED}


def no_end(bits: deflate.Bits, literals: list[int]) -> None:
    """A block whose code has no end of block."""
    bits.put(0b101, 3)
    deflate.put_dynamic_header(bits, literals, [0])
