"""Fixtures of every room: small splits that a test may change, and a cluster that nobody has joined."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

# What they assert is told like the asserts of a test; they are imported after this.
pytest.register_assert_rewrite(
    *(
        f"tests.support.{name}"
        for name in ("commands", "instance_tables", "run_tables", "scoring", "stopped_runs")
    ),
    "tests.inputs.source_contract",
    "tests.runs.resume_contract",
    "tests.scheduling.executor_contract",
)

from tests.support import semantic_split  # noqa: E402
from tests.support.semantic_split import TinySplit  # noqa: E402

if TYPE_CHECKING:
    from gpu_eval.results.instance_run import InstanceRun
    from tests.support.dask_processes import DaskProcesses
    from tests.support.instance_split import InstanceFiles

# Nothing here asserts timings: the first example may have to load or compile kernels.
settings.register_profile("gpu-eval", deadline=None)
settings.load_profile("gpu-eval")


@pytest.fixture
def split(tmp_path: Path) -> TinySplit:
    """Six label maps of a side."""
    return semantic_split.make_split(tmp_path / "split")


@pytest.fixture
def instances(tmp_path: Path) -> InstanceFiles:
    """Six images with masks."""
    from tests.support import instance_split

    return instance_split.make_split(tmp_path / "instances")


@pytest.fixture(scope="session")
def ten(tmp_path_factory: pytest.TempPathFactory) -> InstanceFiles:
    """Ten images with masks, which no test changes."""
    from tests.support import instance_split

    return instance_split.make_split(tmp_path_factory.mktemp("instances"), count=10)


@pytest.fixture(scope="session")
def run_of_ten(ten: InstanceFiles) -> InstanceRun:
    """Their run, which no test changes."""
    from tests.support.scoring import score

    run: InstanceRun = score(ten, ten.root / "run", shard_size=3)
    return run


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[DaskProcesses]:
    """Starts schedulers and workers, and ends them with the test."""
    from tests.support.dask_processes import dask_processes

    with dask_processes(tmp_path) as processes:
        yield processes
