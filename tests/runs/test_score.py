"""A whole split through `gpu_eval.score`: right numbers, and a word for files and values that are off."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gpu_eval
from gpu_eval import errors
from gpu_eval.results.semantic_run import Run
from tests.conftest import CLASSES, HEIGHT, SUFFIX, WIDTH, TinySplit, assert_same_tables, count
from tests.support import png_builder


def score(split: TinySplit, out: Path, **options: Any) -> Run:
    return gpu_eval.score(split.gts, split.preds, **{"out": out, "res": "native", **options})


def problems_of(split: TinySplit, out: Path, **options: Any) -> list[errors.GpuEvalError]:
    with pytest.raises(errors.SplitProblems) as caught:
        score(split, out, **options)
    assert f"{len(caught.value.problems)} in {len(split.maps)} images" == caught.value.found
    return list(caught.value.problems)


def zipped(folder: Path, target: Path, method: int = zipfile.ZIP_STORED, prefix: str = "") -> Path:
    with zipfile.ZipFile(target, "w", method) as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, prefix + path.relative_to(folder).as_posix())
    return target


def tarred(folder: Path, target: Path) -> Path:
    with tarfile.open(target, "w") as archive:
        archive.add(folder, arcname=".")
    return target


def matrix_of(run: Run, image_id: int) -> np.ndarray:
    matrix = np.zeros((CLASSES + 1, CLASSES + 1), np.int64)
    for cell in run.sql(f"SELECT gt, pred, pixels FROM cells WHERE image_id = {image_id}").to_pylist():
        matrix[cell["gt"], cell["pred"]] = cell["pixels"]
    return matrix


def from_one(pred: np.ndarray) -> np.ndarray:
    """Level-3 ids as the benchmark's server takes them: 1..26, void 255."""
    return np.where(pred == 255, 255, pred + 1).astype(np.uint8)


class TestNumbers:
    @pytest.mark.parametrize(
        ("res", "size"),
        [
            ("native", None),
            (None, (1080, 1920)),
            ("720", (720, 1280)),
            ("480", (480, 858)),
            ("240", (240, 426)),
            ("33x17", (17, 33)),
        ],
    )
    def test_matrix_is_the_literal_count(
        self, split: TinySplit, tmp_path: Path, res: str | None, size: tuple[int, int] | None
    ) -> None:
        run = score(split, tmp_path / "run", res=res)
        assert np.array_equal(run.confusion(), split.total(size))
        for image_id, sides in enumerate(split.maps.values()):
            assert np.array_equal(matrix_of(run, image_id), count(*sides, size))

    def test_miou_is_the_mean_of_the_literal_ious(self, split: TinySplit, tmp_path: Path) -> None:
        matrix = split.total()
        tp = np.diag(matrix)[:-1]
        union = matrix[:-1].sum(axis=1) + matrix[:-1, :-1].sum(axis=0) - tp
        assert score(split, tmp_path / "run").miou(level=3) == pytest.approx(np.mean(tp / union), abs=1e-12)

    def test_archives_and_folders_give_the_same_tables(self, split: TinySplit, tmp_path: Path) -> None:
        folder, archives = tmp_path / "run-folder", tmp_path / "run-archives"
        score(split, folder)
        inputs = {
            "zip": (zipped(split.gts, tmp_path / "g.zip"), zipped(split.preds, tmp_path / "p.zip")),
            "deflated": (split.gts, zipped(split.preds, tmp_path / "d.zip", zipfile.ZIP_DEFLATED)),
            "tar": (tarred(split.gts, tmp_path / "g.tar"), tarred(split.preds, tmp_path / "p.tar")),
        }
        before = set(tmp_path.iterdir())
        for gts, preds in inputs.values():
            gpu_eval.score(gts, preds, out=archives, res="native", overwrite=True)
            assert_same_tables(folder, archives)
        assert set(tmp_path.iterdir()) - before == {archives}

    def test_threads_do_not_change_the_tables(self, split: TinySplit, tmp_path: Path) -> None:
        for threads in (1, 3):
            score(split, tmp_path / str(threads), threads=threads)
        assert_same_tables(tmp_path / "1", tmp_path / "3")

    def test_archive_with_one_top_folder_is_scored_with_a_note(
        self, split: TinySplit, tmp_path: Path
    ) -> None:
        preds = zipped(split.preds, tmp_path / "p.zip", prefix="my model/")
        run = gpu_eval.score(split.gts, preds, out=tmp_path / "run", res="native")
        assert np.array_equal(run.confusion(), split.total())
        assert "my model" in run.facts["notes"][0]

    def test_submission_encoding_counts_from_one(self, split: TinySplit, tmp_path: Path) -> None:
        for name, (_, pred) in split.maps.items():
            Image.fromarray(from_one(pred)).save(split.preds / name)
        run = score(split, tmp_path / "run", pred_encoding="submission")
        assert np.array_equal(run.confusion(), split.total())

    def test_forgotten_submission_encoding_is_suspected(self, split: TinySplit, tmp_path: Path) -> None:
        for name, (_, pred) in split.maps.items():
            shifted = from_one(pred)
            shifted[0, 0] = 27
            Image.fromarray(shifted).save(split.preds / name)
        run = score(split, tmp_path / "run")
        assert any("--pred-encoding submission" in warning for warning in run.facts["warnings"])

    def test_predictions_of_another_size_are_resized_to_the_ground_truth(
        self, split: TinySplit, tmp_path: Path
    ) -> None:
        for name, (gt, pred) in split.maps.items():
            small = np.ascontiguousarray(pred[::2, ::2])
            Image.fromarray(small).save(split.preds / name)
            split.maps[name] = (gt, small)
        run = score(split, tmp_path / "run")
        assert np.array_equal(run.confusion(), split.total())
        assert run.facts["warnings"] == []

    def test_own_label_table_and_suffixes(self, tmp_path: Path) -> None:
        (tmp_path / "labels.csv").write_text("name,id\nroad,4\nsky,9\n")
        values = np.array([[4, 4, 9], [9, 255, 4]], np.uint8)
        for side in ("gt", "pred"):
            (tmp_path / side).mkdir()
            Image.fromarray(values).save(tmp_path / side / f"x_{side}.png")
        run = gpu_eval.score(
            tmp_path / "gt",
            tmp_path / "pred",
            out=tmp_path / "run",
            labels=tmp_path / "labels.csv",
            gt_suffix="_gt.png",
            pred_suffix="_pred.png",
        )
        assert run.confusion().tolist() == [[3, 0, 0], [0, 2, 0], [0, 0, 1]]


