"""Joining and starting Dask clusters: what listens where, TLS, versions, questions to workers."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from distributed import Client

from gpu_eval.errors import ClusterError, OptionError
from gpu_eval.scheduling import dask_cluster, loop
from gpu_eval.scheduling.dask_cluster import connect, plain_tcp_warning, start_local, tls
from gpu_eval.scheduling.dask_executor import DaskExecutor, ask_workers, check_versions, gpu_resources, pack
from gpu_eval.scheduling.shards import Shard, cut
from gpu_eval.version import __version__
from tests.support.children import ROOT, hear_ctrl_c
from tests.support.dask_processes import DaskProcesses, dask_processes, end
from tests.support.toy_work import Toy, trivial, wait_for


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with start_local(gpus=[0, 1]) as client:
        yield client


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    """A scheduler of somebody else, without workers."""
    with dask_processes(tmp_path_factory.mktemp("dask")) as processes:
        processes.start_scheduler()
        yield processes


def listening(process: psutil.Process) -> dict[str, set[str]]:
    """The addresses on which a process and its children listen, by command."""
    found: dict[str, set[str]] = {}
    for one in (process, *process.children(recursive=True)):
        addresses = {c.laddr.ip for c in one.net_connections("inet") if c.status == psutil.CONN_LISTEN}
        found[f"{one.pid} {' '.join(one.cmdline()[-2:])}"] = addresses
    return found


class TestStartLocal:
    def test_every_gpu_has_a_worker_process_that_sees_it_alone(self, client: Client) -> None:
        seen = ask_workers(client, os.getenv, "CUDA_VISIBLE_DEVICES")
        assert sorted(seen.values()) == ["0", "1"]
        pids = set(ask_workers(client, os.getpid).values())
        assert len(pids) == 2
        assert os.getpid() not in pids
        assert set(client.nthreads().values()) == {1}

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the sockets of other processes")
    def test_everything_listens_on_loopback_only(self, client: Client) -> None:
        found = listening(psutil.Process())
        workers = set(ask_workers(client, os.getpid).values())
        assert workers <= {int(name.split()[0]) for name, addresses in found.items() if addresses}
        assert {address for addresses in found.values() for address in addresses} == {"127.0.0.1"}
        dashboards = {worker["services"]["dashboard"] for worker in _workers(client)}
        assert len(dashboards) == 2  # the HTTP servers of the workers were among them

    def test_shards_are_scored_by_both_workers(self, client: Client, tmp_path: Path) -> None:
        work = Toy(tmp_path, held=frozenset({0, 1}))

        def shards() -> Iterator[Shard]:
            yield from cut(2, 1)
            wait_for(lambda: work.pids_of(0) and work.pids_of(1))  # both at once, and each has one thread
            (tmp_path / "go").touch()

        dones = list(loop.run(shards(), DaskExecutor(client), work))
        assert {done.worker for done in dones} == set(client.nthreads())

    def test_dashboard_has_a_link_only_where_bokeh_is(self, client: Client) -> None:
        link = dask_cluster.dashboard_link(client)
        try:
            importlib.metadata.version("bokeh")
        except importlib.metadata.PackageNotFoundError:
            assert link is None
        else:
            assert link is not None
            assert link.startswith("http://127.0.0.1:")

    def test_a_cluster_of_this_machine_needs_no_warning(self, client: Client) -> None:
        assert plain_tcp_warning(client) is None

    def test_everything_ends_and_nothing_is_left_changed(self) -> None:
        handler, logger = logging.StreamHandler(), logging.getLogger("distributed")
        handler.setLevel(logging.INFO)
        logger.addHandler(handler)
        environment = dict(os.environ)
        before = {child.pid for child in psutil.Process().children(recursive=True)}
        with start_local(workers=1) as client:
            (pid,) = ask_workers(client, os.getpid).values()
            assert handler.level == logging.CRITICAL
        assert not psutil.pid_exists(pid)
        assert client.status == "closed"
        assert dict(os.environ) == environment
        assert handler.level == logging.INFO
        logger.removeHandler(handler)
        helpers = psutil.Process().children(recursive=True)
        assert {child.pid for child in helpers if "spawn_main" in " ".join(child.cmdline())} <= before

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"workers": 0}, "workers must be at least 1"),
            ({"workers": 1, "threads": 0}, "threads must be at least 1"),
            ({"gpus": []}, "not GPUs"),
            ({"gpus": [0, 0]}, "not GPUs"),
            ({"gpus": [-1]}, "not GPUs"),
            ({"gpus": [0], "workers": 1}, "either workers or gpus"),
        ],
    )
    def test_numbers_without_meaning_are_refused(self, options: dict[str, Any], told: str) -> None:
        with pytest.raises(OptionError, match=told), start_local(**options):
            pass

    def test_gpus_count_those_that_this_process_sees(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
        specs = dask_cluster._worker_specs(None, 1, [1, 0])
        assert [own["env"]["CUDA_VISIBLE_DEVICES"] for _, own in specs] == ["GPU-7", "4"]
        with pytest.raises(OptionError, match="no such GPU"):
            dask_cluster._worker_specs(None, 1, [2])


DRIVER = """
import sys
from pathlib import Path
from gpu_eval.errors import Interrupted
from gpu_eval.scheduling import loop
from gpu_eval.scheduling.dask_executor import DaskExecutor
from gpu_eval.scheduling.shards import cut
from gpu_eval.scheduling.dask_cluster import start_local
from tests.support.toy_work import Toy

