"""What `gpu-eval instances` refuses before it scores, and that its advice, followed, leads to a score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import gpu_eval
from tests.support import instance_mixups as mixups
from tests.support.commands import gpu_eval_command
from tests.support.instance_mixups import labels_in
from tests.support.instance_split import write
from tests.support.shared import SHARED

CASES = SHARED.parent / "cases" / "inputs"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason=f"no cases at {CASES}")


@needs_cases
class TestCases:
    @pytest.mark.parametrize(
        ("gts", "preds", "phrases"),
        [
            ("i_gt", "i_l3", ("level3 ids, not raw ids", "0 as id", "give --pred-encoding level3")),
            ("i_gt", "i_train", ("not one prediction has a label that is evaluated", "labels 1 (60 times)")),
            ("i_gt8", "i_ok", ("not one instance", "saved with 8 bits", "values 16 ...", "astype('uint16')")),
        ],
        ids=["A6", "A7", "E1"],
    )
    def test_case_is_refused_by_its_cause(
        self, gts: str, preds: str, phrases: tuple[str, ...], tmp_path: Path
    ) -> None:
        refused = gpu_eval_command("instances", CASES / gts, CASES / preds, "-o", tmp_path / "run")
        assert refused.exit_code == 2
        for phrase in (*phrases, "--as-is"):
            assert phrase in refused.stderr
        assert not (tmp_path / "run").exists()

    def test_advice_of_a6_scores_perfect_masks(self, tmp_path: Path) -> None:
        arguments = ("instances", CASES / "i_gt", CASES / "i_l3", "-o", tmp_path / "run")
        assert gpu_eval_command(*arguments, "--pred-encoding", "level3").exit_code == 0
        assert gpu_eval.open_run(tmp_path / "run", "instance").ap() == 1

    def test_as_is_scores_and_says_so_at_the_top(self, tmp_path: Path) -> None:
        arguments = ("instances", CASES / "i_gt", CASES / "i_train", "-o", tmp_path / "run", "--as-is")
        scored = gpu_eval_command(*arguments)
        assert scored.exit_code == 0
        assert scored.stderr.startswith("DOUBT: not one prediction has a label that is evaluated")

    def test_right_inputs_get_no_word(self, tmp_path: Path) -> None:
        scored = gpu_eval_command("instances", CASES / "i_gt", CASES / "i_ok", "-o", tmp_path / "run")
        assert scored.exit_code == 0
        assert "DOUBT" not in scored.stderr
        assert gpu_eval.open_run(tmp_path / "run", "instance").ap() == 1


def test_advice_of_a_gt_of_another_factor_leads_to_the_score(tmp_path: Path) -> None:
    files = write(tmp_path, mixups.split(11, 1.0))
    for number, image in enumerate(files.images.values()):
        gt = np.where(image.gt >= 1000, image.gt // 1000 * 256 + image.gt % 1000, image.gt)
        PIL.Image.fromarray(gt.astype(np.uint16)).save(files.gt(number))
    arguments = ("instances", files.gts, files.preds, "-o", tmp_path / "run")
    refused = gpu_eval_command(*arguments)
    assert refused.exit_code == 2
    assert "give --gt-factor 256" in refused.stderr
    assert gpu_eval_command(*arguments, "--gt-factor", 256).exit_code == 0
    assert gpu_eval.open_run(tmp_path / "run", "instance").ap() == 1


@pytest.mark.parametrize(("name", "option"), [("cs", "cs"), ("id+1", "id+1")])
def test_advice_of_other_labels_leads_to_a_score(name: str, option: str, tmp_path: Path) -> None:
    labels = labels_in(name)
    known = mixups.relabelled(mixups.split(12, 1.0), labels.get)
    files = write(tmp_path, known, every_mask=True)
    arguments = ("instances", files.gts, files.preds, "-o", tmp_path / "run")
    refused = gpu_eval_command(*arguments)
    assert refused.exit_code == 2
    assert f"give --pred-encoding {option}" in refused.stderr
    assert gpu_eval_command(*arguments, "--pred-encoding", option).exit_code == 0
    assert gpu_eval.open_run(tmp_path / "run", "instance").ap() > 0.8


def test_unknown_encoding_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    files = write(tmp_path, mixups.split(13, 1.0, 1))
    refused = gpu_eval_command(
        "instances", files.gts, files.preds, "-o", tmp_path / "run", "--pred-encoding", "levels"
    )
    assert refused.exit_code == 2
    assert "level3" in refused.stderr
