"""A whole split through `gpu_eval.score`: right numbers, and a word for files and values that are off."""

from __future__ import annotations

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
from tests.support import png_builder
from tests.support.packing import tarred, zipped
from tests.support.run_tables import assert_same_tables
from tests.support.scoring import score
from tests.support.semantic_split import CLASSES, TinySplit, count, drawn_pixels


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
            score(split, archives, gts=gts, preds=preds, overwrite=True)
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
        run = score(split, tmp_path / "run", preds=preds)
        assert np.array_equal(run.confusion(), split.total())
        assert "my model" in run.facts["notes"][0]

    def test_submission_encoding_counts_from_one(self, split: TinySplit, tmp_path: Path) -> None:
        for name, (_, pred) in split.maps.items():
            Image.fromarray(from_one(pred)).save(split.preds / name)
        run = score(split, tmp_path / "run", pred_encoding="submission")
        assert np.array_equal(run.confusion(), split.total())

    def test_forgotten_submission_encoding_is_refused(self, split: TinySplit, tmp_path: Path) -> None:
        for name, (_, pred) in split.maps.items():
            Image.fromarray(from_one(pred)).save(split.preds / name)
        with pytest.raises(errors.Doubtful, match="look like `submission`, not `level3`") as caught:
            score(split, tmp_path / "run")
        assert caught.value.fix is not None
        assert "--pred-encoding submission" in caught.value.fix
        assert not (tmp_path / "run").exists()
        run = score(split, tmp_path / "run", pred_encoding="submission")
        assert np.array_equal(run.confusion(), split.total())
        assert run.doubts == ()

    def test_what_is_refused_is_scored_as_it_is(self, split: TinySplit, tmp_path: Path) -> None:
        for name, (gt, pred) in split.maps.items():
            shifted = from_one(pred)
            Image.fromarray(shifted).save(split.preds / name)
            split.maps[name] = (gt, shifted)
        run = score(split, tmp_path / "run", as_is=True)
        assert np.array_equal(run.confusion(), split.total())
        (doubt,) = run.doubts
        assert "look like `submission`" in doubt

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
