"""Whole runs on the CUDA engine, in processes that take the host executor for CuPy: alone and on clusters."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest

import gpu_eval
from gpu_eval.results.semantic_run import Run
from gpu_eval.scheduling.dask_cluster import connect
from tests.support.children import ROOT
from tests.support.commands import gpu_eval_process
from tests.support.dask_processes import DaskProcesses
from tests.support.host_cuda.targets import open_target
from tests.support.instance_split import InstanceFiles
from tests.support.run_tables import assert_same_tables
from tests.support.scoring import score
from tests.support.semantic_split import TinySplit

WITH_GPU = {"PYTHONPATH": str(ROOT / "tests" / "support" / "host_site")}


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    open_target("host-forward")


@pytest.fixture(scope="module")
def on_cpu(dozen: TinySplit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the CPU engine, which every run here must equal."""
    out = tmp_path_factory.mktemp("cpu") / "run"
    score(dozen, out, shard_size=1, engine="cpu")
    return out


def gpu_eval_with_a_gpu(*words: object) -> str:
    """What the command prints, standard error first."""
    done = gpu_eval_process(*words, environment=WITH_GPU)
    assert done.returncode == 0, done.stderr
    return done.stderr + done.stdout


def words_of(split: TinySplit, out: Path) -> list[object]:
    return ["score", split.gts, split.preds, "-o", out, "--res", "native", "--shard-size", 1]


def score_with_a_gpu(split: TinySplit, out: Path, *more: object) -> Run:
    gpu_eval_with_a_gpu(*words_of(split, out), *more)
    return gpu_eval.open_run(out)


def decoders(run: Run) -> set[str]:
    return set(run.images["decoder"].to_pylist())


assert_same_but_for_the_decoder = partial(assert_same_tables, but=["decoder"])


class TestAlone:
    def test_info_names_the_device(self) -> None:
        assert "Host executor (1 GiB, compute capability 9.0); CuPy 14.2.0" in gpu_eval_with_a_gpu("info")

    def test_auto_takes_the_device_and_gives_the_tables_of_the_cpu(
        self, dozen: TinySplit, on_cpu: Path, tmp_path: Path
    ) -> None:
        run = score_with_a_gpu(dozen, tmp_path / "run")
        assert run.facts["engine"]["name"] == "cuda"
        assert "Host executor" in run.facts["engine"]["why"]
        assert decoders(run) == {"cuda"}
        assert set(run.facts["workers"][0]["seconds"]) == {"read", "copy", "kernel", "write"}
        assert_same_but_for_the_decoder(on_cpu, tmp_path / "run")

    def test_a_run_of_the_cpu_is_finished_on_the_device(
        self, dozen: TinySplit, on_cpu: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"
        shutil.copytree(on_cpu, out)
        for part in sorted((out / "images").glob("part-*.parquet"))[4:]:
            part.unlink()
        run = score_with_a_gpu(dozen, out, "--resume", "--engine", "cuda")
        assert run.facts["images_resumed"] == 4
        assert decoders(run) == {"simd", "cuda"}
        assert_same_but_for_the_decoder(on_cpu, out)

    def test_instances_give_the_scores_of_the_cpu(self, instances: InstanceFiles, tmp_path: Path) -> None:
        theirs = score(instances, tmp_path / "cpu", engine="cpu")
        words = ("--engine", "cuda", "-o", tmp_path / "gpu")
        gpu_eval_with_a_gpu("instances", instances.gts, instances.preds, *words)
        run = gpu_eval.open_run(tmp_path / "gpu")
        assert run.facts["engine"]["name"] == "cuda"
        for name in ("scores", "classes", "instances"):  # by repr: NaN equals NaN there
            ours, cpus = (one.sql(f"SELECT * FROM {name} ORDER BY ALL") for one in (run, theirs))
            assert repr(ours.to_pylist()) == repr(cpus.to_pylist()), name

    def test_a_device_that_fails_is_one_line_and_the_run_goes_on_without_it(
        self, dozen: TinySplit, on_cpu: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "run"
        failing = {**WITH_GPU, "HOST_CUPY_FAILS": f"20:{tmp_path / 'failed'}"}
        done = gpu_eval_process(*words_of(dozen, out), environment=failing)
        assert done.returncode == 1
        (line,) = [line for line in done.stderr.splitlines() if "error" in line]
        assert "the CUDA device failed (found cudaErrorIllegalAddress" in line
        assert "--resume" in line
        assert "Traceback" not in done.stderr
        run = score_with_a_gpu(dozen, out, "--resume", "--engine", "cpu")
        assert run.facts["images_resumed"] > 0
        assert decoders(run) == {"simd", "cuda"}
        assert_same_but_for_the_decoder(on_cpu, out)


class TestOnClusters:
    def test_a_worker_per_gpu_gives_the_tables_of_the_cpu(
        self, dozen: TinySplit, on_cpu: Path, tmp_path: Path
    ) -> None:
        run = score_with_a_gpu(dozen, tmp_path / "run", "--gpus", "0,1")
        assert run.facts["engine"]["name"] == "cuda"
        assert run.facts["engine"]["device"].startswith("2 Dask workers on 1 hosts: Host executor")
        assert decoders(run) == {"cuda"}
        assert_same_but_for_the_decoder(on_cpu, tmp_path / "run")

    @pytest.mark.parametrize(("engine", "used"), [("cuda", {"cuda"}), ("auto", {"cuda", "simd"})])
    def test_of_workers_with_and_without_gpus_those_score_that_are_asked_for(
        self, dozen: TinySplit, on_cpu: Path, tmp_path: Path, dask: DaskProcesses, engine: str, used: set[str]
    ) -> None:
        dask.start_scheduler()
        dask.start_workers(1, environment=WITH_GPU, resources="GPU=1")
        dask.start_workers(1)
        with connect(scheduler_file=dask.scheduler_file) as client:
            client.wait_for_workers(2, timeout=60)
        words = ("--scheduler-file", dask.scheduler_file, "--engine", engine)
        run = score_with_a_gpu(dozen, tmp_path / "run", *words)
        assert decoders(run) == used
        assert_same_but_for_the_decoder(on_cpu, tmp_path / "run")

    def test_a_worker_dies_of_its_device_and_another_process_scores_the_shard(
        self, dozen: TinySplit, on_cpu: Path, tmp_path: Path, dask: DaskProcesses
    ) -> None:
        failed = tmp_path / "failed"
        dask.start_scheduler()
        dask.start_workers(1, environment={**WITH_GPU, "HOST_CUPY_FAILS": f"10:{failed}"})
        words = ("--scheduler-file", dask.scheduler_file, "--engine", "cuda")
        run = score_with_a_gpu(dozen, tmp_path / "run", *words)
        assert failed.exists()
        assert len(run.facts["workers"]) == 2  # the one that died, and the one that the nanny started
        assert_same_but_for_the_decoder(on_cpu, tmp_path / "run")
