"""Arrays that cannot be counted: each is told what mends it, and that is then done as it stands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

import gpu_eval
from gpu_eval.errors import OptionError
from gpu_eval.labels import load_labels

RNG = np.random.default_rng(12)
N, H, W, C = 2, 20, 24, 26
GT = RNG.integers(0, C, (N, H, W), np.uint8)
SCORES = np.moveaxis(np.eye(C, dtype=np.float32)[GT], -1, 1) + RNG.random((N, C, H, W), np.float32) / 2
ONE_HOT = np.moveaxis(np.eye(C, dtype=np.uint8)[GT], -1, 1)
WANTED = gpu_eval.confusion_matrix(GT, GT)


def refused(gt: Any, pred: Any, **options: Any) -> OptionError:
    with pytest.raises(OptionError) as caught:
        gpu_eval.confusion_matrix(gt, pred, **options)
    assert caught.value.fix is not None
    return caught.value


def followed(gt: Any, pred: Any, name: str, **options: Any) -> np.ndarray:
    """The matrix after the argument `name` was replaced by the expression that the fix begins with."""
    error = refused(gt, pred, **options)
    assert error.fix is not None
    expression = error.fix.split(" gives ")[0]
    sides = {"gt": gt, "pred": pred}
    sides[name] = eval(expression, {"np": np, "Image": Image}, sides)
    return gpu_eval.confusion_matrix(sides["gt"], sides["pred"], **options)


@pytest.mark.parametrize(
    ("gt", "pred", "name", "expression"),
    [
        (GT, GT.astype(np.float32), "pred", "pred.astype('uint8')"),
        (GT.astype(np.float64), GT, "gt", "gt.astype('uint8')"),
        (GT, GT[:, None].astype(np.float16), "pred", "pred.squeeze(1).astype('uint8')"),
        (GT, (GT / 255).astype(np.float32), "pred", "(pred * 255).round().astype('uint8')"),
        (GT, SCORES, "pred", "pred.argmax(1)"),
        (GT[0], SCORES[0], "pred", "pred.argmax(0)"),
        (GT, np.moveaxis(SCORES, 1, -1), "pred", "pred.argmax(3)"),
        (GT[0], np.moveaxis(SCORES[0], 0, -1), "pred", "pred.argmax(2)"),
        (GT[:, None], SCORES, "pred", "pred.argmax(1, keepdims=True)"),
        (GT, ONE_HOT, "pred", "pred.argmax(1)"),
        (GT, ONE_HOT.astype(np.float32), "pred", "pred.argmax(1)"),
        (GT, ONE_HOT.astype(bool), "pred", "pred.argmax(1)"),
        (ONE_HOT, GT, "gt", "gt.argmax(1)"),
        (GT, (SCORES * 100).astype(np.int64), "pred", "pred.argmax(1)"),
        (GT, GT[:, None], "pred", "pred.squeeze(1)"),
        (GT[:, None], GT, "gt", "gt.squeeze(1)"),
        (GT[:1], GT[0], "gt", "gt.squeeze(0)"),
        (GT, GT[..., None], "pred", "pred.squeeze(3)"),
        (GT, GT.swapaxes(-1, -2), "pred", "pred.swapaxes(-1, -2)"),
        (GT, GT.reshape(N, -1), "pred", "pred.reshape(gt.shape)"),
        (GT, GT.ravel(), "pred", "pred.reshape(gt.shape)"),
        (GT, np.repeat(GT[..., None], 3, -1), "pred", "pred[..., 0]"),
        (GT[0], np.repeat(GT[0][None], 3, 0), "pred", "pred[0]"),
        (GT, np.repeat(GT[:, None], 3, 1), "pred", "pred[:, 0]"),
        (GT, GT.astype(object), "pred", "pred.astype('int64')"),
    ],
)
def test_the_expression_that_is_told_mends_the_array(gt: Any, pred: Any, name: str, expression: str) -> None:
    error = refused(gt, pred)
    assert error.fix is not None
    assert error.fix.split(" gives ")[0] == expression
    matrix = followed(gt, pred, name)
    assert matrix.trace() == matrix.sum() >= H * W


def test_bools_count_as_0_and_1() -> None:
    gt, pred = GT > 12, GT > 13
    expected = gpu_eval.confusion_matrix(gt.astype(np.uint8), pred.astype(np.uint8), labels=2)
    assert gpu_eval.confusion_matrix(gt, pred, labels=2).tolist() == expected.tolist()
    assert gpu_eval.confusion_matrix(gt, pred.astype(np.int64), labels=2).tolist() == expected.tolist()


@pytest.mark.parametrize(("scores", "expression"), [((0, 1), "(pred > 0.5)"), ((-4, 4), "(pred > 0)")])
@pytest.mark.parametrize("channel", [False, True])
def test_scores_of_a_binary_map_are_told_a_threshold(
    scores: tuple[int, int], expression: str, channel: bool
) -> None:
    gt = GT > 12
    middle = sum(scores) / 2
    pred = np.where(gt, scores[1], scores[0]) * RNG.uniform(0.8, 0.99, gt.shape) + 0.001 * (middle + 1)
    if channel:
        pred, expression = pred[:, None], expression.replace("pred", "pred.squeeze(1)")
    error = refused(gt, pred, labels=2)
    assert error.fix is not None
    assert error.fix.split(" gives ")[0] == expression
    matrix = followed(gt, pred, "pred", labels=2)
    assert matrix.trace() == matrix.sum() == gt.size


def test_fractions_without_an_axis_of_classes_are_told_what_is_lost() -> None:
    assert "keep their axis of 26 classes" in str(refused(GT, GT + 0.3))


def test_nan_among_labels_becomes_void() -> None:
    pred = GT.astype(np.float32)
    pred[0, 0, :3] = np.nan, np.inf, -np.inf
    assert "3 not finite" in str(refused(GT, pred))
    assert followed(GT, pred, "pred")[:, C].sum() == 3


def test_values_beyond_a_byte_keep_their_width() -> None:
    pred = GT.astype(np.float64)
    pred[0, 0, 0] = 300
    assert followed(GT, pred, "pred")[:, C].sum() == 1


def test_a_map_of_another_size_is_told_to_be_resized_as_stated() -> None:
    for gt in (GT[0], GT, GT[:, None], GT.astype(np.int64)):
        pred = gt.repeat(2, -2).repeat(2, -1)
        assert f"gives pred the size of gt, {W}x{H}" in str(refused(gt, pred))
        matrix = followed(gt, pred, "pred")
        assert matrix.trace() == matrix.sum() == gt.size
    tensor = Tensor((N, H // 2, W // 2), "torch.float32", GRADIENT)
    assert "pred.to(torch.uint8)" in str(refused(GT, tensor))


def test_other_numbers_of_images_are_told() -> None:
    assert "2 maps of gt, 1 of pred" in str(refused(GT, GT[:1]))


def test_both_one_hot_are_not_counted_as_two_classes() -> None:
    for sides in ((ONE_HOT, ONE_HOT), (ONE_HOT.astype(bool), ONE_HOT)):
        error = refused(*sides)
        assert error.fix is not None
        assert error.fix.startswith("gt.argmax(1), pred.argmax(1) gives labels")
    assert gpu_eval.confusion_matrix(ONE_HOT.argmax(1), ONE_HOT.argmax(1)).tolist() == WANTED.tolist()


def test_maps_of_as_many_rows_as_classes_are_counted() -> None:
    gt = RNG.integers(0, 2, (3, C, 50), np.uint8)
    assert gpu_eval.confusion_matrix(gt, gt).sum() == gt.size
    zeros = np.zeros((3, C, 50), np.uint8)
    assert gpu_eval.confusion_matrix(zeros, zeros).sum() == gt.size


# --- colours -------------------------------------------------------------------------------------------

CITYSCAPES = load_labels("cityscapes")
TRAIN = RNG.choice([c for c in range(19) if CITYSCAPES.names[c] != "pole"], (N, H, W)).astype(np.uint8)
COLOURS = np.array(CITYSCAPES.colours, np.uint8)[TRAIN]
OPTIONS: dict[str, Any] = {"labels": "cityscapes", "gt_encoding": "train", "pred_encoding": "train"}


@pytest.mark.parametrize(
    ("gt", "pred", "side"),
    [(TRAIN, COLOURS, "pred"), (COLOURS, TRAIN, "gt"), (TRAIN[0], COLOURS[0], "pred")],
)
def test_colours_are_told_the_encoding_that_reads_them(gt: Any, pred: Any, side: str) -> None:
    error = refused(gt, pred, **OPTIONS)
    assert error.fix is not None
    assert error.fix.startswith(f"{side}_encoding='colour' reads")
    matrix = gpu_eval.confusion_matrix(gt, pred, **{**OPTIONS, f"{side}_encoding": "colour"})
    assert matrix.trace() == matrix.sum() > 0


def test_colours_in_front_are_told_to_be_moved() -> None:
    error = refused(TRAIN, np.moveaxis(COLOURS, -1, 1), **OPTIONS)
    assert error.fix is not None
    assert error.fix.startswith("np.moveaxis(pred, 1, -1) with pred_encoding='colour'")
    options = {**OPTIONS, "pred_encoding": "colour"}
    assert gpu_eval.confusion_matrix(TRAIN, COLOURS, **options).trace() == TRAIN.size
    error = refused(TRAIN, np.moveaxis(COLOURS, -1, 1), **options)
    assert error.fix is not None
    assert error.fix.startswith("np.moveaxis(pred, 1, -1)")


def test_both_sides_in_colour_are_not_counted_channel_by_channel() -> None:
    assert "3 channels, as a picture has" in str(refused(COLOURS, COLOURS, **OPTIONS))
    options = {**OPTIONS, "gt_encoding": "colour", "pred_encoding": "colour"}
    assert gpu_eval.confusion_matrix(COLOURS, COLOURS, **options).trace() == TRAIN.size


def test_pictures_without_colours_in_the_table_are_told_to_be_ids() -> None:
    assert "give label ids" in str(refused(TRAIN, COLOURS, labels=19))
    photograph = RNG.integers(0, 256, (N, H, W, 3), np.uint8)
    assert "is no colour of one class of the label table" in str(refused(TRAIN, photograph, **OPTIONS))


def test_ids_are_told_to_leave_the_colours_away() -> None:
    error = refused(TRAIN, TRAIN, **{**OPTIONS, "pred_encoding": "colour"})
    assert "leave it away for label ids" in str(error)


def test_bad_but_honest_predictions_are_counted() -> None:
    for pred in (np.zeros_like(GT), np.full_like(GT, 255), RNG.integers(0, 256, GT.shape, np.uint8)):
        assert gpu_eval.confusion_matrix(GT, pred).sum() == GT.size
    for shape in ((3, 64, 64), (4, 64, 64), (2, 3, 64, 64), (64, 64, 5), (64, 64, 2)):
        noise = RNG.integers(0, 256, shape, np.uint8)
        assert gpu_eval.confusion_matrix(noise, noise).sum() == noise.size


# --- what NumPy cannot see, or sees too much of --------------------------------------------------------


class Tensor:
    """A tensor of torch whose values NumPy cannot have, for the reason that torch gives."""

    def __init__(self, shape: tuple[int, ...], dtype: str, why: Exception, device: str = "cpu") -> None:
        self.shape, self.dtype, self.device, self._why = shape, dtype, device, why

    def __array__(self, *args: object, **kwargs: object) -> np.ndarray:
        raise self._why


BFLOAT = TypeError("Got unsupported ScalarType BFloat16")
GRADIENT = RuntimeError(
    "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."
)
CUDA = TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it first.")


@pytest.mark.parametrize(
    ("tensor", "fix"),
    [
        (Tensor((N, C, H, W), "torch.bfloat16", BFLOAT), "pred.argmax(1) gives labels"),
        (Tensor((N, H, W), "torch.bfloat16", BFLOAT), "pred.to(torch.uint8) gives labels"),
        (Tensor((N, 1, H, W), "torch.bfloat16", BFLOAT), "pred.squeeze(1).to(torch.uint8) gives labels"),
        (Tensor((N, C, H, W), "torch.float32", GRADIENT), "pred.argmax(1) gives labels"),
        (Tensor((N, C, H // 4, W // 4), "torch.float32", GRADIENT), "pred.argmax(1) gives labels"),
        (Tensor((N, H, W), "torch.int64", CUDA, "cuda:0"), "pred.cpu() moves it there"),
        (Tensor((N, H, W), "torch.int64", TypeError("mps:0 device type"), "mps:0"), "pred.cpu() moves"),
    ],
)
def test_tensors_that_numpy_cannot_see_are_told_the_way(tensor: Tensor, fix: str) -> None:
    error = refused(GT, tensor)
    assert error.fix is not None
    assert error.fix.startswith(fix)
    assert ".cpu()" not in error.fix or "device" in str(error)


def test_lists_of_lists_are_counted_and_ragged_ones_refused() -> None:
    assert gpu_eval.confusion_matrix([[0, 1], [2, 3]], [[0, 1], [2, 2]]).trace() == 3
    assert "rows of one length" in str(refused([[0, 1], [2]], [[0, 1], [2]]))
    gt = [GT[0], GT[1, :5]]
    error = refused(gt, gt)
    assert error.fix is not None
    loop = "for g, p in zip(gt, pred): meter.update(g, p)"
    assert error.fix.startswith(loop)
    meter = gpu_eval.ConfusionMeter("idd")
    exec(loop, {"gt": gt, "pred": gt, "meter": meter})
    assert meter.confusion.trace() == H * W + 5 * W


def test_object_arrays_of_maps_are_told_to_be_counted_one_by_one() -> None:
    maps = np.empty(2, object)
    maps[:] = [GT[0], GT[1, :5]]
    assert "meter.update(g, p)" in str(refused(maps, maps))


def test_masked_values_are_not_counted_unseen() -> None:
    pred = np.ma.masked_array(GT, GT == 3)
    error = refused(GT, pred)
    assert error.fix is not None
    assert error.fix.startswith("pred.filled(255) makes them void")
    assert gpu_eval.confusion_matrix(GT, pred.filled(255))[3, C] == (GT == 3).sum()
    unmasked = np.ma.masked_array(GT, False)
    assert gpu_eval.confusion_matrix(GT, unmasked).tolist() == WANTED.tolist()
