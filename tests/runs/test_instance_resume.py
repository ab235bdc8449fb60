"""Runs of instances keep the contract of resuming; what changed since is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gpu_eval import errors
from gpu_eval.results.instance_run import InstanceRun
from tests.runs.resume_contract import ResumeContract
from tests.support.instance_split import (
    GT_SUFFIX,
    InstanceFiles,
    cut_short,
)
from tests.support.instance_tables import assert_scores
from tests.support.run_tables import INSTANCE_PARTS
from tests.support.scoring import score
from tests.support.stopped_runs import stop_at


class TestResume(ResumeContract):
    command = ("instances",)
    other: ClassVar = {"area": (0, 50)}
    part_tables = INSTANCE_PARTS

    @pytest.fixture
    def files(self, instances: InstanceFiles) -> InstanceFiles:
        return instances

    def assert_right(self, files: InstanceFiles, run: InstanceRun) -> None:
        assert_scores(run, dict(files.images))

    def spoil(self, files: InstanceFiles) -> None:
        cut_short(files.masks(0)[0])
        files.listed(3).write_text("x.png 12\n")


class TestOfAnotherCommand:
    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"area": (100, 200)}, "area was [100.0, None]"),
            ({"on_error": "void"}, "void_on_error was False"),
            ({"shard_size": 2}, "shard_size was 1"),
            ({"labels": "cityscapes", "gt_suffix": GT_SUFFIX, "as_is": True}, "labels was"),
        ],
    )
    def test_other_option_is_named(
        self, instances: InstanceFiles, tmp_path: Path, options: dict[str, Any], told: str
    ) -> None:
        stop_at(instances, tmp_path / "run", 2)
        with pytest.raises(errors.RunExists, match="cannot be resumed") as caught:
            score(
                instances,
                tmp_path / "run",
                **{"resume": True, "shard_size": 1, "on_error": "skip", **options},
            )
        assert told in (caught.value.found or "")

    @pytest.mark.parametrize("side", ["mask", "gt", "confidence"])
    def test_changed_file_is_not_mixed_in(self, instances: InstanceFiles, tmp_path: Path, side: str) -> None:
        stop_at(instances, tmp_path / "run", 2)
        if side == "confidence":
            path = instances.listed(3)
            path.write_text(path.read_text().replace(" 0.", " 0.0"))
        else:
            os.utime(instances.masks(3)[0] if side == "mask" else instances.gt(3), ns=(1, 1))
        with pytest.raises(errors.RunExists, match="files changed since"):
            score(instances, tmp_path / "run", resume=True, shard_size=1)
