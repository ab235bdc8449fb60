"""Whether predictions of other sizes than their ground truth show the same picture.

Both are resized to one size, as the reference does. That is right for a prediction of another resolution and
for one that a network has squeezed. It is wrong for one that was padded, cropped, letterboxed or transposed:
then another part of the picture lies at each pixel. Sizes alone cannot tell (1088 rows for 1080 may be padded
or resized), so both are tried on a few images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gpu_eval.doctor.agreement import Counts, agreement
from gpu_eval.doctor.doubt import Doubt, Sight
from gpu_eval.doctor.maps import decoded
from gpu_eval.engines.colours import Side
from gpu_eval.engines.semantic import SemanticResult, joint_count, make_job, same_ratio, to_classes
from gpu_eval.errors import InputError
from gpu_eval.inputs.pairs import Pair
from gpu_eval.labels import LabelSpace

Size = tuple[int, int]
Classes = npt.NDArray[np.uint16]

# Pairs that are decoded for it, and rows and columns of a pair that are compared.
LOOKED_AT, GRID = 6, 360
# What networks pad sides to, at least.
MULTIPLE = 32
# How much more a scaled picture must explain.
UNSCALED = 0.02
# Padding that keeps the ratio (480x360 to 512x384) is looked for up to this size.
MUCH_PADDING = 1.15
# How much more agreement (Cohen's kappa) makes the other picture likely, and certain; what it has at least.
LIKELY, LIKELY_CROP, LEAST = 0.008, 0.05, 0.15
CERTAIN, CERTAIN_RATIO = 0.03, 0.7

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


@dataclass
class _Group:
    """Predictions of one size for ground truth of one size, and how each picture fits those looked at.

    `joints` are counts of classes (n + 2, n + 2), rows gt, by picture; None stands for the maps as they are.
    """

    gt_size: Size
    pred_size: Size
    pairs: list[Pair] = field(default_factory=list)
    joints: dict[Picture | None, Counts] = field(default_factory=dict)

    def look(self, gt: Classes, pred: Classes, n: int) -> None:
        whole = Picture("as they are", 1.0, (0, 0, *self.gt_size), (0, 0, *self.pred_size))
        for key, picture in [(None, whole), *((one, one) for one in _pictures(self.gt_size, self.pred_size))]:
            counted = _joint(gt, pred, picture, n)
            self.joints[key] = self.joints[key] + counted if key in self.joints else counted

    def best(self) -> _Found | None:
        """The picture that fits clearly better than the maps as they are."""
        if None not in self.joints:
            return None
        now = agreement(self.joints[None])
        labelled = self.joints[None][:-2].sum()
        best: tuple[float, _Found] | None = None
        for picture, joint in self.joints.items():
            # Of a part that shows next to nothing, nothing can be said.
            if picture is None or joint[:-2].sum() * 4 < labelled:
                continue
            then = agreement(joint)
            # A part of a street is easier than a whole one.
            least = LIKELY_CROP if picture.name.startswith("cropped") else LIKELY
            if then.kappa < LEAST or then.kappa - now.kappa < least:
                continue
            # A camera that moves forward zooms too: where it hardly matters, nothing was scaled.
            rank = then.kappa + (picture.scale == 1) * UNSCALED
            if best is None or rank > best[0]:
                shares = (_share(self.joints[None]), _share(joint))
                best = (rank, _Found(self, picture, now.kappa, then.kappa, shares))
        return None if best is None else best[1]


@dataclass(frozen=True)
class _Found:
    """What a group shows: kappa and the share of labelled pixels that agree, as it is and read otherwise."""

    group: _Group
    picture: Picture
    now: float
    then: float
    shares: tuple[float, float]

    @property
    def is_certain(self) -> bool:
        return self.then - self.now >= CERTAIN and 1 - self.then <= CERTAIN_RATIO * (1 - self.now)

    @property
    def region(self) -> tuple[int, int, int, int] | None:
        """The part of the prediction that shows the picture; None where none does."""
        if self.picture.turn is not None or self.picture.name.startswith("cropped"):
            return None
        top, left, height, width = (round(number) for number in self.picture.pred)
        return top, left, height, width


def judge_sizes(
    pairs: Sequence[Pair],
    results: Sequence[SemanticResult],
    space: LabelSpace,
    gt_encoding: str,
    pred_encoding: str,
    sight: Sight,
) -> list[Doubt]:
    """What the sizes of these pairs look like, where they are not those of one picture resized."""
    groups: dict[tuple[Size, Size], _Group] = {}
    for pair, result in zip(pairs, results, strict=True):
        sizes = (result.gt_size, result.pred_size)
        if sizes[0] is not None and sizes[1] is not None and _may_differ(sizes[0], sizes[1]):
            groups.setdefault((sizes[0], sizes[1]), _Group(sizes[0], sizes[1])).pairs.append(pair)
    sides = make_job(space, gt_encoding=gt_encoding, pred_encoding=pred_encoding).sides
    found = []
    for group in groups.values():
        for pair in group.pairs[: max(1, LOOKED_AT // len(groups))]:
            maps = _maps(pair, sight, sides)
            if maps is not None:
                group.look(*maps, space.n_classes)
        best = group.best()
        if best is not None:
            found.append(best)
    return [_doubt(found, len(pairs))] if found else []


def _may_differ(gt_size: Size, pred_size: Size) -> bool:
    """Whether two sizes may show other parts of a picture.

    Of one ratio only if both sides grew a little, or if both are multiples of what networks pad to.
    """
    if not same_ratio(gt_size, pred_size):
        return True
    multiple = all(size % MULTIPLE == 0 for size in pred_size) and pred_size != gt_size
    return multiple or 1 < pred_size[0] / gt_size[0] <= MUCH_PADDING


def _doubt(found: Sequence[_Found], looked_at: int) -> Doubt:
    """What the sizes look like, by the one that most predictions have; the others are named beside."""
    first, *others = sorted(found, key=lambda one: -len(one.group.pairs))
    (height, width), (pred_height, pred_width) = first.group.gt_size, first.group.pred_size
    regions = {one.group.pred_size: one.region for one in found if one.region is not None}
    mend = {}
    if first.picture.turn is not None:
        fix = f"write the rows as rows: {TURNS[first.picture.turn][0]}"
    elif first.region is None:
        fix = "predict the whole image: what lies outside the crop counts as missed"
    else:
        told = (f"{w}x{h}:" + ",".join(map(str, region)) for (h, w), region in regions.items() if region)
        mend = {"pred_region": ";".join(told)}
        top, left, rows, columns = first.region
        fix = (
            f"cut out rows {top} to {top + rows} and columns {left} to {left + columns} before saving, as "
            "`gpu-eval check PREDS --gts GTS --fix OUT` does"
        )
    odd = sum(len(one.group.pairs) for one in found)
    who = "the predictions" if odd == looked_at else f"{odd} of {looked_at} predictions that were looked at"
    message = f"{who} ({pred_width}x{pred_height} for {width}x{height}) are {first.picture.name}"
    if first.region is not None:
        padding = ((pred_height - first.region[2], "rows"), (pred_width - first.region[3], "columns"))
        message += ": " + " and ".join(f"{count} {what} of padding" for count, what in padding if count)
    if others:
        sizes = ", ".join(f"{one.group.pred_size[1]}x{one.group.pred_size[0]}" for one in others)
        message += f"; so are those of {sizes}, each in its way"
    read = "without it" if first.region is not None else "read so"
    now, then = first.shares
    evidence = f"{read}, {then:.3f} of the pixels agree; resized as they are, {now:.3f}"
    return Doubt("size", message, evidence, fix, 2 * odd > looked_at and first.is_certain, mend)


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


def _joint(gt: Classes, pred: Classes, picture: Picture, n: int) -> Counts:
    """The joint count of classes over a grid on the part that both show, (n + 2, n + 2)."""
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

    return joint_count(grid(gt, picture.gt), grid(pred, picture.pred), n)


def _share(joint: Counts) -> float:
    """Of the labelled pixels, how many agree."""
    labelled = joint[:-2]
    return float(np.trace(labelled) / max(1, labelled.sum()))


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
