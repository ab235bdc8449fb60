"""The engine contract of instances, held by every engine against Pillow and a literal count."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gpu_eval.engines.cpu import instance as cpu_overlaps
from gpu_eval.engines.cpu.engine import CpuEngine
from gpu_eval.engines.engine import Engine, ImageOverlaps
from gpu_eval.errors import CorruptImage, InputError, SizeMismatch, UnreadableFile, WrongImageMode
from gpu_eval.inputs import png
from gpu_eval.inputs.instance_split import InstanceImage, Prediction, Rle
from gpu_eval.inputs.masks import decode_mask
from gpu_eval.inputs.rle import compress
from gpu_eval.inputs.sources import open_source
from tests.support.memory import MemorySource
from tests.support.png_builder import (
    broken_adler,
    broken_crc,
    build_png,
    longer_rows,
    short_rows,
    with_stream,
    zlib_stream,
)

Pixels = npt.NDArray[np.integer]
Masks = Sequence[bytes | Rle | None]

VALUES = [0, 1, 7, 255, 256, 6000, 9001, 9002, 18003, 65535]


@pytest.fixture(scope="module", params=["cpu", "cpu-threads"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    made = CpuEngine(threads=1 if request.param == "cpu" else 3)
    yield made
    made.close()


def overlaps(engine: Engine, images: Sequence[tuple[bytes | None, Masks | None]]) -> list[ImageOverlaps]:
    """What the engine makes of (gt, masks) in memory."""
    gts = MemorySource({f"{i:04d}.png": gt for i, (gt, _) in enumerate(images)})
    preds = MemorySource(
        {
            f"{i:04d}/{j:04d}.png": mask
            for i, (_, masks) in enumerate(images)
            for j, mask in enumerate(masks or ())
            if not isinstance(mask, Rle)
        }
    )
    entries = {entry.name: entry for entry in preds.entries()}
    split = []
    for i, ((_, masks), gt) in enumerate(zip(images, gts.entries(), strict=True)):
        predictions = None
        if masks is not None:
            predictions = tuple(
                Prediction(mask if isinstance(mask, Rle) else entries[f"{i:04d}/{j:04d}.png"], 9, 0.5, j + 1)
                for j, mask in enumerate(masks)
            )
        split.append(InstanceImage(f"{i:04d}", "", gt, predictions, f"{i:04d}.txt"))
    return engine.overlaps(split, gts, preds)


def count(engine: Engine, gt: bytes, masks: Masks) -> ImageOverlaps:
    (result,) = overlaps(engine, [(gt, masks)])
    return result


def assert_counts(result: ImageOverlaps, gt: Pixels, masks: Sequence[Pixels]) -> None:
    """Equal to a literal count, mask by mask and value by value."""
    assert result.errors == []
    values = np.unique(gt)
    assert result.size == gt.shape
    assert result.gt_values.tolist() == values.tolist()
    assert result.gt_pixels.tolist() == [np.count_nonzero(gt == value) for value in values]
    expected = [[np.count_nonzero((mask != 0) & (gt == value)) for value in values] for mask in masks]
    assert result.overlaps.dtype == np.int64
    assert result.overlaps.shape == (len(masks), values.size)
    assert result.overlaps.tolist() == expected


def blobs(rng: np.random.Generator, height: int, width: int, values: list[int]) -> Pixels:
    """Boxes of these values over the first of them."""
    pixels = np.full((height, width), values[0], np.uint16)
    for _ in range(int(rng.integers(0, 6))):
        y, x = int(rng.integers(0, height)), int(rng.integers(0, width))
        bottom, right = int(rng.integers(y, height)) + 1, int(rng.integers(x, width)) + 1
        pixels[y:bottom, x:right] = rng.choice(values)
    return pixels


def noise(rng: np.random.Generator, height: int, width: int, values: list[int]) -> Pixels:
    return rng.choice(values, (height, width)).astype(np.uint16)


def pillow_png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


SIZES = {
    "height": st.integers(1, 24),
    "width": st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 127, 128, 129, 200, 511, 513, 600])),
    "seed": st.integers(0, 2**32),
}
KINDS = st.lists(st.integers(0, 4), min_size=1, max_size=6)


class TestParity:
    @settings(max_examples=250)
    @given(**SIZES, kinds=KINDS, depth=st.sampled_from([1, 8]), noisy=st.booleans())
    def test_masks_of_every_filter_and_size_count_literally(
        self, engine: Engine, height: int, width: int, seed: int, kinds: list[int], depth: int, noisy: bool
    ) -> None:
        rng = np.random.default_rng(seed)
        draw = noise if noisy else blobs
        gt = draw(rng, height, width, VALUES)
        masks = [draw(rng, height, width, [0, 1] if depth == 1 else [0, 1, 128, 255]) for _ in range(3)]
        masks.append(1 - blobs(rng, height, width, [0, 1]))
        filters = [int(kind) for kind in rng.choice(kinds, height)]
        files = [build_png(mask, filters=filters, bit_depth=depth, idat_size=40) for mask in masks]
        result = count(engine, build_png(gt, bit_depth=16, filters=filters[::-1]), files)
        assert_counts(result, gt, masks)
        assert result.decoders == {"simd": 5}

    @settings(max_examples=250)
    @given(**SIZES, kinds=KINDS, form=st.sampled_from(["16-bit", "8-bit", "palette"]), noisy=st.booleans())
    def test_gts_of_every_filter_and_size_count_literally(
        self, engine: Engine, height: int, width: int, seed: int, kinds: list[int], form: str, noisy: bool
    ) -> None:
        rng = np.random.default_rng(seed)
        values = VALUES if form == "16-bit" else [0, 6, 9, 18, 255]
        gt = (noise if noisy else blobs)(rng, height, width, values)
        filters = [int(kind) for kind in rng.choice(kinds, height)]
        form_of = {"16-bit": {"bit_depth": 16}, "8-bit": {}, "palette": {"colour_type": 3}}
        mask = blobs(rng, height, width, [0, 255])
        file = build_png(gt, filters=filters, idat_size=30, **form_of[form])
        result = count(engine, file, [build_png(mask)])
        assert_counts(result, gt, [mask])
        assert result.decoders == {"simd": 2}

    @settings(max_examples=120)
    @given(
        **SIZES,
        kinds=KINDS,
        garbage=st.integers(0, 2**32),
    )
    def test_bits_behind_the_last_one_bit_pixel_count_for_nothing(
        self, engine: Engine, height: int, width: int, seed: int, kinds: list[int], garbage: int
    ) -> None:
        rng = np.random.default_rng(seed)
        mask = blobs(rng, height, width, [0, 1])
        whole = -(-width // 8) * 8
        padded = np.random.default_rng(garbage).integers(0, 2, (height, whole))
        padded[:, :width] = mask
        padded[rng.random(height) < 0.5, width:] = 0
        filters = [int(kind) for kind in rng.choice(kinds, height)]
        wide = build_png(padded, filters=filters, bit_depth=1)
        narrow = build_png(mask, bit_depth=1, stream=zlib_stream(wide))
        gt = blobs(rng, height, width, VALUES)
        assert_counts(count(engine, build_png(gt, bit_depth=16), [narrow]), gt, [mask])

    @pytest.mark.parametrize("masks", [0, 1, 100])
    def test_any_number_of_masks_in_input_order(self, engine: Engine, masks: int) -> None:
        rng = np.random.default_rng(masks)
        gt = blobs(rng, 40, 90, VALUES)
        drawn = [blobs(rng, 40, 90, [0, 255]) for _ in range(masks)]
        assert_counts(count(engine, pillow_png(gt), [build_png(mask) for mask in drawn]), gt, drawn)

    @pytest.mark.parametrize("value", [0, 1, 255])
    @pytest.mark.parametrize("kind", range(5))
    def test_masks_of_one_value(self, engine: Engine, value: int, kind: int) -> None:
        gt = noise(np.random.default_rng(0), 9, 200, VALUES)
        mask = np.full((9, 200), value, np.uint8)
        assert_counts(count(engine, pillow_png(gt), [build_png(mask, filters=kind)]), gt, [mask])

    def test_masks_by_pillow_with_instances_that_touch_every_border(self, engine: Engine) -> None:
        gt = blobs(np.random.default_rng(1), 150, 700, VALUES)
        masks = []
        rows, columns = np.mgrid[:150, :700]
        for y, x in [(0, 0), (149, 0), (0, 699), (149, 699), (75, 350), (75, 63), (75, 64), (75, 639)]:
            masks.append(((rows - y) ** 2 + ((columns - x) / 3) ** 2 < 900).astype(np.uint8) * 255)
        files = [pillow_png(mask) for mask in masks] + [pillow_png(mask != 0) for mask in masks]
        result = count(engine, pillow_png(gt), files)
        assert_counts(result, gt, masks * 2)
        assert result.decoders == {"simd": 17}

    def test_a_gt_of_all_values_there_are(self, engine: Engine) -> None:
        gt = np.random.default_rng(2).permutation(65536).astype(np.uint16).reshape(256, 256)
        mask = (gt % 3 == 0).astype(np.uint8)
        result = count(engine, pillow_png(gt), [build_png(mask)])
        assert result.gt_values.tolist() == list(range(65536))
        assert result.overlaps[0].tolist() == [int(value % 3 == 0) for value in range(65536)]

    @pytest.mark.parametrize(
        "options",
        [
            {"interlaced": True},
            {"colour_type": 3},
            {"colour_type": 3, "bit_depth": 1},
            {"bit_depth": 16},
            {"bit_depth": 4},
            {"bit_depth": 1, "interlaced": True},
        ],
    )
    def test_unusual_masks_go_through_pillow_and_say_so(self, engine: Engine, options: dict) -> None:
        rng = np.random.default_rng(4)
        gt, mask = blobs(rng, 21, 37, VALUES), blobs(rng, 21, 37, [0, 1])
        result = count(engine, pillow_png(gt), [build_png(mask, **options), build_png(mask)])
        assert_counts(result, gt, [mask, mask])
        assert result.decoders == {"simd": 2, "pillow": 1}

    def test_an_interlaced_gt_goes_through_pillow_and_says_so(self, engine: Engine) -> None:
        rng = np.random.default_rng(5)
        gt, mask = blobs(rng, 21, 137, VALUES), blobs(rng, 21, 137, [0, 1])
        result = count(engine, build_png(gt, bit_depth=16, interlaced=True), [build_png(mask)])
        assert_counts(result, gt, [mask])
        assert result.decoders == {"simd": 1, "pillow": 1}

    def test_run_length_encoded_masks_count_like_files(self, engine: Engine) -> None:
        rng = np.random.default_rng(6)
        gt = blobs(rng, 30, 50, VALUES)
        masks = [blobs(rng, 30, 50, [0, 1]) for _ in range(5)]
        forms = [rle(mask) if i % 2 else build_png(mask) for i, mask in enumerate(masks)]
        result = count(engine, pillow_png(gt), forms)
        assert_counts(result, gt, masks)
        assert result.decoders == {"simd": 4, "rle": 2}

    def test_an_image_without_a_list_has_its_gt_counted(self, engine: Engine) -> None:
        gt = blobs(np.random.default_rng(7), 9, 9, VALUES)
        for result in overlaps(engine, [(pillow_png(gt), None), (pillow_png(gt), ())]):
            assert_counts(result, gt, [])

    def test_results_come_in_input_order_whatever_the_sizes(self, engine: Engine) -> None:
        images, expected = [], []
        for n in range(1, 30):
            rng = np.random.default_rng(n)
            gt = blobs(rng, 3 * n, 7 * n, VALUES)
            masks = [blobs(rng, 3 * n, 7 * n, [0, 255]) for _ in range(n % 4)]
            images.append((pillow_png(gt), [build_png(mask) for mask in masks]))
            expected.append((gt, masks))
        for result, (gt, masks) in zip(overlaps(engine, images), expected, strict=True):
            assert_counts(result, gt, masks)

    def test_no_images_give_no_results(self, engine: Engine) -> None:
        assert overlaps(engine, []) == []

    def test_masks_are_read_in_turns_of_bounded_size(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rng = np.random.default_rng(8)
        gt = blobs(rng, 20, 30, VALUES)
        masks = [blobs(rng, 20, 30, [0, 255]) for _ in range(20)]
        files: list[bytes] = [build_png(mask) for mask in masks]
        largest = max(len(file) for file in files)
        monkeypatch.setattr(cpu_overlaps, "TURN_BYTES", 3 * largest)
        turns = []
        read_into = MemorySource.read_into

        def counting(self, entries, buffer):
            turns.append(sum(entry.size for entry in entries))
            return read_into(self, entries, buffer)

        monkeypatch.setattr(MemorySource, "read_into", counting)
        with_turns = CpuEngine(threads=1)
        assert_counts(count(with_turns, pillow_png(gt), files), gt, masks)
        with_turns.close()
        assert len(turns) > 5
        assert max(turns) <= 3 * largest


GT = np.full((12, 70), 7, np.uint16)
GT[2:8, 10:50], GT[5:12, 40:70] = 9001, 256
MASK = np.zeros((12, 70), np.uint8)
MASK[4:11, 20:66] = 255
GOOD = build_png(MASK, filters=(0, 1, 2, 3, 4))
GOOD_GT = build_png(GT, bit_depth=16, filters=(0, 1, 2, 3, 4))


class TestBadInput:
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
        (result,) = engine.overlaps([image], source, source)
        assert [type(error) for error in result.errors] == [UnreadableFile]
        assert "changed since it was listed" in str(result.errors[0])
        (tmp_path / "b.png").unlink()
        (result,) = engine.overlaps([image], source, source)
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


def assert_told(result: ImageOverlaps, error: InputError, gt: Pixels, masks: Sequence[Pixels]) -> None:
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


def rle(mask: Pixels) -> Rle:
    """The mask as COCO has it: runs of 0 and 1 in turn, down the columns."""
    runs, value = [0], 0
    for pixel in (mask.T.ravel() != 0).tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return Rle(*mask.shape, compress(runs))
