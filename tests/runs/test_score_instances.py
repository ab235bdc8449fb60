"""A whole split of instances through `gpu_eval.score_instances`: what its tables hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gpu_eval
from gpu_eval.labels.instance_space import load_instances
from gpu_eval.metrics.average_precision import average_precision
from gpu_eval.metrics.matching import PROTOCOLS, THRESHOLDS, outcomes
from gpu_eval.results.instance_run import InstanceRun
from gpu_eval.run_folder import schema
from gpu_eval.run_folder.instance_tables import to_instance_table
from tests.reference import instances as reference
from tests.support.instance_split import (
    InstanceFiles,
    literal,
)
from tests.support.instance_tables import matrix
from tests.support.numbers import close
from tests.support.run_tables import INSTANCE_PARTS

IDD = load_instances("idd")


@pytest.fixture
def run(run_of_ten: InstanceRun) -> InstanceRun:
    return run_of_ten


class TestTables:
    @pytest.mark.parametrize("name", schema.tables_of("instance").by_name)
    def test_table_has_the_columns_of_the_schema(self, run: InstanceRun, name: str) -> None:
        assert run.table(name).schema.equals(schema.tables_of("instance").by_name[name])

    def test_open_run_gives_an_instance_run(self, run: InstanceRun) -> None:
        again = gpu_eval.open_run(run.folder)
        assert type(again) is InstanceRun
        assert again.ap() == run.ap()
        assert f"AP {run.ap():.4f}" in repr(again)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_scores_are_those_of_the_literal_evaluator(
        self, ten: InstanceFiles, run: InstanceRun, protocol: str
    ) -> None:
        rows = literal(ten.images, protocol)
        close(matrix(run, protocol), [[one.ap for one in row] for row in rows])
        for name in ("tp", "fp", "fn"):
            expected = [[getattr(one, name) for one in row] for row in rows]
            assert matrix(run, protocol, name).tolist() == expected
        close(run.ap(protocol), reference.mean([one.ap for row in rows for one in row]))
        close(run.ap50(protocol), reference.mean([row[0].ap for row in rows]))

    def test_there_is_a_row_per_prediction_and_its_line_and_mask_are_right(
        self, ten: InstanceFiles, run: InstanceRun
    ) -> None:
        expected = [
            (
                image,
                number,
                index + 1,
                f"{key}/{index:03d}.png",
                one.label,
                one.confidence,
                int(one.mask.sum()),
            )
            for image, key in enumerate(ten.keys)
            for number, (index, one) in enumerate(ten.evaluated(image))
        ]
        columns = "image_id, number, line, mask, class_id, confidence, pixels"
        rows = run.sql(f"SELECT {columns} FROM instances WHERE kind = 'pred' ORDER BY image_id, number")
        assert [tuple(row.values()) for row in rows.to_pylist()] == expected

    def test_there_is_a_row_per_gt_instance_and_group(self, ten: InstanceFiles, run: InstanceRun) -> None:
        expected = []
        for number, image in enumerate(ten.images.values()):
            values = zip(*(v.tolist() for v in np.unique(image.gt, return_counts=True)), strict=True)
            expected += [(number, v, pixels) for v, pixels in values if reference.class_of(v) in IDD.ids]
        rows = run.sql("SELECT image_id, gt_value, pixels FROM instances WHERE kind = 'gt' ORDER BY 1, 2")
        assert [tuple(row.values()) for row in rows.to_pylist()] == expected

    def test_overlaps_are_the_shared_pixels(self, ten: InstanceFiles, run: InstanceRun) -> None:
        rows = run.table(INSTANCE_PARTS[0]).to_pylist()
        assert len(rows) > 100
        assert len({(row["image_id"], row["number"], row["gt_value"]) for row in rows}) == len(rows)
        total = 0
        for image_id, image in enumerate(ten.images.values()):
            wanted = [
                *reference.VOID,
                *(v for v in np.unique(image.gt) if reference.class_of(int(v)) in IDD.ids),
            ]
            total += sum(
                int((one.mask & np.isin(image.gt, wanted)).sum()) for _, one in ten.evaluated(image_id)
            )
        for row in rows:
            image = ten.images[ten.keys[row["image_id"]]]
            _, one = ten.evaluated(row["image_id"])[row["number"]]
            assert row["pixels"] == np.count_nonzero(one.mask & (image.gt == row["gt_value"])) > 0
        assert sum(row["pixels"] for row in rows) == total

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_overlaps_can_be_judged_again(self, run: InstanceRun, protocol: str) -> None:
        table = to_instance_table(run.instances, run.intersections)
        again = average_precision(outcomes(table, IDD, protocol))
        assert np.array_equal(again.ap, matrix(run, protocol), equal_nan=True)
        assert again.mean_ap == run.ap(protocol)
        other = average_precision(outcomes(table, IDD, protocol, area=(0, math.inf)))
        assert other.gt_count.sum() > again.gt_count.sum()

    def test_curves_integrate_to_the_ap(self, run: InstanceRun) -> None:
        points: dict[Any, list[Any]] = {}
        for row in run.curves.to_pylist():
            key = row["protocol"], row["class_id"], row["threshold"]
            points.setdefault(key, []).append((row["precision"], row["recall"]))
        checked = 0
        for row in run.average_precision.to_pylist():
            curve = points.get((row["protocol"], row["class_id"], row["threshold"]), [])
            if row["threshold"] not in (0.5, THRESHOLDS[5]) or math.isnan(row["ap"]):
                continue
            precision, recall = np.array([(1.0, 0.0), *curve]).T
            around = np.concatenate(([0.0], recall, [recall[-1]]))
            close(precision @ (around[2:] - around[:-2]) / 2, row["ap"])
            checked += len(curve)
        assert checked > 50

    def test_images_say_what_was_found(self, ten: InstanceFiles, run: InstanceRun) -> None:
        rows = run.images.to_pylist()
        assert [row["key"] for row in rows] == ten.keys
        assert [(row["height"], row["width"]) for row in rows] == [i.gt.shape for i in ten.images.values()]
        assert [row["predictions"] for row in rows] == [len(ten.evaluated(i)) for i in range(10)]
        assert {row["status"] for row in rows} == {"ok"}
        assert [row["errors"] for row in rows] == [[]] * 10
        assert run.facts["decoders"] == {
            "simd": 10 + sum(row["predictions"] for row in rows),
            "cuda": 0,
            "pillow": 0,
            "rle": 0,
        }
        assert "predictions of labels that are not evaluated" in run.facts["notes"][0]

    def test_sql_answers_over_all_tables(self, run: InstanceRun) -> None:
        for name in schema.tables_of("instance").by_name:
            assert run.sql(f'SELECT count(*) AS n FROM "{name}"')["n"][0].as_py() == run.table(name).num_rows
        counted = run.sql(
            "SELECT class_id, count(*) FILTER (autonue = 'TP') AS tp, count(*) FILTER (autonue = 'FP') AS fp "
            "FROM instances WHERE kind = 'pred' GROUP BY class_id"
        )
        for row in counted.to_pylist():
            at = IDD.ids.index(row["class_id"])
            assert (row["tp"], row["fp"]) == tuple(
                matrix(run, "autonue", name)[at, 0] for name in ("tp", "fp")
            )
