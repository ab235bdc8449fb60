"""The CuPy of the tests: it refuses what CuPy refuses, and punishes what a device would punish."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_eval.engines.cuda import kernels
from gpu_eval.engines.cuda.cupy_device import CupyDevice
from tests.support.host_cuda.targets import open_target
from tests.support.host_cupy import HostCupy, device_of
from tests.support.host_cupy_objects import GARBAGE, Array, CUDARuntimeError


@pytest.fixture
def cupy() -> HostCupy:
    open_target("host-forward")
    return HostCupy(abilities=["90", "90"])


@pytest.fixture
def device(cupy: HostCupy) -> CupyDevice:
    return device_of(cupy)


class TestWorkWaits:
    def test_a_result_is_garbage_until_it_is_waited_for(self, device: CupyDevice) -> None:
        memory, result = device.allocate(4), device.pinned(4)
        with device.stream():
            device.zero(memory)
            device.download(memory, result)
            done = device.record()
        assert result.tolist() == [GARBAGE] * 4
        done.synchronize()
        assert result.tolist() == [0] * 4

    def test_host_memory_that_changes_too_early_is_what_arrives(self, device: CupyDevice) -> None:
        source, memory, result = device.pinned(2), device.allocate(2), device.pinned(2)
        source[:] = 1
        with device.stream():
            device.upload(source, memory)
            source[:] = 2
            device.download(memory, result)
            device.record().synchronize()
        assert result.tolist() == [2, 2]

    def test_host_memory_that_is_freed_too_early_is_garbage(self, device: CupyDevice) -> None:
        source, memory, result = device.pinned(2), device.allocate(2), device.pinned(2)
        source[:] = 1
        with device.stream():
            device.upload(source, memory)
            del source
            device.download(memory, result)
            device.record().synchronize()
        assert result.tolist() == [GARBAGE] * 2

    def test_an_eager_device_has_taken_it_by_then(self) -> None:
        device = device_of(HostCupy(eager=True))
        source, memory, result = device.pinned(2), device.allocate(2), device.pinned(2)
        source[:] = 1
        with device.stream():
            device.upload(source, memory)
            source[:] = 2
            device.download(memory, result)
        assert result.tolist() == [1, 1]

    def test_device_memory_that_is_freed_is_garbage_to_other_streams(self, cupy: HostCupy) -> None:
        array = cupy.asarray(np.zeros(2, np.uint8))
        kept, found = array.host, np.zeros(2, np.uint8)
        stream = cupy.cuda.Stream(non_blocking=True)
        number = stream.put(lambda: np.copyto(found, kept))
        del array
        cupy.current_stream().synchronize()
        stream.run_to(number)
        assert found.tolist() == [GARBAGE] * 2

    def test_streams_do_not_wait_for_each_other(self, device: CupyDevice) -> None:
        memory, result = device.allocate(1), device.pinned(1)
        with device.stream():
            device.zero(memory)
        with device.stream():
            device.download(memory, result)
            device.record().synchronize()
        assert result.tolist() == [GARBAGE]

    def test_time_between_events_needs_both_done(self, device: CupyDevice) -> None:
        with device.stream():
            begin, end = device.record(), device.record()
            with pytest.raises(CUDARuntimeError, match="NotReady"):
                device.seconds(begin, end)
            end.synchronize()
            assert device.seconds(begin, end) >= 0


class TestRefusals:
    def test_a_stream_is_entered_on_its_own_device_only(self, cupy: HostCupy) -> None:
        stream = cupy.cuda.Stream(non_blocking=True)
        with cupy.cuda.Device(1), pytest.raises(RuntimeError, match="does not match"), stream:
            pass

    def test_the_product_s_streams_bring_their_device(self, cupy: HostCupy) -> None:
        stream = device_of(cupy, 1).stream()
        with stream, stream:
            assert cupy.current_device == 1
        assert cupy.current_device == 0

    def test_memory_of_another_device_is_no_argument(self, cupy: HostCupy) -> None:
        module = cupy.RawModule(code=kernels.GATHER.source.text(), options=kernels.GATHER.source.options())
        with cupy.cuda.Device(1):
            array = cupy.zeros(4, np.uint8)
        with pytest.raises(CUDARuntimeError, match="a kernel of device 0 with memory of device 1"):
            module.get_function("gather")((1,), (32,), (array,))

    def test_host_arrays_are_no_arguments(self, cupy: HostCupy) -> None:
        module = cupy.RawModule(code=kernels.GATHER.source.text(), options=kernels.GATHER.source.options())
        with pytest.raises(TypeError, match="Unsupported type"):
            module.get_function("gather")((1,), (32,), (np.zeros(4),))

    def test_device_arrays_do_not_become_host_arrays_by_themselves(self, cupy: HostCupy) -> None:
        with pytest.raises(TypeError, match="Implicit conversion"):
            np.asarray(cupy.zeros(4, np.uint8))


def test_there_is_nothing_that_cupy_has_not(cupy: HostCupy) -> None:
    real = pytest.importorskip("cupy")
    for mine, theirs in ((cupy.cuda, real.cuda), (cupy.cuda.runtime, real.cuda.runtime)):
        for name in vars(mine):
            assert hasattr(theirs, name), name
    for name in ("asarray", "asnumpy", "ascontiguousarray", "from_dlpack", "ndarray", "zeros", "RawModule"):
        assert hasattr(real, name), name
    for name in dir(Array):
        assert name.startswith("_") or name == "host" or hasattr(real.ndarray, name), name
    for name in ("copy_from_host_async", "copy_to_host_async", "copy_from_device_async", "memset_async"):
        assert hasattr(real.cuda.MemoryPointer, name), name