if __name__ == "__main__":
    journal = Path(sys.argv[1])
    try:
        with start_local(workers=1) as client:
            list(loop.run(cut(3, 1), DaskExecutor(client), Toy(journal, held=frozenset({1}))))
    except Interrupted as error:
        print(error)
"""


def test_ctrl_c_stops_the_run_and_all_that_it_started(tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(DRIVER)
    driver = subprocess.Popen(
        [sys.executable, tmp_path / "driver.py", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,  # a group of its own, for the signal that a terminal sends to all of it
        preexec_fn=hear_ctrl_c,
    )
    try:
        work = Toy(tmp_path)
        wait_for(lambda: work.pids_of(1) or driver.poll() is not None)
        (worker,) = work.pids_of(1)
        os.killpg(driver.pid, signal.SIGINT)
        told, complaints = driver.communicate(timeout=60)
    finally:
        driver.kill()
        driver.wait()
    assert told.startswith("interrupted; finished shards are kept")
    assert complaints == ""
    assert not psutil.pid_exists(worker)


class TestConnect:
    def test_cluster_of_somebody_else_is_left_running(self, cluster: DaskProcesses) -> None:
        for _ in range(2):
            with connect(scheduler_file=cluster.scheduler_file) as client:
                assert client.status == "running"
            assert client.status == "closed"

    @pytest.mark.parametrize("arguments", [{}, {"scheduler": "tcp://x:1", "scheduler_file": "x"}])
    def test_address_or_file_but_not_both(self, arguments: dict[str, str]) -> None:
        with pytest.raises(OptionError, match="either"), connect(**arguments):
            pass

    @pytest.mark.parametrize(
        "address", ["tcp://127.0.0.1:9", "127.0.0.1:9", "nonsense://x", "tcp://:x", "[", ""]
    )
    def test_address_without_a_scheduler_is_told(self, address: str) -> None:
        with pytest.raises(ClusterError, match="cannot connect"), connect(scheduler=address, timeout=0.2):
            pass

    @pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"address": '])
    def test_unreadable_scheduler_file_is_told(self, tmp_path: Path, content: str | None) -> None:
        path = tmp_path / "scheduler.json"
        if content is not None:
            path.write_text(content)
        with (
            pytest.raises(ClusterError, match="cannot read the scheduler file"),
            connect(scheduler_file=path, timeout=0.1),
        ):
            pass

    @pytest.mark.parametrize(
        ("address", "warned"),
        [
            ("tcp://10.0.0.7:8786", True),
            ("tcp://head-node:8786", True),
            ("ws://10.0.0.7:8786", True),
            ("tls://10.0.0.7:8786", False),
            ("tcp://127.0.0.3:8786", False),
            ("tcp://[::1]:8786", False),
            ("tcp://localhost:8786", False),
            ("inproc://10.0.0.7/1/2", False),
        ],
    )
    def test_plain_tcp_beyond_this_machine_gets_a_warning(self, address: str, warned: bool) -> None:
        told = plain_tcp_warning(SimpleNamespace(scheduler=SimpleNamespace(address=address)))
        assert (told is not None) == warned
        if told is not None:
            assert address in told

    def test_asynchronous_client_is_refused(self) -> None:
        with pytest.raises(OptionError, match="asynchronous"):
            DaskExecutor(SimpleNamespace(asynchronous=True))


def make_certificate(folder: Path, name: str) -> list[Path]:
    """A self-signed certificate, which is its own CA, and its key."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=127.0.0.1"
    subprocess.run([*command.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    return [cert, cert, key]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with the openssl program")
class TestTls:
    def test_run_over_tls_and_nobody_without_the_certificate(self, tmp_path: Path) -> None:
        files = make_certificate(tmp_path, "ours")
        names = ("--tls-ca-file", "--tls-cert", "--tls-key")
        options = [str(word) for pair in zip(names, files, strict=True) for word in pair]
        with dask_processes(tmp_path, ["--protocol", "tls", *options]) as processes:
            processes.start_scheduler()
            processes.start_workers(1)
            with connect(scheduler_file=processes.scheduler_file, security=tls(*files)) as client:
                assert client.scheduler.address.startswith("tls://")
                assert plain_tcp_warning(client) is None
                dones = list(loop.run(cut(4, 2), DaskExecutor(client, worker_wait=60), Toy(tmp_path)))
                assert sorted(done.summary for done in dones) == [1, 5]
                assert all(done.worker.startswith("tls://") for done in dones)
                address = client.scheduler.address
            for security, wrong in [
                (None, address.replace("tls://", "tcp://")),
                (None, address),
                (tls(*make_certificate(tmp_path, "theirs")), address),
                (tls(*files), address.replace("tls://", "tcp://")),
            ]:
                with (
                    pytest.raises(ClusterError, match="cannot connect"),
                    connect(scheduler=wrong, security=security, timeout=0.5),
                ):
                    pass

    def test_started_cluster_can_speak_tls(self, tmp_path: Path) -> None:
        security = tls(*make_certificate(tmp_path, "ours"))
        with start_local(workers=1, security=security) as client:
            (done,) = loop.run(cut(3, 3), DaskExecutor(client), Toy(tmp_path))
        assert done.summary == 3
        assert done.worker.startswith("tls://127.0.0.1")

    def test_missing_files_are_told(self, tmp_path: Path) -> None:
        cert, _, key = make_certificate(tmp_path, "ours")
        assert tls(None, None, None) is None
        with pytest.raises(OptionError, match="no tls_key"):
            tls(cert, cert, None)
        with pytest.raises(OptionError, match="tls_ca_file is not a file"):
            tls(tmp_path / "nothing.pem", cert, key)


class TestAskWorkers:
    def test_answers_come_by_address(self, client: Client) -> None:
        assert ask_workers(client, divmod, 7, 2) == dict.fromkeys(client.nthreads(), (3, 1))

    def test_exception_is_an_answer(self, client: Client) -> None:
        answers = ask_workers(client, divmod, 7, 0).values()
        assert [type(answer) for answer in answers] == [ZeroDivisionError] * 2

    def test_worker_that_does_not_answer_is_told(self, client: Client, tmp_path: Path) -> None:
        with pytest.raises(ClusterError, match=r"does not answer.*tcp://127\.0\.0\.1"):
            ask_workers(client, wait_for, (tmp_path / "go").exists, timeout=0.2)
        (tmp_path / "go").touch()


class TestVersions:
    def test_same_version_everywhere_is_accepted(self, client: Client) -> None:
        check_versions(client)

    def test_other_version_and_no_version_are_refused_by_address(
        self, cluster: DaskProcesses, tmp_path: Path
    ) -> None:
        with connect(scheduler_file=cluster.scheduler_file) as client:
            strangers = [
                cluster.start_workers(environment={"PYTHONPATH": str(path)})
                for path in (other_version(tmp_path), no_package(tmp_path))
            ]
            client.wait_for_workers(2, timeout=60)
            with pytest.raises(ClusterError, match=r"found tcp://127.*: 9\.9.*expected") as caught:
                check_versions(client)
            assert "not installed" in str(caught.value)
            assert caught.value.expected == f"{__version__} as here"
            # Those who join after the check are found by what they send back.
            with pytest.raises(ClusterError, match="another version") as caught:
                list(loop.run(cut(6, 1), DaskExecutor(client), Toy(tmp_path)))
            assert "9.9" in str(caught.value)
            assert not (tmp_path / "starts").exists()
            for process in strangers:
                end(process)
            wait_for(lambda: not client.nthreads())


def other_version(folder: Path) -> Path:
    """A path on which this package says that it is version 9.9."""
    info = folder / "other" / "gpu_eval-9.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gpu-eval\nVersion: 9.9\n")
    return info.parent


def no_package(folder: Path) -> Path:
    """A path on which Python starts as if this package were not installed."""
    path = folder / "without"
    path.mkdir()
    (path / "sitecustomize.py").write_text(
        """
import sys
from importlib import metadata

class Blocker:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "gpu_eval":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def version(name, real=metadata.version):
    if name == "gpu-eval":
        raise metadata.PackageNotFoundError(name)
    return real(name)

sys.meta_path.insert(0, Blocker)
metadata.version = version
"""
    )
    return path


class TestResources:
    @pytest.mark.parametrize(
        ("gpus", "needed"),
        [([0, 0], None), ([1, 1], None), ([1, 0], {"GPU": 0.5}), ([], None), ([4, 0, 0], {"GPU": 0.5})],
    )
    def test_only_mixed_clusters_need_resources(
        self, gpus: list[int], needed: dict[str, float] | None
    ) -> None:
        workers = {str(i): {"nthreads": 2, "resources": {"GPU": n} if n else {}} for i, n in enumerate(gpus)}
        assert gpu_resources(SimpleNamespace(scheduler_info=lambda **_: {"workers": workers})) == needed

    def test_window_follows_what_the_workers_offer(self, client: Client) -> None:
        assert DaskExecutor(client).window == 6
        assert DaskExecutor(client, resources={"GPU": 1}).window == 6
        assert DaskExecutor(client, resources={"TPU": 1}).window == 2
        assert DaskExecutor(client, window=17).window == 17

    def test_shards_that_nobody_can_serve_do_not_wait_for_ever(self, client: Client, tmp_path: Path) -> None:
        executor = DaskExecutor(client, resources={"TPU": 1}, worker_wait=0.5)
        with pytest.raises(ClusterError, match="no workers with TPU"):
            list(loop.run(cut(3, 1), executor, Toy(tmp_path)))


def test_work_of_a_notebook_can_be_packed() -> None:
    factor = 3
    packed = pack(lambda shard: shard.last * factor)
    assert packed(Shard(0, 0, 5)) == 15
    assert len(pack(trivial).payload) < 100


def _workers(client: Client) -> list[dict[str, Any]]:
    return list(client.scheduler_info(n_workers=-1)["workers"].values())
