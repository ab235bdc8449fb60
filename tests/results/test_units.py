"""Which units intervals leave out: drives, images, or those of a list; and why there are no intervals."""

from __future__ import annotations

from pathlib import Path

import pytest

import gpu_eval
from gpu_eval.results import interval_words
from gpu_eval.results.units import sentence
from tests.support.commands import gpu_eval_command
from tests.support.scoring import score
from tests.support.semantic_runs import random_matrices, write_run
from tests.support.semantic_split import TinySplit


@pytest.fixture
def keys(split: TinySplit) -> list[str]:
    return [name.removesuffix("_gtFine_labellevel3Ids.png") for name in split.names]


def listed(path: Path, lines: list[str], header: str = "key,city") -> str:
    path.write_text("\n".join([header, *lines]) + "\n")
    return str(path)


class TestChoice:
    def test_drives_are_units_whatever_their_number(self, split: TinySplit, tmp_path: Path) -> None:
        run = score(split, tmp_path / "run")
        assert run.intervals["units"] == "2 drives"
        assert run.intervals["remark"] == "only 2 drives: bounds are a rough guess"

    def test_images_of_one_folder_are_units(self, tmp_path: Path) -> None:
        run = write_run(
            tmp_path / "run", {f"frame{i}": m for i, m in enumerate(random_matrices(12).values())}
        )
        assert run.intervals["units"] == "12 images"
        assert sentence(run.intervals) == "95% intervals: jackknife t, 12 images"

    def test_a_list_names_its_units_by_its_second_column(
        self, split: TinySplit, keys: list[str], tmp_path: Path
    ) -> None:
        path = listed(tmp_path / "u.csv", [f"{key},{'pqr'[i % 3]}" for i, key in enumerate(keys)])
        run = score(split, tmp_path / "run", units=path)
        assert run.intervals["units"] == "3 cities"
        told = gpu_eval_command("score", split.gts, split.preds, "-o", tmp_path / "again", "--units", path)
        assert told.exit_code == 0, told.output
        assert "jackknife t, 3 cities; only 3 cities" in told.stdout

    def test_images_and_drives_differ_in_width_and_not_in_score(self, tmp_path: Path) -> None:
        run = write_run(tmp_path / "run", random_matrices(40, drives=10))
        rows = [gpu_eval.leaderboard([run], units=units).to_pylist()[0] for units in ("drives", "images")]
        assert rows[0]["miou_level1"] == rows[1]["miou_level1"] == run.miou()
        assert rows[0]["miou_level1_low"] != rows[1]["miou_level1_low"]


class TestReasons:
    def test_they_stand_in_the_tables_and_in_the_cells(
        self, split: TinySplit, keys: list[str], tmp_path: Path
    ) -> None:
        path = listed(tmp_path / "u.csv", [f"{key},p" for key in keys])
        told = gpu_eval_command("score", split.gts, split.preds, "-o", tmp_path / "run", "--units", path)
        assert told.exit_code == 0, told.output
        run = gpu_eval.open_run(tmp_path / "run", "semantic")
        assert set(run.levels["miou_reason"].to_pylist()) == {"1 city: no other to compare with"}
        query = "SELECT DISTINCT iou_reason FROM classes WHERE isnan(iou_low)"
        assert run.sql(query).to_pylist() == [{"iou_reason": "1 city: no other to compare with"}]
        assert "1 city: no other" in " ".join(told.stdout.split())

    def test_intervals_that_were_not_asked_for_say_so(self, split: TinySplit, tmp_path: Path) -> None:
        run = score(split, tmp_path / "run", intervals=False)
        assert run.intervals is None
        assert set(run.levels["miou_reason"].to_pylist()) == {"not asked for"}
        assert "no intervals: they were not asked for" in gpu_eval_command("show", run.folder).stdout

    def test_a_run_of_an_earlier_format_gets_the_new_intervals(self) -> None:
        old = Path(__file__).parents[1] / "data" / "format_2"
        run = gpu_eval.open_run(old / "semantic", "semantic")
        assert run.intervals is not None
        assert run.intervals["units"] == "2 drives"
        (row,) = [r for r in run.levels.to_pylist() if (r["level"], r["protocol"]) == (3, "idd")]
        assert row["miou_low"] < row["miou"] < row["miou_high"]
        assert row["miou_high"] - row["miou_low"] > 0.2  # of two drives
        assert "jackknife t, 2 drives" in gpu_eval_command("show", old / "semantic").stdout


def test_bootstrap_is_taken_and_says_that_nothing_is_drawn_any_more(split: TinySplit, tmp_path: Path) -> None:
    words = ("score", split.gts, split.preds, "--res", "native", "-o")
    told = gpu_eval_command(*words, tmp_path / "a", "--bootstrap", 100)
    assert told.exit_code == 0, told.output
    assert "--bootstrap has no meaning any more" in told.stderr
    assert "not drawn; --no-intervals leaves them out" in told.stderr
    told = gpu_eval_command(*words, tmp_path / "b", "--bootstrap", 0)
    assert told.exit_code == 0, told.output
    assert gpu_eval.open_run(tmp_path / "b", "semantic").intervals is None
    told = gpu_eval_command("leaderboard", tmp_path / "a", "--bootstrap", 100)
    assert told.exit_code == 0, told.output
    assert "--no-intervals" not in told.stderr  # which `leaderboard` does not have


def test_drives_that_say_as_little_as_two_are_called_so(tmp_path: Path) -> None:
    counts = random_matrices(24, drives=12)
    run = write_run(tmp_path / "alike", counts)
    assert interval_words.of_run(run) == "95% intervals: jackknife t, 12 drives"
    for key, matrix in counts.items():
        if key.startswith("drive07"):
            matrix *= 10_000
    outweighed = write_run(tmp_path / "outweighed", counts)
    finest = outweighed.levels.to_pylist()[0]
    assert finest["miou_df"] == 1
    told = interval_words.of_run(outweighed)
    assert "12 drives; for mIoU, level 1 (7 classes) they are worth 2.0 equal drives: a class" in told
    assert told in " ".join(gpu_eval_command("show", outweighed.folder).stdout.split())
