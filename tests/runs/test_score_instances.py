"""A whole split of instances through `gpu_eval.score_instances`: the reference's numbers, and its tables."""

from __future__ import annotations

import csv
import io
import json
import math
import tarfile
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpu_eval
from gpu_eval import api, errors
from gpu_eval.labels.instance_space import load_instances
from gpu_eval.metrics.average_precision import average_precision
from gpu_eval.metrics.matching import PROTOCOLS, THRESHOLDS, outcomes
from gpu_eval.results.instance_run import InstanceRun
from gpu_eval.run_folder import schema
from gpu_eval.tasks.instance import PART_TABLES
from tests.reference import instances as reference
from tests.reference.instances import Image, read_drive
from tests.support.commands import gpu_eval_command
from tests.support.instance_split import (
    InstanceFiles,
    assert_same_tables,
    literal,
    make_split,
    score,
)
from tests.support.numbers import close, floats
from tests.support.semantic_split import make_split as make_maps
from tests.support.shared import SHARED, golden_cases, needs_shared, shared_json

IDD = load_instances("idd")
GOLDEN, EDGES_FOLDER = SHARED / "golden" / "instance", SHARED / "golden" / "instance_edge"


def matrix(run: InstanceRun, protocol: str, column: str = "ap") -> Any:
    """A column of the ap table, (classes, thresholds)."""
    rows = [row for row in run.average_precision.to_pylist() if row["protocol"] == protocol]
    assert [row["class_id"] for row in rows] == [raw for raw in IDD.ids for _ in THRESHOLDS]
    assert [row["threshold"] for row in rows] == [*THRESHOLDS] * len(IDD.ids)
    return np.array([row[column] for row in rows]).reshape(len(IDD.ids), len(THRESHOLDS))


def of_protocol(table: Any, protocol: str = "autonue") -> list[dict[str, Any]]:
    return [row for row in table.to_pylist() if row["protocol"] == protocol]


