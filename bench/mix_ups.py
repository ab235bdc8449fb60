"""Seeded splits for the doctor: mix-ups that it must name, and honest models that it must leave alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from gpu_eval import synthetic
from gpu_eval.labels import LabelSpace, load_labels

Map = npt.NDArray[np.uint8]
Pairs = list[tuple[Map, Map]]  # classes of the finest level, n is void

IMAGES, HEIGHT, WIDTH = 4, 270, 480
CAMVID = Path(__file__).resolve().parents[2] / "shared" / "data" / "camvid"


@dataclass(frozen=True)
class Split:
    """Raw values of both sides, and how they are scored."""

    labels: str
    pairs: Pairs
    gt_encoding: str | None = None
    pred_encoding: str | None = None


# --- where maps come from --------------------------------------------------------------------------


@cache
def _street(number: int) -> Map:
    return synthetic.street_gt(number, HEIGHT, WIDTH)


def street(rng: np.random.Generator, quality: float) -> Pairs:
    """Drawn street scenes as IDD level-3 ids, and predictions that err as networks do."""
    pairs = []
    for _ in range(IMAGES):
        gt = _street(int(rng.integers(40)))
        pred = synthetic.street_prediction(gt, int(rng.integers(1 << 30)), quality)
        pairs.append((_void(gt), _void(pred)))
    return pairs


def _void(values: Map) -> Map:
    return np.where(values < 26, values, 26).astype(np.uint8)


def blocks(rng: np.random.Generator, quality: float, n: int = 26) -> Pairs:
    """Blocks of classes drawn evenly, of which the given share is predicted right."""
    pairs = []
    for _ in range(IMAGES):
        gt = rng.integers(0, n, (18, 32))
        pred = np.where(rng.random(gt.shape) < quality, gt, rng.integers(0, n, gt.shape))
        gt = np.where(rng.random(gt.shape) < 0.03, n, gt)
        pairs.append(tuple(np.kron(side, np.ones((6, 6))).astype(np.uint8) for side in (gt, pred)))
    return pairs


def camvid(rng: np.random.Generator, quality: float) -> Pairs:  # noqa: ARG001
    """Real street maps, predicted by the frame before."""
    files = sorted((CAMVID / "gt").rglob("*.png"))
    pairs = []
    for at in rng.integers(0, len(files), IMAGES):
        pred = CAMVID / "pred" / files[at].relative_to(CAMVID / "gt")
        pairs.append(tuple(_void(np.array(Image.open(path))) for path in (files[at], pred)))
    return pairs


def drawn(rng: np.random.Generator) -> Pairs:
    """A split of one of these kinds, in IDD's classes, of a middling to a good model."""
    kinds = [street, blocks] + ([camvid] if CAMVID.is_dir() else [])
    return kinds[int(rng.integers(len(kinds)))](rng, float(rng.uniform(0.5, 0.95)))


@cache
def _to(labels: str) -> Map:
    """From IDD's 26 classes and void to the classes of another table, by name or by its coarse levels."""
    idd, other = load_labels("idd"), load_labels(labels)
    if labels == "idd-lite":
        groups = {c: i for i, group in enumerate(idd.level(1).groups) for c in group}
        return np.array([*(groups[c] for c in range(26)), 7], np.uint8)
    named = {name: c for c, name in enumerate(other.names)}
    alike = {"drivable fallback": "terrain", "autorickshaw": "train", "vehicle fallback": "truck"}
    return np.array([*(named.get(alike.get(name, name), other.void) for name in idd.names), other.void])


def in_table(pairs: Pairs, labels: str) -> Pairs:
    """The same scenes in the classes of another table."""
    if labels == "idd":
        return pairs
    table = _to(labels).astype(np.uint8)
    return [(table[gt], table[pred]) for gt, pred in pairs]


# --- how they are written --------------------------------------------------------------------------


