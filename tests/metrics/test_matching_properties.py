"""What must hold of instance scores, whatever the split."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import numpy as np
import pytest

from gpu_eval.labels.instance_space import load_instances
from gpu_eval.metrics.average_precision import AveragePrecision, average_precision
from gpu_eval.metrics.matching import (
    PROTOCOLS,
    InstanceTable,
    concatenate,
    outcomes,
    take,
)
from tests.reference import instances as reference
from tests.reference.instances import Image, Prediction
from tests.support.instance_runs import scores_of, table_of
from tests.support.numbers import close

IDD = load_instances("idd")
AREAS = [(100, math.inf), (0, math.inf), (100, 200), (0, 100), (120, 150)]

PERSON, ANIMAL, CAR = 6, 7, 12


SPLIT = reference.random_split(seed=8, images=9)


def same_scores(got: AveragePrecision, expected: AveragePrecision) -> None:
    """To the last bit, NaN equal to NaN."""
    for name in ("ap", "tp", "fp", "fn", "gt_count", "pred_count"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name), name)


@pytest.mark.parametrize("protocol", PROTOCOLS)
class TestProperties:
    def test_order_of_images_and_predictions_does_not_matter(self, protocol: str) -> None:
        rng = np.random.default_rng(1)
        images = [
            Image(image.gt, [image.predictions[i] for i in rng.permutation(len(image.predictions))])
            for image in (SPLIT[i] for i in rng.permutation(len(SPLIT)))
        ]
        same_scores(scores_of(table_of(images), protocol), scores_of(table_of(SPLIT), protocol))

    def test_order_of_overlap_rows_does_not_matter(self, protocol: str) -> None:
        table = table_of(SPLIT)
        order = np.random.default_rng(2).permutation(table.overlap_pixels.size)
        names = ("overlap_pred", "overlap_gt", "overlap_pixels")
        shuffled = dataclasses.replace(table, **{name: getattr(table, name)[order] for name in names})
        got, expected = outcomes(shuffled, IDD, protocol), outcomes(table, IDD, protocol)
        for name in ("preds", "gts", "found_by", "best_gt", "best_iou"):
            assert np.array_equal(getattr(got, name), getattr(expected, name)), name

    def test_any_shards_give_the_same_outcomes(self, protocol: str) -> None:
        whole = outcomes(table_of(SPLIT), IDD, protocol)
        for cuts in ([4], [0, 1, 2, 8], [9], list(range(10))):
            bounds = [0, *cuts, len(SPLIT)]
            shards = [table_of(SPLIT[first:last], first) for first, last in pairwise(bounds)]
            joined = concatenate(shards)
            for field in dataclasses.fields(InstanceTable):
                column, expected = getattr(joined, field.name), getattr(whole.table, field.name)
                assert column.dtype == expected.dtype
                assert np.array_equal(column, expected), field.name
            parts = [outcomes(shard, IDD, protocol) for shard in shards]
            assert np.array_equal(np.concatenate([part.preds for part in parts]), whole.preds)
            assert np.array_equal(np.concatenate([part.gts for part in parts]), whole.gts)
            for name in ("tp", "fp", "fn", "gt_count", "pred_count"):
                counts = [getattr(average_precision(part), name) for part in parts]
                assert np.array_equal(sum(counts), getattr(average_precision(whole), name)), name

    def test_some_of_the_images_are_judged_as_if_they_were_all(self, protocol: str) -> None:
        empty = [SPLIT[0], SPLIT[1]._replace(predictions=[]), *SPLIT[2:]]
        for chosen in ([1, 2, 6], [7, 0, 3, 1], [], [*range(9)]):
            some = take(table_of(empty), np.array(chosen, np.int64))
            same_scores(scores_of(some, protocol), scores_of(table_of([empty[i] for i in chosen]), protocol))
            sizes = np.bincount(some.pred_image, minlength=len(chosen)).tolist()
            assert sizes == [len(empty[i].predictions) for i in chosen]

    def test_ap_knows_only_the_order_of_confidences(self, protocol: str) -> None:
        table = table_of(SPLIT)
        for change in (np.exp, lambda c: 1000 * c - 7, np.cbrt):
            changed = dataclasses.replace(table, confidence=change(table.confidence))
            same_scores(scores_of(changed, protocol), scores_of(table, protocol))

    def test_every_gt_is_found_by_one_true_positive(self, protocol: str) -> None:
        result = outcomes(table_of(SPLIT), IDD, protocol)
        table = result.table
        for t, threshold in enumerate(result.thresholds):
            rows = np.flatnonzero(result.found_by[:, t] >= 0)
            finders = result.found_by[rows, t]
            assert rows.size > 0
            assert np.array_equal(np.sort(finders), np.flatnonzero(result.tp[:, t]))
            assert np.array_equal(result.best_gt[finders], rows)
            assert (result.best_iou[finders] > threshold).all()
            assert np.array_equal(table.pred_image[finders], table.gt_image[rows])
            assert np.array_equal(table.gt_value[rows] // 1000, table.pred_class[finders])

    def test_area_ranges_that_tile_count_every_gt_once(self, protocol: str) -> None:
        table = table_of(SPLIT)
        parts = [scores_of(table, protocol, area=area) for area in ((0, 80), (80, 150), (150, math.inf))]
        whole = scores_of(table, protocol, area=(0, math.inf))
        assert all(part.gt_count.any() for part in parts)
        assert np.array_equal(sum(part.gt_count for part in parts), whole.gt_count)
        assert np.array_equal(sum(part.tp for part in parts), whole.tp)
        assert np.array_equal(sum(part.fn for part in parts), whole.fn)

    def test_ap_of_gt_as_its_own_prediction_is_1(self, protocol: str) -> None:
        images = []
        for image in SPLIT:
            values = [v for v in np.unique(image.gt).tolist() if v >= 1000]
            preds = [Prediction(image.gt == v, v // 1000, 0.1 * n) for n, v in enumerate(values)]
            images.append(Image(image.gt, preds))
        got = scores_of(table_of(images), protocol)
        present = got.gt_count > 0
        assert np.count_nonzero(present) == 3
        close(got.ap[present], 1.0)
        assert not got.fp.any()
        assert not got.fn.any()
