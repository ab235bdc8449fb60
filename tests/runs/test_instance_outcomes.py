"""What became of each instance, and why: as the masks themselves say, one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpu_eval.labels.instance_space import load_instances
from gpu_eval.metrics.matching import PROTOCOLS
from gpu_eval.results.instance_run import InstanceRun
from tests.reference import instances as reference
from tests.reference.instances import Image
from tests.support.instance_split import (
    InstanceFiles,
)

IDD = load_instances("idd")


@pytest.fixture
def run(run_of_ten: InstanceRun) -> InstanceRun:
    return run_of_ten


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


class TestOutcomes:
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_outcomes_and_their_reasons_are_those_of_the_masks(
        self, ten: InstanceFiles, run: InstanceRun, protocol: str
    ) -> None:
        seen = set()
        for number, image in enumerate(ten.images.values()):
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

    def test_best_iou_is_the_highest_one_of_either_side(self, ten: InstanceFiles, run: InstanceRun) -> None:
        best: dict[Any, float] = {}
        for number, image in enumerate(ten.images.values()):
            for at, (_, one) in enumerate(ten.evaluated(number)):
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
