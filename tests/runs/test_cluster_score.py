"""`score` on a Dask cluster: exact, and what it survives. Real processes on loopback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import fsspec
import numpy as np
import psutil
import pytest

import gpu_eval
from gpu_eval import errors
from gpu_eval.engines.cuda import engine as cuda
from gpu_eval.runs.cluster_options import ClusterOptions, joined
from tests.conftest import TinySplit, assert_same_tables, make_split
from tests.support.dask_processes import DaskProcesses, dask_processes
from tests.support.faults import disk
from tests.support.toy_work import wait_for

FAULTS = str(Path(__file__).parents[1] / "support" / "faults")
SLOW = {"PYTHONPATH": FAULTS, "GPU_EVAL_SLOW": "0.15"}
IMAGES = 12


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> TinySplit:
    return make_split(tmp_path_factory.mktemp("split"), pairs=IMAGES)


@pytest.fixture(scope="module")
def alone(split: TinySplit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process, which every run on a cluster must equal."""
    out = tmp_path_factory.mktemp("alone") / "run"
    gpu_eval.score(split.gts, split.preds, out=out, res="native", shard_size=1)
    return out


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[DaskProcesses]:
    with dask_processes(tmp_path) as processes:
        yield processes


def command(split: TinySplit, out: Path, dask: DaskProcesses, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "gpu_eval", "score", str(split.gts), str(split.preds), "-o", str(out)),
        *("--res", "native", "--shard-size", "1", "--scheduler-file", str(dask.scheduler_file), *more),
    ]


