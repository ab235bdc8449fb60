"""Label arrays in device memory are counted where they are."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpu_eval
from bench import gpu_smoke
from gpu_eval.engines.cpu.arrays import count_arrays
from gpu_eval.engines.cuda import arrays
from gpu_eval.engines.cuda.arrays import confusion_on_device, is_on_device
from gpu_eval.engines.cuda.engine import CudaEngine
from gpu_eval.engines.semantic import make_job
from gpu_eval.errors import DeviceFailed, EngineUnavailable, OptionError
from gpu_eval.labels import load_labels
from tests.support.host_cuda.targets import TARGETS, open_target
from tests.support.host_cupy import HostCupy, installed
from tests.support.host_cupy_objects import Array

IDD = load_labels("idd")
JOB = make_job(IDD)
DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]

Labels = npt.NDArray[np.integer]


@pytest.fixture(scope="module", params=["late", "eager", TARGETS[-1]])
def cupy(request: pytest.FixtureRequest) -> Iterator[Any]:
    """CuPy on the host executor, which works as late or as early as it may, and on a device."""
    if request.param == "device":
        open_target("device")
        yield importlib.import_module("cupy")
        return
    open_target("host-forward")
    with installed(HostCupy(eager=request.param == "eager", abilities=["90", "90"])):
        yield importlib.import_module("cupy")


@pytest.fixture(autouse=True)
def _forget_devices() -> Iterator[None]:
    """Devices that the product keeps belong to the CuPy of their test."""
    arrays._device.cache_clear()
    yield
    arrays._device.cache_clear()


def random_labels(rng: np.random.Generator, shape: list[int], dtype: str) -> Labels:
    info = np.iinfo(dtype)
    return rng.integers(max(info.min, -3), min(info.max, 300), shape, dtype, endpoint=True)


def literal(gt: Labels, pred: Labels) -> list[list[int]]:
    """Rows gt, columns prediction; index 26 void, index 27 outside."""
    sides = []
    for side in (gt, pred):
        values = side.astype(object).ravel().tolist()
        sides.append([int(JOB.gt_table[value]) if 0 <= value < 256 else 27 for value in values])
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
        self, cupy: Any, shape: list[int], dtypes: tuple[str, str], seed: int
    ) -> None:
        rng = np.random.default_rng(seed)
        gt, pred = (random_labels(rng, shape, dtype) for dtype in dtypes)
        counted = confusion_on_device(cupy.asarray(gt), cupy.asarray(pred), JOB)
        assert counted.tolist() == literal(gt, pred)

    @pytest.mark.parametrize("size", [1, 2047, 2048, 2049, 10_000])
    def test_flat_arrays_are_counted_to_the_last_label(self, cupy: Any, size: int) -> None:
        rng = np.random.default_rng(size)
        gt, pred = (rng.integers(0, 28, size, np.uint8) for _ in range(2))
        counted = confusion_on_device(cupy.asarray(gt), cupy.asarray(pred), JOB)
        assert counted.tolist() == literal(gt, pred)

    def test_arrays_beyond_the_kernels_counters_are_cut_into_jobs(
        self, cupy: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(arrays, "MOST_PIXELS", 70)
        rng = np.random.default_rng(0)
        gt, pred = (rng.integers(0, 28, (23, 30), np.int16) for _ in range(2))
        counted = confusion_on_device(cupy.asarray(gt), cupy.asarray(pred), JOB)
        assert counted.tolist() == literal(gt, pred)

    def test_rows_that_are_apart_are_not_copied(self, cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cupy, "ascontiguousarray", None)
        whole = np.random.default_rng(1).integers(0, 28, (12, 50), np.int32)
        on_device = cupy.asarray(whole)
        counted = confusion_on_device(on_device[:, :33], on_device[:, 17:], JOB)
        assert counted.tolist() == literal(whole[:, :33], whole[:, 17:])

    def test_views_that_skip_are_made_contiguous(self, cupy: Any) -> None:
        whole = np.random.default_rng(4).integers(0, 28, (3, 70, 130), np.uint8)
        on_device = cupy.asarray(whole)
        counted = gpu_eval.confusion_matrix(on_device[1, :, 3:100], on_device[2, ::-1, 3:100])
        expected = gpu_eval.confusion_matrix(whole[1, :, 3:100], whole[2, ::-1, 3:100])
        assert np.array_equal(counted, expected)

    def test_work_on_the_callers_stream_comes_first(self, cupy: Any) -> None:
        gt, pred = (random_labels(np.random.default_rng(5), [40, 50], "uint8") for _ in range(2))
        with cupy.cuda.Stream(non_blocking=True):
            counted = confusion_on_device(cupy.asarray(gt), cupy.asarray(pred), JOB)
        assert counted.tolist() == literal(gt, pred)

    def test_one_side_on_the_device_is_refused(self, cupy: Any) -> None:
        with pytest.raises(OptionError, match="pred is not on the device"):
            gpu_eval.confusion_matrix(cupy.zeros(3, np.uint8), np.zeros(3, np.uint8))

    def test_floats_are_refused(self, cupy: Any) -> None:
        with pytest.raises(OptionError, match="gives labels, if these are whole numbers"):
            gpu_eval.confusion_matrix(cupy.zeros(3, np.float32), cupy.zeros(3, np.uint8))
        with pytest.raises(OptionError, match=r"pred\.argmax\(1\) gives labels"):
            gpu_eval.confusion_matrix(cupy.zeros((2, 4, 5), np.uint8), cupy.zeros((2, 26, 4, 5), np.float32))

    def test_bools_count_as_0_and_1(self, cupy: Any) -> None:
        gt = cupy.asarray(np.array([[True, False, True]]))
        assert gpu_eval.confusion_matrix(gt, gt, labels=2).tolist() == [[1, 0, 0], [0, 2, 0], [0, 0, 0]]

    def test_one_axis_too_many_is_told_to_be_squeezed(self, cupy: Any) -> None:
        with pytest.raises(OptionError, match=r"pred\.squeeze\(1\) gives pred the shape of gt"):
            gpu_eval.confusion_matrix(cupy.zeros((2, 4, 5), np.uint8), cupy.zeros((2, 1, 4, 5), np.uint8))

    def test_floats_that_cupy_has_no_name_for_are_told_before_it_sees_them(self, cupy: Any) -> None:
        class Half(OnDevice):
            dtype: Any = "torch.bfloat16"
            shape: Any = (2, 26, 4, 5)

        with pytest.raises(OptionError, match=r"pred\.argmax\(1\) gives labels"):
            gpu_eval.confusion_matrix(cupy.zeros((2, 4, 5), np.uint8), Half())

    def test_colours_are_told_to_leave_the_device(self, cupy: Any) -> None:
        gt, pred = cupy.zeros((4, 5), np.uint8), cupy.zeros((4, 5, 3), np.uint8)
        with pytest.raises(OptionError, match=r"pred\.cpu\(\)"):
            gpu_eval.confusion_matrix(gt, pred, pred_encoding="colour")

    def test_shapes_that_differ_are_refused(self, cupy: Any) -> None:
        with pytest.raises(OptionError, match="shape"):
            gpu_eval.confusion_matrix(cupy.zeros((3, 4), np.uint8), cupy.zeros((4, 3), np.uint8))

    @given(seed=st.integers(0, 2**32), skip=st.integers(1, 3))
    def test_arrays_count_as_in_host_memory(self, cupy: Any, seed: int, skip: int) -> None:
        base = np.random.default_rng(seed).integers(0, 30, (40, 130), np.uint8)
        gt, pred = base[:, ::skip], base[::-1, ::skip]
        counted = confusion_on_device(cupy.asarray(gt), cupy.asarray(pred), JOB)
        assert np.array_equal(counted, count_arrays(gt, pred, JOB))


def test_a_device_that_fails_under_arrays_says_so_every_time() -> None:
    open_target("host-forward")
    made = HostCupy(fails_at=1)
    with installed(made):
        sides = [made.zeros((9, 9), np.uint8) for _ in range(2)]
        for _ in range(2):
            with pytest.raises(DeviceFailed, match=r"device failed \(found cudaErrorIllegalAddress"):
                confusion_on_device(*sides, JOB)


class Tensor:
    """A tensor of another library: it lends its memory through DLPack, and has work of its own in hand."""

    def __init__(self, cupy: HostCupy, labels: Labels) -> None:
        self.array = cupy.ndarray(labels.shape, labels.dtype)
        self._stream = cupy.cuda.Stream(non_blocking=True)
        target = self.array.host
        self._written = self._stream.put(lambda: np.copyto(target, labels))
        self.told: list[int] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def __dlpack__(self, *, stream: int) -> Array:
        """The memory; the consumer's stream waits for the work in hand, as DLPack asks."""
        self.told.append(stream)
        self._stream.run_to(self._written)
        return self.array


