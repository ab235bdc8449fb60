"""Meters that are fed another encoding say so when they are asked for a score."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest

import gpu_eval
from bench import mix_ups
from gpu_eval.errors import DoubtWarning


def streets(gt: str, pred: str) -> mix_ups.Pairs:
    rng = np.random.default_rng(1)
    return mix_ups.encoded(
        mix_ups.in_table(mix_ups.street(rng, 0.8), "cityscapes"), "cityscapes", gt, pred, rng
    )


def fed(meter: gpu_eval.ConfusionMeter, pairs: mix_ups.Pairs) -> gpu_eval.ConfusionMeter:
    for gt, pred in pairs:
        meter.update(gt, pred)
    return meter


def test_label_ids_in_19_classes_are_told_with_the_arguments_that_read_them() -> None:
    meter = fed(gpu_eval.ConfusionMeter(19), streets("id", "train"))
    with pytest.warns(DoubtWarning, match="looks like `cityscapes id`") as caught:
        meter.miou()
    told = str(caught[0].message)
    assert "ConfusionMeter('cityscapes', gt_encoding='id', pred_encoding='train')" in told
    mended = gpu_eval.ConfusionMeter("cityscapes", gt_encoding="id", pred_encoding="train")
    assert fed(mended, streets("id", "train")).miou() > 0.5
    assert mended.doubts == ()
    assert caught[0].filename == __file__


def test_predictions_from_1_are_told() -> None:
    meter = gpu_eval.ConfusionMeter("idd")
    for gt, pred in mix_ups.street(np.random.default_rng(2), 0.8):
        meter.update(np.where(gt == 26, 255, gt), pred + 1)
    with pytest.warns(DoubtWarning, match=r"ConfusionMeter\(\.\.\., pred_encoding='submission'\)"):
        meter.compute()


def test_right_ids_and_bad_models_are_not_warned_of() -> None:
    for labels, pairs in (
        (19, streets("train", "train")),
        ("idd", mix_ups.street(np.random.default_rng(3), 0.6)),
    ):
        meter = fed(gpu_eval.ConfusionMeter(labels), pairs)
        assert meter.doubts == ()
        meter.reset()
        rng = np.random.default_rng(4)
        for gt, _ in pairs:
            meter.update(gt, rng.integers(0, 19, gt.shape))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            meter.miou()


def test_merged_and_pickled_meters_keep_what_they_saw() -> None:
    pairs = streets("id", "train")
    parts = [fed(gpu_eval.ConfusionMeter(19), pairs[i : i + 2]) for i in (0, 2)]
    meter = gpu_eval.ConfusionMeter(19)
    meter.merge_state(pickle.loads(pickle.dumps(parts)))
    assert meter.doubts == fed(gpu_eval.ConfusionMeter(19), pairs).doubts != ()


def test_values_beyond_a_byte_are_seen_as_outside() -> None:
    meter = gpu_eval.ConfusionMeter("idd")
    gt = np.arange(26).repeat(100)
    meter.update(gt, gt + 1000)
    (doubt,) = meter.doubts
    assert "above 255" in doubt


def test_large_arrays_are_seen_in_part() -> None:
    meter = gpu_eval.ConfusionMeter(19)
    gt = np.zeros((512, 1024), np.uint8)
    for _ in range(40):
        meter.update(gt, gt)
    assert 16 * 2**13 < meter._seen.joint.sum() <= 16 * 2**15
    assert meter.confusion.sum() == 40 * gt.size


def test_raw_ids_of_idd_beside_numbered_classes_are_told_with_the_encoding_of_each() -> None:
    rng = np.random.default_rng(5)
    pairs = mix_ups.encoded(mix_ups.street(rng, 0.8), "idd", "id", "level3", rng)
    (doubt,) = fed(gpu_eval.ConfusionMeter(26), pairs).doubts
    assert "ConfusionMeter('idd', gt_encoding='id', pred_encoding='level3')" in doubt
    mended = fed(gpu_eval.ConfusionMeter("idd", gt_encoding="id", pred_encoding="level3"), pairs)
    assert mended.doubts == ()
    assert mended.miou() > 0.4
