"""`kernels/inflate.cu` against zlib: on the host in three schedules, under sanitizers, and on a device."""

from __future__ import annotations

import io
import re
import zlib

import numpy as np
import pytest
from PIL import Image

from gpu_eval.engines.cuda import kernels
from gpu_eval.engines.cuda.kernels import InflateStatus
from gpu_eval.inputs.png import parse
from gpu_eval.synthetic import street_gt, street_prediction
from tests.kernels.fuzz_inflate import by_kernel, check, compressed, make_streams, street_rows
from tests.kernels.inflate_streams import (
    HELLO,
    OK,
    REFUSED,
    STREAM,
    assert_inflates,
    statuses,
)
from tests.support import deflate_builder as deflate
from tests.support.host_cuda.sanitized import run_sanitized
from tests.support.host_cuda.targets import Target
from tests.support.png_builder import build_png
from tests.support.shared import SHARED, needs_shared


def small_inputs(target: Target) -> None:
    """A little of everything, for the sanitizers."""
    tokens: list[deflate.Token] = [1, 2, 3, (258, 3), (40, 1), 7, (100, 150), (258, 258), (60, 61), (50, 33)]
    streams = [deflate.fixed_stream(tokens), zlib.compress(bytes(300), 0), long_codes()]
    for far in (100, 101, 102, 103):  # copies whose source ends where they begin, at any alignment
        edges = [(far - less, far) for _ in range(4) for less in (0, 1, 2, 3)]
        streams.append(deflate.fixed_stream([*range(far), *edges]))
    assert_inflates(target, streams)
    check(target, make_streams(np.random.default_rng(11), 40), first_byte=3)
    gathered(target, [5, 1, 0, 14])


def long_codes() -> bytes:
    """Literal and distance codes of 1 to 15 bits, all in use."""
    lengths = [*range(1, 16), 15]
    literals = [0] * 288
    for symbol, bits in zip([256, 285, *range(65, 79)], lengths, strict=True):
        literals[symbol] = bits
    tokens: list[deflate.Token] = [*range(65, 79)] * 3
    tokens += [(258, deflate.DISTANCE_BASES[symbol]) for symbol in range(16)]
    return deflate.dynamic_stream(tokens, literals[:286], lengths)


def gathered(target: Target, cuts: list[int]) -> None:
    """A stream cut into segments that lie apart in the slab is put together and inflated."""
    pieces = np.split(np.frombuffer(STREAM, np.uint8), np.cumsum(cuts))
    slab, sources = bytearray(b"xyz"), []
    for piece in pieces:
        sources.append(len(slab))
        slab += piece.tobytes() + b"between"
    upload = len(slab)
    slab += bytes(-upload % 4 + len(STREAM) + 8)
    slab += bytes(-len(slab) % 4)
    begin = upload + -upload % 4 + 1
    ends = begin + np.cumsum([len(piece) for piece in pieces])
    lengths = np.array([len(piece) for piece in pieces], np.int32)
    module = target.load(kernels.INFLATE_CU)
    on_target = target.put(np.frombuffer(bytes(slab), np.uint8))
    kernels.gather(
        module,
        on_target,
        target.put(np.array(sources, np.int64)),
        target.put(ends - lengths),
        target.put(lengths),
    )
    after = target.get(on_target)
    assert after[begin : begin + len(STREAM)].tobytes() == STREAM
    assert after[:upload].tobytes() == slab[:upload]
    assert not after[begin + len(STREAM) :].any()


