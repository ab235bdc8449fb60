"""The places a kernel suite runs in: the host in three schedules, and a device.

The fixture `target` of `tests/kernels` is each of them in turn. A suite loads its kernels with
`target.load(kernels.INFLATE_CU)`, gives arrays in with `target.put` and takes results with `target.get`; it
is the same suite on every target.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pytest

from gpu_eval.engines.cuda import cupy_device, kernels
from tests.support.host_cuda import build

SEED = 20240229


def _device_marks() -> list[pytest.MarkDecorator]:
    serves, why, _ = cupy_device.available()
    return [pytest.mark.gpu, *([] if serves else [pytest.mark.skip(reason=f"no device tests: {why}")])]


TARGETS = [
    *(f"host-{schedule}" for schedule in build.SCHEDULES),
    pytest.param("device", marks=_device_marks()),
]


class Target(Protocol):
    """Where kernels run."""

    name: str

    def load(self, source: kernels.Source) -> kernels.Module: ...

    def put(self, array: npt.NDArray[Any]) -> Any:
        """The array where the kernels see it: a copy, C-contiguous."""
        ...

    def get(self, array: Any) -> npt.NDArray[Any]:
        """The array back as NumPy, once all launches have finished."""
        ...


class HostTarget:
    """The host executor, in one schedule and one sanitizer mode."""

    def __init__(self, schedule: str, *, mode: str = "plain", seed: int = SEED) -> None:
        self.name = f"host-{schedule}"
        self.schedule, self.mode, self.seed = schedule, mode, seed

    def load(self, source: kernels.Source) -> kernels.Module:
        return build.load(
            source.text(),
            source.options(),
            schedule=self.schedule,
            seed=self.seed,
            mode=self.mode,
            name=f"kernels/{source.file}",
        )

    def put(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.array(array, order="C", copy=True)

    def get(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return array


class DeviceTarget:
    """The first CUDA device, through CuPy."""

    name = "device"

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy

    def load(self, source: kernels.Source) -> kernels.Module:
        module: kernels.Module = self._cupy.RawModule(code=source.text(), options=source.options())
        return module

    def put(self, array: npt.NDArray[Any]) -> Any:
        return self._cupy.asarray(np.ascontiguousarray(array))

    def get(self, array: Any) -> npt.NDArray[Any]:
        host: npt.NDArray[Any] = self._cupy.asnumpy(array)
        return host


def open_target(name: str) -> Target:
    """The target of this name; skips the test where it does not exist here."""
    if name == "device":
        return DeviceTarget()
    reason = build.why_not()
    if reason:
        pytest.skip(reason)
    return HostTarget(name.removeprefix("host-"))
