"""Situations that people report in public, from ../shared/cases: what is said, and that the advice works."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.commands import gpu_eval_command
from tests.support.shared import SHARED

CASES = SHARED.parent / "cases" / "inputs"

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"no cases at {CASES}")


@dataclass(frozen=True)
class Case:
    """A command line, its exit code, phrases it must say, what to add to it then, and the score after that.

    `then` None: there is nothing to follow, the command itself scores.
    """

    words: str
    code: int
    says: tuple[str, ...]
    then: str | None
    score: float


CASE: dict[str, Case] = {
    "A1 predictions in train ids": Case(
        "score cs_gt cs_train --labels cityscapes", 2,
        ("`train`, not `id`", "agreement is 0.84", "--pred-encoding train"), "--pred-encoding train", 0.8383,
    ),
    "A2 both sides in train ids": Case(
        "score cs_train cs_train --labels cityscapes", 2,
        ("the ground truth and the predictions look like `train`",
         "--gt-encoding train --pred-encoding train"),
        "--gt-encoding train --pred-encoding train", 1.0,
    ),
    "A3 predictions from 1, no 27": Case(
        "score idd_gt idd_one", 2, ("`submission`, not `level3`", "--pred-encoding submission"),
        "--pred-encoding submission", 0.8429,
    ),
    "A4 predictions from 0, scored as from 1": Case(
        "score idd_gt idd_gt --pred-encoding submission", 2, ("`level3`, not `submission`",),
        "--pred-encoding level3", 1.0,
    ),
    "A5 predictions in csIds": Case(
        "score idd_gt idd_cs", 2, ("`cs`, not `level3`", "--pred-encoding cs"), "--pred-encoding cs", 0.7206
    ),
    "A6 instances with level-3 ids": Case(
        "instances i_gt i_l3", 2, ("level3 ids, not raw ids", "60 have its label read as level3"),
        "--pred-encoding level3", 1.0,
    ),
    "A7 no evaluated label at all": Case(
        "instances i_gt i_train", 2, ("not one prediction has a label that is evaluated", "1 (60 times)"),
        "--as-is", 0.0,
    ),
    "B1 1088 rows for 1080": Case(
        "score hd_gt hd_1088", 2, ("padded at the bottom", "8 rows of padding", "1.000", "--fix"), "FIX", 1.0
    ),
    "C1 flat predictions": Case(
        "score two_gt flat --labels cityscapes --pred-suffix _leftImg8bit.png", 0,
        ("note:", "paired by file name alone"), None, 0.8383,
    ),
    "C2 the same without a suffix": Case(
        "score two_gt flat --labels cityscapes", 0,
        ("note:", "_leftImg8bit.png", "paired by file name alone"), None, 0.8383,
    ),
    "D1 maps 0/255, classes 0 and 1": Case(
        "score bin_gt bin_nothing --labels bin01.csv", 2,
        ("`foreground` of bin01 never occurs", "255, which is void", "gives it the id 255", "--labels"),
        "--labels bin255.csv", 0.2352,
    ),
    "D1 the same, by the encoding": Case(
        "score bin_gt bin_nothing --labels bin01.csv", 2, ("give --gt-encoding mask --pred-encoding mask",),
        "--gt-encoding mask --pred-encoding mask", 0.2352,
    ),
    "D2 maps 0/255, foreground,255": Case(
        "score bin_gt bin_nothing --labels bin255.csv", 0, (), None, 0.2352
    ),
    "E1 instance gt saved with 8 bits": Case(
        "instances i_gt8 i_ok", 2,
        ("not one instance of an evaluated class is in the whole", "8 bits", "values 16 ... 249"),
        "GT i_gt", 1.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASE)
def test_what_is_wrong_is_said_and_the_advice_leads_to_the_score(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CASES)
    case, run = CASE[name], tmp_path / "run"
    words = shlex.split(case.words)
    told = gpu_eval_command(*words, "-o", run, "--format", "json")
    assert told.exit_code == case.code, told.output
    for phrase in case.says:
        assert phrase in told.stderr
    if case.then is not None:
        assert not run.exists()  # nothing was begun, so nothing stands in the way of the next command
        told = gpu_eval_command(*FOLLOW.get(case.then.split()[0], follow)(words, case.then, tmp_path),
                                "-o", run, "--format", "json")  # fmt: skip
        assert told.exit_code == 0, told.output
    scores = json.loads(told.stdout)
    found = scores["levels"][0]["miou"] if "levels" in scores else scores["scores"][0]["ap"]
    assert found == pytest.approx(case.score, abs=5e-5)


def follow(words: list[str], then: str, tmp_path: Path) -> list[str]:  # noqa: ARG001
    """The options that are advised, in place of those of the same name."""
    option, *_ = advised = shlex.split(then)
    if option in words:
        at = words.index(option)
        words = [*words[:at], *words[at + 2 :]]
    return [*words, *advised]


def follow_fix(words: list[str], then: str, tmp_path: Path) -> list[str]:  # noqa: ARG001
    told = gpu_eval_command("check", words[2], "--gts", words[1], "--fix", tmp_path / "fixed")
    assert told.exit_code == 2, told.output
    return [words[0], words[1], str(tmp_path / "fixed")]


def follow_gt(words: list[str], then: str, tmp_path: Path) -> list[str]:
    """The ground truth as it should have been saved."""
    shutil.copytree(then.split()[1], tmp_path / "gt")
    return [words[0], str(tmp_path / "gt"), words[2]]


FOLLOW: dict[str, Callable[[list[str], str, Path], list[str]]] = {"FIX": follow_fix, "GT": follow_gt}


@pytest.mark.parametrize("name", [name for name, case in CASE.items() if case.code == 2])
def test_it_is_scored_as_it_is_with_the_doubt_on_top(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CASES)
    told = gpu_eval_command(*shlex.split(CASE[name].words), "-o", tmp_path / "run", "--as-is")
    assert told.exit_code == 0, told.output
    assert told.stderr.startswith("DOUBT: ")
    assert "DOUBT: this looks like a mix-up" in told.stdout
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["doubts"][0]["certain"] is True


@pytest.mark.parametrize("words", ["idd_gt idd_gt", "cs_gt cs_gt --labels cityscapes", "hd_gt hd_gt"])
def test_what_is_right_is_not_doubted(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CASES)
    told = gpu_eval_command("score", *shlex.split(words), "-o", tmp_path / "run")
    assert told.exit_code == 0, told.output
    assert "DOUBT" not in told.output