class TestStreams:
    @pytest.mark.parametrize("size", [0, 1, 2, 15, 16, 17, 1000, 70_000])
    def test_whatever_zlib_writes_is_read(self, target: Target, size: int) -> None:
        rng = np.random.default_rng(size)
        assert_inflates(target, [compressed(rng, street_rows(rng, size)) for _ in range(30)])

    def test_filtered_rows_of_a_street_come_back(self, target: Target) -> None:
        gt = street_gt(3, 270, 480)
        streams = []
        for label_map in (gt, street_prediction(gt, 3)):
            file = io.BytesIO()
            Image.fromarray(label_map).save(file, "PNG")
            streams.append(parse(file.getvalue(), "a.png")[1])
            for strategy in (zlib.Z_RLE, zlib.Z_HUFFMAN_ONLY, zlib.Z_FIXED, zlib.Z_FILTERED):
                png = build_png(label_map[:40], filters=(0, 1, 2, 3, 4), strategy=strategy)
                streams.append(parse(png, "a.png")[1])
        assert_inflates(target, streams)

    def test_any_distance_and_length_is_copied(self, target: Target) -> None:
        lengths = [*range(3, 40), 63, 64, 65, 127, 128, 129, 255, 256, 257, 258]
        streams = []
        for distance in [
            *range(1, 70),
            127,
            128,
            129,
            253,
            254,
            255,
            256,
            257,
            258,
            259,
            260,
            261,
            262,
            1921,
        ]:
            tokens: list[deflate.Token] = [(value * 7 + value // 256) % 256 for value in range(distance)]
            tokens += [(length, distance) for length in lengths]
            streams.append(deflate.fixed_stream(tokens))
        assert_inflates(target, streams)

    @pytest.mark.parametrize("distance", [1, 2, 3, 31, 32, 33, 100])
    def test_a_copy_begins_at_any_alignment(self, target: Target, distance: int) -> None:
        before = [value % 251 for value in range(distance + 16)]
        streams = [
            deflate.fixed_stream([*before[: distance + shift], (length, distance), 9, (70, 1)])
            for shift in range(17)
            for length in (3, 32, 33, 47, 48, 49, 258)
        ]
        assert_inflates(target, streams)

    def test_the_farthest_distance_is_32768(self, target: Target) -> None:
        rng = np.random.default_rng(5)
        before = rng.integers(0, 256, 32768).tolist()
        assert_inflates(target, [deflate.fixed_stream([*before, (258, 32768), (3, 32767), (17, 24577)])])

    def test_codes_of_all_lengths_are_read(self, target: Target) -> None:
        assert_inflates(target, [long_codes()])

    def test_two_short_literals_in_a_row_are_two_bytes(self, target: Target) -> None:
        literals = [0] * 257
        literals[0], literals[255], literals[7], literals[256] = 1, 2, 3, 3
        rng = np.random.default_rng(1)
        streams = []
        for count in range(40):
            tokens = rng.choice([0, 0, 255, 7], count).tolist()
            streams.append(deflate.dynamic_stream(tokens, literals, [0]))
        assert_inflates(target, streams)

    def test_a_code_of_one_symbol_and_a_code_of_none_are_read(self, target: Target) -> None:
        only_end = [0] * 256 + [1]
        only_zeros = [1, *[0] * 255, 1]
        with_match = [2, *[0] * 255, 2, *[0] * 28, 1]
        assert_inflates(
            target,
            [
                deflate.dynamic_stream([], only_end, [0]),
                deflate.dynamic_stream([0, 0, 0], only_zeros, [0]),
                deflate.dynamic_stream([0, 0, (258, 2)], with_match, [0, 1]),
            ],
        )

    def test_a_stream_begins_at_any_byte_of_the_slab(self, target: Target) -> None:
        for first_byte in (0, 1, 2, 3, 125, 126, 127, 128):
            found, slots = by_kernel(target, [(STREAM, len(HELLO))] * 3, first_byte=first_byte)
            assert (found, slots) == ([OK] * 3, [HELLO] * 3)

    def test_bytes_after_the_checksum_are_ignored_as_by_the_readable_decoder(self, target: Target) -> None:
        assert statuses(target, [(STREAM + b"more", len(HELLO))]) == [OK]

    def test_an_empty_batch_is_no_launch(self, target: Target) -> None:
        assert by_kernel(target, []) == ([], [])

    @needs_shared
    def test_real_label_maps_come_back(self, target: Target) -> None:
        files = sorted((SHARED / "camvid" / "gt").rglob("*.png"))[::20]
        files += sorted((SHARED / "golden" / "semantic").rglob("*.png"))[:2]
        assert_inflates(target, [parse(file.read_bytes(), file.name)[1] for file in files])


class TestDescriptors:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"offset": -1},
            {"offset": 900},
            {"offset": 2**40},
            {"offset": 2**63 - 1},
            {"length": -1},
            {"length": 2**31 - 1},
            {"target": -16},
            {"target": 8},
            {"target": 1008},
            {"target": 2**40},
            {"target": 2**63 - 16},
            {"size": -1},
            {"size": 2**28 + 1},
        ],
    )
    def test_ranges_outside_slab_or_output_are_refused(self, target: Target, wrong: dict[str, int]) -> None:
        right = {"offset": 0, "length": len(STREAM), "target": 16, "size": len(HELLO)}
        rows = [right, right | {"target": 512} | wrong, right | {"target": 256}]
        slab = np.zeros(904, np.uint8)
        slab[: len(STREAM)] = np.frombuffer(STREAM, np.uint8)
        output, found = target.put(np.full(1024, 0xA5, np.uint8)), target.put(np.zeros(3, np.int32))
        kernels.inflate(
            target.load(kernels.INFLATE_CU),
            target.put(slab),
            target.put(np.array([row["offset"] for row in rows], np.int64)),
            target.put(np.array([row["length"] for row in rows], np.int32)),
            output,
            target.put(np.array([row["target"] for row in rows], np.int64)),
            target.put(np.array([row["size"] for row in rows], np.int32)),
            found,
        )
        assert target.get(found).tolist() == [OK, REFUSED, OK]
        written = target.get(output)
        assert written[16 : 16 + len(HELLO)].tobytes() == written[256 : 256 + len(HELLO)].tobytes() == HELLO
        assert (written[320:] == 0xA5).all()

    def test_segments_become_one_stream(self, target: Target) -> None:
        for cuts in ([], [1], [4, 4], [5, 1, 0, 14], [1] * 20):
            gathered(target, cuts)

    def test_segments_outside_the_slab_are_left_out(self, target: Target) -> None:
        slab = target.put(np.arange(64, dtype=np.uint8))
        sources, targets = [0, -1, 60, 0, 0, 8, 2**63 - 1], [32, 40, 40, -1, 62, 48, 40]
        kernels.gather(
            target.load(kernels.INFLATE_CU),
            slab,
            target.put(np.array(sources, np.int64)),
            target.put(np.array(targets, np.int64)),
            target.put(np.array([4, 4, 8, 4, 4, -1, 4], np.int32)),
        )
        assert target.get(slab).tolist() == [*range(32), 0, 1, 2, 3, *range(36, 64)]


