"""The command line: exit codes, what goes to which stream, and what a person is told."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import gpu_eval
from gpu_eval import errors
from gpu_eval.cli.commands import main
from tests.conftest import SUFFIX, TinySplit, assert_same_tables
from tests.support.slow import start_slow, wait_for_parts

HEAVY = ("numpy", "numba", "pyarrow", "duckdb", "rich", "pandas", "PIL", "fsspec", "click.testing")


def gpu_eval_command(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def process(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gpu_eval", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)  # type: ignore[call-overload]


@pytest.fixture
def arguments(split: TinySplit, tmp_path: Path) -> list[object]:
    """A right `score` command."""
    return ["score", split.gts, split.preds, "-o", tmp_path / "run", "--res", "native"]


@pytest.fixture
def scored(arguments: list[object], tmp_path: Path) -> Path:
    assert gpu_eval_command(*arguments).exit_code == 0
    return tmp_path / "run"


class TestScore:
    def test_prints_the_scores_and_exits_with_0(self, arguments: list[object], tmp_path: Path) -> None:
        result = gpu_eval_command(*arguments)
        assert (result.exit_code, result.exception) == (0, None)
        run = gpu_eval.open_run(tmp_path / "run")
        assert f"{run.miou(3):.4f}" in result.stdout
        assert f"{run.miou(1):.4f}" in result.stdout
        for word in (
            "idd",
            "autonue",
            "road",
            "obs-str-bar-fallback",
            "6 of 6 images",
            str(tmp_path / "run"),
        ):
            assert word in result.stdout
        assert "INCOMPLETE" not in result.output

    @pytest.mark.parametrize(
        "spell",
        [
            lambda g, p: ["--gts", g, "--preds", p, "--num-workers", 2],
            lambda g, p: [g, "--preds", p, "-j", 1],
            lambda g, p: ["--gts", g, p],
            lambda g, p: ["--preds", p, g],
        ],
    )
    def test_inputs_are_spelled_as_the_public_script_does(
        self, split: TinySplit, tmp_path: Path, spell: Callable[[Path, Path], list[object]]
    ) -> None:
        out = tmp_path / "run"
        result = gpu_eval_command("score", *spell(split.gts, split.preds), "-o", out, "--res", "native")
        assert result.exit_code == 0, result.output
        run = gpu_eval.open_run(out)
        assert (run.facts["gts"], run.facts["preds"]) == (str(split.gts), str(split.preds))
        assert (run.confusion() == split.total()).all()

    @pytest.mark.parametrize(
        "wrong",
        [
            ["score"],
            ["score", "a", "-o", "x"],
            ["score", "--gts", "a", "-o", "x"],
            ["score", "--preds", "a", "-o", "x"],
            ["score", "a", "b"],
            ["score", "a", "b", "--gts", "c", "-o", "x"],
            ["score", "a", "b", "c", "-o", "x"],
            ["score", "a", "b", "-o", "x", "--resume", "--overwrite"],
            ["score", "a", "b", "-o", "x", "--on-error", "ignore"],
            ["score", "a", "b", "-o", "x", "-j", "many"],
            ["score", "a", "b", "-o", "x", "-j", "0"],
            ["score", "a", "b", "-o", "x", "--engine", "tpu"],
            ["score", "a", "b", "-o", "x", "--res", "big"],
            ["score", "a", "b", "-o", "x", "--labels", "nope.csv"],
            ["score", "no-such-folder", "b", "-o", "x"],
            ["show"],
            ["show", "no-such-run"],
            ["query", "no-such-run", "SELECT 1"],
            ["nonsense"],
        ],
    )
    def test_wrong_command_exits_with_2_and_writes_nothing(
        self, wrong: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        result = gpu_eval_command(*wrong)
        assert result.exit_code == 2
        assert "rror: " in result.stderr
        assert result.stdout == ""
        assert list(tmp_path.iterdir()) == []

    def test_engine_that_cannot_serve_is_not_replaced_in_silence(
        self, arguments: list[object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from gpu_eval.engines import engine

        monkeypatch.setattr(engine, "survey", lambda: [engine.EngineStatus("cuda", False, "no driver here")])
        result = gpu_eval_command(*arguments, "--engine", "cuda")
        assert result.exit_code == 2
        assert "no driver here" in result.stderr
        assert "--engine cpu gives the same integers" in result.stderr

    def test_internal_error_exits_with_1(
        self, arguments: list[object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise errors.EngineError("the engine broke", found="a bug")

        monkeypatch.setattr("gpu_eval.api.score", fail)
        result = gpu_eval_command(*arguments)
        assert result.exit_code == 1
        assert "error: the engine broke (found a bug)" in result.stderr

    def test_bug_is_not_hidden(self, arguments: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr("gpu_eval.api.score", fail)
        result = gpu_eval_command(*arguments)
        assert result.exit_code == 1
        assert isinstance(result.exception, ZeroDivisionError)


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


class TestBadInput:
    def test_every_problem_is_told_with_file_found_expected_and_fix(
        self, split: TinySplit, arguments: list[object]
    ) -> None:
        (split.preds / split.names[0]).unlink()
        (split.preds / split.names[2]).write_bytes(b"\xff\xd8\xff\xe0 JPEG")
        (split.preds / "a" / f"surplus{SUFFIX}").write_bytes(b"")
        result = gpu_eval_command(*arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        flat = "".join(result.stderr.split())
        for word in (
            "3 problems", "what to do", "frame0000", "frame0002", "surplus", "a JPEG", "a PNG signature",
            "save label maps as PNG", "--resume --on-error skip",
        ):  # fmt: skip
            assert "".join(word.split()) in flat, word

    def test_long_table_of_problems_is_cut_with_a_word(
        self, arguments: list[object], monkeypatch: pytest.MonkeyPatch, split: TinySplit
    ) -> None:
        monkeypatch.setattr("gpu_eval.cli.commands.PROBLEMS_SHOWN", 2)
        for name in split.names[1:]:
            (split.preds / name).write_bytes(b"")
        result = gpu_eval_command(*arguments)
        assert result.exit_code == 2
        assert "and 3 more" in result.stderr

    def test_skipped_images_are_told_loudly(self, split: TinySplit, arguments: list[object]) -> None:
        (split.preds / split.names[0]).unlink()
        skipped = gpu_eval_command(*arguments, "--on-error", "skip")
        assert skipped.exit_code == 0
        assert "INCOMPLETE: 1 of 6 images are not in these scores" in skipped.stderr
        void = gpu_eval_command(*arguments, "--on-error", "void", "--overwrite")
        assert void.exit_code == 0
        assert "1 are counted as predicted void" in void.stderr

    def test_output_folder_of_another_run_is_refused(self, arguments: list[object], scored: Path) -> None:
        before = (scored / "run.json").read_bytes()
        result = gpu_eval_command(*arguments)
        assert result.exit_code == 2
        assert "--overwrite" in result.stderr
        assert (scored / "run.json").read_bytes() == before
        assert gpu_eval_command(*arguments, "--overwrite").exit_code == 0
        assert gpu_eval_command(*arguments, "--resume").exit_code == 0

    def test_names_with_markup_are_printed_as_they_are(self, split: TinySplit, tmp_path: Path) -> None:
        strange = f"[red]x[bold] {SUFFIX}"
        (split.gts / strange).write_bytes((split.gts / split.names[0]).read_bytes())
        result = gpu_eval_command("score", split.gts, split.preds, "-o", tmp_path / "run")
        assert result.exit_code == 2
        assert "[red]x[bold]" in result.stderr


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


def test_info_names_every_engine_and_why() -> None:
    result = gpu_eval_command("info")
    assert result.exit_code == 0
    for word in ("cpu", "cuda", "yes"):
        assert word in result.stdout


def test_demo_draws_scores_and_can_be_repeated(tmp_path: Path) -> None:
    for _ in range(2):
        result = gpu_eval_command("demo", "-o", tmp_path / "demo", "--pairs", 2)
        assert (result.exit_code, result.exception) == (0, None)
        assert "2 of 2 images" in result.stdout
        assert "gpu-eval query" in result.stderr
    assert gpu_eval.open_run(tmp_path / "demo" / "run").facts["images_scored"] == 2


class TestProcess:
    def test_help_imports_nothing_heavy(self) -> None:
        code = f"import gpu_eval.cli.commands, sys; print({set(HEAVY)!r} & set(sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.stdout.strip() == "set()", done.stderr

    def test_help_and_version(self) -> None:
        done = process("--help")
        assert done.returncode == 0
        for command in ("score", "show", "query", "info", "demo"):
            assert command in done.stdout
        assert gpu_eval.__version__ in process("--version").stdout

    def test_pipe_gets_no_control_codes(self, arguments: list[object]) -> None:
        done = process(*arguments)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        assert "\r" not in done.stdout + done.stderr
        widest = max(len(line) for line in done.stdout.splitlines())
        assert widest <= 200

    def test_pipe_gets_errors_without_control_codes(self, split: TinySplit, arguments: list[object]) -> None:
        (split.preds / split.names[0]).write_bytes(b"")
        done = process(*arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert "\x1b" not in done.stdout + done.stderr

    @pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
    def test_terminal_of_an_old_encoding_is_no_crash(self, arguments: list[object], encoding: str) -> None:
        done = process(*arguments, env={**os.environ, "PYTHONIOENCODING": encoding})
        assert done.returncode == 0, done.stderr
        assert "mIoU" in done.stdout

    def test_closed_pipe_is_no_traceback(self, scored: Path) -> None:
        query = f"{sys.executable} -m gpu_eval query {scored} 'SELECT * FROM cells' --format csv"
        done = subprocess.run(
            ["bash", "-c", f"{query} | head -n 1"], capture_output=True, text=True, timeout=60
        )
        assert done.stdout.startswith("image_id,gt,pred,pixels")
        assert "Traceback" not in done.stderr

    @pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
    def test_terminal_sees_a_progress_bar(self, split: TinySplit, tmp_path: Path) -> None:
        import pty

        leader, follower = pty.openpty()
        code = ["-m", "gpu_eval", "score", str(split.gts), str(split.preds), "-o", str(tmp_path / "run")]
        running = subprocess.Popen(
            [sys.executable, *code, "--shard-size", "1"],
            stdout=subprocess.DEVNULL, stderr=follower, env={**os.environ, "TERM": "xterm"},
        )  # fmt: skip
        os.close(follower)
        seen = b""
        try:
            while chunk := os.read(leader, 65536):
                seen += chunk
        except OSError:  # Linux says EIO at the end of a pseudo-terminal
            pass
        os.close(leader)
        assert running.wait(timeout=60) == 0
        assert b"images/s" in seen
        assert b"/6 images" in seen

    @pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
    @pytest.mark.parametrize("parts", [0, 2])
    def test_ctrl_c_exits_with_130_and_resume_finishes(
        self, split: TinySplit, tmp_path: Path, parts: int
    ) -> None:
        out = tmp_path / "run"
        options = ["--res", "native", "--shard-size", 1, "-j", 1]
        running = start_slow("score", split.gts, split.preds, "-o", out, *options)
        try:
            wait_for_parts(out, parts, running)
            deadline = time.monotonic() + 60
            while not (out / "manifest.parquet").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            running.send_signal(signal.SIGINT)
            _, told = running.communicate(timeout=60)
        finally:
            running.kill()
        assert running.returncode == 130, told
        assert b"interrupted" in told
        assert b"Traceback" not in told
        kept = len(list((out / "images").glob("part-*.parquet")))
        assert kept < 6
        with pytest.raises(errors.IncompleteRun):
            gpu_eval.open_run(out)

        resumed = process("score", split.gts, split.preds, "-o", out, *options, "--resume")
        assert resumed.returncode == 0, resumed.stderr
        if kept:
            assert f"resumed: {kept} of 6 images were scored before" in resumed.stderr
        undisturbed = gpu_eval.score(
            split.gts, split.preds, out=tmp_path / "undisturbed", res="native", shard_size=1
        )
        assert_same_tables(undisturbed.folder, out)