def encoder(space: LabelSpace, encoding: str, rng: np.random.Generator) -> Map:
    """The raw value that each class is written as, 255 for void; one of several by chance."""
    if encoding in [f"level{level.number}" for level in space.levels[1:]]:
        level = space.level(int(encoding.removeprefix("level")))
        coarse = {c: i for i, group in enumerate(level.groups) for c in group}
        return np.array([*(coarse.get(c, 255) for c in range(space.n_classes)), 255], np.uint8)
    name, by = (encoding[:-2], int(encoding[-2:])) if encoding[-2:] in ("+1", "-1") else (encoding, 0)
    if name in space.ambiguous:
        shared = space.ambiguous[name]
        values = [np.array([v for v in shared if c in shared[v]]) for c in range(space.n_classes)]
    else:
        values = [np.flatnonzero(space.encodings[name].table == c) for c in range(space.n_classes)]
    raw = [(int(rng.choice(v)) + by) % 256 if v.size else 255 for v in values]
    return np.array([*raw, 255], np.uint8)


def encoded(pairs: Pairs, labels: str, gt: str, pred: str, rng: np.random.Generator) -> Pairs:
    """Raw values of classes; where a class has several, each image has one of them."""
    space = load_labels(labels)
    return [(encoder(space, gt, rng)[one], encoder(space, pred, rng)[other]) for one, other in pairs]


@dataclass(frozen=True)
class MixUp:
    """What was written by mistake: of which side, in which encoding; `names` are those that name it right."""

    labels: str
    gt: str
    pred: str
    names: tuple[str, ...]

    @property
    def title(self) -> str:
        own = load_labels(self.labels).default_encoding
        sides = [f"{side} in {name}" for side, name in (("gt", self.gt), ("pred", self.pred)) if name != own]
        return f"{self.labels}: {' and '.join(sides)}"

    def split(self, rng: np.random.Generator) -> Split:
        pairs = in_table(drawn(rng), self.labels)
        return Split(self.labels, encoded(pairs, self.labels, self.gt, self.pred, rng))


ENCODINGS = [
    MixUp("idd", "level3", "submission", ("submission", "level3+1")),
    MixUp("idd", "level3", "id", ("id",)),
    MixUp("idd", "level3", "cs", ("cs",)),
    MixUp("idd", "level3", "cs_train", ("cs_train",)),
    MixUp("idd", "level3", "level4", ("level4",)),
    MixUp("idd", "level3", "level2", ("level2",)),
    MixUp("idd", "level3", "level1", ("level1",)),
    MixUp("idd", "level3", "level3-1", ("level3-1",)),
    MixUp("idd", "level3", "id+1", ("id+1",)),
    MixUp("idd", "id", "level3", ("id",)),
    MixUp("idd", "cs", "level3", ("cs",)),
    MixUp("idd", "id", "id", ("id",)),
    MixUp("idd", "cs", "cs", ("cs",)),
    MixUp("cityscapes", "id", "train", ("train", "level2")),
    MixUp("cityscapes", "id", "submission", ("submission", "train+1", "level2+1")),
    MixUp("cityscapes", "id", "id+1", ("id+1",)),
    MixUp("cityscapes", "id", "id-1", ("id-1",)),
    MixUp("cityscapes", "id", "level1", ("level1",)),
    MixUp("cityscapes", "train", "id", ("train", "level2")),
    MixUp("cityscapes", "train", "train", ("train", "level2")),
    MixUp("idd-lite", "level1", "submission", ("submission", "level1+1")),
    MixUp("idd-lite", "level1", "id", ("id",)),
    MixUp("idd-lite", "level1", "level3", ("level3",)),
]


# --- sizes -----------------------------------------------------------------------------------------


