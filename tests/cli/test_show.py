"""What the command prints of a run that is there: tables, JSON, CSV, answers to SQL."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

import gpu_eval
from tests.support.commands import gpu_eval_command
from tests.support.semantic_split import TinySplit


class TestFormats:
    def test_json_is_nothing_but_json(self, arguments: list[object], tmp_path: Path) -> None:
        result = gpu_eval_command(*arguments, "--format", "json")
        told = json.loads(result.stdout)
        run = gpu_eval.open_run(tmp_path / "run")
        of_level = {(row["protocol"], row["level"]): row["miou"] for row in told["levels"]}
        assert of_level["idd", 3] == run.miou(3)
        assert len(told["levels"]) == 6
        assert {row["class_name"] for row in told["classes"]} == set(run.labels.names)

    def test_csv_is_nothing_but_csv(self, arguments: list[object], tmp_path: Path) -> None:
        result = gpu_eval_command(*arguments, "--format", "csv")
        rows = list(csv.DictReader(io.StringIO(result.stdout)))
        run = gpu_eval.open_run(tmp_path / "run")
        assert len(rows) == 6
        assert float(rows[0]["miou"]) == run.miou(int(rows[0]["level"]), rows[0]["protocol"])

    def test_nan_is_null_in_json(self, scored: Path) -> None:
        result = gpu_eval_command(
            "query", scored, "SELECT 'nan'::DOUBLE AS iou, NULL AS x", "--format", "json"
        )
        assert json.loads(result.stdout) == [{"iou": None, "x": None}]


class TestShow:
    def test_level_and_protocol_narrow_the_tables(self, scored: Path) -> None:
        result = gpu_eval_command("show", scored, "--level", 1, "--protocol", "idd")
        assert result.exit_code == 0
        assert "living-things" in result.stdout
        assert "motorcycle" not in result.stdout
        assert "autonue" not in result.stdout

    def test_json_of_a_level(self, scored: Path) -> None:
        told = json.loads(gpu_eval_command("show", scored, "--level", 2, "--format", "json").stdout)
        assert {row["level"] for row in told["classes"]} == {2}

    def test_csv_of_a_level_has_its_classes(self, scored: Path) -> None:
        text = gpu_eval_command("show", scored, "--level", 1, "--format", "csv").stdout
        assert {row["class_name"] for row in csv.DictReader(io.StringIO(text))} >= {"drivable", "sky"}

    @pytest.mark.parametrize("option", [["--level", "7"], ["--level", "0"], ["--protocol", "coco"]])
    def test_level_or_protocol_that_is_not_there_exits_with_2(self, scored: Path, option: list[str]) -> None:
        result = gpu_eval_command("show", scored, *option)
        assert result.exit_code == 2
        assert "error: " in result.stderr

    def test_unfinished_run_is_refused(
        self, split: TinySplit, arguments: list[object], tmp_path: Path
    ) -> None:
        (split.preds / split.names[0]).unlink()
        gpu_eval_command(*arguments)
        result = gpu_eval_command("show", tmp_path / "run")
        assert result.exit_code == 2
        assert "the run is not complete" in result.stderr


class TestQuery:
    SQL = "SELECT class_name, iou FROM classes WHERE level = 3 AND protocol = 'idd' ORDER BY iou"

    def test_answer_is_a_table_json_or_csv(self, scored: Path) -> None:
        names = [row["class_name"] for row in gpu_eval.open_run(scored).sql(self.SQL).to_pylist()]
        shown = gpu_eval_command("query", scored, self.SQL).stdout
        assert all(name in shown for name in names)
        told = json.loads(gpu_eval_command("query", scored, self.SQL, "--format", "json").stdout)
        assert [row["class_name"] for row in told] == names
        text = gpu_eval_command("query", scored, self.SQL, "--format", "csv").stdout
        assert [row["class_name"] for row in csv.DictReader(io.StringIO(text))] == names

    @pytest.mark.parametrize("output", ["table", "json", "csv"])
    def test_answer_without_rows_is_no_error(self, scored: Path, output: str) -> None:
        sql = "SELECT class_name FROM classes WHERE false"
        result = gpu_eval_command("query", scored, sql, "--format", output)
        assert (result.exit_code, result.exception) == (0, None)
        expected = {"json": "[]\n", "csv": "class_name\n"}
        assert output == "table" or result.stdout == expected[output]

    def test_two_columns_of_one_name_are_both_shown(self, scored: Path) -> None:
        result = gpu_eval_command("query", scored, "SELECT 1 AS a, 2 AS a", "--format", "csv")
        assert (result.exit_code, result.exception) == (0, None)
        assert "1,2" in result.stdout

    def test_wrong_sql_exits_with_2(self, scored: Path) -> None:
        result = gpu_eval_command("query", scored, "SELECT nonsense FROM classes")
        assert result.exit_code == 2
        assert "nonsense" in result.stderr
