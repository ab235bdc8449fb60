"""`kernels/confusion.cu` counts what a loop over pixels counts, at any sizes, classes, strides and widths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu_eval import synthetic
from gpu_eval.engines.cuda import kernels
from gpu_eval.engines.resize import index_table
from tests.reference.overlaps import joint_count
from tests.support.host_cuda.sanitized import run_sanitized
from tests.support.host_cuda.targets import HostTarget, Target

Labels = npt.NDArray[np.integer]
Cells = npt.NDArray[np.int64]
Table = npt.NDArray[np.uint16]

SIZES = ((1, 1), (1, 40), (23, 1), (17, 33), (8, 256), (70, 31), (3, 4200))


@dataclass(frozen=True)
class PairOfMaps:
    """Two maps and the size both are shown at; None is the gt's own size."""

    gt: Labels
    pred: Labels
    size: tuple[int, int] | None = None
    gt_status: int = 0
    pred_status: int = 0

    def shown(self) -> tuple[int, int]:
        return self.size or (self.gt.shape[0], self.gt.shape[1])


class Buffers:
    """Maps and index tables one after the other, as an engine uploads them."""

    def __init__(self, *, alignment: int, gap: int) -> None:
        """Maps begin at multiples of `alignment`; `gap` bytes follow each row, like a PNG's filter bytes."""
        self.alignment, self.gap = alignment, gap
        self.maps = bytearray()
        self.tables: list[int] = []
        self.statuses: list[int] = []

    def add(self, labels: Labels, size: tuple[int, int], status: int) -> kernels.MapPlace:
        self.maps += bytes(-len(self.maps) % self.alignment)
        at, stride = len(self.maps), labels.shape[1] * labels.itemsize + self.gap
        for row in labels:
            self.maps += row.tobytes() + b"\x63" * self.gap
        self.statuses.append(status)
        rows, columns = (self._table(labels.shape[axis], size[axis]) for axis in (0, 1))
        return kernels.MapPlace(at, stride, rows, columns, len(self.statuses) - 1)

    def _table(self, source: int, shown: int) -> int:
        if source == shown:
            return -1
        self.tables += index_table(source, shown).tolist()
        return len(self.tables) - shown


def count(
    target: Target,
    pairs: Sequence[PairOfMaps],
    gt_table: Table,
    pred_table: Table,
    classes: int,
    *,
    bands: int = 2,
    alignment: int = 16,
    gap: int = 0,
    kernel: kernels.Kernel = kernels.CONFUSION,
    already: int = 0,
) -> Cells:
    """The kernel's matrices; every cell begins at `already`."""
    gts, preds = Buffers(alignment=alignment, gap=gap), Buffers(alignment=alignment, gap=gap)
    preds.tables = gts.tables
    jobs = [
        kernels.pair_job(
            gts.add(pair.gt, pair.shown(), pair.gt_status),
            preds.add(pair.pred, pair.shown(), pair.pred_status),
            *pair.shown(),
        )
        for pair in pairs
    ]
    put = target.put
    cells = put(np.full((len(pairs), classes, classes), already, np.int64))
    kernels.confusion(
        target.load(kernel.source),
        put(np.frombuffer(bytes(gts.maps), np.uint8)),
        put(np.frombuffer(bytes(preds.maps), np.uint8)),
        put(np.array(jobs, np.int64).reshape(-1, kernels.PAIR_FIELDS)),
        put(np.array(gts.tables, np.int32)),
        put(gt_table),
        put(pred_table),
        put(np.array(gts.statuses, np.int32)),
        put(np.array(preds.statuses, np.int32)),
        cells,
        bands=bands,
        kernel=kernel,
    )
    found: Cells = target.get(cells)
    return found


def expected(pair: PairOfMaps, gt_table: Table, pred_table: Table, classes: int) -> list[list[int]]:
    height, width = pair.shown()
    positions = [
        (index_table(side.shape[0], height).tolist(), index_table(side.shape[1], width).tolist())
        for side in (pair.gt, pair.pred)
    ]
    return joint_count(
        pair.gt, pair.pred, gt_table.tolist(), pred_table.tolist(), classes,
        gt_positions=positions[0], pred_positions=positions[1],
    )  # fmt: skip


