"""The command line: exit codes, what goes to which stream, and what a person is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import gpu_eval
from gpu_eval import errors
from gpu_eval.engines.cuda import cupy_device
from tests.support.commands import gpu_eval_command
from tests.support.semantic_split import SUFFIX, TinySplit


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
        monkeypatch.setattr(cupy_device, "available", lambda: (False, "no driver here", 0))
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
