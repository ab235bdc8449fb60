"""Runs at an fsspec URL: written, resumed, queried, compared and damaged like runs in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest

import gpu_eval
from gpu_eval import api, errors, storage
from gpu_eval.results.instance_run import InstanceRun
from gpu_eval.run_folder import folder as run_folder
from gpu_eval.run_folder import schema
from tests.support.instance_split import InstanceFiles
from tests.support.scoring import score
from tests.support.semantic_split import TinySplit

URL = "memory://bucket/runs/model"


@pytest.fixture(autouse=True)
def files() -> Iterator[fsspec.AbstractFileSystem]:
    """The memory file system, which is one per process, empty before and after."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


score_there = partial(score, out=URL, shard_size=4)


def test_run_at_a_url_has_the_tables_of_one_in_a_folder(split: TinySplit, tmp_path: Path) -> None:
    there = score_there(split)
    here = score(split, tmp_path / "run", shard_size=4)
    for name in schema.tables_of("semantic").by_name:
        query = f"SELECT * FROM {name} ORDER BY ALL"
        for one, other in ((there.table(name), here.table(name)), (there.sql(query), here.sql(query))):
            assert one.schema.equals(other.schema)
            assert repr(one.to_pylist()) == repr(other.to_pylist())  # NaN equals NaN there
    assert np.array_equal(there.confusion(), split.total())


def test_url_run_is_refused_resumed_and_replaced_like_a_folder(split: TinySplit) -> None:
    score_there(split)
    with pytest.raises(errors.RunExists):
        score_there(split)
    assert score_there(split, resume=True).facts["images_resumed"] == len(split.names)
    assert score_there(split, overwrite=True).facts["images_resumed"] == 0


def test_truncated_part_at_a_url_is_scored_again(split: TinySplit, files: fsspec.AbstractFileSystem) -> None:
    score_there(split)
    part = "/bucket/runs/model/cells/part-000000.parquet"
    files.pipe_file(part, files.cat_file(part)[:-20])
    with pytest.raises(errors.CorruptRun, match="part-000000"):
        gpu_eval.open_run(URL).cells  # noqa: B018
    again = score_there(split, resume=True)
    assert again.facts["images_resumed"] == len(split.names) - 4
    assert np.array_equal(again.confusion(), split.total())


def test_lost_part_at_a_url_is_not_taken_for_fewer_images(
    split: TinySplit, files: fsspec.AbstractFileSystem
) -> None:
    score_there(split)
    files.rm_file("/bucket/runs/model/images/part-000001.parquet")
    with pytest.raises(errors.CorruptRun, match="part-000001"):
        gpu_eval.open_run(URL).images  # noqa: B018


def test_foreign_files_at_a_url_are_left_alone(split: TinySplit, files: fsspec.AbstractFileSystem) -> None:
    files.pipe_file("/bucket/runs/model/notes.txt", b"mine")
    with pytest.raises(errors.RunExists, match="other files"):
        score_there(split, overwrite=True)
    assert files.cat_file("/bucket/runs/model/notes.txt") == b"mine"


def test_runs_at_urls_are_compared_tagged_and_drawn(split: TinySplit) -> None:
    run = score_there(split)
    assert api.compare(run, URL).difference() == 0
    assert run_folder.tag(storage.place(URL), {"team": "a"})["team"] == "a"
    assert str(api.write_html(run)) == f"{URL}/report.html"


def test_unknown_protocol_is_a_report_error(split: TinySplit) -> None:
    with pytest.raises(errors.ReportError, match="nowhere://x"):
        score(split, "nowhere://x")


def test_file_url_is_a_folder(tmp_path: Path) -> None:
    assert storage.place(f"file://{tmp_path}/run") == tmp_path / "run"


def test_refused_put_leaves_no_part(split: TinySplit, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    put = MemoryFileSystem.pipe_file

    def full(self: MemoryFileSystem, path: str, value: bytes, **options: object) -> None:
        if "images/part-000001" in path:
            raise OSError("quota exceeded")
        put(self, path, value, **options)

    with monkeypatch.context() as limited:
        limited.setattr(MemoryFileSystem, "pipe_file", full)
        with pytest.raises(errors.ReportError, match="quota exceeded"):
            score_there(split)
    with pytest.raises(errors.IncompleteRun):
        gpu_eval.open_run(URL)
    assert np.array_equal(score_there(split, resume=True).confusion(), split.total())


def test_table_written_to_a_url_reads_back(files: fsspec.AbstractFileSystem) -> None:
    target = storage.place(f"{URL}/t.parquet")
    storage.write_table(target, pa.table({"pixels": [1, 2]}))
    assert storage.read_table(target)["pixels"].to_pylist() == [1, 2]
    assert files.exists("/bucket/runs/model/t.parquet")


def test_instance_run_at_a_url_has_the_tables_of_one_in_a_folder(
    instances: InstanceFiles, tmp_path: Path
) -> None:
    here = score(instances, tmp_path / "run")
    there = score(instances, URL)
    for name in schema.tables_of("instance").by_name:
        query = f"SELECT * FROM {name} ORDER BY ALL"
        assert repr(there.sql(query).to_pylist()) == repr(here.sql(query).to_pylist())
    opened = gpu_eval.open_run(URL)
    assert isinstance(opened, InstanceRun)
    assert opened.ap() == here.ap()
