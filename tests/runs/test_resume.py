"""Runs that were stopped anywhere are finished by `resume`, with the tables of a run that never was."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpu_eval import errors
from gpu_eval.results.semantic_run import Run
from gpu_eval.run_folder import folder as run_folder
from gpu_eval.scheduling.shards import cut
from tests.runs.resume_contract import ResumeContract
from tests.support import scoring
from tests.support.run_tables import SEMANTIC_PARTS, assert_same_tables
from tests.support.semantic_split import TinySplit, make_split
from tests.support.stopped_runs import stop_at

score = partial(scoring.score, shard_size=1)


class TestContract(ResumeContract):
    command = ("score", "--res", "native")
    other: ClassVar = {"res": "240"}
    part_tables = SEMANTIC_PARTS

    @pytest.fixture
    def files(self, split: TinySplit) -> TinySplit:
        return split

    def assert_right(self, files: TinySplit, run: Run) -> None:
        assert np.array_equal(run.confusion(), files.total())

    def spoil(self, files: TinySplit) -> None:
        (files.preds / files.names[0]).unlink()
        (files.preds / files.names[3]).write_bytes(b"no PNG")


class TestKilled:
    def test_part_without_its_images_file_is_not_done(self, split: TinySplit, tmp_path: Path) -> None:
        stop_at(split, tmp_path / "run", 2)
        part = min((tmp_path / "run" / "images").glob("part-*.parquet"))
        part.unlink()
        run = score(split, tmp_path / "run", resume=True)
        assert part.exists()
        assert np.array_equal(run.confusion(), split.total())

    def test_leftover_temporary_files_are_not_read(self, split: TinySplit, tmp_path: Path) -> None:
        stop_at(split, tmp_path / "run", 2)
        for name in SEMANTIC_PARTS:
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
            score(split, tmp_path / "run", resume=True, as_is=True, **options)  # some would be doubted
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
        shards = cut(images, shard_size)
        assert [i for shard in shards for i in range(shard.first, shard.last)] == list(range(images))
        assert [shard.number for shard in shards] == list(range(len(shards)))
        assert all(0 < shard.last - shard.first <= shard_size for shard in shards)
