"""Batches of the CUDA engine on the host executor: memory that runs out, lanes, a device that fails; and
always what the CPU engine gives."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from gpu_eval.engines.cpu.engine import CpuEngine
from gpu_eval.engines.cuda.batches import Limits
from gpu_eval.engines.cuda.engine import CudaEngine
from gpu_eval.engines.instance import InstanceJob, InstanceResult
from gpu_eval.engines.semantic import SemanticResult, make_job
from gpu_eval.errors import DeviceFailed
from gpu_eval.inputs.instance_split import InstanceImage, Prediction
from gpu_eval.inputs.source import Entry
from tests.engines.instance_contract import VALUES, blobs
from tests.engines.semantic_contract import IDD, NATIVE, blocky
from tests.support.host_cuda.sanitized import run_sanitized
from tests.support.host_cuda.targets import HostTarget, open_target
from tests.support.host_cupy import HostCupy, device_of
from tests.support.memory import MemorySource, memory_pairs
from tests.support.png_builder import broken_adler, broken_crc, build_png, short_rows

INSTANCES = InstanceJob()

Files = list[tuple[bytes | None, bytes | None]]


@pytest.fixture(scope="module")
def cpu() -> Iterator[CpuEngine]:
    made = CpuEngine(threads=1)
    yield made
    made.close()


def mixed_files(seed: int, number: int) -> Files:
    """Pairs of all sizes, forms and defects."""
    rng = np.random.default_rng(seed)
    files: Files = []
    for _ in range(number):
        height, width = int(rng.integers(1, 40)), int(rng.integers(1, 90))
        if rng.random() < 0.5:
            height, width = 24, 48
        pair: list[bytes | None] = []
        for side in range(2):
            if side and rng.random() < 0.3:
                height, width = height * 2, width * 2
            label_map = blocky(rng, height, width, [0, 1, 7, 25, 255])
            options = [
                {},
                {"colour_type": 3},
                {"idat_size": 20},
                {"filters": [4, 1, 2]},
                {"interlaced": True},
            ]
            good = build_png(label_map, **options[rng.integers(len(options))])
            bad = [good[:-20], broken_crc(good), broken_adler(good), short_rows(good, height - 1, width + 1),
                   None, build_png(label_map % 4, bit_depth=16), build_png(np.full((9, 9), 99, np.uint8)),
                   build_png(label_map, filters=[0, 9])]  # fmt: skip
            pair.append(bad[rng.integers(len(bad))] if rng.random() < 0.15 else good)
        files.append((pair[0], pair[1]))
    return files


def facts(result: SemanticResult) -> tuple[object, ...]:
    """Everything of a result but which fast decoder ran."""
    confusion = None if result.confusion is None else result.confusion.tolist()
    decoder = "simd" if result.decoder == "cuda" else result.decoder
    error = (type(result.error), str(result.error))
    return (confusion, error, result.warning, decoder, result.gt_size, result.pred_size, result.gt_outside,
            result.pred_outside)  # fmt: skip


def assert_equal(some: Sequence[SemanticResult], others: Sequence[SemanticResult]) -> None:
    for number, (one, other) in enumerate(zip(some, others, strict=True)):
        assert facts(one) == facts(other), number


def host_engine(cupy: HostCupy, **limits: int) -> CudaEngine:
    open_target("host-forward")
    device = device_of(cupy)
    return CudaEngine(threads=2, device=device, limits=Limits(device, **limits))


FILES = mixed_files(1, 90)
JOBS = {
    "native": NATIVE,
    "resized": make_job(IDD, resolution=(30, 50)),
    "void on error": make_job(IDD, void_on_error=True),
}


class TestBatches:
    @pytest.mark.parametrize("job", JOBS)
    @pytest.mark.parametrize("pairs", [1, 7, 512])
    def test_any_batch_size_gives_what_the_cpu_gives_errors_included(
        self, cpu: CpuEngine, pairs: int, job: str
    ) -> None:
        engine = host_engine(HostCupy(), pairs=pairs)
        split = memory_pairs(FILES)
        results = engine.count(JOBS[job], *split)
        assert_equal(results, cpu.count(JOBS[job], *split))
        decoders = Counter(result.decoder for result in results if result.error is None)
        assert decoders["cuda"] > 40
        assert decoders["pillow"] > 5
        engine.close()

    @pytest.mark.parametrize("schedule", ["reverse", "random"])
    def test_other_schedules_of_threads_give_the_same(self, cpu: CpuEngine, schedule: str) -> None:
        engine = host_engine(HostCupy(schedule=schedule))
        split = memory_pairs(FILES[:30])
        assert_equal(engine.count(NATIVE, *split), cpu.count(NATIVE, *split))
        engine.close()

    @pytest.mark.parametrize("pairs", [3, 512])
    def test_a_device_that_works_at_once_gives_the_same(self, cpu: CpuEngine, pairs: int) -> None:
        engine = host_engine(HostCupy(eager=True), pairs=pairs)
        split = memory_pairs(FILES)
        assert_equal(engine.count(NATIVE, *split), cpu.count(NATIVE, *split))
        engine.close()

    def test_batches_are_cut_to_the_bytes_that_may_be_pinned(self, cpu: CpuEngine) -> None:
        cupy = HostCupy()
        engine = host_engine(cupy, bytes=2000)
        split = memory_pairs(FILES)
        assert_equal(engine.count(NATIVE, *split), cpu.count(NATIVE, *split))
        assert cupy.uploads > 10
        engine.close()

    def test_a_batch_is_one_upload(self) -> None:
        cupy = HostCupy()
        engine = host_engine(cupy, pairs=5)
        good = build_png(np.zeros((9, 9), np.uint8))
        engine.count(NATIVE, *memory_pairs([(good, good)] * 23))
        assert cupy.uploads == 5
        engine.close()

    def test_pairs_that_the_kernels_do_not_take_never_reach_the_device(self, cpu: CpuEngine) -> None:
        cupy = HostCupy()
        engine = host_engine(cupy)
        split = memory_pairs([(build_png(np.zeros((9, 9), np.uint8), interlaced=True),) * 2] * 3)
        assert_equal(engine.count(NATIVE, *split), cpu.count(NATIVE, *split))
        assert cupy.uploads == cupy.launches == 0
        engine.close()

    def test_the_device_says_which_decoder_ran(self) -> None:
        engine = host_engine(HostCupy())
        good = build_png(np.zeros((9, 9), np.uint8))
        interlaced = build_png(np.zeros((9, 9), np.uint8), interlaced=True)
        results = engine.count(NATIVE, *memory_pairs([(good, good), (good, interlaced)]))
        assert [result.decoder for result in results] == ["cuda", "pillow"]
        engine.close()


class TestMemory:
    def test_batches_are_cut_to_the_free_memory(self, cpu: CpuEngine) -> None:
        cupy = HostCupy(free=600_000)
        engine = host_engine(cupy)
        split = memory_pairs(FILES)
        assert_equal(engine.count(NATIVE, *split), cpu.count(NATIVE, *split))
        assert cupy.uploads > 2
        assert cupy.refused == 0
        engine.close()

    @pytest.mark.parametrize("free", [400_000, 150_000, 80_000])
    def test_memory_that_is_gone_halves_the_batch_and_scoring_goes_on(
        self, cpu: CpuEngine, free: int
    ) -> None:
        cupy = HostCupy()
        engine = host_engine(cupy)
        cupy.free = free
        split = memory_pairs(FILES)
        results = engine.count(NATIVE, *split)
        assert_equal(results, cpu.count(NATIVE, *split))
        assert cupy.refused > 0
        assert sum(result.decoder == "cuda" for result in results) > 10
        engine.close()

    def test_pairs_that_do_not_fit_alone_go_to_the_cpu(self, cpu: CpuEngine) -> None:
        cupy = HostCupy()
        engine = host_engine(cupy)
        cupy.free = 0
        split = memory_pairs(FILES[:20])
        results = engine.count(NATIVE, *split)
        assert_equal(results, cpu.count(NATIVE, *split))
        assert {result.decoder for result in results} <= {"simd", "pillow", None}
        engine.close()

    def test_closing_gives_all_device_memory_back(self) -> None:
        cupy = HostCupy()
        engine = host_engine(cupy)
        engine.count(NATIVE, *memory_pairs(FILES[:20]))
        assert cupy.allocated() > 0
        engine.close()
        assert cupy.allocated() == 0


class TestFailingDevice:
    """A device that fails says so in every call from then on, and nobody waits for ever."""

    @pytest.mark.parametrize("eager", [False, True])
    @pytest.mark.parametrize("fails_at", [1, 2, 9])
    def test_every_call_says_so(self, fails_at: int, eager: bool) -> None:
        engine = host_engine(HostCupy(fails_at=fails_at, eager=eager), pairs=7)
        for call in (
            lambda: engine.count(NATIVE, *memory_pairs(FILES)),
            lambda: engine.count(NATIVE, *memory_pairs(FILES)),
            lambda: engine.count(INSTANCES, *images(9)),
        ):
            with pytest.raises(DeviceFailed, match=r"device failed \(found cudaErrorIllegalAddress"):
                call()
        engine.close()

    def test_threads_that_share_the_lanes_all_come_back(self) -> None:
        engine = host_engine(HostCupy(fails_at=8), pairs=4)
        told: list[BaseException] = []

        def run() -> None:
            try:
                engine.count(NATIVE, *memory_pairs(FILES))
            except DeviceFailed as error:
                told.append(error)

        threads = [threading.Thread(target=run, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(told) == 4
        engine.close()


class TestLanes:
    def test_two_threads_share_the_lanes(self, cpu: CpuEngine) -> None:
        engine = host_engine(HostCupy(), pairs=4)
        split = memory_pairs(FILES)
        found: dict[int, list[SemanticResult]] = {}

        def run(number: int) -> None:
            found[number] = engine.count(NATIVE, *split)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expected = cpu.count(NATIVE, *split)
        for number in range(3):
            assert_equal(found[number], expected)
        engine.close()

    def test_an_interrupted_call_leaves_the_lanes_to_the_next(self, cpu: CpuEngine) -> None:
        engine = host_engine(HostCupy(), pairs=4)
        pairs, gts, preds = memory_pairs(FILES)

        class Interrupting(MemorySource):
            calls = 0

            def read_into(
                self, entries: Sequence[Entry], buffer: npt.NDArray[np.uint8]
            ) -> tuple[npt.NDArray[np.int64], dict[int, Exception]]:
                Interrupting.calls += 1
                if Interrupting.calls == 4:
                    raise KeyboardInterrupt
                return super().read_into(entries, buffer)

        with pytest.raises(KeyboardInterrupt):
            engine.count(NATIVE, pairs, gts, Interrupting(preds.files))
        assert_equal(engine.count(NATIVE, pairs, gts, preds), cpu.count(NATIVE, pairs, gts, preds))
        engine.close()

    def test_seconds_are_told_by_stage_and_start_again(self) -> None:
        engine = host_engine(HostCupy())
        engine.count(NATIVE, *memory_pairs(FILES))
        seconds = engine.take_seconds()
        assert list(seconds) == ["read", "copy", "kernel", "decode"]
        assert min(seconds.values()) > 0
        assert set(engine.take_seconds().values()) == {0.0}
        engine.close()


def memory_images(
    images: Sequence[tuple[bytes, Sequence[bytes]]],
) -> tuple[list[InstanceImage], MemorySource, MemorySource]:
    """Images of (gt, masks) in memory with their two sources."""
    gts = MemorySource({f"{i:04d}.png": gt for i, (gt, _) in enumerate(images)})
    masks = {f"{i:04d}/{j:04d}.png": mask for i, (_, of) in enumerate(images) for j, mask in enumerate(of)}
    preds = MemorySource(masks)
    split = []
    for gt in gts.entries():
        key = gt.name.removesuffix(".png")
        entries = [entry for entry in preds.entries() if entry.name.startswith(f"{key}/")]
        predictions = tuple(Prediction(entry, 9, 0.5, line) for line, entry in enumerate(entries, start=1))
        split.append(InstanceImage(key, "", gt, predictions, f"{key}.txt"))
    return split, gts, preds


def images(number: int) -> tuple[list[InstanceImage], MemorySource, MemorySource]:
    """Images with none to 40 masks, some broken, some of forms that the kernels do not take."""
    rng = np.random.default_rng(5)
    drawn = []
    for _ in range(number):
        height, width = int(rng.integers(1, 30)), int(rng.integers(1, 70))
        gt = blobs(rng, height, width, VALUES)
        masks: list[bytes] = []
        for _ in range(int(rng.choice([0, 1, 3, 40]))):
            mask = build_png(blobs(rng, height, width, [0, 255]), idat_size=25)
            masks.append(mask[:-20] if rng.random() < 0.02 else mask)
        if masks and rng.random() < 0.2:
            masks.append(build_png(np.ones((height, width), np.uint8), bit_depth=1))
        good = build_png(gt, bit_depth=16)
        drawn.append((broken_adler(good) if rng.random() < 0.1 else good, masks))
    return memory_images(drawn)


def instance_facts(result: InstanceResult) -> tuple[object, ...]:
    arrays = (result.gt_values, result.gt_pixels, result.overlaps)
    decoders = result.decoders
    return (
        *(None if array is None else (array.dtype, array.tolist()) for array in arrays),
        [(type(error), str(error)) for error in result.errors],
        result.size,
        {**decoders, "simd": decoders["simd"] + decoders["cuda"], "cuda": 0},
    )


def small_inputs(target: HostTarget) -> None:
    """What runs under the sanitizer."""
    device = device_of(HostCupy(schedule=target.schedule, mode=target.mode))
    engine = CudaEngine(threads=1, device=device, limits=Limits(device, pairs=7))
    cpu = CpuEngine(threads=1)
    split = memory_pairs(FILES[:14])
    for name in ("native", "resized"):
        assert_equal(engine.count(JOBS[name], *split), cpu.count(JOBS[name], *split))
    split = images(4)
    for one, other in zip(engine.count(INSTANCES, *split), cpu.count(INSTANCES, *split), strict=True):
        assert instance_facts(one) == instance_facts(other)


def test_kernels_stay_inside_what_a_batch_gives_them() -> None:
    run_sanitized("asan", f"{__name__}:small_inputs")


class TestInstanceBatches:
    @pytest.mark.parametrize(
        ("limits", "free"),
        [({}, 1 << 30), ({"files": 10}, 1 << 30), ({"bytes": 3000}, 1 << 30), ({}, 300_000), ({}, 0)],
    )
    @pytest.mark.parametrize("eager", [False, True])
    def test_any_batch_and_memory_gives_what_the_cpu_gives(
        self, cpu: CpuEngine, limits: dict[str, int], free: int, eager: bool
    ) -> None:
        cupy = HostCupy(eager=eager)
        engine = host_engine(cupy, **limits)
        cupy.free = free
        split = images(30)
        results, expected = engine.count(INSTANCES, *split), cpu.count(INSTANCES, *split)
        for number, (one, other) in enumerate(zip(results, expected, strict=True)):
            assert instance_facts(one) == instance_facts(other), number
        on_device = sum(result.decoders["cuda"] > 0 for result in results)
        assert on_device > 8 if free else on_device == 0
        engine.close()


def test_a_call_without_any_pair_of_files_needs_no_device(cpu: CpuEngine) -> None:
    engine = host_engine(HostCupy())
    pairs, gts, preds = memory_pairs(FILES[:3])
    lone = [replace(pair, pred=None) for pair in pairs]
    assert_equal(engine.count(NATIVE, lone, gts, preds), cpu.count(NATIVE, lone, gts, preds))
    engine.close()