def holds_for(
    target: Target,
    pairs: Sequence[PairOfMaps],
    gt_table: Table,
    pred_table: Table,
    classes: int,
    **options: Any,
) -> None:
    found = count(target, pairs, gt_table, pred_table, classes, **options)
    for pair, cells in zip(pairs, found, strict=True):
        wanted = expected(pair, gt_table, pred_table, classes)
        assert cells.tolist() == wanted, f"gt {pair.gt.shape}, pred {pair.pred.shape}, shown {pair.shown()}"


def table_of(n_classes: int) -> Table:
    """Values below n_classes are classes, 255 is void, every other value is outside."""
    table = np.full(256, n_classes + 1, np.uint16)
    table[:n_classes] = np.arange(n_classes)
    if n_classes < 256:
        table[255] = n_classes
    return table


def label_map(rng: np.random.Generator, height: int, width: int, values: Sequence[int]) -> Labels:
    """Flat patches, some single pixels of another label."""
    columns, rows = np.cumsum(rng.random(width) < 0.04), np.cumsum(rng.random(height) < 0.15)
    patches = rng.choice(values, (rows[-1] + 1, columns[-1] + 1))
    pixels = patches[rows][:, columns]
    return np.where(rng.random((height, width)) < 0.02, rng.choice(values, (height, width)), pixels)


def maps_of(
    seed: int, sizes: Sequence[tuple[int, int]], values: Sequence[int], dtype: type[np.integer] = np.uint8
) -> list[PairOfMaps]:
    """For each size a pair of label maps and a pair of noise."""
    rng = np.random.default_rng(seed)
    pairs = []
    for height, width in sizes:
        gt, pred = (label_map(rng, height, width, values).astype(dtype) for _ in range(2))
        pairs.append(PairOfMaps(gt, pred))
        noise = rng.choice(values, (2, height, width)).astype(dtype)
        pairs.append(PairOfMaps(noise[0], noise[1]))
    return pairs


IDD = [0, 1, 2, 3, 25, 26, 27, 255]


def small_inputs(target: Target) -> None:
    """What runs under the sanitizers: few threads' worth of pixels on every path."""
    pairs = maps_of(1, ((1, 1), (5, 33), (4, 64)), IDD)
    pairs += [PairOfMaps(pairs[2].gt, pairs[4].pred, size=(7, 50))]
    for alignment, gap in ((16, 0), (1, 1)):
        holds_for(target, pairs, table_of(26), table_of(26), 28, alignment=alignment, gap=gap)
    holds_for(target, pairs[:3], table_of(200), table_of(26), 202)
    holds_for(target, [], table_of(26), table_of(26), 28)


def small_wide_labels(target: Target) -> None:
    pairs = maps_of(2, ((1, 1), (5, 33)), [0, 25, 255, 256, -1], np.int64)
    holds_for(target, pairs, table_of(26), table_of(26), 28, kernel=kernels.confusion_kernel(8, 8))


def small_inputs_of_all_widths(target: Target) -> None:
    small_inputs(target)
    small_wide_labels(target)


