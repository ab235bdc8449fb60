"""The benchmark of the CUDA engine and the script of all device checks, rehearsed on the host executor."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import __main__ as command_line
from bench import gpu, gpu_smoke, host
from gpu_eval.engines.cuda import cupy_device
from gpu_eval.engines.cuda.engine import CudaEngine
from tests.support.host_cuda.targets import open_target
from tests.support.host_cupy import HostCupy, device_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("start", ["bench", "bench.gpu"])
def test_options_have_the_split_of_the_benchmark_as_defaults(
    monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    asked: list[gpu.Options] = []
    monkeypatch.setattr(gpu, "run", lambda options: asked.append(options) or 0)

    def call(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["bench", "gpu", *words])
        return command_line.main() if start == "bench" else gpu.main(list(words))

    assert call() == 0
    assert call("--pairs", "8", "--parts", "kernels", "--out", "x.json") == 0
    assert (asked[0].pairs, asked[0].batches) == (4038, [64, 512, 4096])
    assert asked[0].parts == ["kernels", "inflate", "split", "rivals"]
    assert (asked[1].pairs, asked[1].parts, asked[1].out) == (8, ["kernels"], Path("x.json"))


@pytest.mark.parametrize("main", [lambda: gpu.main([]), gpu_smoke.main])
def test_without_a_device_the_reason_is_told_and_the_exit_code_is_2(
    main: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cupy_device, "available", lambda: (False, "no [cuda] here", 0))
    assert callable(main)
    assert main() == 2
    assert "needs a device: no [cuda] here" in capsys.readouterr().out


def test_smoke_test_finds_the_engines_equal() -> None:
    open_target("host-forward")
    assert gpu_smoke.compare(CudaEngine(threads=1, device=device_of(HostCupy()))) == []


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """The script of all device checks, small, with the host executor in the device's place."""
    open_target("host-forward")
    out = tmp_path_factory.mktemp("out")
    environment = {
        **os.environ,
        "OUT": str(out),
        "PYTHON": sys.executable,
        "PYTHONPATH": "tests/support/host_site",
    }
    script = ["bash", "bench/device_checks.sh", "--small"]
    done = subprocess.run(script, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    return done, out


class TestDeviceChecks:
    def test_every_step_passes(self, rehearsal: tuple[subprocess.CompletedProcess[str], Path]) -> None:
        done, out = rehearsal
        steps = ["device", "smoke", "tests", "bench_kernels", "bench_split"]
        for step in steps:
            assert f"-- {step}: exit code 0" in done.stdout, done.stdout
        if shutil.which("compute-sanitizer") is None:
            assert done.stdout.endswith("failed: memcheck racecheck\n"), done.stdout
            assert done.returncode == 1
        assert "equal to the CPU engine" in (out / "checks.log").read_text()

    def test_the_results_come_back_as_json(
        self, rehearsal: tuple[subprocess.CompletedProcess[str], Path]
    ) -> None:
        out = rehearsal[1]
        kernels, split = (json.loads((out / f"gpu_{name}.json").read_text()) for name in ("kernels", "split"))
        assert (
            kernels["device"]
            == split["device"]
            == "Host executor (1 GiB, compute capability 9.0); CuPy 14.2.0"
        )
        assert {row["kernel"] for row in kernels["writers"][0]["kernels"]} == {
            "inflate", "unfilter", "confusion", "all"
        }  # fmt: skip
        assert [row["batch"] for row in kernels["writers"][0]["inflate"]] == [4]
        rows = {(row["contestant"], row["from"]) for row in split["split"] if "missing" not in row}
        ours = ("gpu-eval, CUDA engine", "gpu-eval score, CUDA engine")
        assert rows >= {(contestant, place) for contestant in ours for place in ("folder", "tar")}

    def test_without_a_device_it_says_so(self, tmp_path: Path) -> None:
        if cupy_device.available()[0]:
            pytest.skip("there is a device")
        environment = {**os.environ, "OUT": str(tmp_path), "PYTHON": sys.executable}
        script = ["bash", "bench/device_checks.sh"]
        done = subprocess.run(script, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert done.stdout.endswith("no device: nothing was checked\n")

    def test_other_words_are_refused(self) -> None:
        script = ["bash", "bench/device_checks.sh", "--smal"]
        done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (2, "usage: bench/device_checks.sh [--small]\n")


def test_the_host_s_side_is_measured_on_real_counts(tmp_path: Path) -> None:
    assert host.run(pairs=20, repeat=1, out=tmp_path / "host.json") == 0
    rows = json.loads((tmp_path / "host.json").read_text())["rows"]
    assert {(row["what"], row["from"]) for row in rows} == {
        (what, place) for what in ("engine", "whole run") for place in ("folder", "tar")
    }
    assert all(row["pairs_per_s"] > 0 for row in rows)