@needs_shared
class TestGolden:
    @pytest.mark.parametrize("case", golden_cases("instance", lambda _: True))
    def test_numbers_are_those_of_the_scripts(self, case: str, tmp_path: Path) -> None:
        expected = shared_json("golden/instance/expected.json")["cases"][case]
        drives = expected["drives"]
        below = drives[0] if len(drives) == 1 else ""
        run = gpu_eval.score_instances(GOLDEN / "gt" / below, GOLDEN / "pred" / below, out=tmp_path / "run")
        assert run.images.num_rows == expected["images"]
        for protocol, official in (
            ("autonue", expected["official"]),
            ("cityscapes", expected["groups_ignored"]),
        ):
            close(matrix(run, protocol), floats(official["ap_matrix"]))
            close((run.ap(protocol), run.ap50(protocol)), (official["ap"], official["ap50"]))
        counts = np.stack([matrix(run, "autonue", name) for name in ("tp", "fp", "fn")], axis=2)
        for row, by_threshold in zip(of_protocol(run.classes), counts.tolist(), strict=True):
            name = row["class_name"]
            close(
                (row["ap"], row["ap50"]),
                floats([expected["official"]["classes"][name][k] for k in ("ap", "ap50")]),
            )
            assert row["gt"] == expected["counted_gt"][name]
            assert row["predictions"] == expected["predictions_used"][name]
            known = [counted for counted in expected["tp_fp_fn"][name] if counted is not None]
            assert known in ([], by_threshold)
        small = run.sql(
            "SELECT class_name FROM instances WHERE kind = 'gt' AND autonue_why = 'outside the area range'"
        )
        assert Counter(small["class_name"].to_pylist()) == +Counter(expected["too_small_gt"])

    def test_archives_give_the_tables_of_the_folders(self, tmp_path: Path) -> None:
        gpu_eval.score_instances(GOLDEN / "gt", GOLDEN / "pred", out=tmp_path / "folders")
        for side in ("gt", "pred"):
            with tarfile.open(tmp_path / f"{side}.tar", "w") as archive:
                archive.add(GOLDEN / side, arcname=".")
            with zipfile.ZipFile(tmp_path / f"{side}.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
                for path in sorted((GOLDEN / side).rglob("*.*")):
                    zipped.write(path, path.relative_to(GOLDEN / side).as_posix())
        for one, other in (("tar", "zip"), ("zip", "tar")):
            gpu_eval.score_instances(
                tmp_path / f"gt.{one}", tmp_path / f"pred.{other}", out=tmp_path / "packed", overwrite=True
            )
            assert_same_tables(tmp_path / "folders", tmp_path / "packed")


@dataclass(frozen=True)
class Edge:
    """Ours where it is not the reference's: (AP, AP50), or an error with these words; and why."""

    numbers: tuple[float, float] | None = None
    error: str | None = None
    words: str = ""
    why: str = ""


SAME = Edge()
EDGES: dict[str, Edge] = {
    "plain": SAME,
    "same_mask_twice": Edge(
        error="DuplicateFile",
        words="line 4: the mask stands in the list twice",
        why="the reference keeps the last line without a word",
    ),
    "float_label_truncates": SAME,
    "nonevaluated_label_missing_mask": SAME,
    "evaluated_label_missing_mask": Edge(error="MissingMask", words="line 4: the mask is not there"),
    "unknown_label_40": Edge(error="MalformedPredictions", words="line 4: no label of idd has this id"),
    "blank_line_end": Edge(numbers=(0.375, 0.5), why="an empty line says nothing; the reference stops there"),
    "crlf": SAME,
    "double_space": Edge(numbers=(0.25, 0.25), why="two blanks are as clear as one; the reference stops"),
    "parent_path": Edge(
        error="UnsafePath",
        words="line 1: the mask's path leads out of the folder of the list",
        why="a submission reads nothing but itself",
    ),
    "missing_txt": Edge(error="EmptySplit", words="no list of predictions"),
    "empty_txt": SAME,
    "mask_smaller": Edge(error="SizeMismatch", words="s.png"),
    "all_predictions_ignored": Edge(numbers=(0.0, 0.0), why="none was found; the reference: IndexError"),
    "only_empty_masks": SAME,
    "tie_tp_fp": SAME,
    "palette_index1_black": Edge(
        error="WrongImageMode",
        words="A.png",
        why="the reference finds the mask empty, by its colours; its author meant the indices",
    ),
    "palette_normal": SAME,
    "rgb_white": SAME,
    "mask16_255": SAME,
    "mask_one_bit": SAME,
    "gt_value_255": SAME,
    "ignored_on_animal_group": SAME,
    "car_group_not_ignored": SAME,
}  # fmt: skip


@needs_shared
class TestGoldenEdges:
    def test_every_case_is_in_the_table(self) -> None:
        assert set(EDGES) == set(shared_json("golden/instance_edge/expected.json")["cases"])

    @pytest.mark.parametrize("name", EDGES)
    def test_case(self, name: str, tmp_path: Path) -> None:
        edge, folder = EDGES[name], EDGES_FOLDER / name
        expected = shared_json("golden/instance_edge/expected.json")["cases"][name]
        assert edge != SAME or expected["outcome"] == "ok"
        assert edge.error is not None or edge.numbers is not None or edge == SAME
        inputs = folder / "gt", folder / "pred"
        if edge.error is not None:
            with pytest.raises(errors.InputError) as caught:
                gpu_eval.score_instances(*inputs, out=tmp_path / "run")
            problems = getattr(caught.value, "problems", (caught.value,))
            assert edge.words in str(problems[0])
            assert {problem.kind for problem in problems} == {edge.error}
            assert all(str(folder) in str(problem.file) for problem in problems)
            return
        run = gpu_eval.score_instances(*inputs, out=tmp_path / "run")
        if edge.numbers is not None:
            close((run.ap(), run.ap50()), edge.numbers)
            return
        close(matrix(run, "autonue"), floats(expected["ap_matrix"]))
        close((run.ap(), run.ap50()), (expected["ap"], expected["ap50"]))
        used = {row["class_name"]: row["predictions"] for row in of_protocol(run.classes)}
        assert used == expected["predictions_used"]
        rows = literal(dict(enumerate(read_drive(folder, "0"))), "cityscapes")
        close(matrix(run, "cityscapes"), [[one.ap for one in row] for row in rows])

    def test_cut_label_is_told(self, tmp_path: Path) -> None:
        folder = EDGES_FOLDER / "float_label_truncates"
        run = gpu_eval.score_instances(folder / "gt", folder / "pred", out=tmp_path / "run")
        (note,) = run.facts["notes"]
        assert "1 label ids" in note
        assert "A.png 12.9 0.9" in note


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> InstanceFiles:
    return make_split(tmp_path_factory.mktemp("instances"), count=10)


@pytest.fixture(scope="module")
def run(split: InstanceFiles) -> InstanceRun:
    return score(split, split.root / "run", shard_size=3)


Fate = tuple[str, str]
FOUND: Fate = ("TP", "found")
MISSED: Fate = ("FN", "no prediction matches it")
SMALL: Fate = ("ignored", "outside the area range")
GROUP: Fate = ("ignored", "a group")
UNMATCHED: Fate = ("FP", "matches no ground truth of its class")


def iou(one: Any, other: Any) -> float:
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


def literal_fates(image: Image, protocol: str) -> tuple[list[Fate], dict[int, Fate]]:
    """At 0.5, of each evaluated prediction in the order of the list, and of each gt value: mask by mask."""
    predictions = [one for one in image.predictions if one.label in IDD.ids]
    regions = {v: image.gt == v for v in np.unique(image.gt).tolist() if reference.class_of(v) in IDD.ids}
    gts = {v: SMALL if np.count_nonzero(mask) < 100 else MISSED for v, mask in regions.items()}
    gts |= {value: GROUP for value in gts if value < 1000}
    met = {v: mask for v, mask in regions.items() if protocol == "cityscapes" or v >= 1000}
    rivals: dict[int, list[int]] = {value: [] for value in met}
    for number, one in enumerate(predictions):
        for value, mask in met.items():
            if reference.class_of(value) == one.label and iou(mask, one.mask) > 0.5:
                rivals[value].append(number)
    fates = [_unmatched(image, one, met) for one in predictions]
    for value, numbers in rivals.items():
        numbers.sort(key=lambda number: -predictions[number].confidence)
        for number in numbers:
            if gts[value] == GROUP:
                fates[number] = ("ignored", "matches a group of its class")
            elif gts[value] == SMALL:
                fates[number] = ("ignored", "matches a ground truth outside the area range")
            elif number == numbers[0]:
                fates[number] = ("TP", "the most confident match of this ground truth")
            else:
                fates[number] = ("FP", "a more confident prediction matches the same ground truth")
        if numbers and gts[value] == MISSED:
            gts[value] = FOUND
    return fates, gts


def _unmatched(image: Image, one: reference.Prediction, met: dict[int, Any]) -> Fate:
    pixels = np.count_nonzero(one.mask)
    if not pixels:
        return "ignored", "the mask is empty"
    void = np.count_nonzero(one.mask & np.isin(image.gt, reference.VOID))
    rest = 0
    for value, mask in met.items():
        if reference.class_of(value) == one.label:
            weight = int(value < 1000) + int(np.count_nonzero(mask) < 100)
            rest += weight * np.count_nonzero(one.mask & mask)
    if void / pixels > 0.5:
        return "ignored", "lies on void"
    if (void + rest) / pixels > 0.5:
        return "ignored", "lies on void, groups and ground truth outside the area range"
    return UNMATCHED


class TestTables:
    @pytest.mark.parametrize("name", schema.tables(schema.INSTANCE))
    def test_table_has_the_columns_of_the_schema(self, run: InstanceRun, name: str) -> None:
        assert run.table(name).schema.equals(schema.tables(schema.INSTANCE)[name])

    def test_open_run_gives_an_instance_run(self, run: InstanceRun) -> None:
        again = gpu_eval.open_run(run.folder)
        assert type(again) is InstanceRun
        assert again.ap() == run.ap()
        assert f"AP {run.ap():.4f}" in repr(again)

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_scores_are_those_of_the_literal_evaluator(
        self, split: InstanceFiles, run: InstanceRun, protocol: str
    ) -> None:
        rows = literal(split.images, protocol)
        close(matrix(run, protocol), [[one.ap for one in row] for row in rows])
        for name in ("tp", "fp", "fn"):
            expected = [[getattr(one, name) for one in row] for row in rows]
            assert matrix(run, protocol, name).tolist() == expected
        close(run.ap(protocol), reference.mean([one.ap for row in rows for one in row]))
        close(run.ap50(protocol), reference.mean([row[0].ap for row in rows]))

    def test_there_is_a_row_per_prediction_and_its_line_and_mask_are_right(
        self, split: InstanceFiles, run: InstanceRun
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
            for image, key in enumerate(split.keys)
            for number, (index, one) in enumerate(split.evaluated(image))
        ]
        columns = "image_id, number, line, mask, class_id, confidence, pixels"
        rows = run.sql(f"SELECT {columns} FROM instances WHERE kind = 'pred' ORDER BY image_id, number")
        assert [tuple(row.values()) for row in rows.to_pylist()] == expected

    def test_there_is_a_row_per_gt_instance_and_group(self, split: InstanceFiles, run: InstanceRun) -> None:
        expected = []
        for number, image in enumerate(split.images.values()):
            values = zip(*(v.tolist() for v in np.unique(image.gt, return_counts=True)), strict=True)
            expected += [(number, v, pixels) for v, pixels in values if reference.class_of(v) in IDD.ids]
        rows = run.sql("SELECT image_id, gt_value, pixels FROM instances WHERE kind = 'gt' ORDER BY 1, 2")
        assert [tuple(row.values()) for row in rows.to_pylist()] == expected

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_outcomes_and_their_reasons_are_those_of_the_masks(
        self, split: InstanceFiles, run: InstanceRun, protocol: str
    ) -> None:
        seen = set()
        for number, image in enumerate(split.images.values()):
            fates, gts = literal_fates(image, protocol)
            columns = f"{protocol}, {protocol}_why FROM instances WHERE image_id = {number}"
            rows = run.sql(f"SELECT {columns} AND kind = 'pred' ORDER BY number").to_pylist()
            assert [tuple(row.values()) for row in rows] == fates
            rows = run.sql(f"SELECT gt_value, {columns} AND kind = 'gt'").to_pylist()
            assert {value: fate for value, *fate in map(dict.values, rows)} == {
                v: [*f] for v, f in gts.items()
            }
            seen |= {*fates, *gts.values()}
        assert len(seen) == (12 if protocol == "cityscapes" else 11)

    def test_matches_name_each_other(self, run: InstanceRun) -> None:
        met = "SELECT image_id, {} FROM instances WHERE kind = '{}' AND cityscapes = 'TP' ORDER BY ALL"
        preds = run.sql(met.format("number, matched", "pred"))
        gts = run.sql(met.format("matched AS number, gt_value AS matched", "gt"))
        assert preds.num_rows > 5
        assert preds.to_pylist() == gts.to_pylist()

    def test_best_iou_is_the_highest_one_of_either_side(self, split: InstanceFiles, run: InstanceRun) -> None:
        best: dict[Any, float] = {}
        for number, image in enumerate(split.images.values()):
            for at, (_, one) in enumerate(split.evaluated(number)):
                best.setdefault((number, "pred", at), 0.0)
                for value in np.unique(image.gt).tolist():
                    if reference.class_of(value) == one.label:
                        found = iou(image.gt == value, one.mask)
                        for key in ((number, "pred", at), (number, "gt", value)):
                            best[key] = max(best.get(key, 0.0), found)
        name = "CASE kind WHEN 'gt' THEN gt_value ELSE number END"
        sql = f"SELECT image_id, kind, {name}, best_iou FROM instances"
        for *key, found in map(dict.values, run.sql(sql).to_pylist()):
            assert found == best.get(tuple(key), 0.0), key

    def test_overlaps_are_the_shared_pixels(self, split: InstanceFiles, run: InstanceRun) -> None:
        rows = run.table(PART_TABLES[0]).to_pylist()
        assert len(rows) > 100
        assert len({(row["image_id"], row["number"], row["gt_value"]) for row in rows}) == len(rows)
        total = 0
        for image_id, image in enumerate(split.images.values()):
            wanted = [
                *reference.VOID,
                *(v for v in np.unique(image.gt) if reference.class_of(int(v)) in IDD.ids),
            ]
            total += sum(
                int((one.mask & np.isin(image.gt, wanted)).sum()) for _, one in split.evaluated(image_id)
            )
        for row in rows:
            image = split.images[split.keys[row["image_id"]]]
            _, one = split.evaluated(row["image_id"])[row["number"]]
            assert row["pixels"] == np.count_nonzero(one.mask & (image.gt == row["gt_value"])) > 0
        assert sum(row["pixels"] for row in rows) == total

    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_overlaps_can_be_judged_again(self, run: InstanceRun, protocol: str) -> None:
        again = average_precision(outcomes(run.instance_table(), IDD, protocol))
        assert np.array_equal(again.ap, matrix(run, protocol), equal_nan=True)
        assert again.mean_ap == run.ap(protocol)
        other = average_precision(outcomes(run.instance_table(), IDD, protocol, area=(0, math.inf)))
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

    def test_images_say_what_was_found(self, split: InstanceFiles, run: InstanceRun) -> None:
        rows = run.images.to_pylist()
        assert [row["key"] for row in rows] == split.keys
        assert [(row["height"], row["width"]) for row in rows] == [i.gt.shape for i in split.images.values()]
        assert [row["predictions"] for row in rows] == [len(split.evaluated(i)) for i in range(10)]
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
        for name in schema.tables(schema.INSTANCE):
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


class TestCommand:
    def test_instances_scores_and_prints(
        self, split: InstanceFiles, run: InstanceRun, tmp_path: Path
    ) -> None:
        result = gpu_eval_command(
            "instances", split.gts, split.preds, "-o", tmp_path / "run", "--shard-size", 3
        )
        assert (result.exit_code, result.exception) == (0, None)
        shown = (
            f"{run.ap():.4f}",
            f"{run.ap50('cityscapes'):.4f}",
            "autonue",
            "motorcycle",
            "10 of 10 images",
        )
        for word in (*shown, "3 of 9"):
            assert word in result.stdout
        assert "labels that are not evaluated were left out" in result.stderr
        assert_same_tables(run.folder, tmp_path / "run")

    def test_show_narrows_to_a_protocol(self, run: InstanceRun) -> None:
        both, one = (gpu_eval_command("show", run.folder, *more) for more in ([], ["--protocol", "autonue"]))
        assert "AP50 cityscapes" in both.stdout
        assert "AP50 cityscapes" not in one.stdout
        assert f"{run.ap50():.4f}" in one.stdout

    def test_json_is_nothing_but_json(self, run: InstanceRun) -> None:
        told = json.loads(gpu_eval_command("show", run.folder, "--format", "json").stdout)
        assert {row["protocol"]: row["ap"] for row in told["scores"]} == {p: run.ap(p) for p in PROTOCOLS}
        assert len(told["classes"]) == 2 * len(IDD.ids)
        assert {row["ap"] for row in told["classes"] if row["class_name"] == "bus"} == {None}

    def test_csv_is_nothing_but_csv(self, run: InstanceRun) -> None:
        text = gpu_eval_command("show", run.folder, "--format", "csv", "--protocol", "cityscapes").stdout
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [int(row["class_id"]) for row in rows] == list(IDD.ids)
        close(
            [float(row["ap"]) for row in rows], [row["ap"] for row in of_protocol(run.classes, "cityscapes")]
        )

    def test_query_answers(self, run: InstanceRun) -> None:
        sql = "SELECT DISTINCT autonue FROM instances ORDER BY 1"
        result = gpu_eval_command("query", run.folder, sql, "--format", "csv")
        assert result.stdout.split() == ["autonue", "FN", "FP", "TP", "ignored"]

    @pytest.mark.parametrize(
        ("command", "words"),
        [
            (["show", "{run}", "--level", "3"], "a run of instances has no levels"),
            (["show", "{run}", "--protocol", "idd"], "expected autonue or cityscapes"),
            (["compare", "{run}", "{run}", "--level", "3"], "runs of instances have no levels"),
            (["report", "{run}"], "not a run of the semantic task"),
            (["leaderboard", "{run}", "--sort", "L3"], "expected AP, AP50"),
            (["query", "{run}", "SELECT miou FROM levels"], "levels"),
        ],
    )  # fmt: skip
    def test_command_of_the_other_task_exits_with_2_and_says_why(
        self, run: InstanceRun, command: list[str], words: str
    ) -> None:
        result = gpu_eval_command(*(part.format(run=run.folder) for part in command))
        assert result.exit_code == 2
        assert words in result.stderr
        assert result.stdout == ""

    def test_maps_and_instances_are_not_taken_for_each_other(self, run: InstanceRun, tmp_path: Path) -> None:
        maps = make_maps(tmp_path / "maps")
        semantic = gpu_eval.score(maps.gts, maps.preds, out=tmp_path / "semantic", res="native", bootstrap=0)
        for one in (run, run.folder):
            with pytest.raises(errors.WrongKind, match="not a run of the semantic task"):
                api.write_html(one)
        with pytest.raises(errors.WrongKind, match="instance task"):
            InstanceRun(semantic.folder)
        inputs = run.facts["gts"], run.facts["preds"]
        again = gpu_eval.score_instances(*inputs, out=semantic.folder, overwrite=True)
        assert again.ap() == run.ap()
        assert not (semantic.folder / "cells").exists()
