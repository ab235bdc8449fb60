"""Which engine is taken and why; where no device serves, the reason is told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from gpu_eval.engines.choose import count_gpus, make_engine, survey
from gpu_eval.engines.cpu import engine as cpu
from gpu_eval.engines.cuda import cupy_device
from gpu_eval.engines.cuda import engine as cuda
from gpu_eval.errors import EngineUnavailable, OptionError
from tests.support.host_cupy import HostCupy


class TestChoice:
    def test_cuda_without_a_device_is_an_error_not_a_cpu_run(self) -> None:
        with pytest.raises(EngineUnavailable, match="--engine cpu gives the same integers"):
            make_engine("cuda")

    def test_auto_says_why_it_took_the_cpu(self) -> None:
        engine, why = make_engine("auto", threads=1)
        engine.close()
        assert engine.name == "cpu"
        assert "CUDA" in why

    def test_an_unknown_engine_is_refused(self) -> None:
        with pytest.raises(OptionError, match="auto or cpu or cuda"):
            make_engine("tpu")


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[HostCupy | None], None]:
    """Put a CuPy, or none, in place of the one that is here."""
    return lambda cupy: monkeypatch.setitem(sys.modules, "cupy", cupy)


class TestAvailability:
    @pytest.mark.parametrize(
        ("cupy", "told"),
        [
            (None, "CuPy is not installed; pip install 'gpu-eval[cuda12]'"),
            (HostCupy(driver=0), "there is no NVIDIA driver"),
            (HostCupy(no_device="cudaErrorNoDevice: no CUDA-capable device is detected"), "ErrorNoDevice"),
            (HostCupy(abilities=()), "there is no CUDA device"),
            (HostCupy(driver=12040, built_for=13000), "pip install 'gpu-eval[cuda12]' in its place"),
            (HostCupy(no_nvrtc="libnvrtc.so.12 not found\nmore"), "runtime compiler is missing"),
            (HostCupy(abilities=["70"]), "found compute capability 7.0, expected 7.5 or newer"),
        ],
    )
    def test_each_reason_is_one_line_that_says_what_to_do(
        self, install: Any, cupy: HostCupy | None, told: str
    ) -> None:
        install(cupy)
        serves, why, devices = cupy_device.available()
        assert (serves, devices) == (False, 0)
        assert told in why
        assert "\n" not in why
        assert "pip install" in why or "--engine cpu" in why

    def test_a_device_is_named_and_counted(self, install: Any) -> None:
        install(HostCupy(abilities=["90", "90"]))
        one = "Host executor (1 GiB, compute capability 9.0)"
        assert cupy_device.available() == (True, f"{one}, {one}; CuPy 14.2.0", 2)
        assert count_gpus() == 2
        assert [(status.name, status.devices) for status in survey()] == [("cpu", 0), ("cuda", 2)]

    def test_auto_takes_the_device_and_says_so(self, install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        install(HostCupy())
        made = []
        monkeypatch.setattr(cuda, "CudaEngine", lambda threads: made.append(threads) or "the engine")
        assert make_engine("auto", 3) == (
            "the engine",
            "a CUDA device: Host executor (1 GiB, compute capability 9.0); CuPy 14.2.0",
        )
        assert make_engine("cuda", 4) == ("the engine", "asked for")
        assert make_engine("cpu", 1)[0].name == "cpu"
        assert made == [3, 4]

    def test_asking_for_cuda_asks_no_other_engine(
        self, install: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install(HostCupy())
        monkeypatch.setattr(cuda, "CudaEngine", lambda _: "the engine")
        monkeypatch.setattr(cpu, "available", lambda: pytest.fail("the CPU engine was asked"))
        assert make_engine("cuda")[0] == "the engine"
        assert count_gpus() == 1

    def test_asking_for_cuda_without_a_device_is_an_error(self, install: Any) -> None:
        install(None)
        with pytest.raises(EngineUnavailable, match="CuPy is not installed"):
            make_engine("cuda")
        engine, why = make_engine("auto", 1)
        assert engine.name == "cpu"
        assert "CuPy is not installed" in why
        engine.close()
