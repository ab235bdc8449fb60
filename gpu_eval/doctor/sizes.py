"""Whether predictions of other sizes than their ground truth show the same picture.

Both are resized to one size, as the reference does. That is right for a prediction of another resolution and
for one that a network has squeezed. It is wrong for one that was padded, cropped, letterboxed or transposed:
then another part of the picture lies at each pixel. Sizes alone cannot tell (1088 rows for 1080 may be padded
or resized), so both are tried on a few images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_eval.doctor.doubt import Doubt, Sight
from gpu_eval.doctor.maps import decoded
from gpu_eval.engines.colours import Side
from gpu_eval.engines.semantic import SemanticResult, make_job, same_ratio, to_classes
from gpu_eval.errors import InputError
from gpu_eval.inputs.pairs import Pair
from gpu_eval.labels import LabelSpace

Size = tuple[int, int]
Classes = npt.NDArray[np.uint16]

# Pairs that are decoded for it, and rows and columns of a pair that are compared.
LOOKED_AT, GRID = 4, 360
# How much more a scaled picture must explain.
UNSCALED = 0.02
# Padding that keeps the ratio (480x360 to 512x384) is looked for up to this size.
MUCH_PADDING = 1.15
# Of the labelled pixels, how many more must agree for the other picture to be likely, and certain.
LIKELY, CERTAIN, CERTAIN_RATIO = 0.004, 0.02, 0.7


# What mends predictions whose rows became columns, by what happened to them.
TURNS: Mapping[str, tuple[str, Callable[[Classes], Classes]]] = {
    "transposed": ("ids.T", np.transpose),
    "turned to the left": ("np.rot90(ids, -1)", lambda ids: np.rot90(ids, -1)),
    "turned to the right": ("np.rot90(ids)", np.rot90),
}


@dataclass(frozen=True)
class Picture:
    """A way in which a prediction may lie on its ground truth.

    `scale` is that of the prediction. `gt` and `pred` are the parts (top, left, height, width) of each that
    show the same; `turn` is one of TURNS, done to the prediction first.
    """

    name: str
    scale: float
    gt: tuple[float, float, float, float]
    pred: tuple[float, float, float, float]
    turn: str | None = None


def judge_sizes(
    pairs: Sequence[Pair],
    results: Sequence[SemanticResult],
    space: LabelSpace,
    gt_encoding: str,
    pred_encoding: str,
    sight: Sight,
) -> list[Doubt]:
    """What the sizes of these pairs look like, where they are not those of one picture resized."""
    sides = make_job(space, gt_encoding=gt_encoding, pred_encoding=pred_encoding).sides
    odd = [
        (pair, result.gt_size, result.pred_size)
        for pair, result in zip(pairs, results, strict=True)
        if result.gt_size and result.pred_size and _may_differ(result.gt_size, result.pred_size)
    ]
    if not odd:
        return []
    n = space.n_classes
    as_read = 0
    labelled = 0
    found: Counter[tuple[str, float]] = Counter()
    last: dict[tuple[str, float], tuple[Picture, Size, Size]] = {}
    for pair, gt_size, pred_size in odd[:LOOKED_AT]:
        maps = _maps(pair, sight, sides)
        if maps is None:
            continue
        gt, pred = maps
        whole = Picture("resized", 1.0, (0, 0, *gt_size), (0, 0, *pred_size))
        agreed, counted = _agreed(gt, pred, whole, n)
        as_read += agreed
        labelled += counted
        for picture in _pictures(gt_size, pred_size):
            share = _agreed(gt, pred, picture, n)
            if share[1] * 4 >= counted:  # of a part that shows next to nothing, nothing can be said
                key = (picture.name, picture.scale)
                found[key] += round(share[0] * counted / share[1])
                last[key] = (picture, gt_size, pred_size)
    if labelled == 0 or not found:
        return []
    # A camera that moves forward zooms too: where it hardly matters, nothing was scaled.
    best = max(found, key=lambda key: found[key] + (key[1] == 1) * UNSCALED * labelled)
    now, then = as_read / labelled, found[best] / labelled
    if then - now < LIKELY:
        return []
    picture, gt_size, pred_size = last[best]
    return [_doubt(picture, gt_size, pred_size, now, then, (len(odd), len(pairs)))]


def _may_differ(gt_size: Size, pred_size: Size) -> bool:
    """Whether two sizes may show other parts of a picture: of one ratio only if both sides grew a little."""
    grown = pred_size[0] / gt_size[0]
    return not same_ratio(gt_size, pred_size) or 1 < grown <= MUCH_PADDING


def _doubt(
    picture: Picture, gt_size: Size, pred_size: Size, now: float, then: float, of: tuple[int, int]
) -> Doubt:
    height, width = gt_size
    pred_height, pred_width = pred_size
    top, left, rows, columns = (round(number) for number in picture.pred)
    mend = {}
    if picture.turn is not None:
        fix = f"write the rows as rows: {TURNS[picture.turn][0]}"
    elif picture.name.startswith("cropped"):
        fix = "predict the whole image: what lies outside the crop counts as missed"
    else:
        mend = {"pred_region": f"{top},{left},{rows},{columns}"}
        fix = (
            f"cut out rows {top} to {top + rows} and columns {left} to {left + columns} before saving, as "
            "`gpu-eval check PREDS --gts GTS --fix OUT` does"
        )
    who = "the predictions" if of[0] == of[1] else f"{of[0]} of {of[1]} predictions that were looked at"
    told = f"{who} ({pred_width}x{pred_height} for {width}x{height}) are {picture.name}"
    padding = [
        f"{count} {what} of padding"
        for count, what in ((pred_height - rows, "rows"), (pred_width - columns, "columns"))
        if count and mend
    ]
    if padding:
        told += f": {' and '.join(padding)}"
    mostly = 2 * of[0] > of[1]
    certain = mostly and then - now >= CERTAIN and (1 - then) <= CERTAIN_RATIO * (1 - now)
    read = "without it" if mend else "read so"
    evidence = f"{read}, {then:.3f} of the pixels agree; resized as they are, {now:.3f}"
    return Doubt("size", told, evidence, fix, certain, mend)


def _pictures(gt_size: Size, pred_size: Size) -> Iterator[Picture]:
    """What two sizes may be but one picture resized."""
    (height, width), (pred_height, pred_width) = gt_size, pred_size
    if same_ratio(gt_size, (pred_width, pred_height)):
        for turn in TURNS:
            yield Picture(turn, 1.0, (0, 0, *gt_size), (0, 0, pred_width, pred_height), turn)
    scales = {min(pred_height / height, pred_width / width), 1.0, 0.5, 2.0}
    for scale in sorted(scales):
        rows, columns = round(height * scale), round(width * scale)
        if rows > pred_height or columns > pred_width or (rows, columns) == pred_size:
            continue
        small = min(rows / pred_height, columns / pred_width) >= 0.9
        bars = "padded" if small or (scale == 1 and pred_height != pred_width) else "letterboxed"
        for where, first, left in _places(pred_height - rows, pred_width - columns):
            yield Picture(f"{bars}{where}", scale, (0, 0, height, width), (first, left, rows, columns))
    for scale in sorted({max(pred_height / height, pred_width / width), 1.0, 0.5, 2.0}):
        high, wide = pred_height / scale, pred_width / scale
        if high > height or wide > width or (round(high), round(wide)) == gt_size:
            continue
        for where, first, left in _places(height - high, width - wide):
            yield Picture(f"cropped{where}", scale, (first, left, high, wide), (0, 0, *pred_size))


def _places(rows: float, columns: float) -> Iterator[tuple[str, float, float]]:
    """Where the smaller of two pictures may lie in the larger, which is larger by `rows` and `columns`.

    Each as what is added or lacks there, and (top, left) of the smaller in the larger.
    """
    last = " and ".join(word for word, more in (("bottom", rows), ("right", columns)) if more)
    first = " and ".join(word for word, more in (("top", rows), ("left", columns)) if more)
    yield f" at the {last}", 0, 0
    yield " on both sides", rows // 2, columns // 2
    yield f" at the {first}", rows, columns


def _agreed(gt: Classes, pred: Classes, picture: Picture, n: int) -> tuple[int, int]:
    """How many labelled pixels of a grid over the shared part agree, and how many there are."""
    if picture.turn is not None:
        pred = TURNS[picture.turn][1](pred)
    height, width = (min(GRID, max(1, int(size))) for size in picture.gt[2:])

    def grid(values: Classes, part: tuple[float, float, float, float]) -> Classes:
        top, left, rows, columns = part
        at_rows = (top + (np.arange(height) + 0.5) * rows / height).astype(np.int64)
        at_columns = (left + (np.arange(width) + 0.5) * columns / width).astype(np.int64)
        picked: Classes = values[
            np.minimum(at_rows, values.shape[0] - 1)[:, None], np.minimum(at_columns, values.shape[1] - 1)
        ]
        return picked

    of_gt = grid(gt, picture.gt)
    labelled = of_gt < n
    return int((labelled & (of_gt == grid(pred, picture.pred))).sum()), int(labelled.sum())


def _maps(pair: Pair, sight: Sight, sides: tuple[Side, Side]) -> tuple[Classes, Classes] | None:
    """Both maps as classes; None where one cannot be read, of which scoring tells."""
    assert pair.pred is not None
    gt, pred = sides
    try:
        return (
            to_classes(decoded(sight.gts, pair.gt, gt), gt.table, gt.n_classes),
            to_classes(decoded(sight.preds, pair.pred, pred), pred.table, pred.n_classes),
        )
    except InputError:
        return None
