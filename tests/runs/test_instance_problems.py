"""Bad and missing files through `gpu_eval.score_instances`: all told in one pass, and what comes of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gpu_eval
from gpu_eval import errors
from tests.support.commands import gpu_eval_command
from tests.support.instance_split import (
    InstanceFiles,
    cut_short,
)
from tests.support.instance_tables import assert_scores
from tests.support.scoring import problems_of, score

BROKEN: dict[str, tuple[Callable[[InstanceFiles], object], str, str]] = {
    "mask cut short": (lambda s: cut_short(s.masks(3)[0]), "CorruptImage", "truncated"),
    "empty mask file": (lambda s: s.masks(3)[0].write_bytes(b""), "CorruptImage", "empty"),
    "mask of another size": (
        lambda s: shutil.copy(s.masks(2)[0], s.masks(3)[0]), "SizeMismatch", ".png",
    ),
    "mask not there": (lambda s: s.masks(3)[0].unlink(), "MissingMask", "line 1: the mask is not there"),
    "no list": (lambda s: s.listed(3).unlink(), "MissingPrediction", "no list of predictions"),
    "line of two fields": (
        lambda s: s.listed(3).write_text("x.png 12\n"), "MalformedPredictions", "less than three fields",
    ),
    "gt cut short": (lambda s: cut_short(s.gt(3)), "CorruptImage", "truncated"),
}  # fmt: skip


class TestOnError:
    @pytest.mark.parametrize("kind", BROKEN)
    def test_bad_file_is_a_problem_and_never_scored(
        self, instances: InstanceFiles, tmp_path: Path, kind: str
    ) -> None:
        harm, error, words = BROKEN[kind]
        harm(instances)
        (problem,) = problems_of(instances, tmp_path / "run")
        assert problem.kind == error
        assert words in str(problem)
        assert "frame0003" in str(problem)
        with pytest.raises(errors.IncompleteRun, match="1 problems"):
            gpu_eval.open_run(tmp_path / "run")
        assert not (tmp_path / "run" / "scores.parquet").exists()

    @pytest.mark.parametrize("kind", BROKEN)
    def test_skip_leaves_the_image_out_and_void_takes_its_predictions_away(
        self, instances: InstanceFiles, tmp_path: Path, kind: str
    ) -> None:
        harm, error, _ = BROKEN[kind]
        harm(instances)
        key = instances.keys[3]
        others = {k: image for k, image in instances.images.items() if k != key}
        run = score(instances, tmp_path / "skip", on_error="skip")
        assert_scores(run, others)
        assert run.images["status"].to_pylist() == ["ok"] * 3 + ["error"] + ["ok"] * 2
        assert (run.facts["images_scored"], run.facts["images_failed"]) == (5, 1)
        assert run.facts["problems"][0]["kind"] == error
        assert 3 not in run.instances["image_id"].to_pylist()

        run = score(instances, tmp_path / "void", on_error="void")
        gt_is_lost = "gt" in kind
        assert_scores(
            run, others if gt_is_lost else {**others, key: instances.images[key]._replace(predictions=[])}
        )
        row = run.images.to_pylist()[3]
        assert row["status"] == ("error" if gt_is_lost else "void")
        assert len(row["errors"]) == 1
        kinds = run.sql("SELECT DISTINCT kind FROM instances WHERE image_id = 3")["kind"].to_pylist()
        assert kinds == ([] if gt_is_lost else ["gt"])
        assert run.facts["problem_count"] == 1

    @pytest.fixture
    def broken(self, instances: InstanceFiles) -> InstanceFiles:
        """Everything at once, in five of six images."""
        for path in instances.masks(0)[1:3]:
            cut_short(path)
        instances.listed(1).unlink()
        lines = instances.listed(2).read_text().splitlines()
        instances.listed(2).write_text("\n".join([*lines, "x.png 12", "nowhere.png 12 0.5", "a.png 99 1"]))
        cut_short(instances.gt(3))
        cut_short(instances.masks(3)[0])
        instances.listed(5).with_name(f"surplus{instances.listed(5).name[9:]}").write_text("")
        return instances

    def test_all_problems_are_told_in_one_pass(self, broken: InstanceFiles, tmp_path: Path) -> None:
        problems = problems_of(broken, tmp_path / "run", shard_size=2)
        assert sorted(problem.kind for problem in problems) == [
            *["CorruptImage"] * 4, "ExtraPrediction", *["MalformedPredictions"] * 2, "MissingMask",
            "MissingPrediction",
        ]  # fmt: skip
        assert len({(problem.file, problem.message) for problem in problems}) == len(problems)
        told = {str(path) for path in (*broken.masks(0)[1:3], broken.gt(3), broken.masks(3)[0])}
        assert {problem.file for problem in problems if problem.kind == "CorruptImage"} == told
        facts = json.loads((tmp_path / "run" / "run.json").read_text())
        assert facts["problem_count"] == len(facts["problems"]) == len(problems)
        assert facts["complete"] is False

    def test_images_table_has_a_reason_for_every_lost_image(
        self, broken: InstanceFiles, tmp_path: Path
    ) -> None:
        run = score(broken, tmp_path / "run", on_error="skip", shard_size=2)
        rows = run.images.to_pylist()
        assert [row["status"] for row in rows] == ["error"] * 4 + ["ok"] * 2
        kinds = [[error["kind"] for error in row["errors"]] for row in rows]
        two = ["CorruptImage"] * 2
        assert kinds == [two, ["MissingPrediction"], ["MalformedPredictions"], two, [], []]
        assert run.facts["problem_count"] == 9

    def test_command_tells_all_and_exits_with_2(self, broken: InstanceFiles, tmp_path: Path) -> None:
        arguments = ["instances", broken.gts, broken.preds, "-o", tmp_path / "run"]
        stopped = gpu_eval_command(*arguments)
        assert (stopped.exit_code, stopped.stdout) == (2, "")
        assert "9 problems" in stopped.stderr
        skipped = gpu_eval_command(*arguments, "--resume", "--on-error", "skip")
        assert skipped.exit_code == 0
        assert "INCOMPLETE: 4 of 6 images are not in these scores" in skipped.stderr
        void = gpu_eval_command(*arguments, "--overwrite", "--on-error", "void")
        assert "3 are counted as without predictions" in void.stderr

    def test_mostly_missing_lists_stop_before_scoring(self, instances: InstanceFiles, tmp_path: Path) -> None:
        for number in range(5):
            instances.listed(number).unlink()
        with pytest.raises(errors.SplitProblems, match="most predictions are missing"):
            score(instances, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        "options",
        [
            {"on_error": "ignore"}, {"threads": 0}, {"shard_size": 0}, {"resume": True, "overwrite": True},
            {"area": (100, 100)}, {"area": (-1, 9)}, {"area": (float("nan"), 9)}, {"engine": "abacus"},
            {"labels": "idd-lite"}, {"labels": "nowhere.csv"},
        ],
    )  # fmt: skip
    def test_meaningless_option_is_refused_before_anything_is_written(
        self, instances: InstanceFiles, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        with pytest.raises((errors.OptionError, errors.LabelTableError)):
            score(instances, tmp_path / "run", **options)
        assert not (tmp_path / "run").exists()
