"""Runs of instances in trouble: bad files, a stop anywhere, a changed split; and where else they run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpu_eval
from gpu_eval import errors
from gpu_eval.metrics.matching import PROTOCOLS
from gpu_eval.results.instance_run import InstanceRun
from gpu_eval.runs.cluster_options import ClusterOptions, joined
from gpu_eval.tasks.instance import PART_TABLES
from tests.reference import instances as reference
from tests.reference.instances import VOID, Image, Prediction
from tests.support.commands import gpu_eval_command, start_slow, wait_for_parts
from tests.support.instance_split import (
    CLASSES,
    GT_SUFFIX,
    InstanceFiles,
    literal,
    make_images,
    make_split,
    write,
    write_coco,
)
from tests.support.numbers import close
from tests.support.run_tables import assert_same_tables, tables_of
from tests.support.scoring import score


@pytest.fixture
def split(tmp_path: Path) -> InstanceFiles:
    return make_split(tmp_path / "split")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def masks(split: InstanceFiles, number: int) -> list[Path]:
    """The masks of an image that are read."""
    return [split.mask(number, index) for index, _ in split.evaluated(number)]


def problems_of(split: InstanceFiles, out: Path, **options: Any) -> list[errors.GpuEvalError]:
    with pytest.raises(errors.SplitProblems) as caught:
        score(split, out, **options)
    assert caught.value.exit_code == 2
    return list(caught.value.problems)


def assert_scores(run: InstanceRun, images: dict[str, Image], **options: Any) -> None:
    """The scores are those of the literal evaluator on these images."""
    for protocol in PROTOCOLS:
        rows = literal(images, protocol, **options)
        close(run.ap(protocol), reference.mean([one.ap for row in rows for one in row]))
        close(run.ap50(protocol), reference.mean([row[0].ap for row in rows]))


BROKEN: dict[str, tuple[Callable[[InstanceFiles], object], str, str]] = {
    "mask cut short": (lambda s: cut_short(masks(s, 3)[0]), "CorruptImage", "truncated"),
    "empty mask file": (lambda s: masks(s, 3)[0].write_bytes(b""), "CorruptImage", "empty"),
    "mask of another size": (
        lambda s: shutil.copy(masks(s, 2)[0], masks(s, 3)[0]), "SizeMismatch", ".png",
    ),
    "mask not there": (lambda s: masks(s, 3)[0].unlink(), "MissingMask", "line 1: the mask is not there"),
    "no list": (lambda s: s.listed(3).unlink(), "MissingPrediction", "no list of predictions"),
    "line of two fields": (
        lambda s: s.listed(3).write_text("x.png 12\n"), "MalformedPredictions", "less than three fields",
    ),
    "gt cut short": (lambda s: cut_short(s.gt(3)), "CorruptImage", "truncated"),
}  # fmt: skip


class TestOnError:
    @pytest.mark.parametrize("kind", BROKEN)
    def test_bad_file_is_a_problem_and_never_scored(
        self, split: InstanceFiles, tmp_path: Path, kind: str
    ) -> None:
        harm, error, words = BROKEN[kind]
        harm(split)
        (problem,) = problems_of(split, tmp_path / "run")
        assert problem.kind == error
        assert words in str(problem)
        assert "frame0003" in str(problem)
        with pytest.raises(errors.IncompleteRun, match="1 problems"):
            gpu_eval.open_run(tmp_path / "run")
        assert not (tmp_path / "run" / "scores.parquet").exists()

    @pytest.mark.parametrize("kind", BROKEN)
    def test_skip_leaves_the_image_out_and_void_takes_its_predictions_away(
        self, split: InstanceFiles, tmp_path: Path, kind: str
    ) -> None:
        harm, error, _ = BROKEN[kind]
        harm(split)
        key = split.keys[3]
        others = {k: image for k, image in split.images.items() if k != key}
        run = score(split, tmp_path / "skip", on_error="skip")
        assert_scores(run, others)
        assert run.images["status"].to_pylist() == ["ok"] * 3 + ["error"] + ["ok"] * 2
        assert (run.facts["images_scored"], run.facts["images_failed"]) == (5, 1)
        assert run.facts["problems"][0]["kind"] == error
        assert 3 not in run.instances["image_id"].to_pylist()

        run = score(split, tmp_path / "void", on_error="void")
        gt_is_lost = "gt" in kind
        assert_scores(
            run, others if gt_is_lost else {**others, key: split.images[key]._replace(predictions=[])}
        )
        row = run.images.to_pylist()[3]
        assert row["status"] == ("error" if gt_is_lost else "void")
        assert len(row["errors"]) == 1
        kinds = run.sql("SELECT DISTINCT kind FROM instances WHERE image_id = 3")["kind"].to_pylist()
        assert kinds == ([] if gt_is_lost else ["gt"])
        assert run.facts["problem_count"] == 1

    @pytest.fixture
    def broken(self, split: InstanceFiles) -> InstanceFiles:
        """Everything at once, in five of six images."""
        for path in masks(split, 0)[1:3]:
            cut_short(path)
        split.listed(1).unlink()
        lines = split.listed(2).read_text().splitlines()
        split.listed(2).write_text("\n".join([*lines, "x.png 12", "nowhere.png 12 0.5", "a.png 99 1"]))
        cut_short(split.gt(3))
        cut_short(masks(split, 3)[0])
        split.listed(5).with_name(f"surplus{split.listed(5).name[9:]}").write_text("")
        return split

    def test_all_problems_are_told_in_one_pass(self, broken: InstanceFiles, tmp_path: Path) -> None:
        problems = problems_of(broken, tmp_path / "run", shard_size=2)
        assert sorted(problem.kind for problem in problems) == [
            *["CorruptImage"] * 4, "ExtraPrediction", *["MalformedPredictions"] * 2, "MissingMask",
            "MissingPrediction",
        ]  # fmt: skip
        assert len({(problem.file, problem.message) for problem in problems}) == len(problems)
        told = {str(path) for path in (*masks(broken, 0)[1:3], broken.gt(3), masks(broken, 3)[0])}
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

    def test_mostly_missing_lists_stop_before_scoring(self, split: InstanceFiles, tmp_path: Path) -> None:
        for number in range(5):
            split.listed(number).unlink()
        with pytest.raises(errors.SplitProblems, match="most predictions are missing"):
            score(split, tmp_path / "run")
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
        self, split: InstanceFiles, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        with pytest.raises((errors.OptionError, errors.LabelTableError)):
            score(split, tmp_path / "run", **options)
        assert not (tmp_path / "run").exists()


def identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def parts_of(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: identity(path) for path in folder.rglob("part-*.parquet")}


def stop_at(split: InstanceFiles, out: Path, images: int, **options: Any) -> None:
    """A run that is interrupted once `images` images are done."""

    def interrupt(progress: gpu_eval.Progress) -> None:
        if progress.done >= images:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(split, out, progress=interrupt, shard_size=1, **options)


class TestResume:
    def test_killed_run_is_finished_with_equal_tables(self, split: InstanceFiles, tmp_path: Path) -> None:
        out = tmp_path / "killed"
        process = start_slow("instances", split.gts, split.preds, "-o", out, "--shard-size", 1, "-j", 1)
        try:
            wait_for_parts(out, 3, process)
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        committed = {path.name for path in (out / "images").glob("part-*.parquet")}
        done = {path: stamp for path, stamp in parts_of(out).items() if path.name in committed}
        assert 3 <= len(committed) < 6
        with pytest.raises(errors.IncompleteRun, match="--resume"):
            gpu_eval.open_run(out)
        run = score(split, out, resume=True, shard_size=1)
        assert {path: identity(path) for path in done} == done
        assert run.facts["images_resumed"] == len(committed)
        score(split, tmp_path / "undisturbed", shard_size=1)
        assert_same_tables(tmp_path / "undisturbed", out)

    def test_stopped_by_problems_is_finished_without_them(self, split: InstanceFiles, tmp_path: Path) -> None:
        cut_short(masks(split, 0)[0])
        split.listed(3).write_text("x.png 12\n")
        told = [
            [str(problem) for problem in problems_of(split, tmp_path / "run", resume=more)]
            for more in (False, True)
        ]
        assert told[0] == told[1]
        run = score(split, tmp_path / "run", resume=True, on_error="skip")
        assert run.facts["images_resumed"] == 6
        score(split, tmp_path / "undisturbed", on_error="skip")
        assert_same_tables(tmp_path / "undisturbed", tmp_path / "run")

    @pytest.mark.parametrize("name", PART_TABLES)
    def test_truncated_part_is_scored_again(self, split: InstanceFiles, tmp_path: Path, name: str) -> None:
        out = tmp_path / "run"
        score(split, out, shard_size=1)
        before = parts_of(out)
        path = out / name / "part-000002.parquet"
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        run = score(split, out, resume=True, shard_size=1)
        assert run.facts["images_resumed"] == 5
        assert path.read_bytes() == content
        after = parts_of(out)
        assert {p for p in after if after[p] != before[p]} == {out / n / path.name for n in PART_TABLES}

    @pytest.mark.parametrize("name", PART_TABLES)
    def test_part_of_another_run_is_refused_and_kept(
        self, split: InstanceFiles, tmp_path: Path, name: str
    ) -> None:
        out, other = tmp_path / "run", tmp_path / "other"
        stop_at(split, out, 3)
        score(split, other, shard_size=1, area=(0, 50))
        path = out / name / "part-000000.parquet"
        shutil.copy(other / name / path.name, path)
        foreign = path.read_bytes()
        with pytest.raises(errors.CorruptRun, match="another run") as caught:
            score(split, out, resume=True, shard_size=1)
        assert caught.value.file == str(path)
        assert path.read_bytes() == foreign

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"area": (100, 200)}, "area was [100.0, None]"),
            ({"on_error": "void"}, "void_on_error was False"),
            ({"shard_size": 2}, "shard_size was 1"),
            ({"labels": "cityscapes", "gt_suffix": GT_SUFFIX}, "labels was"),
        ],
    )
    def test_other_option_is_named(
        self, split: InstanceFiles, tmp_path: Path, options: dict[str, Any], told: str
    ) -> None:
        stop_at(split, tmp_path / "run", 2)
        with pytest.raises(errors.RunExists, match="cannot be resumed") as caught:
            score(split, tmp_path / "run", **{"resume": True, "shard_size": 1, "on_error": "skip", **options})
        assert told in (caught.value.found or "")

    @pytest.mark.parametrize("side", ["mask", "gt", "confidence"])
    def test_changed_file_is_not_mixed_in(self, split: InstanceFiles, tmp_path: Path, side: str) -> None:
        stop_at(split, tmp_path / "run", 2)
        if side == "confidence":
            path = split.listed(3)
            path.write_text(path.read_text().replace(" 0.", " 0.0"))
        else:
            os.utime(masks(split, 3)[0] if side == "mask" else split.gt(3), ns=(1, 1))
        with pytest.raises(errors.RunExists, match="files changed since"):
            score(split, tmp_path / "run", resume=True, shard_size=1)

    def test_another_run_is_refused_unless_overwritten(self, split: InstanceFiles, tmp_path: Path) -> None:
        score(split, tmp_path / "run", shard_size=1)
        before = parts_of(tmp_path / "run")
        with pytest.raises(errors.RunExists, match="a complete run"):
            score(split, tmp_path / "run", shard_size=4)
        assert parts_of(tmp_path / "run") == before
        run = score(split, tmp_path / "run", shard_size=4, overwrite=True)
        assert len(parts_of(tmp_path / "run")) == 2 * len(PART_TABLES)
        assert_scores(run, dict(split.images))


class TestElsewhere:
    def test_coco_file_gives_the_tables_of_the_masks(self, split: InstanceFiles, tmp_path: Path) -> None:
        files = score(split, tmp_path / "files")
        coco = write_coco(tmp_path / "results.json", split.images)
        run = gpu_eval.score_instances(split.gts, coco, out=tmp_path / "coco", threads=1)
        predictions = sum(len(split.evaluated(number)) for number in range(6))
        assert run.facts["decoders"] == {"simd": 6, "cuda": 0, "pillow": 0, "rle": predictions}
        left, right = tables_of(tmp_path / "files"), tables_of(tmp_path / "coco")
        for name in ("scores", "classes", "ap", "curves", PART_TABLES[0]):
            assert repr(left[name].to_pylist()) == repr(right[name].to_pylist()), name
        shared = "SELECT * EXCLUDE (line, mask) FROM instances ORDER BY ALL"
        assert files.sql(shared).to_pylist() == run.sql(shared).to_pylist()
        assert any("1 of 6 images have no entry" in note for note in run.facts["notes"])

    @pytest.mark.parametrize("area", [(0, 120), (120, 1e9)])
    def test_area_selects_gt(self, split: InstanceFiles, tmp_path: Path, area: tuple[float, float]) -> None:
        result = gpu_eval_command(
            "instances", split.gts, split.preds, "-o", tmp_path / "run", "--area", *area
        )
        assert (result.exit_code, result.exception) == (0, None)
        run = gpu_eval.open_run(tmp_path / "run")
        assert isinstance(run, InstanceRun)
        assert run.facts["decides"]["area"] == list(area)
        assert_scores(run, dict(split.images), area=area)
        found = run.sql("SELECT count(*) AS n FROM instances WHERE kind = 'gt' AND autonue IN ('TP', 'FN')")
        assert found["n"][0].as_py() == sum(
            row["gt"] for row in run.classes.to_pylist() if row["protocol"] == "autonue"
        )

    def test_two_workers_of_a_cluster_write_the_same_tables(
        self, split: InstanceFiles, tmp_path: Path
    ) -> None:
        cut_short(masks(split, 3)[0])
        score(split, tmp_path / "here", shard_size=2, on_error="void")
        with joined(ClusterOptions(workers=2)) as cluster:
            assert cluster is not None
            run = score(split, tmp_path / "there", shard_size=2, on_error="void", client=cluster.client)
            coco = write_coco(tmp_path / "results.json", split.images)
            gpu_eval.score_instances(
                split.gts, coco, out=tmp_path / "coco", shard_size=2, client=cluster.client
            )
        assert_same_tables(tmp_path / "here", tmp_path / "there")
        assert run.facts["images_void"] == 1
        whole = gpu_eval.score_instances(split.gts, coco, out=tmp_path / "alone", shard_size=2, threads=1)
        assert whole.images.num_rows == 6
        assert_same_tables(tmp_path / "alone", tmp_path / "coco")

    def test_cityscapes_labels_give_the_scores_of_the_same_masks(
        self, split: InstanceFiles, tmp_path: Path
    ) -> None:
        ids = dict(zip(CLASSES, (24, 26, 33), strict=True))
        static, road = 4, 7

        def renamed(value: int) -> int:
            raw = reference.class_of(value)
            if raw in ids:
                return ids[raw] if value < 1000 else ids[raw] * 1000 + value % 1000
            return static if value in VOID else road

        images = {
            key: Image(
                np.vectorize(renamed)(gt),
                [
                    Prediction(mask, ids.get(label, road), confidence)
                    for mask, label, confidence in predictions
                ],
            )
            for key, (gt, predictions) in split.images.items()
        }
        other = write(tmp_path / "cityscapes", images)
        shutil.copytree(
            split.preds,
            other.preds,
            ignore=lambda _, names: [n for n in names if n.endswith(".txt")],
            dirs_exist_ok=True,
        )
        for number in range(6):
            other.gt(number).rename(other.gts / f"{other.keys[number]}_gtFine_instanceIds.png")
        run = score(other, tmp_path / "other", labels="cityscapes")
        expected = score(split, tmp_path / "idd")
        for protocol in PROTOCOLS:
            assert run.ap(protocol) == expected.ap(protocol) > 0
        assert run.facts["labels"]["name"] == "cityscapes"


class TestLittle:
    def test_split_without_predictions_has_ap_0(self, tmp_path: Path) -> None:
        images = {key: image._replace(predictions=[]) for key, image in make_images(3).items()}
        run = score(write(tmp_path / "split", images), tmp_path / "run")
        assert [run.ap(protocol) for protocol in PROTOCOLS] == [0.0, 0.0]
        assert_scores(run, images)
        assert run.curves.num_rows == run.table(PART_TABLES[0]).num_rows == 0

    def test_split_of_nothing_but_stuff_has_no_ap(self, tmp_path: Path) -> None:
        mask = np.zeros((30, 41), bool)
        mask[3:20, 5:30] = True
        gt = np.where(mask, 255, 2).astype(np.int64)
        files = write(tmp_path / "split", {"frame": Image(gt, [Prediction(mask, 12, 0.5)])})
        run = score(files, tmp_path / "run")
        assert np.isnan([run.ap(), run.ap50()]).all()
        assert run.sql("SELECT autonue FROM instances")["autonue"].to_pylist() == ["FP"]
        told = json.loads(gpu_eval_command("show", run.folder, "--format", "json").stdout)
        assert [row["ap"] for row in told["scores"]] == [None, None]
        shown = gpu_eval_command("show", run.folder)
        assert (shown.exit_code, shown.exception) == (0, None)
        assert "0 of 9" in shown.stdout


# Scores a split and tells the most memory that this process ever had, in kB.
PEAK = """
import sys, gpu_eval
gpu_eval.score_instances(*sys.argv[1:3], out=sys.argv[3], threads=1)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_hundred_masks_of_an_image_need_no_more_memory_than_ten(tmp_path: Path) -> None:
    height, width = 810, 1440
    peaks = []
    for count in (10, 100):
        boxes = np.zeros((count, height, width), bool)
        for number, box in enumerate(boxes):
            box[100:400, 15 * number : 15 * number + 300] = True
        files = write(
            tmp_path / str(count),
            {"frame": Image(boxes[0] * 12001, [Prediction(box, 12, 0.5) for box in boxes])},
        )
        out = tmp_path / f"run{count}"
        command = [sys.executable, "-c", PEAK, str(files.gts), str(files.preds), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        peaks.append(int(done.stdout) / 1000)
        assert gpu_eval.open_run(out).images["predictions"].to_pylist() == [count]
    assert peaks[1] - peaks[0] < 90 * height * width / 1e6 / 3
