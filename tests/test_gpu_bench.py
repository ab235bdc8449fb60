"""The benchmark of the CUDA engine as far as it goes without a device: options, refusal, the smoke test."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import gpu, gpu_smoke
from gpu_eval.engines import cuda
from gpu_eval.engines.cuda import CudaEngine
from tests.support.host_cuda.targets import open_target
from tests.support.host_device import HostDevice


def test_options_have_the_split_of_the_benchmark_as_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(gpu, "run", lambda **options: asked.append(options) or 0)
    assert gpu.main([]) == 0
    assert gpu.main(["--pairs", "8", "--parts", "kernels", "--out", "x.json"]) == 0
    assert asked[0]["pairs"] == 4038
    assert asked[0]["parts"] == ["kernels", "inflate", "split", "rivals"]
    assert (asked[1]["pairs"], asked[1]["parts"], asked[1]["out"]) == (8, ["kernels"], Path("x.json"))


@pytest.mark.parametrize("main", [lambda: gpu.main([]), gpu_smoke.main])
def test_without_a_device_the_reason_is_told_and_the_exit_code_is_2(
    main: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cuda, "available", lambda: (False, "no [cuda] here", 0))
    assert callable(main)
    assert main() == 2
    assert "needs a device: no [cuda] here" in capsys.readouterr().out


def test_smoke_test_finds_the_engines_equal() -> None:
    open_target("host-forward")
    assert gpu_smoke.compare(CudaEngine(threads=1, device=HostDevice())) == []
