"""Broken and missing files through `gpu_eval.score`: all told in one pass, and what becomes of them."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gpu_eval
from gpu_eval import errors
from gpu_eval.results.semantic_run import Run
from tests.support import png_builder
from tests.support.packing import zipped
from tests.support.scoring import problems_of, score
from tests.support.semantic_split import (
    CLASSES,
    HEIGHT,
    SUFFIX,
    WIDTH,
    TinySplit,
    count,
    drawn_pixels,
    make_split,
)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def status_of(run: Run) -> dict[str, str]:
    return dict(zip(run.images["gt_file"].to_pylist(), run.images["status"].to_pylist(), strict=True))


GOOD = png_builder.build_png(drawn_pixels())
RGB = np.repeat(drawn_pixels()[..., None], 3, axis=2)
BAD_FILES: dict[str, tuple[bytes, str, str]] = {
    "empty file": (b"", "CorruptImage", "empty"),
    "truncated": (GOOD[: len(GOOD) * 2 // 3], "CorruptImage", "truncated"),
    "bad CRC": (png_builder.broken_crc(GOOD), "CorruptImage", "bad CRC"),
    "bad Adler": (png_builder.broken_adler(GOOD), "CorruptImage", "bad Adler-32"),
    "one row short": (png_builder.short_rows(GOOD, HEIGHT - 1, WIDTH + 1), "CorruptImage", "39 of 40 rows"),
    "one byte long": (png_builder.longer_rows(GOOD), "CorruptImage", "more data than its header says"),
    "filter 5": (png_builder.build_png(drawn_pixels(), filters=5), "CorruptImage", "filter type"),
    "RGB": (encoded(Image.fromarray(RGB)), "WrongImageMode", "8-bit RGB"),
    "RGBA": (encoded(Image.fromarray(RGB).convert("RGBA")), "WrongImageMode", "8-bit RGBA"),
    "LA": (encoded(Image.fromarray(drawn_pixels()).convert("LA")), "WrongImageMode", "alpha"),
    "1-bit grey": (png_builder.build_png(drawn_pixels() % 2, bit_depth=1), "WrongImageMode", "1-bit grey"),
    "2-bit grey": (png_builder.build_png(drawn_pixels() % 4, bit_depth=2), "WrongImageMode", "2-bit grey"),
    "4-bit grey": (png_builder.build_png(drawn_pixels() % 16, bit_depth=4), "WrongImageMode", "4-bit grey"),
    "JPEG": (encoded(Image.fromarray(drawn_pixels()), "JPEG"), "CorruptImage", "a JPEG"),
    "bomb": (
        png_builder.assemble(
            [(b"IHDR", png_builder.ihdr(60000, 60000)), (b"IDAT", b"x" * 99), (b"IEND", b"")]
        ),
        "ImageTooLarge",
        "60000 rows of 60000 pixels",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_FILES)
@pytest.mark.parametrize("side", ["gt", "pred"])
def test_bad_file_is_a_problem_and_never_scored(
    split: TinySplit, tmp_path: Path, kind: str, side: str
) -> None:
    content, error, words = BAD_FILES[kind]
    (getattr(split, f"{side}s") / split.names[1]).write_bytes(content)
    (problem,) = problems_of(split, tmp_path / "run")
    assert problem.kind == error
    assert words in str(problem)
    assert "frame0001" in str(problem)
    with pytest.raises(errors.IncompleteRun):
        gpu_eval.open_run(tmp_path / "run")


def test_problem_names_the_side_its_file_is_on(split: TinySplit, tmp_path: Path) -> None:
    # Both sides use one suffix: without the folder, nobody knows which of two files is broken.
    (split.gts / split.names[1]).write_bytes(GOOD[:99])
    (split.preds / split.names[4]).write_bytes(GOOD[:99])
    first, second = problems_of(split, tmp_path / "run")
    assert (first.file, second.file) == (
        str(split.gts / split.names[1]),
        str(split.preds / split.names[4]),
    )


@pytest.mark.parametrize("kind", ["bad CRC", "RGB", "1-bit grey", "bomb", "JPEG"])
def test_problem_has_found_expected_and_message_of_their_own(
    split: TinySplit, tmp_path: Path, kind: str
) -> None:
    (split.preds / split.names[1]).write_bytes(BAD_FILES[kind][0])
    (problem,) = problems_of(split, tmp_path / "run")
    assert problem.found
    assert problem.expected
    assert "frame0001" not in problem.message


def test_all_problems_are_told_in_one_pass(tmp_path: Path) -> None:
    split = make_split(tmp_path / "split", pairs=20)
    names = split.names
    for name, kind in zip(names[2:], BAD_FILES, strict=False):
        (split.preds / name).write_bytes(BAD_FILES[kind][0])
    (split.preds / names[0]).unlink()
    (split.preds / "a" / f"surplus{SUFFIX}").write_bytes(GOOD)
    Image.fromarray(np.full((HEIGHT, WIDTH), 99, np.uint8)).save(split.gts / names[-1])
    packed = zipped(split.preds, tmp_path / "preds.zip")
    with zipfile.ZipFile(packed, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr(names[1], GOOD)
    problems = problems_of(split, tmp_path / "run", preds=packed, shard_size=7)
    expected = [error for _, error, _ in BAD_FILES.values()]
    expected += ["MissingPrediction", "ExtraPrediction", "DuplicateFile", "LabelOutOfRange"]
    assert sorted(problem.kind for problem in problems) == sorted(expected)
    # Each by its own file, and both in run.json and in the images table.
    assert len({problem.file for problem in problems}) == len(expected)


class TestOnError:
    @pytest.fixture
    def broken(self, split: TinySplit) -> TinySplit:
        """Image 0 has no prediction, that of image 3 is cut off, the ground truth of 5 is a JPEG."""
        (split.preds / split.names[0]).unlink()
        (split.preds / split.names[3]).write_bytes(GOOD[:99])
        (split.gts / split.names[5]).write_bytes(BAD_FILES["JPEG"][0])
        return split

    def test_stop_scores_nothing_as_complete(self, broken: TinySplit, tmp_path: Path) -> None:
        assert len(problems_of(broken, tmp_path / "run")) == 3
        with pytest.raises(errors.IncompleteRun, match="3 problems"):
            gpu_eval.open_run(tmp_path / "run")
        assert not (tmp_path / "run" / "levels.parquet").exists()

    def test_skip_leaves_them_out(self, broken: TinySplit, tmp_path: Path) -> None:
        run = score(broken, tmp_path / "run", on_error="skip")
        expected = sum(count(*broken.maps[broken.names[i]]) for i in (1, 2, 4))
        assert np.array_equal(run.confusion(), expected)
        assert list(status_of(run).values()) == ["error", "ok", "ok", "error", "ok", "error"]
        facts = run.facts
        assert (facts["images"], facts["images_scored"], facts["images_failed"], facts["images_void"]) == (
            6, 3, 3, 0,
        )  # fmt: skip
        assert facts["problem_count"] == 3
        assert {problem["kind"] for problem in facts["problems"]} == {"MissingPrediction", "CorruptImage"}

    def test_void_counts_a_broken_prediction_as_missed(self, broken: TinySplit, tmp_path: Path) -> None:
        run = score(broken, tmp_path / "run", on_error="void")
        nothing = np.full((HEIGHT, WIDTH), 255, np.uint8)
        expected = np.zeros_like(run.confusion())
        histogram = np.zeros(CLASSES + 1, np.int64)
        for i in range(5):
            gt, pred = broken.maps[broken.names[i]]
            expected += count(gt, nothing if i in (0, 3) else pred)
            histogram += np.bincount(np.minimum(gt, CLASSES).ravel(), minlength=CLASSES + 1)
        assert np.array_equal(run.confusion(), expected)
        assert np.array_equal(run.confusion().sum(axis=1), histogram)
        assert list(status_of(run).values()) == ["void", "ok", "ok", "void", "ok", "error"]
        kinds = [[error["kind"] for error in errors] for errors in run.images["errors"].to_pylist()]
        assert kinds == [["MissingPrediction"], [], [], ["CorruptImage"], [], ["CorruptImage"]]

    def test_void_never_scores_better_than_the_model_did(self, broken: TinySplit, tmp_path: Path) -> None:
        void = score(broken, tmp_path / "void", on_error="void")
        skip = score(broken, tmp_path / "skip", on_error="skip")
        assert void.miou(3) < skip.miou(3)

    @pytest.mark.parametrize("on_error", ["skip", "void"])
    def test_extra_prediction_does_not_change_the_numbers(
        self, split: TinySplit, tmp_path: Path, on_error: str
    ) -> None:
        (split.preds / "a" / f"surplus{SUFFIX}").write_bytes(GOOD)
        run = score(split, tmp_path / "run", on_error=on_error)
        assert np.array_equal(run.confusion(), split.total())
        assert run.facts["problems"][0]["kind"] == "ExtraPrediction"

    def test_nothing_scored_is_never_a_result(self, split: TinySplit, tmp_path: Path) -> None:
        for name in split.names:
            (split.preds / name).write_bytes(b"")
        with pytest.raises(errors.SplitProblems, match="not one image could be scored"):
            score(split, tmp_path / "run", on_error="skip")