def start(split: TinySplit, out: Path, dask: DaskProcesses, *more: str) -> subprocess.Popen[str]:
    """A driver; ended with the cluster if a test does not come to its end."""
    driver = subprocess.Popen(
        command(split, out, dask, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    dask.processes.append(driver)  # type: ignore[arg-type]
    return driver


def finish(driver: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, complaints = driver.communicate(timeout=120)
    return driver.returncode, output, complaints


def parts(out: Path) -> list[Path]:
    return sorted((out / "images").glob("part-*.parquet"))


def identities(out: Path) -> dict[str, tuple[int, int]]:
    """Which file each part is: a part that is written again is another one."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in parts(out)}


def worker_pid(nanny: subprocess.Popen[bytes]) -> int | None:
    """The worker process that `dask worker` has running, if there is one just now."""
    for child in psutil.Process(nanny.pid).children(recursive=True):
        with suppress(psutil.Error):  # it has died meanwhile
            if any("spawn_main" in word for word in child.cmdline()):
                return child.pid
    return None


class TestExact:
    def test_local_cluster_gives_the_tables_of_one_process(
        self, split: TinySplit, alone: Path, tmp_path: Path
    ) -> None:
        with joined(ClusterOptions(workers=2)) as cluster:
            assert cluster is not None
            run = gpu_eval.score(
                split.gts,
                split.preds,
                out=tmp_path / "run",
                res="native",
                shard_size=1,
                client=cluster.client,
            )
            assert sum(worker["images"] for worker in run.facts["workers"]) == IMAGES
            assert all(worker["worker"].startswith("tcp://127.0.0.1:") for worker in run.facts["workers"])
            assert set(run.facts["workers"][0]["seconds"]) == {"read", "decode", "write"}
            again = gpu_eval.score(
                split.gts, split.preds, out=tmp_path / "run", res="native", shard_size=1, resume=True,
                client=cluster.client,
            )  # fmt: skip
            assert again.facts["images_resumed"] == IMAGES
        assert_same_tables(alone, tmp_path / "run")

    def test_workers_read_and_write_at_urls(
        self, split: TinySplit, alone: Path, tmp_path: Path, dask: DaskProcesses
    ) -> None:
        disk.register()
        dask.start_scheduler()
        dask.start_workers(2, environment={"PYTHONPATH": FAULTS})
        here = tmp_path / "run"
        with joined(ClusterOptions(scheduler_file=str(dask.scheduler_file))) as cluster:
            assert cluster is not None
            run = gpu_eval.score(
                f"disk:/{split.gts}", f"disk:/{split.preds}", out=f"disk:/{here}", res="native", shard_size=1,
                client=cluster.client,
            )  # fmt: skip
        assert not isinstance(run.folder, Path)
        assert len(parts(here)) == IMAGES
        assert_same_tables(alone, here)

    def test_problems_are_told_as_by_one_process(self, tmp_path: Path) -> None:
        split = make_split(tmp_path / "broken", pairs=4)
        (split.preds / split.names[1]).write_bytes(b"no PNG")
        told = []
        with joined(ClusterOptions(workers=1)) as cluster:
            assert cluster is not None
            for client in (None, cluster.client):
                with pytest.raises(errors.SplitProblems) as caught:
                    gpu_eval.score(
                        split.gts, split.preds, out=tmp_path / f"run{len(told)}", res="native", client=client
                    )
                told.append([str(problem) for problem in caught.value.problems])
        assert told[0] == told[1]


class TestFaults:
    def test_worker_killed_three_times_leaves_the_run_exact(
        self, split: TinySplit, alone: Path, tmp_path: Path, dask: DaskProcesses
    ) -> None:
        dask.start_scheduler(allowed_failures=10)
        nanny = dask.start_workers(1, environment=SLOW)
        out = tmp_path / "run"
        driver = start(split, out, dask)
        for kills in range(1, 4):
            wait_for(lambda done=3 * kills - 2: len(parts(out)) >= done)
            victim = worker_pid(nanny)
            assert victim is not None
            os.kill(victim, signal.SIGKILL)
            wait_for(lambda dead=victim: worker_pid(nanny) not in (None, dead))
        code, _, complaints = finish(driver)
        assert code == 0, complaints
        assert_same_tables(alone, out)

    def test_driver_killed_is_resumed_without_scoring_twice(
        self, split: TinySplit, alone: Path, tmp_path: Path, dask: DaskProcesses
    ) -> None:
        dask.start_scheduler()
        dask.start_workers(1, environment=SLOW)
        out = tmp_path / "run"
        driver = start(split, out, dask)
        wait_for(lambda: len(parts(out)) >= 3)
        driver.kill()
        finish(driver)
        before = identities(out)
        with pytest.raises(errors.IncompleteRun):
            gpu_eval.open_run(out)
        code, _, complaints = finish(start(split, out, dask, "--resume"))
        assert code == 0, complaints
        after = identities(out)
        assert {name: after[name] for name in before} == before
        assert gpu_eval.open_run(out).facts["images_resumed"] >= 3
        assert_same_tables(alone, out)

    def test_scheduler_killed_names_the_command_that_resumes(
        self, split: TinySplit, alone: Path, tmp_path: Path, dask: DaskProcesses
    ) -> None:
        scheduler = dask.start_scheduler()
        dask.start_workers(1, environment=SLOW)
        out = tmp_path / "run"
        driver = start(split, out, dask)
        wait_for(lambda: len(parts(out)) >= 2)
        scheduler.kill()
        code, _, complaints = finish(driver)
        assert code == errors.ClusterError.exit_code
        assert "scheduler" in complaints
        assert "--resume" in complaints
        assert "Traceback" not in complaints
        run = gpu_eval.score(
            split.gts, split.preds, out=out, res="native", shard_size=1, resume=True
        )  # by this process: the cluster is gone
        assert run.facts["images_resumed"] >= 2
        assert_same_tables(alone, out)

    def test_two_drivers_on_one_folder_are_both_exact(
        self, split: TinySplit, alone: Path, tmp_path: Path, dask: DaskProcesses
    ) -> None:
        dask.start_scheduler()
        dask.start_workers(2, environment=SLOW)
        out = tmp_path / "run"
        first = start(split, out, dask)
        wait_for(lambda: len(parts(out)) >= 1)
        refused, _, complaints = finish(start(split, out, dask))
        assert refused == errors.RunExists.exit_code
        assert "another run" in complaints
        second = start(split, out, dask, "--resume")
        assert [finish(driver)[0] for driver in (first, second)] == [0, 0]
        assert_same_tables(alone, out)

    def test_deadly_image_becomes_an_error_row_and_the_rest_is_scored(
        self, split: TinySplit, tmp_path: Path, dask: DaskProcesses
    ) -> None:
        deadly = split.names[5]
        dask.start_scheduler(allowed_failures=0)
        dask.start_workers(1, environment={"PYTHONPATH": FAULTS, "GPU_EVAL_DEADLY": deadly})
        out = tmp_path / "run"
        driver = start(split, out, dask, "--shard-size", "4", "--on-error", "skip")
        code, _, complaints = finish(driver)
        assert code == 0, complaints
        assert "INCOMPLETE: 1 of 12" in complaints
        run = gpu_eval.open_run(out)
        rows = [row for row in run.images.to_pylist() if row["status"] == "error"]
        assert [(row["image_id"], row["error_kind"]) for row in rows] == [(5, "FatalImage")]
        gt, pred = split.maps[deadly]
        rest = TinySplit(split.gts, split.preds, {n: m for n, m in split.maps.items() if n != deadly})
        assert np.array_equal(run.confusion(), rest.total())
        assert gt.shape == pred.shape

    def test_worker_that_does_not_see_the_inputs_is_named(self, split: TinySplit, tmp_path: Path) -> None:
        memory = fsspec.filesystem("memory")  # every process has one of its own
        memory.put(str(split.gts), "/elsewhere/gt", recursive=True)
        try:
            with joined(ClusterOptions(workers=1)) as cluster:
                assert cluster is not None
                with pytest.raises(errors.ClusterError, match="does not see memory://elsewhere/gt") as caught:
                    gpu_eval.score(
                        "memory://elsewhere/gt", split.preds, out=tmp_path / "run", client=cluster.client
                    )
        finally:
            memory.rm("/elsewhere", recursive=True)
        assert "tcp://127.0.0.1:" in str(caught.value)
        assert parts(tmp_path / "run") == []

    def test_output_that_only_the_driver_sees_is_refused(self, split: TinySplit) -> None:
        try:
            with joined(ClusterOptions(workers=1)) as cluster:
                assert cluster is not None
                with pytest.raises(errors.ClusterError, match="does not see the run that was begun"):
                    gpu_eval.score(split.gts, split.preds, out="memory://mine/run", client=cluster.client)
        finally:
            fsspec.filesystem("memory").rm("/mine", recursive=True)

    @pytest.mark.parametrize("damage", ["truncated", "empty"])
    def test_damaged_part_is_scored_again(
        self, split: TinySplit, alone: Path, tmp_path: Path, damage: str
    ) -> None:
        out = tmp_path / "run"
        shutil.copytree(alone, out)
        part = out / "cells" / "part-000004.parquet"
        part.write_bytes(b"" if damage == "empty" else part.read_bytes()[:-30])
        with joined(ClusterOptions(workers=1)) as cluster:
            assert cluster is not None
            run = gpu_eval.score(
                split.gts,
                split.preds,
                out=out,
                res="native",
                shard_size=1,
                resume=True,
                client=cluster.client,
            )
        assert run.facts["images_resumed"] == IMAGES - 1
        assert_same_tables(alone, out)

    def test_foreign_part_is_refused_and_kept(self, split: TinySplit, alone: Path, tmp_path: Path) -> None:
        out = tmp_path / "run"
        other = make_split(tmp_path / "other", pairs=IMAGES)
        gpu_eval.score(other.gts, other.preds, out=tmp_path / "theirs", res="native", shard_size=1)
        shutil.copytree(alone, out)
        part = out / "images" / "part-000004.parquet"
        shutil.copy2(tmp_path / "theirs" / "images" / part.name, part)
        theirs = part.read_bytes()
        with joined(ClusterOptions(workers=1)) as cluster:
            assert cluster is not None
            with pytest.raises(errors.CorruptRun, match="another run"):
                gpu_eval.score(
                    split.gts, split.preds, out=out, res="native", shard_size=1, resume=True,
                    client=cluster.client,
                )  # fmt: skip
        assert part.read_bytes() == theirs

    def test_full_disk_at_a_worker_is_told_and_no_half_part_stays(
        self, split: TinySplit, alone: Path, tmp_path: Path, dask: DaskProcesses
    ) -> None:
        dask.start_scheduler()
        # The size of a file is limited, which a write meets like the end of a disk.
        full = dask.start_workers(1, nanny=False)
        limit = min(path.stat().st_size for path in (alone / "cells").iterdir()) - 1
        out = tmp_path / "run"
        psutil.Process(full.pid).rlimit(psutil.RLIMIT_FSIZE, (limit, psutil.RLIM_INFINITY))
        code, _, complaints = finish(start(split, out, dask))
        assert code == errors.ReportError.exit_code
        assert "File too large" in complaints
        assert "--resume" in complaints
        assert not list(out.rglob("part-*.parquet"))
        assert not list(out.rglob(".*.tmp"))
        psutil.Process(full.pid).rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
        assert finish(start(split, out, dask, "--resume"))[0] == 0
        assert_same_tables(alone, out)

    def test_worker_of_another_version_is_refused(
        self, split: TinySplit, tmp_path: Path, dask: DaskProcesses
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
        code, _, complaints = finish(start(split, tmp_path / "run", dask))
        assert code == errors.ClusterError.exit_code
        assert "0.0.7" in complaints
        assert gpu_eval.__version__ in complaints
        assert not (tmp_path / "run").exists()


class TestOptions:
    def score(self, split: TinySplit, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, "-m", "gpu_eval", "score", str(split.gts), str(split.preds)),
                *("-o", str(out), "--res", "native", "--shard-size", "3", *options),
            ],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def test_local_cluster_scores_and_ends_with_a_line_per_worker(
        self, split: TinySplit, tmp_path: Path
    ) -> None:
        done = self.score(split, tmp_path / "run", "--cluster", "local", "--workers", "1")
        assert done.returncode == 0, done.stderr
        assert "tcp://127.0.0.1:" in done.stderr
        assert all(word in done.stderr for word in ("images/s", "decode s", "write s"))
        assert "12 of 12 images" in done.stdout

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (("--workers", "2", "--scheduler", "tcp://127.0.0.1:1"), "one cluster at a time"),
            (("--workers", "0"), "workers must be at least 1"),
            (("--workers", "1", "--tls-key", "k.pem"), "TLS needs"),
            (("--gpus", "first"), "not a list of GPUs"),
            (("--gpus", "0,0"), "these are not GPUs"),
        ],
    )
    def test_options_that_mean_nothing_exit_with_2(
        self, split: TinySplit, tmp_path: Path, options: tuple[str, ...], told: str
    ) -> None:
        done = self.score(split, tmp_path / "run", *options)
        assert done.returncode == 2
        assert told in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.skipif(cuda.available()[0], reason="needs a machine without a CUDA device")
    def test_gpus_that_are_not_there_are_an_error_not_a_cpu_run(
        self, split: TinySplit, tmp_path: Path
    ) -> None:
        done = self.score(split, tmp_path / "run", "--gpus", "all")
        assert done.returncode == errors.EngineUnavailable.exit_code
        assert "no GPU can be used here" in done.stderr
        assert not (tmp_path / "run").exists()


class TestWorkerCheck:
    def check(self, dask: DaskProcesses, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, "-m", "gpu_eval", "worker-check", *map(str, arguments)),
                *("--scheduler-file", str(dask.scheduler_file)),
            ],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def test_tells_versions_engine_and_what_is_not_seen(
        self, split: TinySplit, tmp_path: Path, dask: DaskProcesses
    ) -> None:
        dask.start_scheduler()
        dask.start_workers(1)
        address = json.loads(dask.scheduler_file.read_text())["address"]
        assert address.startswith("tcp://127.0.0.1:")
        good = self.check(dask, split.gts, split.preds, "-o", tmp_path / "out")
        assert good.returncode == 0, good.stderr
        assert "cpu" in good.stdout
        assert "yes" in good.stdout
        bad = self.check(dask, split.gts, tmp_path / "nowhere", "-o", "/proc/out")
        assert bad.returncode == errors.ClusterError.exit_code
        assert f"does not see {tmp_path}/nowhere: " in bad.stdout
        assert "cannot write to /proc/out" in bad.stdout
        assert "1 of 1 workers cannot work" in bad.stderr
