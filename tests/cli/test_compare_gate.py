"""`compare --fail-if-worse`: what passes, what fails, and what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import gpu_eval
from gpu_eval.results.semantic_run import Run
from tests.support.commands import gpu_eval_command
from tests.support.semantic_runs import random_matrices, write_run


@pytest.fixture
def better(tmp_path: Path) -> Run:
    return write_run(tmp_path / "better", random_matrices(40, drives=10, better=0.3))


@pytest.fixture
def worse(tmp_path: Path) -> Run:
    return write_run(tmp_path / "worse", random_matrices(40, drives=10))


def almost(tmp_path: Path) -> Run:
    """As good as `better` but for one image, a bit worse: noise explains it."""
    matrices = random_matrices(40, drives=10, better=0.3)
    key = min(matrices)
    matrices[key] = matrices[key].copy()
    matrices[key][0, 0] -= 1
    matrices[key][0, 1] += 1
    return write_run(tmp_path / "almost", matrices)


def test_a_worse_run_fails_with_3_and_one_within_what_is_allowed_passes(better: Run, worse: Run) -> None:
    told = gpu_eval_command("compare", better.folder, worse.folder, "--fail-if-worse", 0)
    assert told.exit_code == 3
    assert f"WORSE: {worse.folder} is {worse.miou() - better.miou():+.4f} mIoU" in told.stderr
    assert gpu_eval_command("compare", better.folder, worse.folder, "--fail-if-worse", 0.9).exit_code == 0
    assert gpu_eval_command("compare", worse.folder, better.folder, "--fail-if-worse", 0).exit_code == 0


def test_significant_passes_what_noise_explains_and_no_more(better: Run, worse: Run, tmp_path: Path) -> None:
    words = ("compare", better.folder, almost(tmp_path).folder, "--fail-if-worse", 0)
    assert gpu_eval_command(*words).exit_code == 3
    assert gpu_eval_command(*words, "--significant").exit_code == 0
    told = gpu_eval_command("compare", better.folder, worse.folder, "--fail-if-worse", 0, "--significant")
    assert told.exit_code == 3
    assert ", p < 0.001" in told.stderr
    assert ", allowed 0," in told.stderr


def test_significant_alone_is_a_usage_error(better: Run, worse: Run) -> None:
    told = gpu_eval_command("compare", better.folder, worse.folder, "--significant")
    assert told.exit_code == 2
    assert "--significant belongs to --fail-if-worse" in told.stderr


def test_significant_lets_no_run_pass_of_which_nothing_can_be_said(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(i), random_matrices(1, better=0.3 - 0.3 * i)) for i in range(2)]
    told = gpu_eval_command("compare", *(r.folder for r in runs), "--fail-if-worse", 0, "--significant")
    assert told.exit_code == 3
    assert "no p: 1 image: no other to compare with" in told.stderr


def test_missing_images_are_told_and_fail_the_gate_without_common(tmp_path: Path) -> None:
    runs = []
    for name in "ab":
        matrices: dict[str, Any] = random_matrices(40, drives=10)
        matrices[min(matrices)] = None
        runs.append(write_run(tmp_path / name, matrices).folder)
    told = gpu_eval_command("compare", *runs)
    assert told.exit_code == 0
    assert "INCOMPLETE: images of the split without a score: 1 in A, 1 in B" in told.stdout
    told = gpu_eval_command("compare", *runs, "--fail-if-worse", 0)
    assert told.exit_code == 3
    assert "--common lets the gate judge by the images that both have" in told.stderr
    assert gpu_eval_command("compare", *runs, "--fail-if-worse", 0, "--common").exit_code == 0


def test_only_a_run_that_lacks_images_is_named(better: Run, tmp_path: Path) -> None:
    matrices: dict[str, Any] = random_matrices(40, drives=10, better=0.3)
    matrices[min(matrices)] = None
    lacking = write_run(tmp_path / "lacking", matrices)
    told = gpu_eval_command("compare", better.folder, lacking.folder, "--common")
    assert "without a score: 1 in B\n" in told.stdout
    told = gpu_eval_command("compare", lacking.folder, better.folder, "--common", "--fail-if-worse", 0.9)
    assert (told.exit_code, told.stderr) == (0, "")
    assert "without a score: 1 in A\n" in told.stdout


def test_what_is_allowed_is_told_as_it_was_given(better: Run, worse: Run) -> None:
    told = gpu_eval_command("compare", better.folder, worse.folder, "--fail-if-worse", "0.005")
    assert told.stderr.endswith(", allowed -0.005\n")


def test_runs_without_a_difference_fail_and_it_is_said_why(tmp_path: Path) -> None:
    for name in "ab":
        matrices = random_matrices(4, drives=2)
        for matrix in matrices.values():
            matrix[:] = 0
        write_run(tmp_path / name, matrices)
    for more in ((), ("--significant",)):
        told = gpu_eval_command("compare", tmp_path / "a", tmp_path / "b", "--fail-if-worse", 0, *more)
        assert told.exit_code == 3
        assert "have no difference in mIoU: no class has a score" in told.stderr
        assert "nan" not in told.stderr


def test_one_image_has_no_intervals_no_p_and_a_singular(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(i), random_matrices(1, better=0.3 * i)).folder for i in range(2)]
    told = gpu_eval_command("compare", *runs).stdout
    assert "1 image compared; no intervals: 1 image: no other to compare with\n" in told
    assert "jackknife" not in told
    assert "p Holm allows" not in told
    assert "no interval and no p (1 image: no other to compare with), 1 images>" in repr(
        gpu_eval.compare(*runs)
    )


def test_classes_without_a_p_are_not_counted_among_the_tests(tmp_path: Path) -> None:
    runs = []
    for name, better in (("a", 0.0), ("b", 0.3)):
        matrices = random_matrices(40, drives=10, better=better)
        for i, matrix in enumerate(matrices.values()):
            if i:
                matrix[0] = 0  # in one drive only
        runs.append(write_run(tmp_path / name, matrices).folder)
    told = " ".join(gpu_eval_command("compare", *runs).stdout.split())
    assert "p Holm allows for all 6 p's of classes together" in told
    assert "about 0.3 would be below 0.05" in told


def test_help_says_what_significant_tests_and_what_becomes_of_no_p() -> None:
    told = " ".join(gpu_eval_command("compare", "--help").stdout.split())
    assert 'p tests "no difference", not X. Without a p (one drive, say) it fails.' in told


def test_classes_have_plain_and_corrected_p_and_the_corrected_one_marks(better: Run, worse: Run) -> None:
    told = json.loads(gpu_eval_command("compare", worse.folder, better.folder, "--format", "json").stdout)
    assert told["intervals"]["units"] == "10 drives"
    plain, corrected = ([row[name] for row in told["classes"]] for name in ("p", "p_holm"))
    assert all(one <= other for one, other in zip(plain, corrected, strict=True))
    shown = gpu_eval_command("compare", worse.folder, better.folder).stdout
    marked = (
        shown.partition("largest difference first")[2].partition("images that moved")[0].count("B better")
    )
    assert marked == sum(p <= 0.05 for p in corrected)
    assert "of the plain p's, about 0.4 would be below 0.05" in shown
