"""`gpu-eval check`: exit codes, a table that fits, JSON, and nothing that a terminal would obey."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.check_files import SUBMISSION, rewrite, three_channels
from tests.support.commands import gpu_eval_command
from tests.support.semantic_split import SUFFIX, TinySplit
from tests.support.shared import SHARED

CASES = SHARED.parent / "cases" / "inputs"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason=f"no cases at {CASES}")


class TestExitCodes:
    def test_0_where_nothing_is_found(self, split: TinySplit) -> None:
        result = gpu_eval_command("check", split.preds)
        assert result.exit_code == 0
        assert "nothing found" in result.output

    def test_4_where_there_are_doubts_only(self, split: TinySplit) -> None:
        rewrite(split.preds, SUBMISSION)
        assert gpu_eval_command("check", split.preds).exit_code == 4

    def test_2_where_something_would_be_refused(self, split: TinySplit) -> None:
        rewrite(split.preds, three_channels)
        assert gpu_eval_command("check", split.preds).exit_code == 2

    def test_2_where_the_command_cannot_be_carried_out(self, split: TinySplit) -> None:
        result = gpu_eval_command("check", split.preds / "none")
        assert result.exit_code == 2
        assert "does not exist" in result.output

    def test_help_says_them(self) -> None:
        output = " ".join(gpu_eval_command("check", "--help").output.split())
        assert "0 nothing found, 2 something would be refused" in output
        assert "4 doubts only" in output


def test_the_table_fits_80_columns_but_for_commands_and_notes(
    split: TinySplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rewrite(split.preds, three_channels)
    (split.preds / split.names[0]).write_bytes(b"")
    output = gpu_eval_command("check", split.preds).output
    free = ("mends", "note", "wrote", "score it", "not mended")
    lines = [line for line in output.splitlines() if not line.startswith(free)]
    assert max(map(len, lines)) <= 80
    (command,) = [line for line in output.splitlines() if line.startswith("mends")]
    assert command.endswith(f"gpu-eval check {split.preds} --fix {split.preds}-fixed")


def test_json_has_all_of_it(split: TinySplit) -> None:
    rewrite(split.preds, SUBMISSION)
    (split.preds / split.names[0]).write_bytes(b"")
    result = gpu_eval_command("check", split.preds, "--format", "json")
    told = json.loads(result.stdout)
    assert (told["ok"], told["certain"]) == (False, True)
    assert told["problems"][0]["count"] == 1
    assert told["problems"][0]["first"][0]["found"] == "0 bytes"
    (doubt,) = told["doubts"]
    assert doubt["mend"] == {"pred_encoding": "submission"}
    assert doubt["command"].endswith(f"--pred-encoding submission --fix {split.preds}-fixed")
    assert told["facts"]["label maps"] == 6
    assert sum(told["facts"]["values"].values()) == pytest.approx(1.0, abs=1e-4)


def test_what_a_terminal_would_obey_is_escaped(split: TinySplit) -> None:
    evil = "a/\x1b[2J\x1b]0;owned\x07\u202e\r" + SUFFIX
    (split.preds / evil).write_bytes(b"no png")
    result = gpu_eval_command("check", split.preds)
    assert result.exit_code == 2
    assert "\x1b[2J" not in result.output
    assert "\x07" not in result.output
    assert "\u202e" not in result.output
    assert "\\x1b[2J" in "".join(result.output.split())


def test_a_name_that_is_not_utf_8_is_told(split: TinySplit) -> None:
    name = b"a/\xff\xfe" + SUFFIX.encode()
    with open(bytes(split.preds) + b"/" + name, "wb") as file:
        file.write(b"")
    result = gpu_eval_command("check", split.preds)
    assert result.exit_code == 2
    assert "not UTF-8" in result.output


def test_fix_says_what_was_written_and_how_to_score_it(split: TinySplit, tmp_path: Path) -> None:
    rewrite(split.preds, SUBMISSION)
    result = gpu_eval_command(
        "check", split.preds, "--gts", split.gts, "--pred-encoding", "submission", "--fix", tmp_path / "fixed"
    )
    assert result.exit_code == 0, result.output
    assert f"wrote 6 files to {tmp_path / 'fixed'}: was in `submission` (6); 0 unchanged" in result.output
    assert f"score it: gpu-eval score {split.gts} {tmp_path / 'fixed'} -o RUN\n" in result.output


def test_paths_with_blanks_are_quoted(split: TinySplit, tmp_path: Path) -> None:
    rewrite(split.preds, three_channels)
    split.preds.rename(tmp_path / "my preds")
    output = gpu_eval_command("check", tmp_path / "my preds").output
    (command,) = [line for line in output.splitlines() if line.startswith("mends")]
    words = shlex.split(command.partition(": ")[2])
    assert words == ["gpu-eval", "check", str(tmp_path / "my preds"), "--fix", f"{tmp_path}/my preds-fixed"]
    assert gpu_eval_command(*words[1:]).exit_code == 2  # what was found is refused as it was; the copy is not
    assert gpu_eval_command("check", words[-1]).exit_code == 0


@needs_cases
@pytest.mark.parametrize(
    ("words", "exit_code", "told"),
    [
        (["idd_gt"], 0, "nothing found"),
        (["idd_one"], 4, "--pred-encoding submission"),
        (["idd_cs"], 4, "--pred-encoding cs"),
        (["cs_train", "--labels", "cityscapes"], 4, "--pred-encoding train"),
        (["hd_1088"], 4, "1920x1080 padded"),
        (["hd_gt"], 0, "nothing found"),
        (["flat", "--labels", "cityscapes"], 0, "_leftImg8bit.png were looked at"),
        (["bin_nothing", "--labels", "bin01.csv"], 0, "maps of one value: 4"),
        (["bin_gt", "--labels", "bin01.csv"], 4, "binary mask"),
        (["i_ok", "--task", "instance"], 0, "nothing found"),
        (["i_l3", "--task", "instance"], 4, "`level3` ids"),
        (["i_train", "--task", "instance"], 2, "0 of 60 predictions would count"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_cases_that_went_wrong_are_named_without_ground_truth(
    words: list[str], exit_code: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CASES)
    monkeypatch.setenv("COLUMNS", "200")
    result = gpu_eval_command("check", *words)
    assert told in result.output
    assert result.exit_code == exit_code


def test_one_size_among_others_is_named_with_an_example(split: TinySplit) -> None:
    Image.fromarray(np.ones((64, 36), np.uint8)).save(split.preds / split.names[3])
    output = gpu_eval_command("check", split.preds).output
    assert "36x64" in output
    assert "exchanged" in output
