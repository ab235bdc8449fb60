"""Files and values that are off in `gpu_eval.score`: which are told, which stop the run, which are scored."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpu_eval import errors
from tests.support import png_builder
from tests.support.scoring import problems_of, score
from tests.support.semantic_split import HEIGHT, SUFFIX, WIDTH, TinySplit, drawn_pixels


class TestFiles:
    def test_missing_prediction_is_told_with_its_path(self, split: TinySplit, tmp_path: Path) -> None:
        (split.preds / split.names[3]).unlink()
        (problem,) = problems_of(split, tmp_path / "run")
        assert problem.kind == "MissingPrediction"
        assert problem.file == str(split.preds / split.names[3])
        assert problem.expected == split.names[3]

    def test_extra_prediction_is_told_with_its_path(self, split: TinySplit, tmp_path: Path) -> None:
        extra = split.preds / "b" / f"zzz{SUFFIX}"
        extra.write_bytes(png_builder.build_png(drawn_pixels()))
        (problem,) = problems_of(split, tmp_path / "run")
        assert (problem.kind, problem.file) == ("ExtraPrediction", str(extra))

    def test_duplicate_in_an_archive_is_told(self, split: TinySplit, tmp_path: Path) -> None:
        packed = tmp_path / "p.tar"
        with tarfile.open(packed, "w") as archive:
            for name in [*split.names, split.names[0]]:
                archive.add(split.preds / name, arcname=name)
        with pytest.raises(errors.SplitProblems) as caught:
            score(split, tmp_path / "run", preds=packed)
        (problem,) = caught.value.problems
        assert problem.kind == "DuplicateFile"
        assert problem.file == f"{packed}/{split.names[0]}"

    def test_mostly_missing_predictions_stop_before_scoring(self, split: TinySplit, tmp_path: Path) -> None:
        for name in split.names[1:]:
            (split.preds / name).unlink()
        with pytest.raises(errors.SplitProblems, match="most predictions are missing"):
            score(split, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("side", ["gt", "pred"])
    def test_empty_folder_is_an_empty_split(self, split: TinySplit, tmp_path: Path, side: str) -> None:
        empty = tmp_path / "empty"
        empty.mkdir()
        gts, preds = (empty, split.preds) if side == "gt" else (split.gts, empty)
        with pytest.raises(errors.EmptySplit) as caught:
            score(split, tmp_path / "run", gts=gts, preds=preds)
        assert caught.value.file == str(empty)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("side", ["gt", "pred"])
    def test_missing_folder_is_unreadable(self, split: TinySplit, tmp_path: Path, side: str) -> None:
        gts, preds = (tmp_path / "no", split.preds) if side == "gt" else (split.gts, tmp_path / "no")
        with pytest.raises(errors.UnreadableSource) as caught:
            score(split, tmp_path / "run", gts=gts, preds=preds)
        assert caught.value.file == str(tmp_path / "no")
        assert not (tmp_path / "run").exists()

    def test_file_that_is_no_archive_is_unreadable(self, split: TinySplit, tmp_path: Path) -> None:
        (tmp_path / "note.zip").write_text("not an archive")
        with pytest.raises(errors.UnreadableSource):
            score(split, tmp_path / "run", preds=tmp_path / "note.zip")

    def test_dangling_link_is_an_unreadable_file(self, split: TinySplit, tmp_path: Path) -> None:
        path = split.preds / split.names[0]
        path.unlink()
        path.symlink_to(tmp_path / "gone")
        (problem,) = problems_of(split, tmp_path / "run")
        assert problem.kind == "UnreadableFile"


class TestValues:
    def test_values_outside_the_encoding_are_void_and_counted(self, split: TinySplit, tmp_path: Path) -> None:
        for side, folder in enumerate((split.gts, split.preds)):
            name = split.names[side]
            sides = list(split.maps[name])
            sides[side] = sides[side].copy()
            sides[side][:5, :7] = 77
            split.maps[name] = (sides[0], sides[1])
            Image.fromarray(sides[side]).save(folder / name)
        run = score(split, tmp_path / "run")
        assert np.array_equal(run.confusion(), split.total())
        assert run.images["gt_outside"].to_pylist() == [35, 0, 0, 0, 0, 0]
        assert run.images["pred_outside"].to_pylist() == [0, 35, 0, 0, 0, 0]
        assert (run.facts["gt_outside"], run.facts["pred_outside"]) == (35, 35)

    @pytest.mark.parametrize("side", ["gt", "pred"])
    def test_map_of_another_encoding_is_refused_with_the_one_that_fits(
        self, split: TinySplit, tmp_path: Path, side: str
    ) -> None:
        ids = np.resize(np.array([29, 30, 32, 33, 34], np.uint8), (HEIGHT, WIDTH))
        Image.fromarray(ids).save(getattr(split, f"{side}s") / split.names[0])
        (problem,) = problems_of(split, tmp_path / "run")
        assert problem.kind == "LabelOutOfRange"
        assert "100% outside the encoding; values 29, 30, 32, 33, 34" in str(problem)
        assert f"--{side}-encoding id would fit 100%" in str(problem)

    def test_hint_of_the_fitting_encoding_is_the_fix(self, split: TinySplit, tmp_path: Path) -> None:
        Image.fromarray(np.full((HEIGHT, WIDTH), 34, np.uint8)).save(split.preds / split.names[0])
        (problem,) = problems_of(split, tmp_path / "run")
        assert problem.fix is not None
        assert "--pred-encoding id" in problem.fix

    def test_half_of_a_map_outside_is_still_scored(self, split: TinySplit, tmp_path: Path) -> None:
        half = np.full((HEIGHT, WIDTH), 99, np.uint8)
        half[: HEIGHT // 2] = 3
        Image.fromarray(half).save(split.preds / split.names[0])
        assert score(split, tmp_path / "run").images["pred_outside"][0].as_py() == HEIGHT * WIDTH // 2

    def test_map_of_nothing_but_void_is_scored(self, split: TinySplit, tmp_path: Path) -> None:
        void = np.full((HEIGHT, WIDTH), 255, np.uint8)
        Image.fromarray(void).save(split.preds / split.names[0])
        split.maps[split.names[0]] = (split.maps[split.names[0]][0], void)
        assert np.array_equal(score(split, tmp_path / "run").confusion(), split.total())

    def test_other_aspect_ratio_is_scored_with_a_warning(self, split: TinySplit, tmp_path: Path) -> None:
        name = split.names[4]
        square = np.ascontiguousarray(split.maps[name][1][:, :40])
        Image.fromarray(square).save(split.preds / name)
        split.maps[name] = (split.maps[name][0], square)
        run = score(split, tmp_path / "run")
        assert np.array_equal(run.confusion(), split.total())
        assert run.facts["warning_count"] == 1
        (warning,) = run.facts["warnings"]
        assert "aspect ratio" in warning
        assert "40x40" in warning
        assert "64x40" in warning
        assert [w is None for w in run.images["warning"].to_pylist()] == [True] * 4 + [False, True]
