"""A disk that is full ends the run with a word, and leaves no half file."""

from __future__ import annotations

import errno
import os
import stat
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gpu_eval
from gpu_eval import errors, storage
from gpu_eval.run_folder import parts
from gpu_eval.scheduling.shards import Shard
from tests.support import scoring
from tests.support.run_tables import SEMANTIC_PARTS
from tests.support.semantic_split import TinySplit

score = partial(scoring.score, shard_size=1)


def fail_on_images(handle: int) -> None:
    """`os.fsync` on a disk that is full by the time the third images part is written."""
    if "images/.part-000002" in os.readlink(f"/proc/self/fd/{handle}"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class TestFullDisk:
    @pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to name a file handle")
    def test_full_disk_stops_the_run_which_resume_finishes(
        self, split: TinySplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "run"
        with monkeypatch.context() as full:
            full.setattr(os, "fsync", fail_on_images)
            with pytest.raises(errors.ReportError, match="No space left") as caught:
                score(split, out)
        assert caught.value.exit_code == 2
        assert not (out / "images" / "part-000002.parquet").exists()
        assert not list(out.rglob(".*.tmp"))
        with pytest.raises(errors.IncompleteRun):
            gpu_eval.open_run(out)
        assert np.array_equal(score(split, out, resume=True).confusion(), split.total())

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_really_full_device_is_a_report_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = tmp_path / "table.parquet"
        monkeypatch.setattr(storage.uuid, "uuid4", lambda: SimpleNamespace(hex="known"))
        temporary = target.with_name(f".{target.name}.known.tmp")
        temporary.symlink_to("/dev/full")
        with pytest.raises(errors.ReportError, match="No space left"):
            storage.write_table(target, pa.table({"pixels": list(range(1000))}))
        assert list(tmp_path.iterdir()) == []
        assert stat.S_ISCHR(os.stat("/dev/full").st_mode)

    def test_failed_write_keeps_the_old_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        target = tmp_path / "table.parquet"
        storage.write_table(target, pa.table({"pixels": [1]}))

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(errors.ReportError):
            storage.write_table(target, pa.table({"pixels": [2]}))
        assert pq.read_table(target)["pixels"].to_pylist() == [1]
        assert list(tmp_path.iterdir()) == [target]


def test_commit_writes_the_images_part_last(tmp_path: Path) -> None:
    table = pa.table({"pixels": [1]})
    shard = Shard(0, 0, 1)
    (tmp_path / "images").write_text("a file where the folder should be")
    with pytest.raises(errors.ReportError):
        parts.commit(tmp_path, shard.number, dict.fromkeys(SEMANTIC_PARTS, table), "f")
    assert (tmp_path / "cells" / parts.file_name(shard.number)).exists()
    assert (tmp_path / "image_classes" / parts.file_name(shard.number)).exists()
    assert not parts.is_committed(tmp_path, shard.number, SEMANTIC_PARTS, "f")
