"""The host executor itself: right kernels give right results, and each kind of mistake is found."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.host_cuda import build
from tests.support.host_cuda.build import SCHEDULES, HostModule, LaunchFailed
from tests.support.host_cuda.sanitized import run_sanitized
from tests.support.host_cuda.targets import HostTarget

SELFTEST = (Path(build.__file__).parent / "selftest.cu").read_text(encoding="utf-8")
THREADS = 96

needs_executor = pytest.mark.skipif(build.why_not() is not None, reason=str(build.why_not()))


def load(schedule: str = "forward", mode: str = "plain", seed: int = 1) -> HostModule:
    return build.load(
        SELFTEST, [f"-DTHREADS={THREADS}"], schedule=schedule, mode=mode, seed=seed, name="selftest.cu"
    )


def zeros(count: int = 32) -> np.ndarray:
    return np.zeros(count, np.uint32)


def sums(module: HostModule, kernel: str) -> list[int]:
    values = np.arange(1000, dtype=np.uint32)
    found = zeros(11)
    module.get_function(kernel)((11,), (THREADS,), (values, found, np.int32(1000)))
    return found.tolist()


EXPECTED_SUMS = [int(part.sum()) for part in np.split(np.arange(1000), range(THREADS, 1000, THREADS))]


@needs_executor
class TestRunning:
    @pytest.mark.parametrize("schedule", SCHEDULES)
    def test_a_right_kernel_is_right_in_every_schedule(self, schedule: str) -> None:
        assert sums(load(schedule), "block_sums") == EXPECTED_SUMS

    def test_intrinsics_are_those_of_cuda(self) -> None:
        a, b = 0x80F01234, 0x9ABCDEF0
        found = zeros()
        load().get_function("intrinsics")((1,), (1,), (np.array([a, b], np.uint32), found))
        wide = b << 32 | a
        assert found[:15].tolist() == [
            a.bit_count(),
            0,
            32,
            3,
            0,
            int(f"{a:032b}"[::-1], 2),
            wide >> 8 & 0xFFFFFFFF,
            a,
            (wide << 8 >> 32) & 0xFFFFFFFF,
            int.from_bytes(a.to_bytes(4, "little"), "big"),
            b,
            5 + 0x12 + 2 * 0xF0 + 3 * 0x80,
            a * b >> 32,
            a,
            3,
        ]

    def test_warp_functions_are_those_of_cuda(self) -> None:
        found = zeros(128)
        load("random").get_function("warp_functions")((1,), (32,), (found,))
        up, down, same, last = found.reshape(32, 4).T.tolist()
        assert up == [0, 1, 2, *range(29)]
        assert down == [*range(3, 32), 29, 30, 31]
        assert same == [0xFF << lane // 8 * 8 for lane in range(32)]
        assert last == [0x55555555, 0, 1, *[5] * 29]

    @pytest.mark.parametrize("schedule", SCHEDULES)
    def test_atomics_add_over_all_blocks(self, schedule: str) -> None:
        found, wide = zeros(2), np.zeros(1, np.uint64)
        load(schedule).get_function("atomic_blocks")((5, 2), (8, 4), (found, wide))
        assert found.tolist() == [320, 7]
        assert int(wide[0]) == 320 << 40

    def test_arguments_that_a_device_would_misread_are_refused(self) -> None:
        kernel = load().get_function("overread")
        for arguments in (
            (zeros(), zeros()),
            (zeros(), zeros(), np.int64(5)),
            (zeros(), zeros(), 5),
            (zeros(), zeros(), zeros()),
        ):
            with pytest.raises(TypeError, match="overread"):
                kernel((1,), (1,), arguments)

    def test_an_unknown_kernel_is_an_attribute_error(self) -> None:
        with pytest.raises(AttributeError):
            load().get_function("nothing")

    def test_text_that_is_no_cuda_is_refused_by_the_compiler(self, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(subprocess.CalledProcessError):
            build.load("\n\n__global__ void broken() { int x = y; }", name="broken.cu")
        assert "broken.cu:3:" in capfd.readouterr().err

    def test_shared_declarations_of_another_form_are_refused(self) -> None:
        with pytest.raises(ValueError, match="__shared__"):
            build.translate("__global__ void k() { __shared__ int a[2], b[2]; }", "k.cu")

    def test_translation_keeps_the_lines(self) -> None:
        translated = build.translate(
            "\n__shared__ __align__(16) unsigned char\n  a[4][5];\nint line_4;", "k.cu"
        )
        assert translated.splitlines()[4] == "int line_4;"
        assert "Aligned<16, std::type_identity_t<unsigned char[4][5]>>" in translated


@needs_executor
class TestMistakes:
    def test_a_missing_barrier_is_right_in_one_schedule_and_wrong_in_another(self) -> None:
        assert sums(load("forward"), "block_sums_without_barrier") == EXPECTED_SUMS
        assert sums(load("reverse"), "block_sums_without_barrier") != EXPECTED_SUMS
        assert sums(load("random"), "block_sums_without_barrier") != EXPECTED_SUMS

    @pytest.mark.parametrize("schedule", SCHEDULES)
    @pytest.mark.parametrize(
        ("kernel", "words"),
        [
            ("two_barriers", "barrier divergence: other threads wait at __syncthreads in line"),
            ("two_votes", "warp divergence: other lanes wait at the warp primitive in line"),
            ("one_lane_elsewhere", "deadlock in block 0,0,0: 1 of 32 threads wait at __syncthreads"),
            ("half_a_mask", "warp primitive without a full mask"),
            ("shuffle_from_the_dead", "shuffle reads a lane that has exited"),
        ],
    )
    def test_divergence_is_an_error_that_names_the_line(self, schedule: str, kernel: str, words: str) -> None:
        with pytest.raises(LaunchFailed, match=words) as caught:
            load(schedule).get_function(kernel)((1,), (32,), (zeros(),))
        assert kernel in str(caught.value)

    def test_a_failed_launch_leaves_the_module_usable(self) -> None:
        module = load()
        for _ in range(3):
            with pytest.raises(LaunchFailed):
                module.get_function("two_barriers")((4,), (32,), (zeros(),))
            assert sums(module, "block_sums") == EXPECTED_SUMS


def right_kernels(target: HostTarget) -> None:
    module = load(target.schedule, target.mode)
    assert sums(module, "block_sums") == EXPECTED_SUMS
    module.get_function("reversed_lanes")((1,), (32,), (zeros(), np.int32(1)))
    module.get_function("atomic_blocks")((5,), (8,), (zeros(2), np.zeros(1, np.uint64)))


def _wrong(kernel: str, block: int, *arguments: object, blocks: int = 1) -> Callable[[HostTarget], None]:
    def run(target: HostTarget) -> None:
        load(target.schedule, target.mode).get_function(kernel)((blocks,), (block,), arguments)

    return run


overread = _wrong("overread", 512, np.zeros(500, np.uint32), zeros(), np.int32(500))
shared_overwrite = _wrong("shared_overwrite", 9, zeros(8))
shift_too_far = _wrong("shift_too_far", 1, zeros(), np.int32(33))
unordered_lanes = _wrong("reversed_lanes", 32, zeros(), np.int32(0))
racing_blocks = _wrong("racing_blocks", 1, zeros(), blocks=2)
missing_barrier = _wrong(
    "block_sums_without_barrier", THREADS, np.zeros(1000, np.uint32), zeros(11), np.int32(1000), blocks=11
)


@needs_executor
class TestSanitizers:
    @pytest.mark.parametrize("mode", ["asan", "tsan"])
    def test_right_kernels_are_clean(self, mode: str) -> None:
        run_sanitized(mode, "tests.kernels.test_host_cuda:right_kernels")

    @pytest.mark.parametrize(
        ("function", "expected"),
        [
            ("overread", "selftest.cu:40"),
            ("shared_overwrite", "index 8 out of bounds"),
            ("shift_too_far", "shift exponent 33 is too large"),
        ],
    )
    def test_asan_and_ubsan_find(self, function: str, expected: str) -> None:
        run_sanitized("asan", f"tests.kernels.test_host_cuda:{function}", expect=expected)

    @pytest.mark.parametrize("function", ["missing_barrier", "unordered_lanes", "racing_blocks"])
    def test_tsan_finds(self, function: str) -> None:
        run_sanitized("tsan", f"tests.kernels.test_host_cuda:{function}", expect="data race")
