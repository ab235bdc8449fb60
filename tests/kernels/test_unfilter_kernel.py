"""`kernels/unfilter.cu` gives the pixels that the PNG specification gives, and touches nothing else."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gpu_eval import synthetic
from gpu_eval.engines.cuda import kernels
from tests.reference import filters
from tests.support import png_builder
from tests.support.host_cuda.sanitized import run_sanitized
from tests.support.host_cuda.targets import HostTarget, Target, open_target

CANARY = 0xA5
MIXES = ([0], [1], [2], [3], [4], [0, 1, 2, 3, 4], [4, 2, 4, 1, 4, 3])
# The last ones have more tiles of 512 bytes than shared memory holds, and end inside a tile.
SIZES = (
    (1, 1),
    (1, 7),
    (9, 1),
    (17, 33),
    (3, 16),
    (5, 512),
    (4, 513),
    (7, 700),
    (6, 2048),
    (5, 2500),
    (5, 4700),
)

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class RawImage:
    """Filtered rows as inflate leaves them."""

    raw: bytes
    height: int
    width: int
    bytes_per_pixel: int = 1
    status: int = 0


def label_bytes(rng: np.random.Generator, height: int, width: int, bytes_per_pixel: int) -> bytes:
    """A map of flat patches with edges of a pixel's width, each row of which resembles the row above."""
    columns = np.cumsum(rng.random(width) < 0.05)
    rows = np.cumsum(rng.random(height) < 0.2)
    patches = rng.integers(0, 6, (rows[-1] + 1, columns[-1] + 1)) * rng.choice([1, 13, 51, 1000])
    pixels = patches[rows][:, columns] + (rng.random((height, width)) < 0.01)
    return pixels.astype(">u2" if bytes_per_pixel == 2 else np.uint8).tobytes()


def noise_bytes(rng: np.random.Generator, height: int, width: int, bytes_per_pixel: int) -> bytes:
    return rng.integers(0, 256, height * width * bytes_per_pixel, dtype=np.uint8).tobytes()


def run_kernel(target: Target, images: Sequence[RawImage]) -> tuple[list[bytes], list[int]]:
    """Pixels, without the padding of rows, and status per image; holds that nothing else was written."""
    raw, raw_at, pixels_at = bytearray(), [], []
    room = kernels.SLOT_ALIGNMENT
    for image in images:
        raw_at.append(len(raw))
        raw += image.raw.ljust(kernels.padded(len(image.raw)), b"\x77")
        pixels_at.append(room)
        room += image.height * kernels.padded(image.width * image.bytes_per_pixel) + kernels.SLOT_ALIGNMENT
    pixels = np.full(room, CANARY, np.uint8)
    bytes_per_pixel = images[0].bytes_per_pixel if images else 1
    put = target.put
    raw_array = np.frombuffer(bytes(raw), np.uint8)
    given = put(raw_array)
    written = put(pixels)
    statuses = put(np.array([image.status for image in images], np.int32))
    kernels.unfilter(
        target.load(kernels.UNFILTER[bytes_per_pixel].source),
        given,
        put(np.array(raw_at, np.int64)),
        put(np.array([image.height for image in images], np.int32)),
        put(np.array([image.width for image in images], np.int32)),
        written,
        put(np.array(pixels_at, np.int64)),
        statuses,
        bytes_per_pixel=bytes_per_pixel,
    )
    pixels = target.get(written)
    assert np.array_equal(target.get(given), raw_array)
    found, free = [], np.ones(room, bool)
    for image, at in zip(images, pixels_at, strict=True):
        size = image.width * bytes_per_pixel
        pitch = kernels.padded(size)
        free[at : at + image.height * pitch] = False
        rows = pixels[at : at + image.height * pitch].reshape(image.height, pitch)
        found.append(rows[:, :size].tobytes())
    assert (pixels[free] == CANARY).all()
    return found, target.get(statuses).tolist()


def holds_for(target: Target, images: Sequence[RawImage]) -> None:
    """The kernel's pixels are the reference's, and every status stays 0."""
    found, statuses = run_kernel(target, images)
    for image, pixels in zip(images, found, strict=True):
        expected = filters.unfilter(image.raw, image.height, image.width, image.bytes_per_pixel)
        assert pixels == expected, f"{image.height}x{image.width}, filter {image.raw[0]}"
    assert statuses == [0] * len(images)


def batch(
    bytes_per_pixel: int, sizes: Sequence[tuple[int, int]], seed: int, mixes: Sequence[list[int]] = MIXES
) -> list[RawImage]:
    """Label maps and noise of every size under every mix of filters."""
    rng = np.random.default_rng(seed)
    images = []
    for height, width in sizes:
        for mix in mixes:
            for make in (label_bytes, noise_bytes):
                pixels = make(rng, height, width, bytes_per_pixel)
                raw = filters.apply(pixels, height, width, bytes_per_pixel, mix)
                images.append(RawImage(raw, height, width, bytes_per_pixel))
    return images