class TestWrapper:
    RIGHT = (
        np.zeros(8, np.uint8),
        np.zeros(1, np.int64),
        np.zeros(1, np.int32),
        np.zeros(16, np.uint8),
        np.zeros(1, np.int64),
        np.zeros(1, np.int32),
        np.zeros(1, np.int32),
    )

    @pytest.mark.parametrize(
        ("position", "wrong", "words"),
        [
            (0, np.zeros(8, np.int8), "slab: contiguous int8"),
            (0, np.zeros(7, np.uint8), "multiple of 4"),
            (0, np.zeros(16, np.uint8)[::2], "slab: strided uint8"),
            (1, np.zeros(1, np.int32), "offsets: contiguous int32"),
            (2, np.zeros(2, np.int32), r"lengths: .* \(2,\)"),
            (3, np.zeros((4, 4), np.uint8), "output"),
            (6, np.zeros(1, np.int64), "statuses"),
        ],
    )
    def test_an_array_that_the_kernel_would_misread_is_refused(
        self, position: int, wrong: np.ndarray, words: str
    ) -> None:
        arrays = [*self.RIGHT[:position], wrong, *self.RIGHT[position + 1 :]]
        with pytest.raises(TypeError, match=words):
            kernels.inflate(NoModule(), *arrays)

    def test_statuses_of_kernel_and_wrapper_are_the_same(self) -> None:
        text = kernels.INFLATE_CU.text()
        for status in InflateStatus:
            assert re.search(rf"^#define {status.name} {status.value}$", text, re.MULTILINE)
        assert f"#define MAX_OUTPUT (1ll << {kernels.MAX_SLOT.bit_length() - 1})" in text


class NoModule:
    """Fails the test that gets as far as a launch."""

    def get_function(self, name: str, /):
        raise AssertionError(f"{name} was launched")


class TestSanitizers:
    def test_no_read_or_write_out_of_bounds(self) -> None:
        run_sanitized("asan", "tests.kernels.test_inflate_kernel:small_inputs", schedule="random")

    def test_no_race(self) -> None:
        run_sanitized("tsan", "tests.kernels.test_inflate_kernel:small_inputs")
