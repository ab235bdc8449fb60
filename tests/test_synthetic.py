"""The drawn split: seeded, street-like, in IDD's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gpu_eval.synthetic import VOID, street_gt, street_prediction, write_split


def test_same_seed_draws_the_same_scene_and_another_seed_another() -> None:
    assert np.array_equal(street_gt(5, 135, 240), street_gt(5, 135, 240))
    assert not np.array_equal(street_gt(5, 135, 240), street_gt(6, 135, 240))


def test_values_are_level_3_ids_and_predictions_know_no_void() -> None:
    gt = street_gt(7, 270, 480)
    pred = street_prediction(gt, 7)
    assert set(np.unique(gt)) <= {*range(26), VOID}
    assert set(np.unique(pred)) <= set(range(26))
    assert pred.dtype == gt.dtype == np.uint8
    assert pred.shape == gt.shape == (270, 480)


def test_maps_are_piecewise_constant_as_street_maps_are() -> None:
    gt = street_gt(8)
    edges_per_row = (gt[:, 1:] != gt[:, :-1]).sum() / gt.shape[0]
    assert 5 < edges_per_row < 60


def test_better_quality_agrees_more() -> None:
    gt = street_gt(9, 270, 480)
    inside = gt != VOID
    agreement = [
        float((street_prediction(gt, 9, quality) == gt)[inside].mean()) for quality in (0.5, 0.75, 1.0)
    ]
    assert agreement == sorted(agreement)
    assert agreement[-1] == 1.0


def test_split_has_idds_layout(tmp_path: Path) -> None:
    gts, preds = write_split(tmp_path, 5, height=27, width=48, drives=2)
    names = sorted(path.relative_to(gts).as_posix() for path in gts.rglob("*.png"))
    assert names == sorted(path.relative_to(preds).as_posix() for path in preds.rglob("*.png"))
    assert names[0] == "0/frame0000_gtFine_labellevel3Ids.png"
    assert len(names) == 5
