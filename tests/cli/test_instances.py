"""`gpu-eval instances`, and what the other commands say of its runs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

import gpu_eval
from gpu_eval import api, errors
from gpu_eval.labels.instance_space import load_instances
from gpu_eval.metrics.matching import PROTOCOLS
from gpu_eval.results.instance_run import InstanceRun
from tests.support.commands import gpu_eval_command
from tests.support.instance_split import InstanceFiles
from tests.support.instance_tables import of_protocol
from tests.support.numbers import close
from tests.support.run_tables import assert_same_tables
from tests.support.scoring import score
from tests.support.semantic_split import TinySplit

IDD = load_instances("idd")


@pytest.fixture
def run(run_of_ten: InstanceRun) -> InstanceRun:
    return run_of_ten


class TestCommand:
    def test_instances_scores_and_prints(self, ten: InstanceFiles, run: InstanceRun, tmp_path: Path) -> None:
        result = gpu_eval_command("instances", ten.gts, ten.preds, "-o", tmp_path / "run", "--shard-size", 3)
        assert (result.exit_code, result.exception) == (0, None)
        shown = (
            f"{run.ap():.4f}",
            f"{run.ap50('cityscapes'):.4f}",
            "autonue",
            "motorcycle",
            "10 of 10 images",
        )
        for word in (*shown, "3 of 9"):
            assert word in result.stdout
        assert "labels that are not evaluated were left out" in result.stderr
        assert_same_tables(run.folder, tmp_path / "run")

    def test_show_narrows_to_a_protocol(self, run: InstanceRun) -> None:
        both, one = (gpu_eval_command("show", run.folder, *more) for more in ([], ["--protocol", "autonue"]))
        assert "AP50 cityscapes" in both.stdout
        assert "AP50 cityscapes" not in one.stdout
        assert f"{run.ap50():.4f}" in one.stdout

    def test_json_is_nothing_but_json(self, run: InstanceRun) -> None:
        told = json.loads(gpu_eval_command("show", run.folder, "--format", "json").stdout)
        assert {row["protocol"]: row["ap"] for row in told["scores"]} == {p: run.ap(p) for p in PROTOCOLS}
        assert len(told["classes"]) == 2 * len(IDD.ids)
        assert {row["ap"] for row in told["classes"] if row["class_name"] == "bus"} == {None}

    def test_csv_is_nothing_but_csv(self, run: InstanceRun) -> None:
        text = gpu_eval_command("show", run.folder, "--format", "csv", "--protocol", "cityscapes").stdout
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [int(row["class_id"]) for row in rows] == list(IDD.ids)
        close(
            [float(row["ap"]) for row in rows], [row["ap"] for row in of_protocol(run.classes, "cityscapes")]
        )

    def test_query_answers(self, run: InstanceRun) -> None:
        sql = "SELECT DISTINCT autonue FROM instances ORDER BY 1"
        result = gpu_eval_command("query", run.folder, sql, "--format", "csv")
        assert result.stdout.split() == ["autonue", "FN", "FP", "TP", "ignored"]

    @pytest.mark.parametrize(
        ("command", "words"),
        [
            (["show", "{run}", "--level", "3"], "a run of instances has no levels"),
            (["show", "{run}", "--protocol", "idd"], "expected autonue or cityscapes"),
            (["compare", "{run}", "{run}", "--level", "3"], "runs of instances have no levels"),
            (["leaderboard", "{run}", "--sort", "L3"], "expected AP, AP50"),
            (["query", "{run}", "SELECT miou FROM levels"], "levels"),
        ],
    )  # fmt: skip
    def test_command_of_the_other_task_exits_with_2_and_says_why(
        self, run: InstanceRun, command: list[str], words: str
    ) -> None:
        result = gpu_eval_command(*(part.format(run=run.folder) for part in command))
        assert result.exit_code == 2
        assert words in result.stderr
        assert result.stdout == ""

    def test_page_shows_scores_classes_and_where_they_come_from(
        self, run: InstanceRun, tmp_path: Path
    ) -> None:
        told = gpu_eval_command("report", run.folder, "-o", tmp_path / "page.html")
        assert told.stdout.split() == [str(tmp_path / "page.html")]
        page = (tmp_path / "page.html").read_text()
        assert page == run.page()
        for protocol in PROTOCOLS:
            assert f"{run.ap(protocol):.4f}" in page
        for words in (run.facts["gts"], run.facts["preds"], "autorickshaw"):
            assert words in page

    def test_maps_and_instances_are_not_taken_for_each_other(
        self, split: TinySplit, run: InstanceRun, tmp_path: Path
    ) -> None:
        semantic = score(split, tmp_path / "semantic", intervals=False)
        with pytest.raises(errors.WrongKind, match="not a run of the semantic task"):
            api.open_run(run.folder, "semantic")
        with pytest.raises(errors.WrongKind, match="instance task"):
            InstanceRun(semantic.folder)
        inputs = run.facts["gts"], run.facts["preds"]
        again = gpu_eval.score_instances(*inputs, out=semantic.folder, overwrite=True)
        assert again.ap() == run.ap()
        assert not (semantic.folder / "cells").exists()
