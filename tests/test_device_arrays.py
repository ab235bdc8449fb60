"""Label arrays in device memory are counted where they are; where no device serves, the reason is told."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpu_eval
from gpu_eval import meter
from gpu_eval.engines import cuda, pipeline_arrays
from gpu_eval.engines.cuda import CudaEngine, is_on_device
from gpu_eval.engines.engine import count_gpus, make_engine, make_task, survey
from gpu_eval.engines.pipeline_arrays import DeviceLabels, count_labels, flat_shape
from gpu_eval.errors import EngineUnavailable, OptionError
from gpu_eval.labels import load_labels
from tests.support.host_cuda.targets import TARGETS, open_target
from tests.support.host_device import HostDevice

IDD = load_labels("idd")
TASK = make_task(IDD)
DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]

Labels = npt.NDArray[np.integer]


@pytest.fixture(scope="module")
def device() -> HostDevice:
    open_target("host-forward")
    return HostDevice()


def in_memory(array: Labels) -> DeviceLabels:
    """A contiguous array as the engine describes it."""
    rows, width, _ = flat_shape(array.shape)
    memory = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return DeviceLabels(memory, array.dtype, rows, width, width * array.itemsize)


def random_labels(rng: np.random.Generator, shape: list[int], dtype: str) -> Labels:
    info = np.iinfo(dtype)
    return rng.integers(max(info.min, -3), min(info.max, 300), shape, dtype, endpoint=True)


def literal(gt: Labels, pred: Labels) -> list[list[int]]:
    """Rows gt, columns prediction; index 26 void, index 27 outside."""
    sides = []
    for side in (gt, pred):
        values = side.astype(object).ravel().tolist()
        sides.append([int(TASK.gt_table[value]) if 0 <= value < 256 else 27 for value in values])
    joint = np.zeros((28, 28), np.int64)
    np.add.at(joint, tuple(np.array(side, np.int64) for side in sides), 1)
    return joint.tolist()


class TestInPlace:
    @given(
        shape=st.lists(st.integers(0, 20), min_size=0, max_size=4),
        dtypes=st.tuples(st.sampled_from(DTYPES), st.sampled_from(DTYPES)),
        seed=st.integers(0, 2**32),
    )
    def test_any_shape_and_integer_type_counts_literally(
        self, device: HostDevice, shape: list[int], dtypes: tuple[str, str], seed: int
    ) -> None:
        rng = np.random.default_rng(seed)
        gt, pred = (random_labels(rng, shape, dtype) for dtype in dtypes)
        left_over = flat_shape(gt.shape)[2]
        counted = count_labels(device, in_memory(gt), in_memory(pred), TASK, left_over)
        assert counted.tolist() == literal(gt, pred)

    @pytest.mark.parametrize("size", [1, 2047, 2048, 2049, 10_000])
    def test_flat_arrays_are_counted_to_the_last_label(self, device: HostDevice, size: int) -> None:
        rng = np.random.default_rng(size)
        gt, pred = (rng.integers(0, 28, size, np.uint8) for _ in range(2))
        left_over = flat_shape(gt.shape)[2]
        counted = count_labels(device, in_memory(gt), in_memory(pred), TASK, left_over)
        assert counted.tolist() == literal(gt, pred)

    def test_arrays_beyond_the_kernels_counters_are_cut_into_jobs(
        self, device: HostDevice, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pipeline_arrays, "MOST_PIXELS", 70)
        rng = np.random.default_rng(0)
        gt, pred = (rng.integers(0, 28, (23, 30), np.int16) for _ in range(2))
        assert count_labels(device, in_memory(gt), in_memory(pred), TASK).tolist() == literal(gt, pred)

    def test_rows_that_are_apart_are_not_copied(self, device: HostDevice) -> None:
        whole = np.random.default_rng(1).integers(0, 28, (12, 50), np.int32)
        gt, pred = whole[:, :33], whole[:, 17:]
        sides = [
            DeviceLabels(
                np.ascontiguousarray(whole).reshape(-1).view(np.uint8)[at * 4 :], whole.dtype, 12, 33, 200
            )
            for at in (0, 17)
        ]
        assert count_labels(device, sides[0], sides[1], TASK).tolist() == literal(gt, pred)

    def test_host_arrays_are_uploaded(self, device: HostDevice) -> None:
        engine = CudaEngine(threads=1, device=device)
        base = np.random.default_rng(2).integers(0, 30, (40, 130), np.uint8)
        gt, pred = base[:, ::2], base[:, 1::2]
        assert engine.confusion(gt, pred, TASK).tolist() == literal(gt, pred)
        assert not engine.confusion(gt[:0], pred[:0], TASK).any()
        engine.close()


class OnDevice:
    """An array that says it is in CUDA memory, as torch's and CuPy's do."""

    dtype = np.dtype(np.uint8)
    shape = (3,)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)

    def __array__(self, *args: object, **kwargs: object) -> npt.NDArray[Any]:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


class WithInterface:
    __cuda_array_interface__: dict[str, Any] = {}  # noqa: RUF012


class TestWhereItIs:
    def test_device_memory_is_told_from_host_memory(self) -> None:
        torch = pytest.importorskip("torch")
        host = [np.zeros(3), [1, 2], torch.zeros(3), np.uint8(3), 5]
        assert [is_on_device(values) for values in host] == [False] * 5
        assert is_on_device(OnDevice())
        assert is_on_device(WithInterface())

    def test_an_array_on_a_device_that_cannot_serve_is_refused_with_the_reason(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cuda, "available", lambda: (False, "CuPy is not installed", 0))
        meter._device_engine.cache_clear()
        with pytest.raises(EngineUnavailable, match="CuPy is not installed"):
            gpu_eval.confusion_matrix(OnDevice(), OnDevice())
        with pytest.raises(EngineUnavailable, match="CuPy is not installed"):
            gpu_eval.ConfusionMeter("idd").update(np.zeros(3, np.uint8), OnDevice())


class FakeCudaError(RuntimeError):
    pass


def fake_cupy(
    *,
    count: int | str = 1,
    driver: int = 12040,
    built_for: int = 12090,
    ability: str = "90",
    nvrtc: str | None = None,
) -> types.ModuleType:
    """As much of CuPy as `available` asks; texts are errors."""

    def device_count() -> int:
        if isinstance(count, str):
            raise FakeCudaError(count)
        return count

    def nvrtc_version() -> tuple[int, int]:
        if nvrtc is not None:
            raise RuntimeError(nvrtc)
        return (12, 9)

    major, minor = int(ability[:-1]), int(ability[-1])
    properties = {"name": b"Fake H100", "totalGlobalMem": 80 * 2**30, "major": major, "minor": minor}
    cupy: Any = types.ModuleType("cupy")
    cupy.__version__ = "14.2.0"
    cupy.cuda = types.SimpleNamespace(
        Device=lambda _: types.SimpleNamespace(compute_capability=ability),
        nvrtc=types.SimpleNamespace(getVersion=nvrtc_version),
        runtime=types.SimpleNamespace(
            CUDARuntimeError=FakeCudaError,
            getDeviceCount=device_count,
            driverGetVersion=lambda: driver,
            runtimeGetVersion=lambda: built_for,
            getDeviceProperties=lambda _: properties,
        ),
    )
    return cupy


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[types.ModuleType | None], None]:
    """Put a CuPy, or none, in place of the one that is here."""

    def put(cupy: types.ModuleType | None) -> None:
        spec = None if cupy is None else object()
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
        monkeypatch.setitem(sys.modules, "cupy", cupy)

    return put


class TestAvailability:
    @pytest.mark.parametrize(
        ("cupy", "told"),
        [
            (None, "CuPy is not installed; pip install 'gpu-eval[cuda12]'"),
            (fake_cupy(driver=0), "there is no NVIDIA driver"),
            (fake_cupy(count="cudaErrorNoDevice: no CUDA-capable device is detected"), "ErrorNoDevice"),
            (fake_cupy(count=0), "there is no CUDA device"),
            (fake_cupy(driver=12040, built_for=13000), "pip install 'gpu-eval[cuda12]' in its place"),
            (fake_cupy(nvrtc="libnvrtc.so.12 not found\nmore"), "runtime compiler is missing"),
            (fake_cupy(ability="70"), "found compute capability 7.0, expected 7.5 or newer"),
        ],
    )
    def test_each_reason_is_one_line_that_says_what_to_do(
        self, install: Any, cupy: types.ModuleType | None, told: str
    ) -> None:
        install(cupy)
        serves, why, devices = cuda.available()
        assert (serves, devices) == (False, 0)
        assert told in why
        assert "\n" not in why
        assert "pip install" in why or "--engine cpu" in why

    def test_a_device_is_named_and_counted(self, install: Any) -> None:
        install(fake_cupy(count=2))
        one = "Fake H100 (80 GiB, compute capability 9.0)"
        assert cuda.available() == (True, f"{one}, {one}; CuPy 14.2.0", 2)
        assert count_gpus() == 2
        assert [(status.name, status.devices) for status in survey()] == [("cpu", 0), ("cuda", 2)]

    def test_auto_takes_the_device_and_says_so(self, install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        install(fake_cupy())
        made = []
        monkeypatch.setattr(cuda, "CudaEngine", lambda threads: made.append(threads) or "the engine")
        assert make_engine("auto", 3) == (
            "the engine",
            "a CUDA device: Fake H100 (80 GiB, compute capability 9.0); CuPy 14.2.0",
        )
        assert make_engine("cuda", 4) == ("the engine", "asked for")
        assert make_engine("cpu", 1)[0].name == "cpu"
        assert made == [3, 4]

    def test_asking_for_cuda_without_a_device_is_an_error(self, install: Any) -> None:
        install(None)
        with pytest.raises(EngineUnavailable, match="CuPy is not installed"):
            make_engine("cuda")
        engine, why = make_engine("auto", 1)
        assert engine.name == "cpu"
        assert "CuPy is not installed" in why
        engine.close()


@pytest.mark.parametrize("target", [TARGETS[-1]])
class TestOnADevice:
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_cupy_arrays_count_like_numpy_arrays(self, target: str, dtype: str) -> None:
        open_target(target)
        import cupy

        rng = np.random.default_rng(3)
        gt, pred = (random_labels(rng, [3, 70, 130], dtype) for _ in range(2))
        expected = gpu_eval.confusion_matrix(gt, pred)
        on_device = [cupy.asarray(side) for side in (gt, pred)]
        assert np.array_equal(gpu_eval.confusion_matrix(*on_device), expected)
        views = [side[1, :, 3:100] for side in on_device]
        expected = gpu_eval.confusion_matrix(gt[1, :, 3:100], pred[1, :, 3:100])
        assert np.array_equal(gpu_eval.confusion_matrix(*views), expected)

    def test_torch_tensors_on_a_stream_of_their_own_are_counted_after_its_work(self, target: str) -> None:
        open_target(target)
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("torch is built without CUDA")
        stream = torch.cuda.Stream()
        gt = torch.randint(0, 26, (8, 512, 1024), dtype=torch.uint8)
        with torch.cuda.stream(stream):
            logits = torch.nn.functional.one_hot(gt.cuda().long(), 26).permute(0, 3, 1, 2).float()
            matrix = gpu_eval.confusion_matrix(gt.cuda(), logits.argmax(1))
        assert np.array_equal(np.diag(matrix), np.bincount(gt.numpy().ravel(), minlength=27))

    def test_one_side_on_the_device_is_refused(self, target: str) -> None:
        open_target(target)
        import cupy

        with pytest.raises(OptionError, match="pred is not on the device"):
            gpu_eval.confusion_matrix(cupy.zeros(3, np.uint8), np.zeros(3, np.uint8))

    def test_floats_are_refused(self, target: str) -> None:
        open_target(target)
        import cupy

        with pytest.raises(OptionError, match="argmax"):
            gpu_eval.confusion_matrix(cupy.zeros(3, np.float32), cupy.zeros(3, np.uint8))