class TestConfusion:
    @pytest.mark.parametrize(("alignment", "gap"), [(16, 0), (1, 0), (1, 1), (16, 16)])
    def test_matrix_is_the_references_at_any_stride_and_address(
        self, target: Target, alignment: int, gap: int
    ) -> None:
        """A gap of one byte is a PNG's rows with their filter bytes."""
        holds_for(
            target, maps_of(3, SIZES, IDD), table_of(26), table_of(26), 28, alignment=alignment, gap=gap
        )

    @pytest.mark.parametrize("n_classes", [2, 7, 26, 64, 65, 130, 255, 256])
    def test_matrix_is_the_references_for_any_number_of_classes(self, target: Target, n_classes: int) -> None:
        pairs = maps_of(4, ((17, 33), (40, 100)), range(256))
        holds_for(target, pairs, table_of(n_classes), table_of(n_classes), n_classes + 2)

    def test_maps_of_other_sizes_are_shown_as_pillow_shows_them(self, target: Target) -> None:
        rng = np.random.default_rng(5)
        sizes = [(72, 128), (108, 192), (33, 17), (1, 1), (50, 200)]
        pairs = []
        for gt_size in sizes:
            for pred_size in sizes:
                gt, pred = (
                    label_map(rng, *size, values=IDD).astype(np.uint8) for size in (gt_size, pred_size)
                )
                pairs.append(PairOfMaps(gt, pred, size=(54, 96) if gt_size == pred_size else None))
        holds_for(target, pairs, table_of(26), table_of(26), 28, alignment=1, gap=1)

    def test_720p_pair_counts_at_1080p(self, target: Target) -> None:
        rng = np.random.default_rng(6)
        gt, pred = (label_map(rng, 720, 1280, IDD).astype(np.uint8) for _ in range(2))
        table = table_of(26)
        rows, columns = index_table(720, 1080), index_table(1280, 1920)
        joint = table[gt].astype(np.int64) * 28 + table[pred]
        wanted = np.bincount(joint[rows][:, columns].ravel(), minlength=28 * 28).reshape(28, 28)
        found = count(target, [PairOfMaps(gt, pred, size=(1080, 1920))], table, table, 28, bands=5)
        assert np.array_equal(found[0], wanted)

    def test_street_maps_of_1080p_count_as_bincount_counts_them(self, target: Target) -> None:
        gt = synthetic.street_gt(1)
        pred, table = synthetic.street_prediction(gt, 2), table_of(26)
        joint = table[gt].astype(np.int64) * 28 + table[pred]
        found = count(target, [PairOfMaps(gt, pred)], table, table, 28, bands=kernels.bands(1, 1080))
        assert np.array_equal(found[0], np.bincount(joint.ravel(), minlength=28 * 28).reshape(28, 28))

    def test_sides_have_tables_of_their_own(self, target: Target) -> None:
        rng = np.random.default_rng(7)
        gt_table, pred_table = (rng.integers(0, 28, 256, dtype=np.uint16) for _ in range(2))
        holds_for(target, maps_of(8, ((9, 70),), range(256)), gt_table, pred_table, 28)

    def test_table_entry_that_is_no_class_counts_as_outside(self, target: Target) -> None:
        wild = np.full(256, 65535, np.uint16)
        found = count(target, maps_of(9, ((6, 20),), IDD), wild, table_of(26), 28)
        assert found[:, 27].sum() == 2 * 6 * 20
        assert found[:, :27].sum() == 0

    @pytest.mark.parametrize(
        ("gt_type", "pred_type"),
        [(np.int64, np.int64), (np.int16, np.uint8), (np.int32, np.int64)],
    )
    def test_wide_labels_beyond_the_table_are_outside(
        self, target: Target, gt_type: type[np.integer], pred_type: type[np.integer]
    ) -> None:
        kernel = kernels.confusion_kernel(gt_type().itemsize, pred_type().itemsize)
        pairs = []
        for height, width in ((1, 1), (17, 33), (5, 1300)):
            rng = np.random.default_rng(width)
            sides = []
            for kind in (gt_type, pred_type):
                info = np.iinfo(kind)
                values = [0, 3, 25, 26, 255, *({256, 300, -1, info.min, info.max} if info.max > 255 else ())]
                inside = [value for value in values if info.min <= value <= info.max]
                sides.append(label_map(rng, height, width, inside).astype(kind))
            pairs.append(PairOfMaps(sides[0], sides[1]))
            pairs.append(PairOfMaps(sides[0], sides[1], size=(7, 50)))
        holds_for(target, pairs, table_of(26), table_of(26), 28, kernel=kernel)

    @pytest.mark.parametrize("bands", [1, 3, 40, 1000])
    def test_any_number_of_bands_counts_the_same(self, target: Target, bands: int) -> None:
        holds_for(target, maps_of(10, ((37, 90),), IDD), table_of(26), table_of(26), 28, bands=bands)

    def test_empty_batch_launches_nothing(self, target: Target) -> None:
        assert count(target, [], table_of(26), table_of(26), 28).shape == (0, 28, 28)

    def test_pair_with_a_broken_map_is_skipped_and_its_neighbours_are_exact(self, target: Target) -> None:
        good = maps_of(11, ((9, 40),), IDD)[0]
        broken_gt = PairOfMaps(good.gt, good.pred, gt_status=2)
        broken_pred = PairOfMaps(good.gt, good.pred, pred_status=kernels.UNKNOWN_FILTER)
        found = count(target, [good, broken_gt, good, broken_pred, good], table_of(26), table_of(26), 28)
        wanted = expected(good, table_of(26), table_of(26), 28)
        assert [cells.tolist() == wanted for cells in found] == [True, False, True, False, True]
        assert not found[1].any()
        assert not found[3].any()

    @pytest.mark.parametrize("n_classes", [26, 200])
    def test_counts_are_added_to_what_is_there(self, target: Target, n_classes: int) -> None:
        pairs = maps_of(12, ((9, 40),), IDD)
        table = table_of(n_classes)
        beyond = 2**33
        assert np.array_equal(
            count(target, pairs, table, table, n_classes + 2, already=beyond),
            count(target, pairs, table, table, n_classes + 2) + beyond,
        )

    def test_rows_sum_to_the_histogram_and_swapping_sides_transposes(self, target: Target) -> None:
        pair = maps_of(13, ((61, 75),), IDD)[0]
        table = table_of(26)
        cells = count(target, [pair, PairOfMaps(pair.pred, pair.gt)], table, table, 28)
        assert np.array_equal(cells[0].sum(axis=1), np.bincount(table[pair.gt].ravel(), minlength=28))
        assert np.array_equal(cells[0].T, cells[1])


