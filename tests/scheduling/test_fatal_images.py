"""Images that killed the process that scored them: they become error rows and are not touched again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpu_eval.engines.cpu.engine import CpuEngine
from gpu_eval.runs.workers import ThisProcess
from gpu_eval.scheduling import shards
from gpu_eval.scheduling.shards import Shard
from tests.support.instance_split import InstanceFiles
from tests.support.scoring import score
from tests.support.semantic_split import TinySplit

POISON = 3


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One shard of everything, image POISON found deadly; the names of the gts that engines were given."""
    seen: list[str] = []

    def cut(images: int, shard_size: int) -> list[Shard]:
        assert images <= shard_size
        return [Shard(0, 0, images, fatal=(POISON,))]

    def watched(method: Any) -> Any:
        def call(self: CpuEngine, job: Any, images: Sequence[Any], *arguments: Any) -> Any:
            seen.extend(image.gt.name for image in images)
            return method(self, job, images, *arguments)

        return call

    monkeypatch.setattr(shards, "cut", cut)
    monkeypatch.setattr(CpuEngine, "count", watched(CpuEngine.count))
    # As on a cluster, where images may be deadly: the doctor looks with the readable decoder.
    monkeypatch.setattr(ThisProcess, "_eyes", lambda _: None)
    return seen


def test_label_maps_are_scored_without_it(split: TinySplit, tmp_path: Path, poisoned: list[str]) -> None:
    run = score(split, tmp_path / "run", on_error="skip")
    deadly = split.names[POISON]
    assert sorted(poisoned) == [name for name in split.names if name != deadly]
    rows = run.images.to_pylist()
    assert [row["status"] for row in rows] == ["error" if i == POISON else "ok" for i in range(6)]
    assert rows[POISON]["errors"][0]["kind"] == "FatalImage"
    assert rows[POISON]["errors"][0]["file"] == f"{split.gts}/{deadly}"
    assert np.array_equal(run.confusion(), split.without(deadly).total())


def test_instances_are_scored_without_it(
    instances: InstanceFiles, tmp_path: Path, poisoned: list[str]
) -> None:
    run = score(instances, tmp_path / "run", on_error="skip")
    deadly = run.images["gt_file"][POISON].as_py()
    assert deadly not in poisoned
    assert len(poisoned) == len(run.images) - 1
    rows = run.images.to_pylist()
    assert [row["image_id"] for row in rows if row["status"] == "error"] == [POISON]
    assert [error["kind"] for error in rows[POISON]["errors"]] == ["FatalImage"]
    assert POISON not in run.instances["image_id"].to_pylist()
