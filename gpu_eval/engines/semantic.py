"""The semantic task as every engine has it: what it is told, what it gives back, and the rules of label maps.

The rules are written here in their readable form, for whole maps and matrices. Of what the kernels do at full
speed, `cpu/semantic_kernels` and `kernels/confusion.cu` hold the fast form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_eval.engines.colours import Side
from gpu_eval.engines.engine import Job
from gpu_eval.errors import InputError, LabelOutOfRange, MissingPrediction
from gpu_eval.inputs.pairs import Pair
from gpu_eval.labels import LabelSpace
from gpu_eval.labels.colours import Colours

Confusion = npt.NDArray[np.int64]
Table = npt.NDArray[np.uint16]
Classes = npt.NDArray[np.uint16]

# Sizes (height, width) that the public script resizes a 16:9 image to, and that are not quite 16:9.
NEARLY_16_9 = ((480, 858), (240, 426))


@dataclass(slots=True)
class SemanticResult:
    """What an engine found out about one pair.

    `confusion`: int64, shape (n_classes + 1, n_classes + 1), rows gt, columns prediction, last index
    void; None if the image could not be scored. `error` says why; with `void_on_error` both are set.
    Sizes are (height, width). `decoder` is "simd" for the fast path of the CPU, "cuda" for that of a device,
    "pillow" for maps they do not take. `gt_outside` and `pred_outside` count pixels outside the encoding, at
    the scored resolution.
    """

    confusion: Confusion | None = None
    error: InputError | None = None
    warning: str | None = None
    decoder: str | None = None
    gt_size: tuple[int, int] | None = None
    pred_size: tuple[int, int] | None = None
    gt_outside: int = 0
    pred_outside: int = 0


@dataclass(frozen=True)
class SemanticJob(Job[Pair, SemanticResult]):
    """What an engine must know besides the files.

    `gt_table` and `pred_table` (uint16, shape (256,)) send a raw value to a class, to `n_classes`
    (void) or to `n_classes + 1` (outside the encoding: counted as void, and reported).
    With `gt_in_colour` or `pred_in_colour` the pixels of that side are colours of `palette`, the label
    table's; see `engines/colours`.
    `resolution` is the (height, width) that both maps are resized to; None keeps the gt's own size.
    `encodings` are the tables to try when an image's values do not fit. With `void_on_error` an image
    whose prediction is missing or broken is counted as predicted void everywhere; with `as_is` maps that are
    mostly outside their encoding are counted too, not refused.
    """

    task = "semantic"

    n_classes: int
    gt_table: Table
    pred_table: Table
    resolution: tuple[int, int] | None
    encodings: Mapping[str, Table]
    void_on_error: bool = False
    as_is: bool = False
    palette: Colours | None = None
    gt_in_colour: bool = False
    pred_in_colour: bool = False

    def refused(self, outside: npt.NDArray[np.int64], pixels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which maps are refused: so many of their pixels are neither a class nor void."""
        return np.asarray((outside * 2 > pixels) & (not self.as_is))

    @property
    def in_colour(self) -> bool:
        """Whether a side's pixels are colours: then only the readable decoder takes it."""
        return self.gt_in_colour or self.pred_in_colour

    @property
    def sides(self) -> tuple[Side, Side]:
        """What reading a gt and reading a prediction need to know."""
        return (
            Side(True, self.n_classes, self.gt_table, self.palette, self.gt_in_colour),
            Side(False, self.n_classes, self.pred_table, self.palette, self.pred_in_colour),
        )


def make_job(
    labels: LabelSpace,
    *,
    gt_encoding: str | None = None,
    pred_encoding: str | None = None,
    resolution: tuple[int, int] | None = None,
    void_on_error: bool = False,
    as_is: bool = False,
) -> SemanticJob:
    """The job of scoring maps of `labels`; an encoding that is not named is the label space's default."""
    gt = labels.encoding(gt_encoding or labels.default_encoding)
    pred = labels.encoding(pred_encoding or labels.default_encoding)
    return SemanticJob(
        n_classes=labels.n_classes,
        gt_table=gt.table,
        pred_table=pred.table,
        resolution=resolution,
        encodings={name: encoding.table for name, encoding in labels.encodings.items()},
        void_on_error=void_on_error,
        as_is=as_is,
        palette=labels.palette,
        gt_in_colour=gt.in_colour,
        pred_in_colour=pred.in_colour,
    )


# --- from raw values to a joint count ------------------------------------------------------------


