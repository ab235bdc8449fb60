"""AP of resamples: equal to images that are really repeated and judged anew, whatever is cut and tied."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest

from gpu_eval.labels.instance_space import load_instances
from gpu_eval.metrics import average_precision_bootstrap as precision_bootstrap
from gpu_eval.metrics import bootstrap
from gpu_eval.metrics.average_precision_bootstrap import Samples
from gpu_eval.metrics.matching import PROTOCOLS, THRESHOLDS, outcomes
from tests.reference import bootstrap as reference
from tests.reference.instances import Image, Prediction, random_split
from tests.support.instance_runs import repeated, table_of
from tests.support.numbers import close

IDD = load_instances("idd")
PERSON, CAR = IDD.ids.index(6), IDD.ids.index(12)


def resampled(
    images: Sequence[Image], protocol: str, resamples: int, *, drives: int = 1, seed: int = 5
) -> tuple[Samples, bootstrap.Units]:
    units = bootstrap.units([f"drive{i % drives}" for i in range(len(images))])
    judged = outcomes(table_of(images), IDD, protocol)
    return precision_bootstrap.resample(judged, units, resamples, seed), units


def untied(images: Sequence[Image]) -> list[Image]:
    """The same with no two confidences equal."""
    rng = np.random.default_rng(0)
    return [
        Image(gt, [one._replace(confidence=one.confidence + rng.random() / 20) for one in predictions])
        for gt, predictions in images
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("drives", [1, 9])
@pytest.mark.parametrize("tied", [True, False])
def test_resamples_equal_images_repeated_and_judged_anew(tied: bool, drives: int, protocol: str) -> None:
    images = random_split(seed=3, images=18)
    # A class in two of the images alone: many resamples are without it.
    for i, image in enumerate(images):
        image.gt[image.gt // 1000 == 9] = 0
        if i in (4, 13):
            image.gt[:12, :12] = 9001
            image.predictions.append(Prediction(image.gt == 9001, 9, 0.35))
    images = images if tied else untied(images)
    found, units = resampled(images, protocol, 15, drives=drives)
    assert units.kind == ("drives" if drives == 9 else "images")
    rare = found.class_ap[:, IDD.ids.index(9)]
    assert 0 < np.count_nonzero(np.isnan(rare)) < 15
    for i, drawn in enumerate(reference.draws(units.count, 15, seed=5)):
        expected = repeated(images, units.of_image.tolist(), drawn, protocol)
        close(found.class_ap[i], expected.class_ap)
        close(found.class_ap50[i], expected.class_ap50)
        close(found.mean_ap[i], expected.mean_ap)
        close(found.mean_ap50[i], expected.mean_ap50)


def test_how_many_are_walked_at_once_does_not_change_a_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    images = random_split(seed=4, images=12)
    whole, _ = resampled(images, "cityscapes", 20)
    monkeypatch.setattr(precision_bootstrap, "_AT_ONCE", 7)
    cut, _ = resampled(images, "cityscapes", 20)
    assert np.array_equal(cut.class_ap, whole.class_ap, equal_nan=True)
    assert np.array_equal(cut.class_ap50, whole.class_ap50, equal_nan=True)


def test_weights_are_those_of_sums_however_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = bootstrap.resample(np.eye(11, dtype=np.int64), 40, seed=3)
    assert (expected.sum(axis=1) == 11).all()
    for at_once, slab_bytes in ((40, 1 << 20), (9, 1 << 20), (40, 3 * 8 * 11), (1, 1)):
        monkeypatch.setattr(bootstrap, "_SLAB_BYTES", slab_bytes)
        parts = [(first, some.copy()) for first, some in bootstrap.weights(11, 40, 3, at_once)]
        assert max(len(some) for _, some in parts) == min(at_once, max(1, slab_bytes // 88), 40)
        assert [first for first, _ in parts] == list(range(0, 40, len(parts[0][1])))
        assert np.array_equal(np.concatenate([some for _, some in parts]), expected)


def square(value: int, *predictions: tuple[int, float]) -> Image:
    """A gt instance of 144 pixels, predicted to the pixel by (label, confidence)."""
    gt = np.zeros((20, 20), np.int64)
    gt[:12, :12] = value
    return Image(gt, [Prediction(gt == value, label, confidence) for label, confidence in predictions])


def test_class_without_gt_is_nan_and_without_predictions_0() -> None:
    images = [square(12001, (12, 0.5)), square(12001), square(6001, (6, 0.5))]
    found, _ = resampled(images, "autonue", 200)
    drawn = [set(units) for units in reference.draws(3, 200, seed=5)]
    assert {1} in drawn
    assert {2} in drawn
    for i, units in enumerate(drawn):
        assert np.isnan(found.class_ap[i, CAR]) == (not units & {0, 1})
        assert np.isnan(found.class_ap[i, PERSON]) == (2 not in units)
        if units == {1}:
            assert (found.class_ap[i, CAR], found.mean_ap[i], found.mean_ap50[i]) == (0, 0, 0)
        if units == {2}:
            assert (found.class_ap[i, PERSON], found.mean_ap[i]) == (1, 1)
    assert np.isnan(found.class_ap[:, [c for c in range(len(IDD.ids)) if c not in (CAR, PERSON)]]).all()


def test_false_positives_above_the_first_drawn_true_positive_count() -> None:
    images = [square(12001, (6, 0.9)), square(6001, (6, 0.5))]
    found, _ = resampled(images, "autonue", 50)
    # Precision falls from 1 to 0 before the person is found at precision 1/2: half of half of the recall.
    for i, units in enumerate(reference.draws(2, 50, seed=5)):
        expected = {0: np.nan, 1: 0.25, 2: 1.0}[sum(units)]
        assert np.array_equal(found.class_ap[i, PERSON], expected, equal_nan=True)


@pytest.mark.parametrize("images", [[], [square(0)], [square(12001)]])
def test_split_without_predictions_or_gt_has_samples_all_the_same(images: list[Image]) -> None:
    found, _ = resampled(images, "autonue", 10)
    assert found.class_ap.shape == found.class_ap50.shape == (10, len(IDD.ids))
    expected = 0.0 if images and (images[0].gt == 12001).any() else np.nan
    assert np.array_equal(found.mean_ap, np.full(10, expected), equal_nan=True)


def test_thresholds_without_one_half_have_no_ap50() -> None:
    units = bootstrap.units([""] * 6)
    judged = outcomes(table_of(random_split(seed=4, images=6)), IDD, "autonue", THRESHOLDS[5:])
    found = precision_bootstrap.resample(judged, units, 10)
    assert np.isnan(found.class_ap50).all()
    assert not np.isnan(found.mean_ap).any()


def test_memory_does_not_grow_with_resamples_but_for_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_bootstrap, "_AT_ONCE", 32)
    images = 20_000
    judged = outcomes(table_of(random_split(seed=4, images=5)), IDD, "autonue")
    units = bootstrap.units([""] * images)
    peaks = []
    for resamples in (96, 320):
        tracemalloc.start()
        precision_bootstrap.resample(judged, units, resamples)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    result = 320 * len(IDD.ids) * (len(THRESHOLDS) + 2) * 8
    assert peaks[1] - peaks[0] < 4 * result < (320 - 96) * images * 8 / 10
