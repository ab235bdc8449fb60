"""The contract of engines for instances: what each counts, against Pillow and a literal count.

A suite subclasses these classes for its engine and has two fixtures: `engine`, and `decoder`, the name of the
engine's own fast decoder. Broken files are in `instance_bad_input`, the golden set is in
`instance_golden`.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gpu_eval.engines.engine import Engine
from gpu_eval.engines.instance import InstanceJob, InstanceResult
from gpu_eval.inputs.instance_split import InstanceImage, Prediction, Rle
from gpu_eval.inputs.rle import compress
from tests.support.memory import MemorySource
from tests.support.png_builder import (
    build_png,
    zlib_stream,
)

Pixels = npt.NDArray[np.integer]
Masks = Sequence[bytes | Rle | None]

JOB = InstanceJob()
VALUES = [0, 1, 7, 255, 256, 6000, 9001, 9002, 18003, 65535]


def overlaps(engine: Engine, images: Sequence[tuple[bytes | None, Masks | None]]) -> list[InstanceResult]:
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
    return engine.count(JOB, split, gts, preds)


def count(engine: Engine, gt: bytes, masks: Masks) -> InstanceResult:
    (result,) = overlaps(engine, [(gt, masks)])
    return result


def by_speed(result: InstanceResult, decoder: str) -> Counter[str]:
    """Files by decoder; "fast" are the engine's own and the CPU's, to which a device leaves some images."""
    files = Counter(result.decoders)
    fast = sum(files.pop(name, 0) for name in {decoder, "simd"})
    return +Counter({**files, "fast": fast})


def assert_counts(result: InstanceResult, gt: Pixels, masks: Sequence[Pixels]) -> None:
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


class InstanceParity:
    """Every mask that can be read counts as a literal loop counts it."""

    @settings(max_examples=250)
    @given(**SIZES, kinds=KINDS, depth=st.sampled_from([1, 8]), noisy=st.booleans())
    def test_masks_of_every_filter_and_size_count_literally(
        self,
        engine: Engine,
        decoder: str,
        height: int,
        width: int,
        seed: int,
        kinds: list[int],
        depth: int,
        noisy: bool,
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
        assert by_speed(result, decoder) == {"fast": 5}

    @settings(max_examples=250)
    @given(**SIZES, kinds=KINDS, form=st.sampled_from(["16-bit", "8-bit", "palette"]), noisy=st.booleans())
    def test_gts_of_every_filter_and_size_count_literally(
        self,
        engine: Engine,
        decoder: str,
        height: int,
        width: int,
        seed: int,
        kinds: list[int],
        form: str,
        noisy: bool,
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
        assert by_speed(result, decoder) == {"fast": 2}

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

    def test_masks_by_pillow_with_instances_that_touch_every_border(
        self, engine: Engine, decoder: str
    ) -> None:
        gt = blobs(np.random.default_rng(1), 150, 700, VALUES)
        masks = []
        rows, columns = np.mgrid[:150, :700]
        for y, x in [(0, 0), (149, 0), (0, 699), (149, 699), (75, 350), (75, 63), (75, 64), (75, 639)]:
            masks.append(((rows - y) ** 2 + ((columns - x) / 3) ** 2 < 900).astype(np.uint8) * 255)
        files = [pillow_png(mask) for mask in masks] + [pillow_png(mask != 0) for mask in masks]
        result = count(engine, pillow_png(gt), files)
        assert_counts(result, gt, masks * 2)
        assert by_speed(result, decoder) == {"fast": 17}

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
    def test_unusual_masks_go_through_pillow_and_say_so(
        self, engine: Engine, decoder: str, options: dict
    ) -> None:
        rng = np.random.default_rng(4)
        gt, mask = blobs(rng, 21, 37, VALUES), blobs(rng, 21, 37, [0, 1])
        result = count(engine, pillow_png(gt), [build_png(mask, **options), build_png(mask)])
        assert_counts(result, gt, [mask, mask])
        assert by_speed(result, decoder) == {"fast": 2, "pillow": 1}

    def test_an_interlaced_gt_goes_through_pillow_and_says_so(self, engine: Engine, decoder: str) -> None:
        rng = np.random.default_rng(5)
        gt, mask = blobs(rng, 21, 137, VALUES), blobs(rng, 21, 137, [0, 1])
        result = count(engine, build_png(gt, bit_depth=16, interlaced=True), [build_png(mask)])
        assert_counts(result, gt, [mask])
        assert by_speed(result, decoder) == {"fast": 1, "pillow": 1}

    def test_run_length_encoded_masks_count_like_files(self, engine: Engine, decoder: str) -> None:
        rng = np.random.default_rng(6)
        gt = blobs(rng, 30, 50, VALUES)
        masks = [blobs(rng, 30, 50, [0, 1]) for _ in range(5)]
        forms = [rle(mask) if i % 2 else build_png(mask) for i, mask in enumerate(masks)]
        result = count(engine, pillow_png(gt), forms)
        assert_counts(result, gt, masks)
        assert by_speed(result, decoder) == {"fast": 4, "rle": 2}

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


def rle(mask: Pixels) -> Rle:
    """The mask as COCO has it: runs of 0 and 1 in turn, down the columns."""
    runs, value = [0], 0
    for pixel in (mask.T.ravel() != 0).tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return Rle(*mask.shape, compress(runs))
