"""`score` on a Dask cluster: exact, and as plain about problems as one process. Processes on loopback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from distributed import Client

from gpu_eval import errors
from gpu_eval.engines.cuda import cupy_device
from tests.runs.conftest import IMAGES
from tests.support.commands import gpu_eval_command, gpu_eval_process
from tests.support.dask_processes import DaskProcesses, client_of, local_client
from tests.support.faults import FAULTS, disk
from tests.support.run_tables import assert_same_tables
from tests.support.scoring import problems_of, score
from tests.support.semantic_split import TinySplit, make_split


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Of one worker."""
    with local_client(workers=1) as client:
        yield client


class TestExact:
    def test_local_cluster_gives_the_tables_of_one_process(
        self, dozen: TinySplit, alone: Path, tmp_path: Path
    ) -> None:
        with local_client(workers=2) as client:
            run = score(dozen, tmp_path / "run", shard_size=1, client=client)
            assert sum(worker["images"] for worker in run.facts["workers"]) == IMAGES
            assert all(worker["worker"].startswith("tcp://127.0.0.1:") for worker in run.facts["workers"])
            assert set(run.facts["workers"][0]["seconds"]) == {"read", "decode", "write"}
            again = score(dozen, tmp_path / "run", shard_size=1, resume=True, client=client)
            assert again.facts["images_resumed"] == IMAGES
        assert_same_tables(alone, tmp_path / "run")

    def test_workers_read_and_write_at_urls(
        self, dozen: TinySplit, alone: Path, tmp_path: Path, dask: DaskProcesses
    ) -> None:
        disk.register()
        dask.start_scheduler()
        dask.start_workers(2, environment={"PYTHONPATH": FAULTS})
        here = tmp_path / "run"
        urls = {"gts": f"disk:/{dozen.gts}", "preds": f"disk:/{dozen.preds}"}
        with client_of(dask) as client:
            run = score(dozen, f"disk:/{here}", shard_size=1, client=client, **urls)
        assert not isinstance(run.folder, Path)
        assert len(list((here / "images").glob("part-*.parquet"))) == IMAGES
        assert_same_tables(alone, here)


class TestToldByADriver:
    def test_problems_are_told_as_by_one_process(
        self, split: TinySplit, tmp_path: Path, client: Client
    ) -> None:
        (split.preds / split.names[1]).write_bytes(b"no PNG")
        here, there = (
            [str(problem) for problem in problems_of(split, tmp_path / name, client=where)]
            for name, where in (("here", None), ("there", client))
        )
        assert here == there

    def test_worker_that_does_not_see_the_inputs_is_named(
        self, dozen: TinySplit, tmp_path: Path, client: Client
    ) -> None:
        memory = fsspec.filesystem("memory")  # every process has one of its own
        memory.put(str(dozen.gts), "/elsewhere/gt", recursive=True)
        try:
            with pytest.raises(errors.ClusterError, match="does not see memory://elsewhere/gt") as caught:
                score(dozen, tmp_path / "run", gts="memory://elsewhere/gt", client=client)
        finally:
            memory.rm("/elsewhere", recursive=True)
        assert "tcp://127.0.0.1:" in str(caught.value)
        assert not list(tmp_path.rglob("part-*"))

    def test_output_that_only_the_driver_sees_is_refused(self, dozen: TinySplit, client: Client) -> None:
        try:
            with pytest.raises(errors.ClusterError, match="does not see the run that was begun"):
                score(dozen, "memory://mine/run", client=client)
        finally:
            fsspec.filesystem("memory").rm("/mine", recursive=True)

    @pytest.mark.parametrize("damage", ["truncated", "empty"])
    def test_damaged_part_is_scored_again(
        self, dozen: TinySplit, alone: Path, tmp_path: Path, client: Client, damage: str
    ) -> None:
        out = tmp_path / "run"
        shutil.copytree(alone, out)
        part = out / "cells" / "part-000004.parquet"
        part.write_bytes(b"" if damage == "empty" else part.read_bytes()[:-30])
        run = score(dozen, out, shard_size=1, resume=True, client=client)
        assert run.facts["images_resumed"] == IMAGES - 1
        assert_same_tables(alone, out)

    def test_foreign_part_is_refused_and_kept(
        self, dozen: TinySplit, alone: Path, tmp_path: Path, client: Client
    ) -> None:
        out = tmp_path / "run"
        score(make_split(tmp_path / "other", pairs=IMAGES), tmp_path / "theirs", shard_size=1)
        shutil.copytree(alone, out)
        part = out / "images" / "part-000004.parquet"
        shutil.copy2(tmp_path / "theirs" / "images" / part.name, part)
        theirs = part.read_bytes()
        with pytest.raises(errors.CorruptRun, match="another run"):
            score(dozen, out, shard_size=1, resume=True, client=client)
        assert part.read_bytes() == theirs


def words(split: TinySplit, out: Path, *more: object) -> list[object]:
    return ["score", split.gts, split.preds, "-o", out, "--res", "native", "--shard-size", 3, *more]


class TestOptions:
    def test_local_cluster_scores_and_ends_with_a_line_per_worker(
        self, dozen: TinySplit, tmp_path: Path
    ) -> None:
        done = gpu_eval_process(*words(dozen, tmp_path / "run", "--cluster", "local", "--workers", 1))
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
        self, dozen: TinySplit, tmp_path: Path, options: tuple[str, ...], told: str
    ) -> None:
        done = gpu_eval_command(*words(dozen, tmp_path / "run", *options))
        assert done.exit_code == 2
        assert told in done.stderr
        assert isinstance(done.exception, SystemExit)

    @pytest.mark.skipif(cupy_device.available()[0], reason="needs a machine without a CUDA device")
    def test_gpus_that_are_not_there_are_an_error_not_a_cpu_run(
        self, dozen: TinySplit, tmp_path: Path
    ) -> None:
        done = gpu_eval_command(*words(dozen, tmp_path / "run", "--gpus", "all"))
        assert done.exit_code == errors.EngineUnavailable.exit_code
        assert "no GPU can be used here" in done.stderr
        assert not (tmp_path / "run").exists()


class TestWorkerCheck:
    def test_tells_versions_engine_and_what_is_not_seen(
        self, dozen: TinySplit, tmp_path: Path, dask: DaskProcesses
    ) -> None:
        dask.start_scheduler()
        dask.start_workers(1)
        address = json.loads(dask.scheduler_file.read_text())["address"]
        assert address.startswith("tcp://127.0.0.1:")
        check = ("worker-check", "--scheduler-file", dask.scheduler_file, dozen.gts)
        good = gpu_eval_process(*check, dozen.preds, "-o", tmp_path / "out")
        assert good.returncode == 0, good.stderr
        assert "cpu" in good.stdout
        assert "yes" in good.stdout
        bad = gpu_eval_process(*check, tmp_path / "nowhere", "-o", "/proc/out")
        assert bad.returncode == errors.ClusterError.exit_code
        assert f"does not see {tmp_path}/nowhere: " in bad.stdout
        assert "cannot write to /proc/out" in bad.stdout
        assert "1 of 1 workers cannot work" in bad.stderr
