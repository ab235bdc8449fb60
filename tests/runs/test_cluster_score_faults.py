"""What the run of a split survives on a Dask cluster: killed workers, drivers and schedulers, a full disk."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

import gpu_eval
from gpu_eval import errors
from tests.support.children import child_environment
from tests.support.commands import command_line
from tests.support.dask_processes import DaskProcesses
from tests.support.faults import FAULTS
from tests.support.run_tables import assert_same_tables
from tests.support.scoring import score
from tests.support.semantic_split import TinySplit
from tests.support.stopped_runs import identity
from tests.support.toy_work import wait_for

SLOW = {"PYTHONPATH": FAULTS, "GPU_EVAL_SLOW": "0.15"}


def start(split: TinySplit, out: Path, dask: DaskProcesses, *more: object) -> subprocess.Popen[str]:
    """A driver, a shard an image; ended with the cluster if a test does not come to its end."""
    words = ("score", split.gts, split.preds, "-o", out, "--res", "native", "--shard-size", 1)
    driver = subprocess.Popen(
        command_line(*words, "--scheduler-file", dask.scheduler_file, *more),
        env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    dask.processes.append(driver)  # type: ignore[arg-type]
    return driver


def finish(driver: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code and what it told on standard error."""
    _, complaints = driver.communicate(timeout=120)
    return driver.returncode, complaints


def parts(out: Path) -> list[Path]:
    return sorted((out / "images").glob("part-*.parquet"))


def worker_pid(nanny: subprocess.Popen[bytes]) -> int | None:
    """The worker process that `dask worker` has running, if there is one just now."""
    for child in psutil.Process(nanny.pid).children(recursive=True):
        with suppress(psutil.Error):  # it has died meanwhile
            if any("spawn_main" in word for word in child.cmdline()):
                return child.pid
    return None


