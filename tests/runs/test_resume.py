"""Runs that were stopped anywhere are finished by `resume`, with the tables of a run that never was."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gpu_eval
from gpu_eval import errors, storage
from gpu_eval.results.semantic_run import Run
from gpu_eval.run_folder import folder as run_folder
from gpu_eval.scheduling import shards as sharding
from gpu_eval.scheduling.shards import Shard
from gpu_eval.tasks.semantic import PART_TABLES
from tests.support.commands import start_slow, wait_for_parts
from tests.support.run_tables import assert_same_tables
from tests.support.semantic_split import TinySplit, make_split


def score(split: TinySplit, out: Path, **options: Any) -> Run:
    return gpu_eval.score(split.gts, split.preds, **{"out": out, "res": "native", "shard_size": 1, **options})


def identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def stop_at(split: TinySplit, out: Path, images: int, **options: Any) -> None:
    """A run that is interrupted once `images` images are done."""

    def interrupt(progress: gpu_eval.Progress) -> None:
        if progress.done >= images:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(split, out, progress=interrupt, **options)


class TestKilled:
    @pytest.mark.parametrize("parts", [1, 4])
    def test_killed_run_is_finished_with_equal_tables(
        self, split: TinySplit, tmp_path: Path, parts: int
    ) -> None:
        out = tmp_path / "killed"
        process = start_slow(
            "score", split.gts, split.preds, "-o", out, "--res", "native", "--shard-size", 1, "-j", 1
        )
        done = {}
        try:
            wait_for_parts(out, parts, process)
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        for name in PART_TABLES:
            for part in sorted((out / "images").glob("part-*.parquet")):
                path = out / name / part.name
                done[path] = identity(path)
        assert parts <= len(done) / 3 < 6
        with pytest.raises(errors.IncompleteRun, match="--resume"):
            gpu_eval.open_run(out)

        run = score(split, out, resume=True)
        assert {path: identity(path) for path in done} == done
        assert run.facts["images_resumed"] == len(done) // 3
        score(split, tmp_path / "undisturbed")
        assert_same_tables(tmp_path / "undisturbed", out)
        assert np.array_equal(run.confusion(), split.total())

    def test_part_without_its_images_file_is_not_done(self, split: TinySplit, tmp_path: Path) -> None:
        stop_at(split, tmp_path / "run", 2)
        part = min((tmp_path / "run" / "images").glob("part-*.parquet"))
        part.unlink()
        run = score(split, tmp_path / "run", resume=True)
        assert part.exists()
        assert np.array_equal(run.confusion(), split.total())

    def test_leftover_temporary_files_are_not_read(self, split: TinySplit, tmp_path: Path) -> None:
        stop_at(split, tmp_path / "run", 2)
        for name in PART_TABLES:
            (tmp_path / "run" / name / ".part-000005.parquet.4711.tmp").write_bytes(b"PAR1 half")
        score(split, tmp_path / "run", resume=True)
        score(split, tmp_path / "undisturbed")
        assert_same_tables(tmp_path / "undisturbed", tmp_path / "run")

    @pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
    def test_killed_before_the_first_run_json_leaves_a_usable_folder(
        self, split: TinySplit, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / ".run.json.4711.tmp").write_bytes(b"{")
        run = score(split, tmp_path / "run", **options)
        assert np.array_equal(run.confusion(), split.total())


class TestParts:
    @pytest.mark.parametrize("name", PART_TABLES)
    @pytest.mark.parametrize("keep", [0, 0.5, 0.99])
    def test_truncated_part_is_scored_again(
        self, split: TinySplit, tmp_path: Path, name: str, keep: float
    ) -> None:
        out = tmp_path / "run"
        score(split, out)
        paths = sorted((out / name).glob("*.parquet"))
        before = {path: identity(path) for path in paths}
        content = paths[2].read_bytes()
        paths[2].write_bytes(content[: int(len(content) * keep)])
        run = score(split, out, resume=True)
        assert run.facts["images_resumed"] == 5
        assert paths[2].read_bytes() == content
        assert all(identity(path) == before[path] for path in paths if path != paths[2])
        assert np.array_equal(run.confusion(), split.total())

    @pytest.mark.parametrize("name", PART_TABLES)
    def test_part_of_another_run_is_refused_and_kept(
        self, split: TinySplit, tmp_path: Path, name: str
    ) -> None:
        out, other = tmp_path / "run", tmp_path / "other"
        stop_at(split, out, 3)
        score(split, other, res="240")
        path = out / name / "part-000000.parquet"
        shutil.copy(other / name / path.name, path)
        foreign = path.read_bytes()
        with pytest.raises(errors.CorruptRun, match="another run") as caught:
            score(split, out, resume=True)
        assert caught.value.file == str(path)
        assert path.read_bytes() == foreign

    def test_part_without_a_fingerprint_is_refused(self, split: TinySplit, tmp_path: Path) -> None:
        stop_at(split, tmp_path / "run", 2)
        path = tmp_path / "run" / "images" / "part-000000.parquet"
        pq.write_table(pa.table({"mine": [1]}), path)
        with pytest.raises(errors.CorruptRun):
            score(split, tmp_path / "run", resume=True)
        assert pq.read_table(path).column_names == ["mine"]


class TestOfAnotherCommand:
    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"res": "240"}, "resolution was native"),
            ({"pred_encoding": "submission"}, "pred_encoding was level3"),
            ({"gt_encoding": "id"}, "gt_encoding was level3"),
            ({"shard_size": 2}, "shard_size was 1"),
            ({"on_error": "void"}, "void_on_error was False"),
            ({"labels": "idd-lite", "gt_suffix": ".png", "pred_suffix": ".png"}, "labels was"),
        ],
    )
    def test_other_option_is_named(
        self, split: TinySplit, tmp_path: Path, options: dict[str, Any], told: str
    ) -> None:
        stop_at(split, tmp_path / "run", 2)
        with pytest.raises(errors.RunExists, match="cannot be resumed") as caught:
            score(split, tmp_path / "run", resume=True, **options)
        assert caught.value.found is not None
        assert told in caught.value.found

    def test_changed_prediction_is_not_mixed_in(self, split: TinySplit, tmp_path: Path) -> None:
        stop_at(split, tmp_path / "run", 2)
        path = split.preds / split.names[0]
        os.utime(path, ns=(1, 1))
        with pytest.raises(errors.RunExists, match="files changed since"):
            score(split, tmp_path / "run", resume=True)

    def test_added_image_is_not_mixed_in(self, split: TinySplit, tmp_path: Path) -> None:
        stop_at(split, tmp_path / "run", 2)
        for folder in (split.gts, split.preds):
            shutil.copy2(folder / split.names[0], folder / split.names[0].replace("0000", "9999"))
        with pytest.raises(errors.RunExists, match="files changed since"):
            score(split, tmp_path / "run", resume=True)

    def test_refusal_leaves_the_run_resumable(self, split: TinySplit, tmp_path: Path) -> None:
        stop_at(split, tmp_path / "run", 2)
        with pytest.raises(errors.RunExists):
            score(split, tmp_path / "run", resume=True, res="240")
        assert score(split, tmp_path / "run", resume=True).facts["images_resumed"] >= 2

    def test_threads_may_change(self, split: TinySplit, tmp_path: Path) -> None:
        stop_at(split, tmp_path / "run", 2, threads=1)
        run = score(split, tmp_path / "run", resume=True, threads=2)
        assert np.array_equal(run.confusion(), split.total())

    def test_without_resume_an_unfinished_run_is_refused(self, split: TinySplit, tmp_path: Path) -> None:
        stop_at(split, tmp_path / "run", 2)
        with pytest.raises(errors.RunExists, match="an unfinished run"):
            score(split, tmp_path / "run")


class TestResume:
    def test_new_folder_is_simply_scored(self, split: TinySplit, tmp_path: Path) -> None:
        run = score(split, tmp_path / "run", resume=True)
        assert run.facts["images_resumed"] == 0

    def test_complete_run_stays_what_it_is(self, split: TinySplit, tmp_path: Path) -> None:
        score(split, tmp_path / "run")
        score(split, tmp_path / "undisturbed")
        parts = {path: identity(path) for path in (tmp_path / "run").rglob("part-*.parquet")}
        run = score(split, tmp_path / "run", resume=True)
        assert run.facts["images_resumed"] == 6
        assert {path: identity(path) for path in (tmp_path / "run").rglob("part-*.parquet")} == parts
        assert_same_tables(tmp_path / "undisturbed", tmp_path / "run")

    def test_stopped_by_problems_is_finished_without_them(self, split: TinySplit, tmp_path: Path) -> None:
        (split.preds / split.names[0]).unlink()
        (split.preds / split.names[3]).write_bytes(b"no PNG")
        with pytest.raises(errors.SplitProblems) as stopped:
            score(split, tmp_path / "run")
        assert "--resume --on-error skip" in str(stopped.value)
        run = score(split, tmp_path / "run", resume=True, on_error="skip")
        assert run.facts["images_resumed"] == 6
        assert (run.facts["images_scored"], run.facts["images_failed"]) == (4, 2)
        score(split, tmp_path / "undisturbed", on_error="skip")
        assert_same_tables(tmp_path / "undisturbed", tmp_path / "run")
        again = score(split, tmp_path / "run", resume=True)  # complete, and stays so
        assert again.facts["on_error"] == "skip"
        assert_same_tables(tmp_path / "undisturbed", tmp_path / "run")

    @pytest.mark.parametrize("on_error", ["stop", "skip", "void"])
    @pytest.mark.parametrize("side", ["gts", "preds"])
    def test_folder_that_goes_away_is_not_taken_for_broken_images(
        self, split: TinySplit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str, on_error: str
    ) -> None:
        folder, away = getattr(split, side), tmp_path / "away"
        begin = run_folder.begin

        def begin_and_lose(*arguments: Any, **options: Any) -> Any:
            folder.rename(away)
            return begin(*arguments, **options)

        with monkeypatch.context() as patched:
            patched.setattr(run_folder, "begin", begin_and_lose)
            with pytest.raises(errors.UnreadableSource, match="no image of a shard can be read here") as told:
                score(split, tmp_path / "run", on_error=on_error, shard_size=3)
        assert str(folder) in str(told.value)
        assert list((tmp_path / "run").rglob("part-*")) == []
        away.rename(folder)
        score(split, tmp_path / "run", on_error=on_error, shard_size=3, resume=True)
        score(split, tmp_path / "undisturbed", on_error=on_error, shard_size=3)
        assert_same_tables(tmp_path / "undisturbed", tmp_path / "run")

    def test_resumed_run_tells_the_same_problems(self, split: TinySplit, tmp_path: Path) -> None:
        (split.preds / split.names[3]).write_bytes(b"no PNG")
        told = []
        for resume in (False, True):
            with pytest.raises(errors.SplitProblems) as caught:
                score(split, tmp_path / "run", resume=resume)
            told.append([(problem.kind, str(problem)) for problem in caught.value.problems])
        assert told[0] == told[1]

    def test_warnings_and_outside_counts_survive(self, split: TinySplit, tmp_path: Path) -> None:
        from PIL import Image

        odd = np.full((20, 20), 3, np.uint8)
        odd[0, :4] = 77
        Image.fromarray(odd).save(split.preds / split.names[0])
        fresh = score(split, tmp_path / "run").facts
        resumed = score(split, tmp_path / "run", resume=True).facts
        for name in ("warnings", "warning_count", "pred_outside", "gt_outside", "decoders", "images_scored"):
            assert fresh[name] == resumed[name], name
        assert fresh["pred_outside"] > 0
        assert fresh["warning_count"] == 1


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> TinySplit:
    return make_split(tmp_path_factory.mktemp("big"), pairs=11)


class TestShards:
    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(shard_size=st.integers(1, 13), threads=st.integers(1, 3))
    def test_any_cut_gives_the_same_sums(
        self, big: TinySplit, tmp_path: Path, shard_size: int, threads: int
    ) -> None:
        run = score(big, tmp_path / "run", shard_size=shard_size, threads=threads, overwrite=True)
        assert np.array_equal(run.confusion(), big.total())
        assert run.images["image_id"].to_pylist() == list(range(11))

    @settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(shard_size=st.integers(1, 5), stop=st.integers(0, 10))
    def test_stopped_anywhere_and_resumed_gives_the_same_sums(
        self, big: TinySplit, tmp_path: Path, shard_size: int, stop: int
    ) -> None:
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        stop_at(big, tmp_path / "run", stop, shard_size=shard_size)
        run = score(big, tmp_path / "run", shard_size=shard_size, resume=True)
        assert np.array_equal(run.confusion(), big.total())

    @given(images=st.integers(0, 500), shard_size=st.integers(1, 60))
    def test_shards_cover_every_image_once(self, images: int, shard_size: int) -> None:
        shards = sharding.cut(images, shard_size)
        assert [i for shard in shards for i in range(shard.first, shard.last)] == list(range(images))
        assert [shard.number for shard in shards] == list(range(len(shards)))
        assert all(0 < shard.last - shard.first <= shard_size for shard in shards)


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
        sharding.commit(tmp_path, shard, dict.fromkeys(PART_TABLES, table), "f")
    assert (tmp_path / "cells" / shard.file_name).exists()
    assert (tmp_path / "image_classes" / shard.file_name).exists()
    assert not sharding.is_committed(tmp_path, shard, PART_TABLES, "f")