def pillow_raw(pixels: npt.NDArray[np.integer]) -> bytes:
    """The filtered rows that Pillow writes for a map."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return zlib.decompress(png_builder.zlib_stream(file.getvalue()))


def small_inputs(target: Target) -> None:
    """What runs under the sanitizers; the third size has a row of two tiles."""
    holds_for(target, batch(1, ((1, 1), (2, 17), (3, 530)), 1, MIXES[-2:]))
    bad = RawImage(bytes([4, 0, 0, 5, 0, 0]), 2, 2)
    assert run_kernel(target, [bad, bad])[1] == [kernels.UNKNOWN_FILTER] * 2


def small_inputs_of_both_widths(target: Target) -> None:
    small_inputs(target)
    holds_for(target, batch(2, ((1, 1), (2, 17), (3, 265)), 1, MIXES[-2:]))


class TestUnfilter:
    @pytest.mark.parametrize("bytes_per_pixel", [1, 2])
    def test_pixels_are_the_references_for_all_filters_and_sizes(
        self, target: Target, bytes_per_pixel: int
    ) -> None:
        holds_for(target, batch(bytes_per_pixel, SIZES, 2))

    def test_street_maps_of_1080p_that_pillow_filtered_come_back(self, target: Target) -> None:
        gt = synthetic.street_gt(1)
        maps = [gt, synthetic.street_prediction(gt, 2)]
        found, statuses = run_kernel(target, [RawImage(pillow_raw(pixels), *gt.shape) for pixels in maps])
        assert found == [pixels.tobytes() for pixels in maps]
        assert statuses == [0, 0]

    def test_instance_map_that_pillow_filtered_comes_back_big_endian(self, target: Target) -> None:
        gt = np.frombuffer(label_bytes(np.random.default_rng(4), 40, 1920, 2), ">u2").reshape(40, 1920)
        found, statuses = run_kernel(target, [RawImage(pillow_raw(gt.astype(np.uint16)), 40, 1920, 2)])
        assert found == [gt.tobytes()]
        assert statuses == [0]

    def test_empty_batch_launches_nothing(self, target: Target) -> None:
        assert run_kernel(target, []) == ([], [])

    def test_unknown_filter_type_is_told_and_leaves_its_neighbours_exact(self, target: Target) -> None:
        images = batch(1, ((5, 40),), 5)
        for bad_row, kind in ((0, 5), (2, 255), (4, 128)):
            raw = bytearray(images[bad_row].raw)
            raw[bad_row * 41] = kind
            images[bad_row] = RawImage(bytes(raw), 5, 40)
        found, statuses = run_kernel(target, images)
        for number, (image, pixels) in enumerate(zip(images, found, strict=True)):
            if number in (0, 2, 4):
                assert statuses[number] == kernels.UNKNOWN_FILTER
            else:
                assert statuses[number] == 0
                assert pixels == filters.unfilter(image.raw, 5, 40, 1)

    def test_rows_after_an_unknown_filter_are_not_written(self, target: Target) -> None:
        raw = bytes([0, 1, 2, 3]) + bytes([9, 1, 2, 3]) + bytes([0, 4, 5, 6])
        found, statuses = run_kernel(target, [RawImage(raw, 3, 3)])
        assert found == [bytes([1, 2, 3]) + bytes([CANARY] * 6)]
        assert statuses == [kernels.UNKNOWN_FILTER]

    def test_image_that_did_not_inflate_is_skipped(self, target: Target) -> None:
        good = RawImage(bytes([0, 7]), 1, 1)
        found, statuses = run_kernel(target, [good, RawImage(bytes([9, 7]), 1, 1, status=3), good])
        assert found == [b"\x07", bytes([CANARY]), b"\x07"]
        assert statuses == [0, 3, 0]

    def test_new_label_below_another_is_handed_along_the_whole_row(self, target: Target) -> None:
        """One residual decides 2000 pixels: Paeth repeats it as long as the row above is flat."""
        above = np.full(2000, 3, np.uint8)
        below = np.full(2000, 5, np.uint8)
        below[1500:] = 3
        pixels = np.stack([above, below, below]).tobytes()
        for kind in (1, 2, 3, 4):
            holds_for(target, [RawImage(filters.apply(pixels, 3, 2000, 1, [kind]), 3, 2000)])


class TestOnTheHost:
    @pytest.mark.parametrize("bytes_per_pixel", [1, 2])
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_filter_then_unfilter_is_identity(self, bytes_per_pixel: int, data: st.DataObject) -> None:
        target = open_target("host-random")
        height, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 40))
        size = height * width * bytes_per_pixel
        few = st.lists(st.sampled_from([0, 0, 0, 1, 26, 27, 255]), min_size=size, max_size=size)
        pixels = data.draw(st.binary(min_size=size, max_size=size) | few.map(bytes))
        kinds = data.draw(st.lists(st.integers(0, 4), min_size=height, max_size=height))
        raw = filters.apply(pixels, height, width, bytes_per_pixel, kinds)
        found, statuses = run_kernel(target, [RawImage(raw, height, width, bytes_per_pixel)])
        assert found == [pixels]
        assert statuses == [0]

    @pytest.mark.parametrize(
        ("mode", "inputs"), [("asan", "small_inputs_of_both_widths"), ("tsan", "small_inputs")]
    )
    def test_small_inputs_are_clean_under_sanitizers(self, mode: str, inputs: str) -> None:
        run_sanitized(mode, f"{__name__}:{inputs}")

    def test_wrapper_refuses_arrays_that_the_kernel_would_misread(self) -> None:
        target = HostTarget("forward")
        zeros = {kind: np.zeros(2, kind) for kind in (np.uint8, np.int32, np.int64)}
        good = [
            zeros[kind] for kind in (np.uint8, np.int64, np.int32, np.int32, np.uint8, np.int64, np.int32)
        ]
        for place in range(len(good)):
            bad = [*good[:place], good[place].astype(np.float32), *good[place + 1 :]]
            with pytest.raises(TypeError, match="float32"):
                kernels.unfilter(target.load(kernels.UNFILTER[1].source), *bad)