def to_classes(values: npt.NDArray[np.integer[Any]], table: Table, n_classes: int) -> Classes:
    """Classes of raw values of any integer type, uint16; n_classes is void, n_classes + 1 outside.

    Values that the table does not have, below 0 or above 255, are outside every encoding. The fast forms:
    `gt_lut` and `pred_lut` of `cpu/semantic_kernels`, and the tables of `kernels/confusion.cu`.
    """
    if values.dtype == np.uint8:
        of_bytes: Classes = table[values]
        return of_bytes
    inside = (values >= 0) & (values < 256)
    return np.where(inside, table[np.where(inside, values, 0)], np.uint16(n_classes + 1))


def joint_count(gt: Classes, pred: Classes, n_classes: int) -> Confusion:
    """Joint count of two arrays of classes of one shape.

    Shape (n_classes + 2, n_classes + 2), rows gt, columns prediction; the last two indices are void and
    outside.
    """
    size = n_classes + 2
    joint = gt.astype(np.int64) * size + pred
    return np.bincount(joint.ravel(), minlength=size**2).reshape(size, size)


def predicted_void(gt: Classes, n_classes: int) -> Confusion:
    """The joint count of a gt's classes with a prediction that is void everywhere."""
    joint = np.zeros((n_classes + 2, n_classes + 2), np.int64)
    joint[:, n_classes] = np.bincount(gt.ravel(), minlength=n_classes + 2)
    return joint


# --- from a joint count to a confusion matrix ----------------------------------------------------


def outside(joint: Confusion) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pixels outside the encoding of the gt and of the prediction, of joint counts (..., n + 2, n + 2)."""
    return joint[..., -1, :].sum(axis=-1), joint[..., :, -1].sum(axis=-1)


def fold_outside(joint: Confusion) -> Confusion:
    """Joint counts with the pixels outside the encodings counted as void.

    From shape (..., n + 2, n + 2), rows gt, columns prediction, the last two indices void and outside, to
    (..., n + 1, n + 1), a new contiguous array.
    """
    n = joint.shape[-1] - 2
    folded = joint[..., : n + 1, : n + 1].copy()
    folded[..., n, :] += joint[..., n + 1, : n + 1]
    folded[..., :, n] += joint[..., : n + 1, n + 1]
    folded[..., n, n] += joint[..., n + 1, n + 1]
    return folded


# --- what is said of a pair ----------------------------------------------------------------------


def same_ratio(gt_size: tuple[int, int], pred_size: tuple[int, int]) -> bool:
    """Whether one size (height, width) is the other, scaled, up to one pixel of rounding.

    Or whether it is one of those that the public script makes of 16:9 (evaluate_mIoU.py of
    AutoNUE/public-code, --res 480 and 240).
    """
    (height, width), (pred_height, pred_width) = gt_size, pred_size
    # A side of the smaller map off by a pixel is off by a side of the larger one here.
    if abs(pred_height * width - pred_width * height) <= max(*gt_size, *pred_size):
        return True
    return any(
        mine in NEARLY_16_9 and abs(other[1] * 9 - other[0] * 16) <= 16
        for mine, other in ((gt_size, pred_size), (pred_size, gt_size))
    )


def aspect_warning(gt_size: tuple[int, int], pred_size: tuple[int, int]) -> str | None:
    """What to say of sizes (height, width) of different aspect ratios."""
    if same_ratio(gt_size, pred_size):
        return None
    (gt_height, gt_width), (pred_height, pred_width) = gt_size, pred_size
    return (
        f"aspect ratio of the prediction ({pred_width}x{pred_height}) is not that of the "
        f"ground truth ({gt_width}x{gt_height})"
    )


def no_prediction(pair: Pair) -> MissingPrediction:
    """The error of a pair without a prediction."""
    return MissingPrediction("no prediction", file=pair.key, expected="one prediction per ground truth")


def out_of_range(
    job: SemanticJob, values: npt.NDArray[np.integer[Any]], *, file: str, option: str, share: float
) -> LabelOutOfRange:
    """The error of a map that is mostly outside its encoding, by `share`; `option` would name another one."""
    histogram = np.bincount(np.minimum(values.astype(np.int64), 256).ravel(), minlength=257)
    fits = {
        encoding: float(histogram[:256][table <= job.n_classes].sum() / histogram.sum())
        for encoding, table in job.encodings.items()
    }
    best = max(fits, key=lambda encoding: fits[encoding], default=None)
    seen = np.flatnonzero(histogram)
    listed = ", ".join(str(v) for v in seen[:12]) + (", ..." if seen.size > 12 else "")
    return LabelOutOfRange(
        "most pixels are neither a class nor void",
        file=file,
        found=f"{share:.0%} outside the encoding; values {listed}",
        expected=f"a class 0..{job.n_classes - 1} or void after encoding",
        fix=f"{option} {best} would fit {fits[best]:.0%} of the pixels"
        if best is not None and fits[best] > 0.9
        else None,
    )
