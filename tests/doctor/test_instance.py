"""Splits of instances that are judged before they are scored: labels, ground truth, the order of fields."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import gpu_eval
from bench import instance_mix_ups
from gpu_eval.doctor.doubt import Doubt
from gpu_eval.errors import Doubtful, MalformedPredictions, OptionError, SplitProblems
from gpu_eval.labels.instance_readings import choose_reading, load_readings
from gpu_eval.labels.instance_space import load_instances
from tests.support import instance_mixups as mixups
from tests.support.instance_mixups import HONEST, examine, labels_in
from tests.support.instance_split import InstanceFiles, write, write_coco
from tests.support.shared import SHARED, golden_cases, needs_shared

IDD = load_instances("idd")
READINGS = load_readings("idd", IDD)
SEEDS = range(30)


def quality(seed: int) -> float:
    """From an AP of 0.1 or 0.2 to one of 1."""
    return 0.6 + 0.4 * seed / SEEDS[-1]


def rewrite_gt(files: InstanceFiles, change: Callable[[int], int], dtype: type = np.uint16) -> None:
    for number, image in enumerate(files.images.values()):
        changed = np.vectorize(change, otypes=[np.int64])(image.gt)
        PIL.Image.fromarray(changed.astype(dtype)).save(files.gt(number))


class TestLabels:
    @pytest.mark.parametrize(
        "name",
        [
            "level3",
            "cs",
            "cs_train",
            "level4",
            "id+1",
            "id-1",
            "submission",
            "from0",
            "from1",
            "coco",
            "coco0",
        ],
    )
    def test_labels_of_another_encoding_are_named(self, name: str, tmp_path: Path) -> None:
        labels = labels_in(name)
        for seed in SEEDS:
            images = mixups.relabelled(mixups.split(seed, quality(seed)), labels.get)
            (doubt,) = examine(write(tmp_path / f"{seed}", images, every_mask=True))
            assert doubt.certain, seed
            assert "the labels of the predictions are " in doubt.message
            # Without vehicle fallback, level4 is id-1: both are named.
            named = doubt.mend["pred_encoding"]
            assert named == name or f"(or {name}, which fits alike)" in doubt.message, (seed, doubt)
            assert f"--pred-encoding {named}" in doubt.fix

    @pytest.mark.parametrize("name", ["level3", "cs", "id+1", "submission", "coco", "from0"])
    def test_the_advised_encoding_gives_the_score_of_raw_ids(self, name: str, tmp_path: Path) -> None:
        labels = labels_in(name)
        known = mixups.relabelled(mixups.split(1, 0.8), lambda label: label if label in labels else None)
        raw = write(tmp_path / "raw", known)
        other = write(tmp_path / name, mixups.relabelled(known, labels.get), every_mask=True)
        with pytest.raises(Doubtful, match=f"--pred-encoding {name}".replace("+", r"\+")):
            gpu_eval.score_instances(other.gts, other.preds, out=tmp_path / "refused")
        wanted = gpu_eval.score_instances(raw.gts, raw.preds, out=tmp_path / "a")
        mended = gpu_eval.score_instances(other.gts, other.preds, out=tmp_path / "b", pred_encoding=name)
        assert mended.ap() == wanted.ap() > 0.2
        assert mended.facts["decides"]["pred_encoding"] == name
        assert mended.facts["doubts"] == []

    def test_coco_categories_are_judged_and_read_alike(self, tmp_path: Path) -> None:
        images = mixups.split(2, 0.9)
        labels = labels_in("level3")
        files = write(tmp_path, images)
        raw = write_coco(tmp_path / "raw.json", images)
        other = write_coco(tmp_path / "level3.json", mixups.relabelled(images, labels.get))
        with pytest.raises(Doubtful, match="--pred-encoding level3"):
            gpu_eval.score_instances(files.gts, other, out=tmp_path / "refused")
        wanted = gpu_eval.score_instances(files.gts, raw, out=tmp_path / "a")
        mended = gpu_eval.score_instances(files.gts, other, out=tmp_path / "b", pred_encoding="level3")
        assert mended.ap() == wanted.ap() > 0.3

    def test_labels_that_do_not_tell_classes_apart_are_named_without_an_option(self, tmp_path: Path) -> None:
        images = mixups.relabelled(mixups.split(3, 0.9), labels_in("level2").get)
        (doubt,) = examine(write(tmp_path, images, every_mask=True))
        assert "level2" in doubt.message
        assert doubt.mend == {}
        assert "level2 does not tell" in doubt.fix

    def test_label_of_two_classes_is_refused_where_it_is_asked_for(self, tmp_path: Path) -> None:
        files = write(
            tmp_path, mixups.relabelled(mixups.split(3, 0.9), labels_in("level2").get), every_mask=True
        )
        with pytest.raises(SplitProblems) as caught:
            gpu_eval.score_instances(
                files.gts, files.preds, out=tmp_path / "run", pred_encoding="level2", as_is=True
            )
        problem = caught.value.problems[0]
        assert isinstance(problem, MalformedPredictions)
        assert "level2 does not tell" in problem.message

    def test_level3_12_is_the_one_evaluated_label_of_its_class(self) -> None:
        assert choose_reading(READINGS, "level3").classes[12] == (18,)
        with pytest.raises(OptionError, match="no such encoding of instance labels"):
            choose_reading(READINGS, "level9")

    def test_raw_ids_read_as_level3_are_named_too(self, tmp_path: Path) -> None:
        (doubt,) = examine(write(tmp_path, mixups.split(4, 0.9)), encoding="level3")
        assert doubt.mend == {"pred_encoding": "id"}

    def test_no_evaluated_label_at_all_is_an_error_even_without_masks(self, tmp_path: Path) -> None:
        images = mixups.relabelled(mixups.split(5, 0.9), labels_in("cs").get)
        (doubt,) = examine(write(tmp_path, images))
        assert doubt.certain
        assert doubt.message == "not one prediction has a label that is evaluated"
        assert "the lists hold labels" in doubt.evidence
        assert doubt.mend == {"pred_encoding": "cs"}

    def test_one_label_for_everything_that_is_not_evaluated_is_an_error(self, tmp_path: Path) -> None:
        images = mixups.relabelled(mixups.split(5, 0.9), lambda _: 1)
        (doubt,) = examine(write(tmp_path, images, every_mask=True))
        assert doubt.certain
        assert "the lists hold labels 1 (" in doubt.evidence
        assert "6, 8, 9, 10, 11, 12, 13, 14, 18 are evaluated" in doubt.fix


class TestFields:
    @pytest.mark.parametrize("seed", range(5))
    def test_confidence_before_the_label_is_an_error_that_names_the_order(
        self, seed: int, tmp_path: Path
    ) -> None:
        files = write(tmp_path, mixups.split(seed, 0.9))
        for number in range(len(files)):
            lines = [line.split() for line in files.listed(number).read_text().splitlines()]
            files.listed(number).write_text(
                "".join(f"{mask} {score} {label}\n" for mask, label, score in lines)
            )
        (doubt,) = examine(files)
        assert doubt.certain
        assert "the confidence stands before the label" in doubt.message
        assert "`mask.png labelID confidence`" in doubt.fix
        assert "line 1: " in doubt.evidence

    def test_confidences_in_percent_are_no_doubt(self, tmp_path: Path) -> None:
        images = {
            key: image._replace(
                predictions=[one._replace(confidence=100 * one.confidence) for one in image.predictions]
            )
            for key, image in mixups.split(6, 0.9).items()
        }
        assert examine(write(tmp_path, images)) == []


def in_level3(value: int) -> int:
    labels = labels_in("level3")
    return labels.get(value // 1000, value // 1000) * 1000 + value % 1000 if value >= 1000 else value


def in_train(value: int) -> int:
    label = labels_in("cs_train").get(value // 1000)
    return value if value < 1000 else 255 if label is None else label * 1000 + value % 1000


def in_256(value: int) -> int:
    return value // 1000 * 256 + value % 1000 if value >= 1000 else value


def in_kitti(value: int) -> int:
    return in_256(value) if value >= 1000 else value * 256


class TestGroundTruth:
    @pytest.mark.parametrize(
        ("change", "dtype", "words"),
        [
            (lambda value: value % 256, np.uint8, "8 bits, and the values are cut to their remainder by 256"),
            (lambda value: min(value, 255), np.uint8, "8 bits, and the values are cut at 255"),
            (lambda value: value >> 8, np.uint8, "8 bits, and the values are divided by 256"),
            (lambda value: value // 1000 or value, np.uint8, "a label map, not a map of instances"),
            (lambda value: value // 1000 or value, np.uint16, "a label map, not a map of instances"),
            (in_256, np.uint16, "raw id * 256 + n, not raw id * 1000 + n"),
            (in_kitti, np.uint16, "raw id * 256 + n, not raw id * 1000 + n"),
            (in_level3, np.uint16, "level3 * 1000 + n, not raw id * 1000 + n"),
        ],
        ids=["mod", "cut", "high", "labels", "labels16", "factor", "kitti", "level3"],
    )
    def test_other_values_are_refused_by_their_cause(
        self, change: Callable[[int], int], dtype: type, words: str, tmp_path: Path
    ) -> None:
        for seed in SEEDS:
            files = write(tmp_path / f"{seed}", mixups.split(seed, quality(seed), 4))
            rewrite_gt(files, change, dtype)
            (doubt,) = examine(files)
            assert doubt.certain, seed
            assert words in doubt.message, (seed, doubt)
            assert "values " in doubt.evidence

    def test_train_ids_in_the_gt_are_told_by_the_masks(self, tmp_path: Path) -> None:
        for seed in SEEDS:
            files = write(tmp_path / f"{seed}", mixups.split(seed, quality(seed)))
            rewrite_gt(files, in_train)
            (doubt,) = examine(files)
            assert "the ids in the ground truth are cs_train ids" in doubt.message, (seed, doubt)
            assert "11 is 6, 12 is 8" in doubt.fix

    def test_the_gt_written_as_advised_is_scored(self, tmp_path: Path) -> None:
        files = write(tmp_path, mixups.split(7, 1.0))
        rewrite_gt(files, in_level3)
        with pytest.raises(Doubtful, match="4 is 6, 5 is 8, 6 is 9"):
            gpu_eval.score_instances(files.gts, files.preds, out=tmp_path / "refused")
        rewrite_gt(files, lambda value: value)
        assert gpu_eval.score_instances(files.gts, files.preds, out=tmp_path / "run").ap() == 1

    @pytest.mark.parametrize("change", [in_256, in_kitti])
    def test_gt_factor_256_gives_the_score_of_1000(
        self, change: Callable[[int], int], tmp_path: Path
    ) -> None:
        files = write(tmp_path, mixups.split(8, 0.8))
        wanted = gpu_eval.score_instances(files.gts, files.preds, out=tmp_path / "a")
        rewrite_gt(files, change)
        with pytest.raises(Doubtful, match="give --gt-factor 256"):
            gpu_eval.score_instances(files.gts, files.preds, out=tmp_path / "refused")
        read = gpu_eval.score_instances(files.gts, files.preds, out=tmp_path / "b", gt_factor=256)
        assert read.instances.equals(wanted.instances)
        assert read.facts["gt_fingerprint"] == wanted.facts["gt_fingerprint"]

    def test_a_factor_that_does_not_fit_is_named(self, tmp_path: Path) -> None:
        (doubt,) = examine(write(tmp_path, mixups.split(8, 0.8)), factor=256)
        assert doubt.mend == {"gt_factor": "1000"}
        with pytest.raises(OptionError, match="no factor"):
            gpu_eval.score_instances(tmp_path, tmp_path, out=tmp_path / "run", gt_factor=7)

    def test_an_instance_in_the_last_image_is_found(self, tmp_path: Path) -> None:
        images = mixups.split(9, 0.9, 40)
        last = list(images)[-1]
        empty = {
            key: image if key == last else image._replace(gt=image.gt % 1) for key, image in images.items()
        }
        assert examine(write(tmp_path, empty)) == []

    def test_a_split_without_instances_is_scored_and_doubted(self, tmp_path: Path) -> None:
        images = {
            key: image._replace(gt=np.where(image.gt >= 1000, 29, image.gt))
            for key, image in mixups.split(10, 0.9, 2).items()
        }
        files = write(tmp_path, images)
        (doubt,) = examine(files)
        assert not doubt.certain
        run = gpu_eval.score_instances(files.gts, files.preds, out=tmp_path / "run")
        assert "not one instance of an evaluated class" in run.facts["doubts"][0]["message"]


class TestNoFalseAlarm:
    @pytest.mark.parametrize("kind", HONEST)
    def test_what_is_merely_bad_is_not_doubted(self, kind: str, tmp_path: Path) -> None:
        doubts: dict[int, list[Doubt]] = {}
        for seed in SEEDS:
            doubts[seed] = examine(write(tmp_path / f"{seed}", mixups.honest(kind, seed), every_mask=True))
        assert not any(doubts.values())

    @needs_shared
    def test_golden_instances_are_not_doubted(self) -> None:
        assert examine(SHARED / "golden" / "instance") == []

    @pytest.mark.parametrize("case", golden_cases("instance_edge", lambda case: case["outcome"] == "ok"))
    def test_golden_edges_are_not_refused(self, case: str) -> None:
        assert not any(doubt.certain for doubt in examine(SHARED / "golden" / "instance_edge" / case))


def test_next_to_no_prediction_that_counts_is_doubted(tmp_path: Path) -> None:
    scenes = instance_mix_ups.draw(np.random.default_rng(3), quality=0.9)
    first, *others = scenes
    kept = next((one for one in first.found if one.label == 6), first.found[0])._replace(label=6)
    scenes = [instance_mix_ups.Scene(first.gt, [kept]), *instance_mix_ups.relabelled(others, lambda _: 30)]
    gts, preds = instance_mix_ups.write(tmp_path, scenes)
    run = gpu_eval.score_instances(gts, preds, out=tmp_path / "run")
    (doubt,) = run.doubts
    assert "next to no prediction has a label that is evaluated" in doubt
