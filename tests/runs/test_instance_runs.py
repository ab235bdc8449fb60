"""Runs of instances from other files, other labels, other processes, and of next to nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpu_eval
from gpu_eval.metrics.matching import PROTOCOLS
from gpu_eval.results.instance_run import InstanceRun
from tests.reference import instances as reference
from tests.reference.instances import VOID, Image, Prediction
from tests.support.commands import gpu_eval_command
from tests.support.dask_processes import local_client
from tests.support.instance_split import (
    CLASSES,
    InstanceFiles,
    cut_short,
    make_images,
    write,
    write_coco,
)
from tests.support.instance_tables import assert_scores
from tests.support.run_tables import INSTANCE_PARTS, assert_same_tables, tables_of
from tests.support.scoring import score


class TestElsewhere:
    def test_coco_file_gives_the_tables_of_the_masks(self, instances: InstanceFiles, tmp_path: Path) -> None:
        files = score(instances, tmp_path / "files")
        coco = write_coco(tmp_path / "results.json", instances.images)
        run = score(instances, tmp_path / "coco", preds=coco)
        predictions = sum(len(instances.evaluated(number)) for number in range(6))
        assert run.facts["decoders"] == {"simd": 6, "cuda": 0, "pillow": 0, "rle": predictions}
        left, right = tables_of(tmp_path / "files"), tables_of(tmp_path / "coco")
        for name in ("scores", "classes", "ap", "curves", INSTANCE_PARTS[0]):
            assert repr(left[name].to_pylist()) == repr(right[name].to_pylist()), name
        shared = "SELECT * EXCLUDE (line, mask) FROM instances ORDER BY ALL"
        assert files.sql(shared).to_pylist() == run.sql(shared).to_pylist()
        assert any("1 of 6 images have no entry" in note for note in run.facts["notes"])

    @pytest.mark.parametrize("area", [(0, 120), (120, 1e9)])
    def test_area_selects_gt(
        self, instances: InstanceFiles, tmp_path: Path, area: tuple[float, float]
    ) -> None:
        result = gpu_eval_command(
            "instances", instances.gts, instances.preds, "-o", tmp_path / "run", "--area", *area
        )
        assert (result.exit_code, result.exception) == (0, None)
        run = gpu_eval.open_run(tmp_path / "run")
        assert isinstance(run, InstanceRun)
        assert run.facts["decides"]["area"] == list(area)
        assert_scores(run, dict(instances.images), area=area)
        found = run.sql("SELECT count(*) AS n FROM instances WHERE kind = 'gt' AND autonue IN ('TP', 'FN')")
        assert found["n"][0].as_py() == sum(
            row["gt"] for row in run.classes.to_pylist() if row["protocol"] == "autonue"
        )

    def test_two_workers_of_a_cluster_write_the_same_tables(
        self, instances: InstanceFiles, tmp_path: Path
    ) -> None:
        cut_short(instances.masks(3)[0])
        score(instances, tmp_path / "here", shard_size=2, on_error="void")
        coco = write_coco(tmp_path / "results.json", instances.images)
        with local_client(workers=2) as client:
            run = score(instances, tmp_path / "there", shard_size=2, on_error="void", client=client)
            score(instances, tmp_path / "coco", preds=coco, shard_size=2, client=client)
        assert_same_tables(tmp_path / "here", tmp_path / "there")
        assert run.facts["images_void"] == 1
        whole = score(instances, tmp_path / "alone", preds=coco, shard_size=2)
        assert whole.images.num_rows == 6
        assert_same_tables(tmp_path / "alone", tmp_path / "coco")

    def test_cityscapes_labels_give_the_scores_of_the_same_masks(
        self, instances: InstanceFiles, tmp_path: Path
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
            for key, (gt, predictions) in instances.images.items()
        }
        other = write(tmp_path / "cityscapes", images)
        shutil.copytree(
            instances.preds,
            other.preds,
            ignore=lambda _, names: [n for n in names if n.endswith(".txt")],
            dirs_exist_ok=True,
        )
        for number in range(6):
            other.gt(number).rename(other.gts / f"{other.keys[number]}_gtFine_instanceIds.png")
        run = score(other, tmp_path / "other", labels="cityscapes")
        expected = score(instances, tmp_path / "idd")
        for protocol in PROTOCOLS:
            assert run.ap(protocol) == expected.ap(protocol) > 0
        assert run.facts["labels"]["name"] == "cityscapes"


class TestLittle:
    def test_split_without_predictions_has_ap_0(self, tmp_path: Path) -> None:
        images = {key: image._replace(predictions=[]) for key, image in make_images(3).items()}
        run = score(write(tmp_path / "split", images), tmp_path / "run")
        assert [run.ap(protocol) for protocol in PROTOCOLS] == [0.0, 0.0]
        assert_scores(run, images)
        assert run.curves.num_rows == run.table(INSTANCE_PARTS[0]).num_rows == 0

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
