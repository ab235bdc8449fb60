"""`kernels/overlap.cu` counts each mask on each gt value as a loop over pixels does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_eval.engines.cuda import kernels
from tests.reference.overlaps import overlaps
from tests.support.host_cuda.sanitized import run_sanitized
from tests.support.host_cuda.targets import HostTarget, Target

Map = npt.NDArray[np.integer]

SIZES = ((1, 1), (1, 40), (23, 1), (17, 33), (8, 256), (3, 4200))


@dataclass(frozen=True)
class InstanceImage:
    """A gt of 16-bit values and the masks of its image."""

    gt: Map
    masks: tuple[Map, ...] = ()
    gt_status: int = 0
    mask_status: int = 0


@dataclass(frozen=True)
class Found:
    """What the kernels say of one image: the gt's values, its histogram, and per mask the counts by value."""

    values: list[int]
    histogram: dict[int, int]
    masks: list[dict[int, int]]


class Slab:
    """Maps one after the other, as rows of `pitch` bytes."""

    def __init__(self, alignment: int) -> None:
        self.alignment = alignment
        self.data = bytearray()
        self.statuses: list[int] = []

    def add(self, rows: Map, status: int) -> kernels.MapPlace:
        self.data += bytes(-len(self.data) % self.alignment)
        at = len(self.data)
        size = rows.shape[1] * rows.itemsize
        pitch = size + -size % self.alignment
        for row in rows:
            self.data += row.tobytes().ljust(pitch, b"\x41")
        self.statuses.append(status)
        return kernels.MapPlace(at, pitch, status=len(self.statuses) - 1)


def run_kernels(
    target: Target, images: Sequence[InstanceImage], *, bands: int = 2, alignment: int = 16
) -> list[Found]:
    """Mark, rank, count: as an engine would, the histogram as a mask that is set everywhere."""
    gts, masks = Slab(max(alignment, 2)), Slab(alignment)
    places = [gts.add(image.gt.astype(">u2"), image.gt_status) for image in images]
    sizes = [(image.gt.shape[0], image.gt.shape[1]) for image in images]
    put = target.put
    module = target.load(kernels.OVERLAP.source)
    gt_bytes = put(np.frombuffer(bytes(gts.data), np.uint8))
    gt_statuses = put(np.array(gts.statuses, np.int32))
    gt_jobs = [kernels.gt_job(place, *size) for place, size in zip(places, sizes, strict=True)]
    marked = put(np.zeros((len(images), kernels.MARK_WORDS), np.uint32))
    kernels.mark_values(
        module, gt_bytes, put(np.array(gt_jobs, np.int64).reshape(-1, 5)), gt_statuses, marked, bands=bands
    )
    marks = target.get(marked)
    values = [kernels.marked_values(row) for row in marks]

    jobs, rows, room = [], [], 0
    for number, (image, place, size) in enumerate(zip(images, places, sizes, strict=True)):
        everywhere = kernels.MapPlace(-1, 0)
        of_masks = [masks.add(mask.astype(np.uint8), image.mask_status) for mask in image.masks]
        for mask in [everywhere, *of_masks]:
            ids = len(values[number])
            jobs.append(kernels.mask_job(place, mask, *size, image=number, counts_at=room, ids=ids))
            rows.append((room, number))
            room += ids
    counted = put(np.zeros(room, np.int64))
    kernels.overlap(
        module,
        gt_bytes,
        put(np.frombuffer(bytes(masks.data), np.uint8)),
        put(np.array(jobs, np.int64).reshape(-1, kernels.MASK_FIELDS)),
        marked,
        put(kernels.ranks_of(marks)),
        gt_statuses,
        put(np.array(masks.statuses, np.int32)),
        counted,
        bands=bands,
    )
    counts = target.get(counted)
    tables: list[list[dict[int, int]]] = [[] for _ in images]
    for at, number in rows:
        pixels = counts[at : at + len(values[number])].tolist()
        table = dict(zip(values[number].tolist(), pixels, strict=True))
        tables[number].append({value: n for value, n in table.items() if n})
    return [Found(found.tolist(), table[0], table[1:]) for found, table in zip(values, tables, strict=True)]


def holds_for(
    target: Target, images: Sequence[InstanceImage], *, bands: int = 2, alignment: int = 16
) -> None:
    found = run_kernels(target, images, bands=bands, alignment=alignment)
    for image, of_image in zip(images, found, strict=True):
        everywhere, *wanted = overlaps(image.gt, [np.ones(image.gt.shape, np.uint8), *image.masks])
        assert of_image.values == sorted(everywhere)
        assert of_image.histogram == everywhere
        assert of_image.masks == wanted
        areas = [sum(table.values()) for table in of_image.masks]
        assert areas == [np.count_nonzero(mask) for mask in image.masks]


