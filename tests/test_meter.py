"""Confusion matrices of arrays in memory, against a literal count."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gpu_eval
from gpu_eval.errors import LabelTableError, OptionError


def literal(gt: np.ndarray, pred: np.ndarray, n: int) -> list[list[int]]:
    """Rows gt, columns prediction; every value that is no class counts as void, the last index."""
    matrix = [[0] * (n + 1) for _ in range(n + 1)]
    for a, b in zip(gt.ravel().tolist(), pred.ravel().tolist(), strict=True):
        matrix[a if 0 <= a < n else n][b if 0 <= b < n else n] += 1
    return matrix


@given(
    shape=st.lists(st.integers(0, 9), min_size=0, max_size=4),
    dtype=st.sampled_from(["uint8", "int8", "int16", "int32", "int64", "uint16", "uint64"]),
    seed=st.integers(0, 2**32),
)
def test_any_shape_and_integer_type_counts_literally(shape: list[int], dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    info = np.iinfo(dtype)
    low, high = max(info.min, -3), min(info.max, 300)
    gt, pred = (rng.integers(low, high, shape, dtype, endpoint=True) for _ in range(2))
    assert gpu_eval.confusion_matrix(gt, pred).tolist() == literal(gt, pred, 26)


def test_maps_that_are_views_count_like_their_copies() -> None:
    base = np.random.default_rng(0).integers(0, 30, (40, 130), np.uint8)
    gt, pred = base[::2, 1::3], base[1::2, ::3][:, : base[::2, 1::3].shape[1]]
    gt.flags.writeable = False
    assert gpu_eval.confusion_matrix(gt, pred).tolist() == literal(gt, pred, 26)


def test_meter_over_batches_equals_one_count() -> None:
    rng = np.random.default_rng(1)
    gt, pred = (rng.integers(0, 28, (6, 12, 70), np.uint8) for _ in range(2))
    meter = gpu_eval.ConfusionMeter("idd")
    for i in range(0, 6, 2):
        meter.update(gt[i : i + 2], pred[i : i + 2])
    assert np.array_equal(meter.confusion, gpu_eval.confusion_matrix(gt, pred))
    assert meter.outside == (int((gt == 27).sum()), int((pred == 27).sum()))


def test_meter_merges_pickles_and_resets() -> None:
    rng = np.random.default_rng(2)
    maps = rng.integers(0, 26, (2, 2, 9, 9), np.uint8)
    meters = [gpu_eval.ConfusionMeter("idd") for _ in range(2)]
    for meter, (gt, pred) in zip(meters, maps, strict=True):
        meter.update(gt, pred)
    total = meters[0].confusion + meters[1].confusion
    meters[0].merge_state([pickle.loads(pickle.dumps(meters[1]))])
    assert np.array_equal(meters[0].confusion, total)
    meters[0].reset()
    assert not meters[0].confusion.any()
    assert meters[0].outside == (0, 0)


def test_meter_scores_like_the_protocols() -> None:
    gt = np.repeat(np.arange(26, dtype=np.uint8), 10)
    pred = gt.copy()
    pred[::10] = 255  # one of ten pixels of every class is predicted void
    meter = gpu_eval.ConfusionMeter("idd")
    meter.update(gt, pred)
    assert meter.miou(level=3) == pytest.approx(0.9, abs=1e-12)
    assert meter.miou(level=1) == pytest.approx(0.9, abs=1e-12)
    assert meter.miou(level=2, protocol="autonue") == 1.0
    assert [score.level for score in meter.compute()] == [3, 2, 1]


def test_meter_takes_a_number_of_classes() -> None:
    meter = gpu_eval.ConfusionMeter(3)
    meter.update(np.array([0, 1, 2, 255]), np.array([0, 1, 1, 2]))
    assert meter.confusion.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    with pytest.raises(LabelTableError, match=r"1\.\.256"):
        gpu_eval.ConfusionMeter(257)


def test_encodings_apply_to_each_side() -> None:
    gt = np.array([0, 5, 25], np.uint8)
    matrix = gpu_eval.confusion_matrix(gt, gt + 1, pred_encoding="submission")
    assert matrix.trace() == 3


@pytest.mark.parametrize(
    ("gt", "pred", "message"),
    [
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), "differ in shape"),
        (np.zeros(3, np.uint8), np.zeros(3, np.float32), "not an array of labels"),
        (np.zeros(3, complex), np.zeros(3, np.uint8), "not an array of labels"),
        (np.zeros(3, np.uint8), np.array(["a", "b", "c"]), "not an array of labels"),
        (np.zeros(3, np.uint8), None, "not an array of labels"),
    ],
)
def test_what_are_no_labels_is_refused(gt: np.ndarray, pred: np.ndarray | None, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        gpu_eval.confusion_matrix(gt, pred)


def test_an_array_that_numpy_cannot_see_is_refused_with_the_way_out() -> None:
    class OnDevice:
        def __array__(self, *args: object, **kwargs: object) -> np.ndarray:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")

    with pytest.raises(OptionError, match=r"\.cpu\(\)"):
        gpu_eval.confusion_matrix(OnDevice(), np.zeros(3, np.uint8))


def test_meters_of_different_label_spaces_do_not_merge() -> None:
    with pytest.raises(OptionError, match="different label spaces"):
        gpu_eval.ConfusionMeter("idd").merge_state([gpu_eval.ConfusionMeter("cityscapes")])
