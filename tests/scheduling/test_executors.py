"""Both executors under one contract: threads of this process, and Dask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from distributed import Client

from gpu_eval.scheduling.dask_cluster import start_local
from gpu_eval.scheduling.dask_executor import DaskExecutor
from gpu_eval.scheduling.loop import InProcessExecutor
from tests.scheduling.executor_contract import ExecutorContract, Make


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with start_local(workers=1, threads=2) as client:
        yield client


class TestInProcess(ExecutorContract):
    @pytest.fixture
    def executor_of(self) -> Make:
        return InProcessExecutor


class TestDask(ExecutorContract):
    @pytest.fixture
    def executor_of(self, client: Client) -> Make:
        return lambda window: DaskExecutor(client, window=window)