def instance_map(rng: np.random.Generator, height: int, width: int, values: Sequence[int]) -> Map:
    columns, rows = np.cumsum(rng.random(width) < 0.04), np.cumsum(rng.random(height) < 0.15)
    return rng.choice(values, (rows[-1] + 1, columns[-1] + 1))[rows][:, columns]


def mask_of(rng: np.random.Generator, height: int, width: int) -> Map:
    """A rectangle of one value, ragged at its border."""
    top, bottom = sorted(rng.integers(0, height + 1, 2))
    left, right = sorted(rng.integers(0, width + 1, 2))
    mask = np.zeros((height, width), np.uint8)
    mask[top:bottom, left:right] = rng.choice([1, 128, 255])
    return np.where(rng.random((height, width)) < 0.01, rng.integers(0, 256, (height, width)), mask)


def image_of(
    seed: int,
    height: int,
    width: int,
    *,
    values: Sequence[int] = (3, 7, 6000, 6001, 26_007, 65535),
    masks: int = 3,
) -> InstanceImage:
    rng = np.random.default_rng(seed)
    gt = instance_map(rng, height, width, values)
    return InstanceImage(gt, tuple(mask_of(rng, height, width) for _ in range(masks)))


def small_inputs(target: Target) -> None:
    """What runs under the sanitizers."""
    holds_for(target, [image_of(1, 1, 1), image_of(2, 5, 33, masks=1)])
    holds_for(target, [image_of(4, 4, 64, masks=1)], alignment=1)


def small_inputs_and_many_values(target: Target) -> None:
    small_inputs(target)
    many = np.arange(1200).reshape(20, 60)
    holds_for(target, [InstanceImage(many, (many > 20,))])
    holds_for(target, [])


class TestOverlap:
    @pytest.mark.parametrize("alignment", [1, 2, 16])
    def test_counts_are_the_references_for_all_sizes_in_one_batch(
        self, target: Target, alignment: int
    ) -> None:
        holds_for(target, [image_of(5, *size) for size in SIZES], alignment=alignment)

    @pytest.mark.parametrize("masks", [0, 1, 100])
    def test_any_number_of_masks_is_counted(self, target: Target, masks: int) -> None:
        holds_for(target, [image_of(6, 12, 50, masks=masks)])

    def test_seventy_gt_instances_are_kept_apart(self, target: Target) -> None:
        values = [6000 + number for number in range(35)] + [13_000 + number for number in range(35)]
        image = image_of(7, 60, 300, values=values, masks=8)
        image.gt[30, :70] = values
        assert len(np.unique(image.gt)) == 70
        holds_for(target, [image])

    @pytest.mark.parametrize("distinct", [1024, 1025, 4000])
    def test_more_values_than_shared_counters_are_counted(self, target: Target, distinct: int) -> None:
        gt = np.arange(distinct * 2).reshape(2, distinct) % distinct * 16
        holds_for(target, [InstanceImage(gt, (gt % 3 == 0, gt > 100))])

    def test_every_16_bit_value_is_a_value(self, target: Target) -> None:
        gt = np.random.default_rng(8).permutation(65536).reshape(256, 256)
        found = run_kernels(target, [InstanceImage(gt, (gt == 0, gt == 65535))])[0]
        assert found.values == list(range(65536))
        assert found.histogram == dict.fromkeys(range(65536), 1)
        assert found.masks == [{0: 1}, {65535: 1}]

    def test_map_that_begins_with_two_alternating_values_has_both(self, target: Target) -> None:
        """No first pixels look like a run of a value that was never marked."""
        for pair in ([0, 256], [256, 0], [65535, 65279], [0, 0]):
            holds_for(target, [InstanceImage(np.array([pair * 8]), ())])

    def test_empty_mask_counts_nothing_and_full_mask_counts_all(self, target: Target) -> None:
        gt = image_of(9, 20, 70).gt
        found = run_kernels(target, [InstanceImage(gt, (np.zeros(gt.shape), np.full(gt.shape, 255)))])[0]
        assert found.masks[0] == {}
        assert found.masks[1] == found.histogram

    @pytest.mark.parametrize("bands", [1, 3, 40])
    def test_any_number_of_bands_counts_the_same(self, target: Target, bands: int) -> None:
        holds_for(target, [image_of(10, 37, 90)], bands=bands)

    def test_empty_batch_launches_nothing(self, target: Target) -> None:
        assert run_kernels(target, []) == []

    def test_broken_maps_are_skipped_and_their_neighbours_are_exact(self, target: Target) -> None:
        good = image_of(11, 9, 40)
        broken_gt = InstanceImage(good.gt, good.masks, gt_status=1)
        broken_mask = InstanceImage(good.gt, good.masks, mask_status=kernels.UNKNOWN_FILTER)
        found = run_kernels(target, [good, broken_gt, good, broken_mask])
        wanted = [dict(table) for table in overlaps(good.gt, good.masks)]
        assert found[0].masks == found[2].masks == wanted
        assert found[1] == Found([], {}, [{}, {}, {}])
        assert found[3].histogram == found[0].histogram
        assert found[3].masks == [{}, {}, {}]


