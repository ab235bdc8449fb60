"""The folder that a run is written to: nothing of somebody else is overwritten or taken for a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gpu_eval
from gpu_eval import errors
from tests.support.scoring import score
from tests.support.semantic_split import TinySplit


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestOutputFolder:
    def test_other_files_are_refused_and_kept(self, split: TinySplit, tmp_path: Path) -> None:
        out = tmp_path / "out"
        (out / "images").mkdir(parents=True)
        (out / "images" / "photo.png").write_bytes(b"precious")
        before = everything(out)
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(errors.RunExists, match="other files") as caught:
                score(split, out, **options)
            assert caught.value.file == str(out)
        assert everything(out) == before

    def test_run_json_of_another_program_does_not_open_the_door(
        self, split: TinySplit, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        (out / "images").mkdir(parents=True)
        (out / "images" / "photo.png").write_bytes(b"precious")
        (out / "run.json").write_text('{"optimizer": "adam"}')
        before = everything(out)
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(errors.ReportError):
                score(split, out, **options)
            assert everything(out) == before

    def test_the_inputs_are_no_output_folder(self, split: TinySplit) -> None:
        before = everything(split.gts)
        with pytest.raises(errors.RunExists):
            score(split, split.gts, overwrite=True)
        assert everything(split.gts) == before

    def test_another_run_is_refused_and_kept(self, split: TinySplit, tmp_path: Path) -> None:
        out = tmp_path / "out"
        score(split, out)
        before = everything(out)
        with pytest.raises(errors.RunExists, match="a complete run"):
            score(split, out)
        assert everything(out) == before

    def test_overwrite_replaces_the_run_and_keeps_other_files(self, split: TinySplit, tmp_path: Path) -> None:
        out = tmp_path / "out"
        score(split, out, shard_size=1)
        (out / "notes.txt").write_text("mine")
        (out / "images" / "photo.png").write_bytes(b"mine too")
        run = score(split, out, overwrite=True, shard_size=4)
        assert (out / "notes.txt").read_text() == "mine"
        assert (out / "images" / "photo.png").read_bytes() == b"mine too"
        assert sorted(path.name for path in (out / "images").glob("*.parquet")) == [
            "part-000000.parquet", "part-000001.parquet",
        ]  # fmt: skip
        assert np.array_equal(run.confusion(), split.total())

    def test_file_in_place_of_the_folder_is_an_error(self, split: TinySplit, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("a file")
        with pytest.raises(errors.ReportError):
            score(split, tmp_path / "out")
        assert (tmp_path / "out").read_text() == "a file"

    def test_folder_without_a_run_is_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(errors.CorruptRun, match="not a run folder"):
            gpu_eval.open_run(tmp_path)
        (tmp_path / "run.json").write_text("{")
        with pytest.raises(errors.CorruptRun, match="cannot read"):
            gpu_eval.open_run(tmp_path)
