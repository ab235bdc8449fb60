"""Two runs side by side: paired, honest about noise, and refused where they are not comparable."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

import gpu_eval
from gpu_eval.errors import CorruptRun, IncomparableRuns, OptionError
from gpu_eval.metrics import student
from gpu_eval.results.semantic_run import Run
from tests.reference import uncertainty as reference
from tests.support.commands import gpu_eval_command
from tests.support.scoring import score
from tests.support.semantic_runs import random_matrices, write_run
from tests.support.semantic_split import TinySplit


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Run, Run]:
    """A run and a better one of the same 40 images."""
    worse = write_run(tmp_path / "a", random_matrices(40))
    return worse, write_run(tmp_path / "b", random_matrices(40, better=0.05))


class TestNumbers:
    def test_run_with_itself_differs_by_exactly_0_and_never_significantly(self, tmp_path: Path) -> None:
        run = write_run(tmp_path / "run", random_matrices(40))
        result = gpu_eval.compare(run, run)
        for row in [*result.scores.to_pylist(), *result.classes.to_pylist()]:
            assert (row["difference"], row["low"], row["high"], row["p"]) == (0.0, 0.0, 0.0, 1.0)
        assert set(result.images["difference"].to_pylist()) == {0.0}

    def test_intervals_and_p_are_those_of_the_literal_jackknife(self, tmp_path: Path) -> None:
        sides = [random_matrices(20, drives=10), random_matrices(20, drives=10, better=0.05)]
        runs = [write_run(tmp_path / name, side) for name, side in zip("ab", sides, strict=True)]
        result = gpu_eval.compare(*runs)
        assert (result.intervals["units"], result.intervals["remark"]) == ("10 drives", None)
        found = reference.jackknife(
            [[matrix.tolist() for matrix in side.values()] for side in sides],
            [i // 2 for i in range(20)],
            "idd",
            [],
            0,
        )
        rows = [result.scores.to_pylist()[0], *result.classes.to_pylist()[:7]]
        assert rows[0]["difference"] == runs[1].miou() - runs[0].miou() == result.difference()
        for row, change, error, freedom in zip(rows, *found, strict=True):
            half = student.quantile(0.05, np.array(freedom)) * error
            assert row["reason"] is None
            np.testing.assert_allclose(
                (row["difference"], row["low"], row["high"]),
                (change, change - half, change + half),
                atol=1e-12,
            )
            expected = student.two_sided(np.array(change / error), np.array(freedom))
            assert row["p"] == pytest.approx(float(expected))
        corrected = reference.holm([row["p"] for row in rows[1:]])
        np.testing.assert_allclose([row["p_holm"] for row in rows[1:]], corrected)

    def test_units_of_a_list_go_before_drives(self, pair: tuple[Run, Run], tmp_path: Path) -> None:
        keys = pair[0].images["key"].to_pylist()
        path = tmp_path / "cities.csv"
        path.write_text("key,city\n" + "".join(f"{key},{i % 4}\n" for i, key in enumerate(keys)))
        told = {
            units: gpu_eval.compare(*pair, units=units).intervals["units"]
            for units in ("drives", "images", str(path))
        }
        assert told == {"drives": "40 images", "images": "40 images", str(path): "4 cities"}

    def test_swapping_the_runs_negates_everything_but_p(self, pair: tuple[Run, Run]) -> None:
        forth = gpu_eval.compare(*pair).classes.to_pylist()
        back = gpu_eval.compare(*reversed(pair)).classes.to_pylist()
        for one, other in zip(forth, back, strict=True):
            assert one["difference"] == -other["difference"]
            assert (one["low"], one["high"]) == pytest.approx((-other["high"], -other["low"]), abs=1e-12)
            assert one["p"] == other["p"]

    def test_pairing_sees_what_two_separate_intervals_do_not(self, pair: tuple[Run, Run]) -> None:
        low, high = (run.levels.to_pylist()[0] for run in pair)
        assert low["miou_high"] > high["miou_low"]
        row = gpu_eval.compare(*pair).scores.to_pylist()[0]
        assert row["low"] > 0
        assert row["p"] < 0.01

    def test_images_that_moved_most_come_first(self, tmp_path: Path) -> None:
        matrices = random_matrices(30)
        changed = dict(matrices)
        key = list(matrices)[17]
        changed[key] = np.roll(matrices[key], 1, axis=1)
        runs = [write_run(tmp_path / name, side) for name, side in (("a", matrices), ("b", changed))]
        rows = gpu_eval.compare(*runs).images.to_pylist()
        assert rows[0]["key"] == key
        assert rows[0]["difference"] < 0
        assert {row["difference"] for row in rows[1:]} == {0.0}

    def test_folders_are_as_good_as_runs_and_the_repr_tells_the_result(self, pair: tuple[Run, Run]) -> None:
        text = repr(gpu_eval.compare(str(pair[0].folder), pair[1].folder))
        assert f"{gpu_eval.compare(*pair).difference():+.4f}" in text
        assert "40 images" in text

    def test_single_image_is_compared_without_an_interval(self, tmp_path: Path) -> None:
        runs = [write_run(tmp_path / str(i), random_matrices(1, better=0.3 * i)) for i in range(2)]
        result = gpu_eval.compare(*runs)
        assert result.difference() > 0
        row = result.scores.to_pylist()[0]
        assert np.isnan([row["low"], row["high"], row["p"]]).all()
        assert row["reason"] == "1 image: no other to compare with"
        assert gpu_eval_command("compare", runs[0].folder, runs[1].folder).exit_code == 0


class TestRefused:
    def test_other_ground_truth_is_refused_with_an_example(
        self, pair: tuple[Run, Run], tmp_path: Path
    ) -> None:
        matrices = random_matrices(40)
        key = list(matrices)[3]
        matrices[key] = matrices[key][::-1].copy()
        with pytest.raises(IncomparableRuns, match=f"different ground truth.*1 of 40 images.*{key}"):
            gpu_eval.compare(pair[0], write_run(tmp_path / "c", matrices))

    def test_other_resolution_is_refused(self, pair: tuple[Run, Run], tmp_path: Path) -> None:
        other = write_run(tmp_path / "c", random_matrices(40), resolution=[720, 1280])
        with pytest.raises(IncomparableRuns, match=r"different resolutions.*1280x720.*native"):
            gpu_eval.compare(pair[0], other)

    def test_other_labels_are_refused(self, pair: tuple[Run, Run], tmp_path: Path) -> None:
        other = write_run(tmp_path / "c", random_matrices(40, classes=26), labels="idd")
        with pytest.raises(IncomparableRuns, match=r"different label spaces.*idd.*idd-lite"):
            gpu_eval.compare(pair[0], other)

    def test_other_protocols_are_refused(self, pair: tuple[Run, Run], tmp_path: Path) -> None:
        other = write_run(tmp_path / "c", random_matrices(40))
        other.facts["labels"]["protocols"] = ["idd"]
        with pytest.raises(IncomparableRuns, match="different protocols"):
            gpu_eval.compare(pair[0], other)

    def test_other_images_are_counted_and_named(self, pair: tuple[Run, Run], tmp_path: Path) -> None:
        matrices = random_matrices(40, better=0.1)
        keys = list(matrices)
        del matrices[keys[5]]
        matrices[keys[6]] = None  # type: ignore[assignment]
        other = write_run(tmp_path / "c", matrices)
        with pytest.raises(IncomparableRuns) as caught:
            gpu_eval.compare(pair[0], other)
        assert f"2 only in {pair[0].folder}: {keys[5]}, {keys[6]}" in str(caught.value)
        assert "--common compares the 38 images" in str(caught.value)

    def test_common_compares_what_both_have(self, pair: tuple[Run, Run], tmp_path: Path) -> None:
        matrices = random_matrices(40, better=0.1)
        keys = list(matrices)
        del matrices[keys[5]]
        matrices[keys[6]] = None  # type: ignore[assignment]
        result = gpu_eval.compare(pair[0], write_run(tmp_path / "c", matrices), common=True)
        assert (result.image_count, result.left_out) == (38, 2)
        kept = [key for key in keys if key not in keys[5:7]]
        sides = [{key: random_matrices(40, better=better)[key] for key in kept} for better in (0.0, 0.1)]
        alone = [write_run(tmp_path / f"d{i}", side) for i, side in enumerate(sides)]
        assert gpu_eval.compare(*alone).scores.equals(result.scores)

    def test_nothing_in_common_is_refused_even_with_common(
        self, pair: tuple[Run, Run], tmp_path: Path
    ) -> None:
        renamed = {f"x{key}": matrix for key, matrix in random_matrices(40).items()}
        with pytest.raises(IncomparableRuns, match="no image in common"):
            gpu_eval.compare(pair[0], write_run(tmp_path / "c", renamed), common=True)

    def test_unknown_level_or_protocol_is_refused(self, pair: tuple[Run, Run]) -> None:
        with pytest.raises(OptionError, match="level 9"):
            gpu_eval.compare(*pair).difference(level=9)
        assert (
            gpu_eval_command("compare", pair[0].folder, pair[1].folder, "--protocol", "coco").exit_code == 2
        )


class TestCommand:
    def test_gate_fails_with_3_only_where_a_run_is_worse_by_more(self, pair: tuple[Run, Run]) -> None:
        worse, better = (run.folder for run in pair)
        drop = pair[1].miou() - pair[0].miou()
        for first, later, allowed, code in (
            (better, worse, drop / 2, 3),
            (better, worse, drop * 1.01, 0),
            (worse, better, 0, 0),
            (worse, worse, 0, 0),
        ):
            result = gpu_eval_command("compare", first, later, "--fail-if-worse", allowed)
            assert result.exit_code == code
            assert ("WORSE" in result.stderr) == (code == 3)

    def test_gate_looks_at_every_later_run(self, pair: tuple[Run, Run]) -> None:
        worse, better = (run.folder for run in pair)
        assert gpu_eval_command("compare", better, better, worse, "--fail-if-worse", 0.001).exit_code == 3

    def test_gate_does_not_let_a_run_without_a_score_through(self, tmp_path: Path) -> None:
        good = {f"{i}": np.diag(np.full(8, 5)) for i in range(3)}
        runs = [write_run(tmp_path / name, good) for name in "ab"]
        arguments = ("compare", runs[0].folder, runs[1].folder, "--fail-if-worse", 0.5)
        assert gpu_eval_command(*arguments, "--protocol", "idd").exit_code == 0
        empty = {key: np.zeros((8, 8), np.int64) for key in good}
        runs = [write_run(tmp_path / f"{name}2", empty) for name in "ab"]
        assert (
            gpu_eval_command("compare", *(run.folder for run in runs), "--fail-if-worse", 0.5).exit_code == 3
        )

    def test_json_and_csv_hold_the_same_numbers(self, pair: tuple[Run, Run]) -> None:
        folders = [run.folder for run in pair]
        told = json.loads(gpu_eval_command("compare", *folders, "--format", "json").stdout)
        rows = list(
            csv.DictReader(io.StringIO(gpu_eval_command("compare", *folders, "--format", "csv").stdout))
        )
        assert (
            told["scores"][0]["difference"]
            == float(rows[0]["difference"])
            == gpu_eval.compare(*pair).difference()
        )
        assert len(told["images"]) == 10
        assert (told["image_count"], told["protocol"], told["level"]) == (40, "idd", 1)

    def test_table_says_which_is_better(self, pair: tuple[Run, Run]) -> None:
        shown = gpu_eval_command("compare", pair[0].folder, pair[1].folder).stdout
        assert "B better" in shown
        assert "B worse" not in shown
        assert "B worse" in gpu_eval_command("compare", pair[1].folder, pair[0].folder).stdout

    def test_incomparable_runs_exit_with_2(self, pair: tuple[Run, Run], tmp_path: Path) -> None:
        other = write_run(tmp_path / "c", random_matrices(40, seed=1))
        result = gpu_eval_command("compare", pair[0].folder, other.folder)
        assert result.exit_code == 2
        assert "different ground truth" in result.stderr

    def test_two_scored_splits_are_compared(self, split: TinySplit, tmp_path: Path) -> None:
        for name, preds in (("a", split.preds), ("b", split.gts)):
            score(split, tmp_path / name, preds=preds)
        shown = gpu_eval_command("compare", tmp_path / "a", tmp_path / "b", "--level", 2)
        assert shown.exit_code == 0, shown.stderr
        assert "classes of level 2" in shown.stdout


def test_a_run_that_lost_a_part_is_not_compared_in_silence(tmp_path: Path, split: TinySplit) -> None:
    runs = [tmp_path / name for name in ("a", "b")]
    for run in runs:
        score(split, run, shard_size=2)
    (runs[1] / "images" / "part-000001.parquet").unlink()
    with pytest.raises(CorruptRun, match="missing"):
        gpu_eval.compare(*runs)
