"""What happens on clusters: workers and schedulers die, images kill. Real processes on loopback."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from gpu_eval.errors import ClusterError, EngineError
from gpu_eval.scheduling import dask_cluster, fatal_images, loop
from gpu_eval.scheduling import dask_executor as cluster
from gpu_eval.scheduling.dask_cluster import connect
from gpu_eval.scheduling.dask_executor import DaskExecutor, ask_workers, wait_for_workers
from gpu_eval.scheduling.fatal_images import find_fatal_images
from gpu_eval.scheduling.shards import Shard, cut
from tests.support.dask_processes import DaskProcesses
from tests.support.toy_work import (
    IsolatingToy,
    Toy,
    Unpicklable,
    always_deadly,
    dangerous,
    failing_device,
    score_one,
    wait_for,
)


class TestWorkers:
    def test_three_killed_workers_cost_no_shard_and_double_none(
        self, dask: DaskProcesses, tmp_path: Path
    ) -> None:
        dask.start_scheduler()
        dask.start_workers(2)
        work = Toy(tmp_path, fragile=frozenset({2, 9, 15}))
        shards = cut(60, 3)
        with connect(scheduler_file=dask.scheduler_file) as client:
            dones = list(loop.run(shards, DaskExecutor(client), work))
        assert Counter(done.shard for done in dones) == Counter(shards)
        assert sum(done.summary for done in dones) == sum(range(60))
        pids = {pid for shard in shards for pid in work.pids_of(shard.number)}
        killed = {work.pids_of(number)[0] for number in work.fragile}
        assert len(killed) == 3
        assert len(pids) > 3
        assert not any(psutil.pid_exists(pid) for pid in killed)

    def test_finished_shard_whose_worker_died_with_the_result_comes_out_once(
        self, dask: DaskProcesses, tmp_path: Path
    ) -> None:
        dask.start_scheduler()
        dask.start_workers(1)
        work = Toy(tmp_path)
        with connect(scheduler_file=dask.scheduler_file) as client:
            wait_for_workers(client, 60)
            executor = DaskExecutor(client)

            def shards() -> Iterator[Shard]:
                yield Shard(0, 0, 4)
                # Nobody has asked for its result when the worker is killed.
                (future,) = executor._in_flight
                wait_for(lambda: future.status == "finished")
                (pid,) = ask_workers(client, os.getpid).values()
                os.kill(pid, signal.SIGKILL)
                wait_for(lambda: future.status != "finished")

            (done,) = loop.run(shards(), executor, work)
        assert done.summary == 6
        assert len(set(work.pids_of(0))) == 2

    def test_no_worker_ever_and_no_worker_any_more_end_the_run(
        self, dask: DaskProcesses, tmp_path: Path
    ) -> None:
        dask.start_scheduler()
        with connect(scheduler_file=dask.scheduler_file) as client:
            with pytest.raises(ClusterError, match=r"has no workers.*none for 0.3 s.*--resume"):
                list(loop.run(cut(3, 1), DaskExecutor(client, worker_wait=0.3), Toy(tmp_path)))
            with pytest.raises(ClusterError, match=r"has no workers.*none in 0.1 s"):
                wait_for_workers(client, 0.1)
            dask.start_workers(1, nanny=False)
            # Waited for, and then served by, a worker that comes late; no other comes after its death.
            (done,) = loop.run(cut(1, 1), DaskExecutor(client, worker_wait=60), Toy(tmp_path))
            run = loop.run(
                cut(3, 1), DaskExecutor(client, worker_wait=0.3), Toy(tmp_path, fragile=frozenset({2}))
            )
            with pytest.raises(ClusterError, match=r"has no workers.*none for 0.3 s.*--resume"):
                list(run)
            assert done.summary == 0

    def test_who_waits_for_a_worker_is_told_so_now_and_then(
        self, dask: DaskProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cluster, "TOLD_AFTER", 0.2)
        monkeypatch.setattr(cluster, "TOLD_EVERY", 1.0)
        dask.start_scheduler()
        told: list[str] = []
        with connect(scheduler_file=dask.scheduler_file) as client:
            with pytest.raises(ClusterError, match=r"has no workers.*none in 2 s"):
                wait_for_workers(client, 2, told.append)
            assert client.scheduler is not None
            assert len(told) == 2
            assert all(f"`dask worker {client.scheduler.address}` starts one" in line for line in told)
            told.clear()
            executor = DaskExecutor(client, worker_wait=3, tell=told.append)
            with pytest.raises(ClusterError, match=r"none for 3 s"):
                list(loop.run(cut(3, 1), executor, Toy(tmp_path)))
            assert 1 <= len(told) <= 3
            assert "s more at most" in told[0]
            told.clear()
            dask.start_workers(1, nanny=False)
            wait_for_workers(client, 60)
            wait_for_workers(client, 60, told.append)
            assert not told

    def test_workers_that_join_widen_the_window(self, dask: DaskProcesses, tmp_path: Path) -> None:
        dask.start_scheduler()
        dask.start_workers(1)
        work = Toy(tmp_path, held=frozenset({0}))
        with connect(scheduler_file=dask.scheduler_file) as client:
            wait_for_workers(client, 60)
            executor = DaskExecutor(client)
            assert executor.window == 3
            dask.start_workers(1)
            run = loop.run(cut(100_000, 1), executor, work)
            wait_for(lambda: next(run) and executor.window == 6)
            (tmp_path / "go").touch()
            run.close()


class TestScheduler:
    def test_lost_scheduler_ends_the_run_with_the_way_to_go_on(
        self, dask: DaskProcesses, tmp_path: Path
    ) -> None:
        scheduler = dask.start_scheduler()
        dask.start_workers(1)
        work = Toy(tmp_path, held=frozenset({1}))
        with connect(scheduler_file=dask.scheduler_file) as client:
            run = loop.run(cut(3, 1), DaskExecutor(client, window=1, worker_wait=60), work)
            assert next(run).summary == 0

            kill = partial(os.kill, scheduler.pid, signal.SIGKILL)
            client.loop.call_later(0.2, kill)  # while the driver waits for shard 1
            with pytest.raises(ClusterError, match=r"scheduler at tcp://127.* is lost.*--resume"):
                list(run)
            with pytest.raises(ClusterError, match="is lost"):
                DaskExecutor(client)
            with pytest.raises(ClusterError, match="is lost"):
                ask_workers(client, os.getpid)

    def test_scheduler_that_falls_silent_is_lost_too(
        self, dask: DaskProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cluster, "OVERDUE", 0.5)
        monkeypatch.setattr(dask_cluster, "PATIENCE", 0.5)
        scheduler = dask.start_scheduler()
        with connect(scheduler_file=dask.scheduler_file) as client:
            run = loop.run(cut(3, 1), DaskExecutor(client), Toy(tmp_path))
            client.loop.call_later(0.2, partial(os.kill, scheduler.pid, signal.SIGSTOP))
            with pytest.raises(ClusterError, match=r"is lost.*--resume"):
                list(run)

    def test_shards_cancelled_by_somebody_else_end_the_run(self, dask: DaskProcesses, tmp_path: Path) -> None:
        dask.start_scheduler()
        dask.start_workers(1)
        with connect(scheduler_file=dask.scheduler_file) as client:
            executor = DaskExecutor(client, window=1, worker_wait=60)
            run = loop.run(cut(3, 1), executor, Toy(tmp_path, held=frozenset({1})))
            assert next(run).summary == 0
            client.loop.call_later(0.2, lambda: client.cancel(list(executor._in_flight), asynchronous=True))
            with pytest.raises(ClusterError, match=r"cancelled.*--resume"):
                list(run)


class TestPoison:
    def test_image_that_kills_every_worker_is_found_and_the_rest_is_scored(
        self, dask: DaskProcesses, tmp_path: Path
    ) -> None:
        dask.start_scheduler(allowed_failures=1)
        dask.start_workers(2)
        work = IsolatingToy(tmp_path, deadly=frozenset({7, 9}))
        with connect(scheduler_file=dask.scheduler_file) as client:
            # A worker that dies before its nanny has started takes the whole command with it.
            client.wait_for_workers(2, timeout=60)
            time.sleep(1)
            dones = list(loop.run(cut(25, 5), DaskExecutor(client), work))
        assert {done.shard.number: done.shard.fatal for done in dones} == {
            **dict.fromkeys(range(5), ()),
            1: (7, 9),
        }
        assert len(dones) == 5
        assert sum(done.summary for done in dones) == sum(range(25)) - 16

    def test_deadly_shard_without_a_search_is_named(self, dask: DaskProcesses, tmp_path: Path) -> None:
        dask.start_scheduler(allowed_failures=0)
        dask.start_workers(1)
        work = Toy(tmp_path, deadly=frozenset({7}))
        with connect(scheduler_file=dask.scheduler_file) as client:
            executor = DaskExecutor(client, window=1)
            with pytest.raises(
                ClusterError, match=r"shard 1, images 5 to 9, given up 1 times, last by tcp://"
            ):
                list(loop.run(cut(25, 5), executor, work))


class TestFindPoison:
    def test_images_that_kill_or_hang_are_found_and_those_that_raise_are_not(self) -> None:
        assert find_fatal_images(dangerous, 0, 9, timeout=2) == (2, 4)

    def test_images_at_which_the_device_fails_are_found_too(self) -> None:
        assert find_fatal_images(failing_device, 1, 10) == (4, 8)

    def test_known_poison_is_not_touched(self) -> None:
        assert find_fatal_images(dangerous, 1, 6, timeout=2, known=(2,)) == (4,)

    def test_first_and_last_image_can_be_poison(self, tmp_path: Path) -> None:
        toy = Toy(tmp_path, deadly=frozenset({3, 5}))
        assert find_fatal_images(partial(score_one, toy), 3, 6) == (3, 5)

    def test_nothing_to_look_at_starts_nothing(self) -> None:
        assert find_fatal_images(always_deadly, 3, 3) == ()
        assert find_fatal_images(always_deadly, 3, 5, known=(3, 4)) == ()

    def test_child_that_cannot_start_is_told_and_no_image_blamed(self) -> None:
        with pytest.raises(EngineError, match=r"did not start.*not in this process"):
            find_fatal_images(Unpicklable(), 0, 3)

    def test_if_every_image_kills_it_is_not_the_images(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fatal_images, "MOST_FATAL", 2)
        with pytest.raises(EngineError, match="3 of images 10 to 999"):
            find_fatal_images(always_deadly, 10, 1000)

    def test_no_child_is_left_behind(self) -> None:
        assert find_fatal_images(dangerous, 2, 3, timeout=0.5) == (2,)
        children = psutil.Process().children(recursive=True)
        assert not [child for child in children if "gpu_eval.scheduling.fatal_images" in child.cmdline()]
