"""The contract of engines for instances whose files are wrong; see `instance_contract`."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_eval.engines.engine import Engine
from gpu_eval.engines.instance import InstanceResult
from gpu_eval.errors import CorruptImage, InputError, SizeMismatch, UnreadableFile, WrongImageMode
from gpu_eval.inputs import png
from gpu_eval.inputs.instance_split import InstanceImage, Prediction
from gpu_eval.inputs.masks import decode_mask
from gpu_eval.inputs.sources import open_source
from tests.engines.instance_contract import JOB, VALUES, Pixels, assert_counts, blobs, count, overlaps, rle
from tests.support.png_builder import (
    broken_adler,
    broken_crc,
    build_png,
    longer_rows,
    short_rows,
    with_stream,
    zlib_stream,
)

GT = np.full((12, 70), 7, np.uint16)
GT[2:8, 10:50], GT[5:12, 40:70] = 9001, 256
MASK = np.zeros((12, 70), np.uint8)
MASK[4:11, 20:66] = 255
GOOD = build_png(MASK, filters=(0, 1, 2, 3, 4))
GOOD_GT = build_png(GT, bit_depth=16, filters=(0, 1, 2, 3, 4))


class InstanceBadInput:
    """A broken file stops its image with the readable decoder's words, and no other image."""

    @pytest.mark.parametrize(
        ("broken", "error"),
        [
            (b"", CorruptImage),
            (b"\xff\xd8\xff\xe0" + bytes(60), CorruptImage),
            (GOOD[:-20], CorruptImage),
            (GOOD[:-12], CorruptImage),
            (broken_crc(GOOD), CorruptImage),
            (broken_adler(GOOD), CorruptImage),
            (short_rows(GOOD, 11, 71), CorruptImage),
            (longer_rows(GOOD), CorruptImage),
            (build_png(MASK, filters=(0, 5)), CorruptImage),
            (build_png(MASK // 255, bit_depth=1, filters=(0, 0, 7)), CorruptImage),
            (build_png(np.zeros((12, 70), np.uint8), filters=(0, 9)), CorruptImage),
            (build_png(np.dstack([MASK * 0, MASK * 0, MASK // 100]), colour_type=2), WrongImageMode),
            (build_png(MASK[:11]), SizeMismatch),
            (build_png(MASK[:, :69]), SizeMismatch),
            (build_png(MASK.T), SizeMismatch),
            (build_png(MASK[:11], bit_depth=16), SizeMismatch),
            (build_png(MASK[:11] // 255, bit_depth=1), SizeMismatch),
            (None, UnreadableFile),
        ],
    )
    def test_a_broken_mask_stops_its_image_and_no_other(
        self, engine: Engine, broken: bytes | None, error: type[InputError]
    ) -> None:
        images = [(GOOD_GT, [GOOD]), (GOOD_GT, [GOOD, broken, GOOD, broken]), (GOOD_GT, [GOOD, GOOD])]
        first, second, third = overlaps(engine, images)
        assert_counts(first, GT, [MASK])
        assert_counts(third, GT, [MASK, MASK])
        assert second.overlaps is None
        assert np.array_equal(second.gt_values, np.unique(GT))
        assert [type(told) for told in second.errors] == [error, error]
        assert [told.file for told in second.errors] == ["memory/0001/0001.png", "memory/0001/0003.png"]
        assert second.size == (12, 70)

    @pytest.mark.parametrize(
        ("broken", "error"),
        [
            (b"", CorruptImage),
            (GOOD_GT[:-12], CorruptImage),
            (broken_adler(GOOD_GT), CorruptImage),
            (short_rows(GOOD_GT, 11, 141), CorruptImage),
            (build_png(GT, bit_depth=16, filters=(0, 5)), CorruptImage),
            (build_png(MASK, filters=(0, 5)), CorruptImage),
            (build_png(MASK // 255, bit_depth=1), WrongImageMode),
            (build_png(np.dstack([MASK] * 3), colour_type=2), WrongImageMode),
            (None, UnreadableFile),
        ],
    )
    def test_a_broken_gt_is_told_and_its_masks_are_checked(
        self, engine: Engine, broken: bytes | None, error: type[InputError]
    ) -> None:
        first, second = overlaps(engine, [(broken, [GOOD, GOOD[:-20], GOOD]), (GOOD_GT, [GOOD])])
        assert [type(told) for told in first.errors] == [error, CorruptImage]
        assert [told.file for told in first.errors] == ["memory/0000.png", "memory/0000/0001.png"]
        assert first.overlaps is None
        assert first.size is None
        assert_counts(second, GT, [MASK])

    def test_a_mask_of_another_size_names_both(self, engine: Engine) -> None:
        result = count(engine, GOOD_GT, [build_png(MASK[:6, :35])])
        assert [str(error) for error in result.errors] == [
            "memory/0000/0000.png: the mask is not as large as its ground truth (found 6 rows of 35 pixels, "
            "expected 12 rows of 70 pixels, as memory/0000.png); save masks at the size of the ground truth: "
            "nothing is resized"
        ]

    def test_a_mask_that_changed_since_listing_is_told(self, tmp_path: Path, engine: Engine) -> None:
        (tmp_path / "gt.png").write_bytes(GOOD_GT)
        for name in "ab":
            (tmp_path / f"{name}.png").write_bytes(GOOD)
        source = open_source(tmp_path)
        entries = {entry.name: entry for entry in source.entries()}
        predictions = tuple(Prediction(entries[f"{name}.png"], 9, 0.5, 1) for name in "ab")
        image = InstanceImage("k", "", entries["gt.png"], predictions, "k.txt")
        (tmp_path / "b.png").write_bytes(GOOD + b"more")
        (result,) = engine.count(JOB, [image], source, source)
        assert [type(error) for error in result.errors] == [UnreadableFile]
        assert "changed since it was listed" in str(result.errors[0])
        (tmp_path / "b.png").unlink()
        (result,) = engine.count(JOB, [image], source, source)
        assert [type(error) for error in result.errors] == [UnreadableFile]

    def test_a_broken_run_length_encoding_names_the_list_and_the_entry(self, engine: Engine) -> None:
        good = rle(MASK)
        broken = replace(good, counts=good.counts[:-1])
        other = rle(MASK[:6])
        result = count(engine, GOOD_GT, [good, broken, other])
        assert [type(error) for error in result.errors] == [CorruptImage, SizeMismatch]
        assert [error.file for error in result.errors] == ["0000.txt, entry 2", "0000.txt, entry 3"]

    @settings(max_examples=600)
    @given(
        seed=st.integers(0, 2**32),
        cut=st.booleans(),
        inside=st.booleans(),
        depth=st.sampled_from([1, 8]),
    )
    def test_a_mutated_mask_counts_as_the_readable_decoder_says_or_has_its_error(
        self, engine: Engine, seed: int, cut: bool, inside: bool, depth: int
    ) -> None:
        rng = np.random.default_rng(seed)
        mask = blobs(rng, 9, 70, [0, 1])
        good = build_png(mask, filters=rng.integers(0, 5, 9).tolist(), idat_size=40, bit_depth=depth)
        broken = mutated(rng, good, cut, inside)
        gt = blobs(rng, 9, 70, VALUES)
        result = count(engine, build_png(gt, bit_depth=16), [broken])
        try:
            expected = decode_mask(broken, "memory/0000/0000.png")
        except InputError as error:
            assert_told(result, error, gt, [mask])
            return
        if expected.shape != gt.shape:
            assert [type(error) for error in result.errors] == [SizeMismatch]
        else:
            assert_counts(result, gt, [expected])

    @settings(max_examples=600)
    @given(
        seed=st.integers(0, 2**32),
        cut=st.booleans(),
        inside=st.booleans(),
        depth=st.sampled_from([8, 16]),
    )
    def test_a_mutated_gt_counts_as_the_readable_decoder_says_or_has_its_error(
        self, engine: Engine, seed: int, cut: bool, inside: bool, depth: int
    ) -> None:
        rng = np.random.default_rng(seed)
        gt = blobs(rng, 9, 70, VALUES if depth == 16 else [0, 6, 255])
        good = build_png(gt, filters=rng.integers(0, 5, 9).tolist(), idat_size=40, bit_depth=depth)
        broken = mutated(rng, good, cut, inside)
        result = count(engine, broken, [])
        try:
            expected = png.decode(broken, "memory/0000.png")
        except InputError as error:
            assert_told(result, error, gt, [])
        else:
            assert_counts(result, expected, [])


def assert_told(result: InstanceResult, error: InputError, gt: Pixels, masks: Sequence[Pixels]) -> None:
    """The result has this error; or it counts the pixels from before the mutation.

    libdeflate reads the length codes 286 and 287, which do not exist, as 258 where zlib refuses them. What
    comes out has the right size and Adler-32, so these are the same pixels.
    """
    if not result.errors and "invalid literal/length code" in str(error):
        assert_counts(result, gt, masks)
    else:
        assert [(type(told), str(told)) for told in result.errors] == [(type(error), str(error))]


def mutated(rng: np.random.Generator, good: bytes, cut: bool, inside: bool) -> bytes:
    """One byte changed, or one bit of the deflated or of the filtered data below valid checksums."""
    if inside:
        stream = bytearray(zlib_stream(good))
        if cut:
            raw = bytearray(zlib.decompress(bytes(stream)))
            raw[rng.integers(len(raw))] ^= 1 << rng.integers(8)
            return with_stream(good, zlib.compress(bytes(raw)))
        stream[rng.integers(len(stream))] ^= 1 << rng.integers(8)
        return with_stream(good, bytes(stream))
    mutable = bytearray(good)
    mutable[rng.integers(len(mutable))] = rng.integers(256)
    return bytes(mutable[: rng.integers(len(mutable))] if cut else mutable)