def drawn_pixels() -> np.ndarray:
    return np.random.default_rng(5).integers(0, CLASSES, (HEIGHT, WIDTH)).astype(np.uint8)


UNUSUAL: dict[str, Callable[[np.ndarray], bytes]] = {
    "16-bit grey": lambda pixels: png_builder.build_png(pixels, bit_depth=16),
    "interlaced": lambda pixels: png_builder.build_png(pixels, interlaced=True, filters=[4, 0, 2, 1, 3]),
    "interlaced palette": lambda pixels: png_builder.build_png(pixels, colour_type=3, interlaced=True),
    "4-bit palette": lambda pixels: png_builder.build_png(pixels % 16, colour_type=3, bit_depth=4),
    "1-bit palette": lambda pixels: png_builder.build_png(pixels % 2, colour_type=3, bit_depth=1),
}


@pytest.mark.parametrize("kind", UNUSUAL)
@pytest.mark.parametrize("side", ["gt", "pred"])
def test_unusual_png_is_counted_by_pillow(split: TinySplit, tmp_path: Path, kind: str, side: str) -> None:
    name = split.names[2]
    pixels = drawn_pixels()
    if "bit palette" in kind:
        pixels %= 2 ** int(kind[0])
    path = (split.gts if side == "gt" else split.preds) / name
    path.write_bytes(UNUSUAL[kind](pixels))
    gt, pred = split.maps[name]
    split.maps[name] = (pixels, pred) if side == "gt" else (gt, pixels)
    run = score(split, tmp_path / "run")
    assert np.array_equal(run.confusion(), split.total())
    assert run.facts["decoders"] == {"simd": 5, "cuda": 0, "pillow": 1}
    assert run.images["decoder"].to_pylist()[2] == "pillow"


def test_8_bit_palette_takes_the_fast_path(split: TinySplit, tmp_path: Path) -> None:
    name = split.names[0]
    pixels = drawn_pixels()
    (split.preds / name).write_bytes(png_builder.build_png(pixels, colour_type=3, filters=[0, 1, 2, 3, 4]))
    split.maps[name] = (split.maps[name][0], pixels)
    run = score(split, tmp_path / "run")
    assert np.array_equal(run.confusion(), split.total())
    assert run.facts["decoders"] == {"simd": 6, "cuda": 0, "pillow": 0}


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
            gpu_eval.score(split.gts, packed, out=tmp_path / "run", res="native")
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
            gpu_eval.score(gts, preds, out=tmp_path / "run")
        assert caught.value.file == str(empty)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("side", ["gt", "pred"])
    def test_missing_folder_is_unreadable(self, split: TinySplit, tmp_path: Path, side: str) -> None:
        gts, preds = (tmp_path / "no", split.preds) if side == "gt" else (split.gts, tmp_path / "no")
        with pytest.raises(errors.UnreadableSource) as caught:
            gpu_eval.score(gts, preds, out=tmp_path / "run")
        assert caught.value.file == str(tmp_path / "no")
        assert not (tmp_path / "run").exists()

    def test_file_that_is_no_archive_is_unreadable(self, split: TinySplit, tmp_path: Path) -> None:
        (tmp_path / "note.zip").write_text("not an archive")
        with pytest.raises(errors.UnreadableSource):
            gpu_eval.score(split.gts, tmp_path / "note.zip", out=tmp_path / "run")

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


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"on_error": "ignore"}, errors.OptionError),
            ({"threads": 0}, errors.OptionError),
            ({"shard_size": 0}, errors.OptionError),
            ({"res": "huge"}, errors.OptionError),
            ({"pred_encoding": "level7"}, errors.OptionError),
            ({"engine": "abacus"}, errors.OptionError),
            ({"labels": "nowhere.csv"}, errors.LabelTableError),
        ],
    )
    def test_meaningless_option_is_refused_before_anything_is_written(
        self, split: TinySplit, tmp_path: Path, options: dict[str, Any], error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            score(split, tmp_path / "run", **options)
        assert not (tmp_path / "run").exists()

    def test_progress_counts_up_to_all_images(self, split: TinySplit, tmp_path: Path) -> None:
        seen: list[gpu_eval.Progress] = []
        score(split, tmp_path / "run", shard_size=2, progress=seen.append)
        assert [progress.done for progress in seen] == [0, 2, 4, 6]
        assert {(progress.total, progress.resumed) for progress in seen} == {(6, 0)}


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
