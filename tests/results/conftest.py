"""Runs of instances, and one of label maps, that tests of results read and do not change."""

from __future__ import annotations

import pytest

from gpu_eval.results.instance_run import InstanceRun
from gpu_eval.results.semantic_run import Run
from tests.support.instance_runs import random_images, write_instance_run
from tests.support.semantic_runs import random_matrices, write_run


@pytest.fixture(scope="package")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, InstanceRun]:
    """Three runs of 40 images in ten drives; no test changes them."""
    root = tmp_path_factory.mktemp("runs")
    quality = {"bad": 0.3, "worst": 0.0, "best": 0.8}
    return {
        name: write_instance_run(root / name, random_images(40, drives=10, found=found), shard_size=16)
        for name, found in quality.items()
    }


@pytest.fixture(scope="package")
def runs(made: dict[str, InstanceRun]) -> list[InstanceRun]:
    """Of instances; suites of label maps make their own."""
    return list(made.values())


@pytest.fixture(scope="package")
def semantic(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("semantic") / "maps", random_matrices(5))