class TestOnTheHost:
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(data=st.data())
    def test_any_two_maps_count_as_in_the_reference(self, data: st.DataObject) -> None:
        seed = data.draw(st.integers(0, 2**32 - 1))
        rng = np.random.default_rng(seed)
        sides = []
        for _ in range(2):
            height, width = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 70))
            sides.append(label_map(rng, height, width, IDD).astype(np.uint8))
        size = data.draw(st.none() | st.tuples(st.integers(1, 30), st.integers(1, 80)))
        holds_for(
            HostTarget("random", seed=seed), [PairOfMaps(sides[0], sides[1], size=size)],
            table_of(26), table_of(26), 28, bands=data.draw(st.integers(1, 4)), alignment=1,
            gap=data.draw(st.integers(0, 2)),
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("mode", "inputs"), [("asan", "small_inputs_of_all_widths"), ("tsan", "small_inputs")]
    )
    def test_small_inputs_are_clean_under_sanitizers(self, mode: str, inputs: str) -> None:
        run_sanitized(mode, f"{__name__}:{inputs}")

    def test_target_whose_pixels_pass_32_bits_is_refused(self) -> None:
        place = kernels.MapPlace(0, 0)
        kernels.pair_job(place, place, 65535, 65537)
        with pytest.raises(ValueError, match="65536x65536"):
            kernels.pair_job(place, place, 65536, 65536)

    def test_wrapper_refuses_arrays_that_the_kernel_would_misread(self) -> None:
        flat = {kind: np.zeros(2, kind) for kind in (np.uint8, np.int32)}
        table = np.zeros(256, np.uint16)
        pairs, cells = np.zeros((1, kernels.PAIR_FIELDS), np.int64), np.zeros((1, 28, 28), np.int64)
        byte, word = flat[np.uint8], flat[np.int32]
        good = [byte, byte, pairs, word, table, table, word, word, cells]
        module = HostTarget("forward").load(kernels.CONFUSION.source)
        for place in range(len(good)):
            bad = [*good[:place], good[place].astype(np.float32), *good[place + 1 :]]
            with pytest.raises(TypeError, match="float32"):
                kernels.confusion(module, *bad, bands=1)
        with pytest.raises(ValueError, match="259 classes"):
            kernels.confusion(module, *good[:-1], np.zeros((1, 259, 259), np.int64), bands=1)

    def test_bands_fill_the_device_and_stay_worth_their_price(self) -> None:
        assert kernels.bands(1, 1080) == 1080 // kernels.MIN_ROWS
        assert kernels.bands(10_000, 1080) == 1
        assert kernels.bands(100, 1080) * 100 >= kernels.ENOUGH_BLOCKS
        assert kernels.bands(0, 0) == 1