class TestOnTheHost:
    @settings(max_examples=30, deadline=None)
    @given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 20), width=st.integers(1, 70))
    def test_any_image_counts_as_in_the_reference(self, seed: int, height: int, width: int) -> None:
        image = image_of(seed, height, width, values=[0, 6, 6000, 6001, 65535])
        holds_for(HostTarget("random", seed=seed), [image], alignment=1 + seed % 2 * 15, bands=1 + seed % 3)

    @pytest.mark.parametrize(
        ("mode", "inputs"), [("asan", "small_inputs_and_many_values"), ("tsan", "small_inputs")]
    )
    def test_small_inputs_are_clean_under_sanitizers(self, mode: str, inputs: str) -> None:
        run_sanitized(mode, f"{__name__}:{inputs}")

    def test_value_that_is_not_marked_or_has_no_room_is_not_counted(self) -> None:
        """The host may count some values only; nothing lands beside its row."""
        target = HostTarget("forward")
        gt = np.array([[5, 6, 7, 8]], ">u2")
        marks = np.zeros((1, kernels.MARK_WORDS), np.uint32)
        marks[0, 0] = 1 << 5 | 1 << 6 | 1 << 8
        none = np.zeros(0, np.int32)
        for ids, wanted in ((3, [1, 1, 1, 0]), (2, [1, 1, 0, 0]), (0, [0, 0, 0, 0])):
            job = kernels.mask_job(
                kernels.MapPlace(0, 8), kernels.MapPlace(-1, 0), 1, 4, image=0, counts_at=0, ids=ids
            )
            counts = np.zeros(4, np.int64)
            kernels.overlap(
                target.load(kernels.OVERLAP.source), gt.view(np.uint8).ravel(), np.zeros(0, np.uint8),
                np.array([job], np.int64), marks, kernels.ranks_of(marks), none, none, counts, bands=1,
            )  # fmt: skip
            assert counts.tolist() == wanted

    def test_ranks_count_the_marked_values_below_each_word(self) -> None:
        marks = np.random.default_rng(12).integers(0, 2**32, (3, kernels.MARK_WORDS), dtype=np.uint32)
        ranks = kernels.ranks_of(marks)
        for row, ranks_of_row in zip(marks, ranks, strict=True):
            values = kernels.marked_values(row)
            assert [int(np.count_nonzero(values < 32 * word)) for word in (0, 1, 77, 2047)] == [
                int(ranks_of_row[word]) for word in (0, 1, 77, 2047)
            ]

    def test_map_whose_pixels_pass_32_bits_is_refused(self) -> None:
        place = kernels.MapPlace(0, 0)
        with pytest.raises(ValueError, match="65536x65536"):
            kernels.mask_job(place, place, 65536, 65536, image=0, counts_at=0, ids=1)

    def test_wrappers_refuse_arrays_that_the_kernels_would_misread(self) -> None:
        module = HostTarget("forward").load(kernels.OVERLAP.source)
        byte, word, counts = np.zeros(2, np.uint8), np.zeros(2, np.int32), np.zeros(2, np.int64)
        marks = np.zeros((1, kernels.MARK_WORDS), np.uint32)
        gt_jobs, jobs = (
            np.zeros((1, kernels.GT_FIELDS), np.int64),
            np.zeros((1, kernels.MASK_FIELDS), np.int64),
        )
        calls = (
            (kernels.mark_values, [byte, gt_jobs, word, marks]),
            (kernels.overlap, [byte, byte, jobs, marks, marks.astype(np.int32), word, word, counts]),
        )
        for call, good in calls:
            for place in range(len(good)):
                bad = [*good[:place], good[place].astype(np.float32), *good[place + 1 :]]
                with pytest.raises(TypeError, match="float32"):
                    call(module, *bad, bands=1)