def padded(pred: Map, rng: np.random.Generator) -> Map:
    multiple = int(rng.choice([32, 64, 128]))
    grow = [-size % multiple or multiple for size in pred.shape]
    if rng.random() < 0.5:
        grow[1] = 0
    places = [(0, more) if rng.random() < 0.7 else (more // 2, more - more // 2) for more in grow]
    return np.pad(pred, places, constant_values=int(rng.choice([0, 255])))


def cropped(pred: Map, rng: np.random.Generator) -> Map:
    height, width = pred.shape
    rows = int(height * rng.uniform(0.6, 0.92))
    if rng.random() < 0.5:
        top, left = (height - rows) // 2, 0
        return pred[top : top + rows]
    columns = int(width * rng.uniform(0.5, 0.9))
    left = (width - columns) // 2
    return pred[:, left : left + columns]


def letterboxed(pred: Map, rng: np.random.Generator) -> Map:
    side = int(rng.choice([256, 320, 416, 512, 640]))
    height, width = pred.shape
    scale = side / max(height, width)
    inner = resized(pred, round(height * scale), round(width * scale))
    canvas = np.full((side, side), int(rng.choice([0, 255])), np.uint8)
    top = (side - inner.shape[0]) // 2 if rng.random() < 0.7 else 0
    left = (side - inner.shape[1]) // 2 if top else 0
    canvas[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return canvas


def transposed(pred: Map, rng: np.random.Generator) -> Map:  # noqa: ARG001
    return np.ascontiguousarray(pred.T)


def resized(values: Map, height: int, width: int) -> Map:
    """By nearest neighbour, as Pillow has it."""
    return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.NEAREST))


SIZES: Mapping[str, Callable[[Map, np.random.Generator], Map]] = {
    "padded": padded,
    "cropped": cropped,
    "letterboxed": letterboxed,
    "transposed": transposed,
}


def _scenes(rng: np.random.Generator) -> Pairs:
    """Drawn or real streets; real ones are predicted as drawn ones are: the frame before has moved."""
    if not CAMVID.is_dir() or rng.random() < 0.6:
        return street(rng, float(rng.uniform(0.5, 0.95)))
    pairs = []
    for gt, _ in camvid(rng, 1.0):
        pred = synthetic.street_prediction(
            _raw(gt), int(rng.integers(1 << 30)), float(rng.uniform(0.5, 0.95))
        )
        pairs.append((gt, _void(pred)))
    return pairs


def of_other_size(kind: str, rng: np.random.Generator) -> Split:
    """Predictions that were padded, cropped, letterboxed or transposed, each alike in the whole split."""
    pairs = _scenes(rng)
    seed = int(rng.integers(1 << 30))
    pairs = [(gt, SIZES[kind](pred, np.random.default_rng(seed))) for gt, pred in pairs]
    return Split("idd", [(_raw(gt), _raw(pred)) for gt, pred in pairs])


def _raw(values: Map) -> Map:
    return np.where(values == 26, 255, values).astype(np.uint8)


# --- honest models ---------------------------------------------------------------------------------


def _random(gt: Map, pred: Map, rng: np.random.Generator, n: int) -> Map:  # noqa: ARG001
    return rng.integers(0, n, gt.shape).astype(np.uint8)


def _random_regions(gt: Map, pred: Map, rng: np.random.Generator, n: int) -> Map:  # noqa: ARG001
    small = rng.integers(0, n, (9, 16)).astype(np.uint8)
    return resized(small, *gt.shape)


def _constant(gt: Map, pred: Map, rng: np.random.Generator, n: int) -> Map:  # noqa: ARG001
    return np.full(gt.shape, rng.integers(n), np.uint8)


def _early(gt: Map, pred: Map, rng: np.random.Generator, n: int) -> Map:  # noqa: ARG001
    """A few frequent classes, in bands with noise: what the first steps of a training give."""
    coarse = resized(gt, 6, 10)
    common = np.bincount(gt[gt < n].ravel(), minlength=n).argsort()[::-1][:3]
    kept = np.where(np.isin(coarse, common), coarse, common[0])
    kept = np.where(rng.random(kept.shape) < 0.4, rng.choice(common, kept.shape), kept)
    return resized(kept.astype(np.uint8), *gt.shape)


def _untrained(gt: Map, pred: Map, rng: np.random.Generator, n: int) -> Map:  # noqa: ARG001
    """A network that was not trained: what looks alike gets one label, whichever."""
    shades = rng.integers(0, 4, n + 1)
    labels = rng.integers(0, n, 4).astype(np.uint8)
    noise = rng.random(gt.shape) < 0.2
    return np.where(noise, rng.choice(labels, gt.shape), labels[shades[gt]]).astype(np.uint8)


def _swapped(gt: Map, pred: Map, rng: np.random.Generator, n: int) -> Map:  # noqa: ARG001
    pairs = [(a, b) for a, b in synthetic.CONFUSABLE.items() if a < n and b < n]
    a, b = pairs[int(rng.integers(len(pairs)))]
    table = np.arange(256, dtype=np.uint8)
    table[a], table[b] = b, a
    return table[pred]


def _half(gt: Map, pred: Map, rng: np.random.Generator, n: int) -> Map:  # noqa: ARG001
    """Trained on half of the classes: the others are taken for one of those."""
    known = rng.permutation(n)[: n // 2]
    table = np.arange(256, dtype=np.uint8)
    for c in range(n):
        near, steps = c, 0
        while near not in known and steps < n:
            near, steps = synthetic.CONFUSABLE[near], steps + 1
        table[c] = near if near in known else known[0]
    return table[pred]


def _one_class(gt: Map, pred: Map, rng: np.random.Generator, n: int) -> Map:
    """One class is found, all else is another."""
    of_gt = np.unique(gt[gt < n])
    found = int(rng.choice(of_gt)) if of_gt.size else 0
    return np.where(pred == found, found, rng.integers(n)).astype(np.uint8)


def _noisy(gt: Map, pred: Map, rng: np.random.Generator, n: int) -> Map:
    share = rng.uniform(0.5, 0.95)
    return np.where(rng.random(gt.shape) < share, rng.integers(0, n, gt.shape), pred).astype(np.uint8)


HONEST: Mapping[str, Callable[[Map, Map, np.random.Generator, int], Map]] = {
    "random pixels": _random,
    "random regions": _random_regions,
    "constant": _constant,
    "one class against another": _one_class,
    "two similar classes swapped": _swapped,
    "half of the classes": _half,
    "very early epoch": _early,
    "untrained network": _untrained,
    "mostly noise": _noisy,
}


# Models that do the same to every image.
ALIKE = (
    "constant",
    "one class against another",
    "two similar classes swapped",
    "half of the classes",
    "untrained network",
)


def honest(kind: str, labels: str, rng: np.random.Generator) -> Split:
    """A bad model whose ids are right; what it does not know it does not know in every image."""
    seed = int(rng.integers(1 << 30))
    bad = HONEST[kind]
    pairs = []
    for gt, pred in drawn(rng):
        model = np.random.default_rng(seed) if kind in ALIKE else rng
        pairs.append((gt, bad(gt, pred, model, 26)))
    own = load_labels(labels).default_encoding
    return Split(labels, encoded(in_table(pairs, labels), labels, own, own, rng))


def _squeezed(pred: Map, rng: np.random.Generator) -> Map:
    sizes = [(256, 256), (512, 512), (480, 858), (240, 426), (288, 480), (256, 512), (135, 240), (540, 960)]
    return resized(pred, *sizes[int(rng.integers(len(sizes)))])


def honest_size(rng: np.random.Generator) -> Split:
    """Predictions of another resolution, squeezed or not, that show the whole picture."""
    pairs = _scenes(rng)
    seed = int(rng.integers(1 << 30))
    return Split(
        "idd", [(_raw(gt), _raw(_squeezed(pred, np.random.default_rng(seed)))) for gt, pred in pairs]
    )