class TestSeveralDevices:
    """As one process per device trains: everything is on device 1 and device 0 is somebody else's."""

    @pytest.fixture
    def two(self, monkeypatch: pytest.MonkeyPatch) -> HostCupy:
        open_target("host-forward")
        made = HostCupy(abilities=["90", "90"])
        monkeypatch.setitem(sys.modules, "cupy", made)
        return made

    @pytest.mark.parametrize("current", [0, 1])
    def test_arrays_are_counted_on_their_own_device(self, two: HostCupy, current: int) -> None:
        gt, pred = (random_labels(np.random.default_rng(6), [9, 11], "uint8") for _ in range(2))
        with two.cuda.Device(1):
            sides = [two.asarray(side) for side in (gt, pred)]
        with two.cuda.Device(current):
            # On CuPy's stream of device 1, whatever the current device is.
            assert confusion_on_device(*sides, JOB).tolist() == literal(gt, pred)

    def test_tensors_of_another_library_tell_their_device(self, two: HostCupy) -> None:
        gt, pred = (random_labels(np.random.default_rng(7), [9, 11], "int64") for _ in range(2))
        with two.cuda.Device(1):
            sides = [Tensor(two, side) for side in (gt, pred)]
            stream = two.current_stream().ptr
        assert confusion_on_device(*sides, JOB).tolist() == literal(gt, pred)
        assert [side.told for side in sides] == [[stream], [stream]]

    def test_arrays_on_two_devices_are_refused(self, two: HostCupy) -> None:
        gt = two.zeros((3, 4), np.uint8)
        with two.cuda.Device(1):
            pred = two.zeros((3, 4), np.uint8)
        with pytest.raises(OptionError, match="CUDA devices 0 and 1"):
            gpu_eval.confusion_matrix(gt, pred)

    def test_arrays_on_a_device_that_is_too_old_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = HostCupy(abilities=["61", "90"])
        monkeypatch.setitem(sys.modules, "cupy", made)
        with pytest.raises(EngineUnavailable, match=r"CUDA device 0 is too old .*expected one of 1"):
            gpu_eval.confusion_matrix(made.zeros(3, np.uint8), made.zeros(3, np.uint8))

    def test_an_engine_passes_over_a_device_that_is_too_old(self, monkeypatch: pytest.MonkeyPatch) -> None:
        open_target("host-forward")
        made = HostCupy(abilities=["61", "90"])
        monkeypatch.setitem(sys.modules, "cupy", made)
        assert gpu_smoke.compare(CudaEngine(threads=1)) == []
        assert made.current_device == 0


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
        monkeypatch.setitem(sys.modules, "cupy", None)
        with pytest.raises(EngineUnavailable, match="CuPy is not installed"):
            gpu_eval.confusion_matrix(OnDevice(), OnDevice())
        with pytest.raises(EngineUnavailable, match="CuPy is not installed"):
            gpu_eval.ConfusionMeter("idd").update(np.zeros(3, np.uint8), OnDevice())


@pytest.mark.parametrize("target", [TARGETS[-1]])
class TestOnADevice:
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