class TestFaults:
    def test_worker_killed_three_times_leaves_the_run_exact(
        self, dozen: TinySplit, alone: Path, tmp_path: Path, dask: DaskProcesses
    ) -> None:
        dask.start_scheduler(allowed_failures=10)
        nanny = dask.start_workers(1, environment=SLOW)
        out = tmp_path / "run"
        driver = start(dozen, out, dask)
        for kills in range(1, 4):
            wait_for(lambda done=3 * kills - 2: len(parts(out)) >= done)
            victim = worker_pid(nanny)
            assert victim is not None
            os.kill(victim, signal.SIGKILL)
            wait_for(lambda dead=victim: worker_pid(nanny) not in (None, dead))
        code, complaints = finish(driver)
        assert code == 0, complaints
        assert_same_tables(alone, out)

    def test_driver_killed_is_resumed_without_scoring_twice(
        self, dozen: TinySplit, alone: Path, tmp_path: Path, dask: DaskProcesses
    ) -> None:
        dask.start_scheduler()
        dask.start_workers(1, environment=SLOW)
        out = tmp_path / "run"
        driver = start(dozen, out, dask)
        wait_for(lambda: len(parts(out)) >= 3)
        driver.kill()
        finish(driver)
        before = {path: identity(path) for path in parts(out)}
        with pytest.raises(errors.IncompleteRun):
            gpu_eval.open_run(out)
        code, complaints = finish(start(dozen, out, dask, "--resume"))
        assert code == 0, complaints
        assert {path: identity(path) for path in before} == before
        assert gpu_eval.open_run(out).facts["images_resumed"] >= 3
        assert_same_tables(alone, out)

    def test_scheduler_killed_names_the_command_that_resumes(
        self, dozen: TinySplit, alone: Path, tmp_path: Path, dask: DaskProcesses
    ) -> None:
        scheduler = dask.start_scheduler()
        dask.start_workers(1, environment=SLOW)
        out = tmp_path / "run"
        driver = start(dozen, out, dask)
        wait_for(lambda: len(parts(out)) >= 2)
        scheduler.kill()
        code, complaints = finish(driver)
        assert code == errors.ClusterError.exit_code
        assert "scheduler" in complaints
        assert "--resume" in complaints
        assert "Traceback" not in complaints
        run = score(dozen, out, shard_size=1, resume=True)  # by this process: the cluster is gone
        assert run.facts["images_resumed"] >= 2
        assert_same_tables(alone, out)

    def test_two_drivers_on_one_folder_are_both_exact(
        self, dozen: TinySplit, alone: Path, tmp_path: Path, dask: DaskProcesses
    ) -> None:
        dask.start_scheduler()
        dask.start_workers(2, environment=SLOW)
        out = tmp_path / "run"
        first = start(dozen, out, dask)
        wait_for(lambda: len(parts(out)) >= 1)
        refused, complaints = finish(start(dozen, out, dask))
        assert refused == errors.RunExists.exit_code
        assert "another run" in complaints
        second = start(dozen, out, dask, "--resume")
        assert [finish(driver)[0] for driver in (first, second)] == [0, 0]
        assert_same_tables(alone, out)

    def test_deadly_image_becomes_an_error_row_and_the_rest_is_scored(
        self, dozen: TinySplit, tmp_path: Path, dask: DaskProcesses
    ) -> None:
        deadly = dozen.names[5]
        dask.start_scheduler(allowed_failures=0)
        dask.start_workers(1, environment={"PYTHONPATH": FAULTS, "GPU_EVAL_DEADLY": deadly})
        out = tmp_path / "run"
        driver = start(dozen, out, dask, "--shard-size", "4", "--on-error", "skip")
        code, complaints = finish(driver)
        assert code == 0, complaints
        assert "INCOMPLETE: 1 of 12" in complaints
        run = gpu_eval.open_run(out)
        rows = [row for row in run.images.to_pylist() if row["status"] == "error"]
        assert [(row["image_id"], row["errors"][0]["kind"]) for row in rows] == [(5, "FatalImage")]
        assert np.array_equal(run.confusion(), dozen.without(deadly).total())

    def test_full_disk_at_a_worker_is_told_and_no_half_part_stays(
        self, dozen: TinySplit, alone: Path, tmp_path: Path, dask: DaskProcesses
    ) -> None:
        dask.start_scheduler()
        # The size of a file is limited, which a write meets like the end of a disk.
        full = dask.start_workers(1, nanny=False)
        limit = min(path.stat().st_size for path in (alone / "cells").iterdir()) - 1
        out = tmp_path / "run"
        psutil.Process(full.pid).rlimit(psutil.RLIMIT_FSIZE, (limit, psutil.RLIM_INFINITY))
        code, complaints = finish(start(dozen, out, dask))
        assert code == errors.ReportError.exit_code
        assert "File too large" in complaints
        assert "--resume" in complaints
        assert not list(out.rglob("part-*.parquet"))
        assert not list(out.rglob(".*.tmp"))
        psutil.Process(full.pid).rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
        assert finish(start(dozen, out, dask, "--resume"))[0] == 0
        assert_same_tables(alone, out)

    def test_worker_of_another_version_is_refused(
        self, dozen: TinySplit, tmp_path: Path, dask: DaskProcesses
    ) -> None:
        site = tmp_path / "site"
        package = Path(gpu_eval.__file__).parent
        shutil.copytree(package, site / "gpu_eval")
        (site / "gpu_eval" / "version.py").write_text('__version__ = "0.0.7"\n')
        facts = site / "gpu_eval-0.0.7.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: gpu-eval\nVersion: 0.0.7\n")
        dask.start_scheduler()
        dask.start_workers(1, environment={"PYTHONPATH": str(site)})
        code, complaints = finish(start(dozen, tmp_path / "run", dask))
        assert code == errors.ClusterError.exit_code
        assert "0.0.7" in complaints
        assert gpu_eval.__version__ in complaints
        assert not (tmp_path / "run").exists()


def test_a_driver_without_workers_says_within_seconds_how_to_start_one(
    split: TinySplit, tmp_path: Path, dask: DaskProcesses
) -> None:
    dask.start_scheduler()
    driver = start(split, tmp_path / "run", dask)
    assert driver.stderr is not None
    line = driver.stderr.readline()
    while "waiting for a worker" not in line:
        assert line, "the driver ended without a word"
        line = driver.stderr.readline()
    command = re.search(r"`dask (worker tcp://127\.0\.0\.1:[0-9]+)` starts one", line)
    assert command is not None
    worker = subprocess.Popen(
        [sys.executable, "-m", "dask", *command[1].split(), "--host", "127.0.0.1", "--nthreads", "1"],
        env=child_environment(), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    dask.processes.append(worker)
    code, complaints = finish(driver)
    assert code == 0, complaints
