"""A seeded split of street-like label maps: the data of `gpu-eval demo` and of the benchmarks.

Noise images would be unfair to every decoder: deflate, filters and run-based counting all live from
the fact that label maps are piecewise constant. So a scene is drawn as annotators draw it (polygons
with crisp edges, thin poles, a crowd of two-wheelers), and its "prediction" errs as networks err:
wobbling boundaries, blobs of a confusable class, objects that were missed.

Values are IDD level-3 ids, 255 is void.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

LabelMap = npt.NDArray[np.uint8]

ROAD, DRIVABLE, SIDEWALK, NON_DRIVABLE, PERSON, RIDER, MOTORCYCLE, BICYCLE = range(8)
AUTORICKSHAW, CAR, TRUCK, BUS, VEHICLE, CURB, WALL, FENCE, GUARD_RAIL = range(8, 17)
BILLBOARD, SIGN, LIGHT, POLE, OBSTACLE, BUILDING, BRIDGE, VEGETATION, SKY = range(17, 26)
VOID = 255

# What a network takes each class for when it is wrong.
CONFUSABLE = {
    ROAD: DRIVABLE,
    DRIVABLE: ROAD,
    SIDEWALK: NON_DRIVABLE,
    NON_DRIVABLE: DRIVABLE,
    PERSON: RIDER,
    RIDER: PERSON,
    MOTORCYCLE: BICYCLE,
    BICYCLE: MOTORCYCLE,
    AUTORICKSHAW: CAR,
    CAR: AUTORICKSHAW,
    TRUCK: BUS,
    BUS: TRUCK,
    VEHICLE: TRUCK,
    CURB: SIDEWALK,
    WALL: FENCE,
    FENCE: WALL,
    GUARD_RAIL: FENCE,
    BILLBOARD: BUILDING,
    SIGN: BILLBOARD,
    LIGHT: POLE,
    POLE: OBSTACLE,
    OBSTACLE: BUILDING,
    BUILDING: OBSTACLE,
    BRIDGE: BUILDING,
    VEGETATION: BUILDING,
    SKY: VEGETATION,
    VOID: OBSTACLE,
}


class _Canvas:
    """A label map under construction; coordinates are fractions of (width, height)."""

    def __init__(self, height: int, width: int, rng: np.random.Generator) -> None:
        self.image = Image.new("L", (width, height), BUILDING)
        self.draw = ImageDraw.Draw(self.image)
        self.height, self.width, self.rng = height, width, rng

    def polygon(self, points: list[tuple[float, float]], label: int, jitter: float = 0.0) -> None:
        scaled = [(x * self.width, y * self.height) for x, y in points]
        if jitter:
            offsets = self.rng.normal(0.0, jitter * self.height, (len(scaled), 2))
            scaled = [(x + dx, y + dy) for (x, y), (dx, dy) in zip(scaled, offsets, strict=True)]
        self.draw.polygon(scaled, fill=label)

    def blob(self, x: float, y: float, rx: float, ry: float, label: int, rough: float = 0.12) -> None:
        """An outline of about 30 vertices around an ellipse, as a hand-drawn annotation has."""
        angles = np.linspace(0.0, 2.0 * math.pi, 30, endpoint=False)
        radii = 1.0 + self.rng.normal(0.0, rough, angles.size)
        self.polygon(
            [
                (x + rx * r * math.cos(a), y + ry * r * math.sin(a))
                for a, r in zip(angles, radii, strict=True)
            ],
            label,
        )

    def ragged_band(self, top: float, rough: float, bottom: float, label: int, steps: int) -> None:
        """A band across the whole width whose upper outline wanders, such as a line of trees."""
        xs = np.linspace(-0.02, 1.02, steps)
        wander = np.cumsum(self.rng.normal(0.0, rough, steps))
        ys = np.clip(top + wander - np.linspace(0.0, wander[-1], steps), 0.02, bottom)
        outline = [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]
        self.polygon([*outline, (1.02, bottom), (-0.02, bottom)], label)


def street_gt(seed: int, height: int = 1080, width: int = 1920) -> LabelMap:
    """One annotated street scene.

    Shape (height, width), uint8, IDD level-3 ids and 255. The same seed gives the same map on every
    machine with the same Pillow (polygon filling changed slightly in Pillow 11.1 and 11.2).
    """
    rng = np.random.default_rng([seed, 1])
    canvas = _Canvas(height, width, rng)
    horizon = float(rng.uniform(0.40, 0.50))
    _backdrop(canvas, horizon)
    _ground(canvas, horizon)
    _street_furniture(canvas, horizon)
    _traffic(canvas, horizon)
    if rng.random() < 0.6:  # the bonnet of the ego vehicle
        canvas.blob(0.5, 1.02, 0.45, 0.08, VOID, rough=0.01)
    return np.asarray(canvas.image, dtype=np.uint8).copy()


def _backdrop(canvas: _Canvas, horizon: float) -> None:
    rng = canvas.rng
    canvas.polygon([(0, 0), (1, 0), (1, horizon), (0, horizon)], SKY)
    x = -0.05
    while x < 1.0:  # facades
        w, top = float(rng.uniform(0.05, 0.18)), float(rng.uniform(0.08, horizon - 0.08))
        if rng.random() < 0.75:
            canvas.polygon([(x, top), (x + w, top), (x + w, horizon), (x, horizon)], BUILDING, 0.004)
        x += w * float(rng.uniform(0.8, 1.4))
    canvas.ragged_band(horizon - 0.08, 0.012, horizon + 0.05, VEGETATION, steps=150)
    for _ in range(int(rng.integers(4, 11))):  # tree crowns
        size = float(rng.uniform(0.02, 0.10))
        canvas.blob(float(rng.random()), float(rng.uniform(0.15, horizon)), size, size * 1.6, VEGETATION, 0.2)
    if rng.random() < 0.3:
        canvas.polygon(
            [(0, horizon - 0.2), (1, horizon - 0.17), (1, horizon - 0.1), (0, horizon - 0.14)], BRIDGE
        )
    for _ in range(int(rng.integers(0, 4))):  # wires, annotated as obstacles
        y0, y1 = rng.uniform(0.05, horizon - 0.1, 2)
        canvas.polygon([(0, y0), (1, y1), (1, y1 + 0.003), (0, y0 + 0.003)], OBSTACLE)


def _ground(canvas: _Canvas, horizon: float) -> None:
    rng = canvas.rng
    centre = float(rng.uniform(0.4, 0.6))
    canvas.polygon([(0, horizon + 0.02), (1, horizon + 0.02), (1, 1), (0, 1)], DRIVABLE, 0.006)
    for side in (-1, 1):
        outer = centre + side * 0.9
        verge = NON_DRIVABLE if rng.random() < 0.5 else SIDEWALK
        canvas.polygon([(centre + side * 0.03, horizon), (outer, 0.8), (outer, horizon)], verge, 0.01)
        barrier = [WALL, FENCE, GUARD_RAIL][int(rng.integers(0, 3))]
        canvas.polygon(
            [(centre + side * 0.05, horizon), (outer, horizon + 0.12), (outer, horizon - 0.06)],
            barrier,
            0.008,
        )
    canvas.polygon(
        [(centre - 0.03, horizon), (centre + 0.03, horizon), (centre + 0.62, 1), (centre - 0.62, 1)],
        CURB,
        0.004,
    )
    canvas.polygon(
        [(centre - 0.025, horizon), (centre + 0.025, horizon), (centre + 0.60, 1), (centre - 0.60, 1)],
        ROAD,
        0.004,
    )
    for _ in range(int(rng.integers(2, 7))):  # puddles and dirt on the roadside
        canvas.blob(float(rng.random()), float(rng.uniform(horizon + 0.1, 0.95)), 0.03, 0.012, DRIVABLE, 0.2)


def _street_furniture(canvas: _Canvas, horizon: float) -> None:
    rng = canvas.rng
    for _ in range(int(rng.integers(6, 15))):
        x, top, w = float(rng.random()), float(rng.uniform(0.05, horizon)), float(rng.uniform(0.002, 0.006))
        foot = horizon + float(rng.uniform(0.02, 0.15))
        canvas.polygon([(x, top), (x + w, top), (x + w, foot), (x, foot)], POLE)
        if rng.random() < 0.4:
            canvas.polygon(
                [(x - 0.01, top), (x + 0.012, top), (x + 0.012, top + 0.03), (x - 0.01, top + 0.03)],
                SIGN if rng.random() < 0.6 else LIGHT,
            )
    for _ in range(int(rng.integers(3, 9))):
        x, y, w, h = rng.uniform([0, 0.15, 0.02, 0.02], [0.95, horizon, 0.09, 0.06])
        canvas.polygon([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], BILLBOARD, 0.002)


def _traffic(canvas: _Canvas, horizon: float) -> None:
    rng = canvas.rng
    kinds = [CAR, CAR, AUTORICKSHAW, TRUCK, BUS, VEHICLE, MOTORCYCLE, MOTORCYCLE, BICYCLE, PERSON, PERSON]
    feet = np.sort(rng.uniform(horizon + 0.04, 0.95, int(rng.integers(14, 32))))  # far ones first
    for foot in feet.tolist():
        kind = kinds[int(rng.integers(0, len(kinds)))]
        scale = (foot - horizon) * float(rng.uniform(0.35, 0.6))
        x = float(rng.random())
        if kind == PERSON:
            canvas.blob(x, foot - scale * 0.5, scale * 0.1, scale * 0.5, PERSON)
        elif kind in (MOTORCYCLE, BICYCLE):
            canvas.blob(x, foot - scale * 0.25, scale * 0.2, scale * 0.25, kind)
            canvas.blob(x, foot - scale * 0.6, scale * 0.1, scale * 0.35, RIDER)
        else:
            size = scale * (1.6 if kind in (TRUCK, BUS) else 1.0)
            canvas.blob(x, foot - size * 0.4, size * 0.4, size * 0.4, kind, rough=0.05)
            canvas.polygon(
                [(x - 0.004, foot - 0.01), (x + 0.004, foot - 0.01), (x + 0.004, foot), (x - 0.004, foot)],
                VOID,
            )


def street_prediction(gt: LabelMap, seed: int, quality: float = 0.75) -> LabelMap:
    """What a network might answer for `gt`.

    `quality` in 0..1 sets how far boundaries wobble and how much of the map is taken for a confusable
    class; 1.0 gives the ground truth with its void filled in. Shape and dtype of `gt`; void never
    appears, as in real submissions.
    """
    rng = np.random.default_rng([seed, 2])
    height, width = gt.shape
    severity = 1.0 - quality
    # Boundary wobble: a smooth displacement field with nodes every 16 px at 1080p, the scale at which
    # upsampled logits can bend.
    stride = max(2, height // 68)
    reach = severity * 18.0 * height / 1080.0
    dy = _smooth_noise(rng, height, width, stride) * reach
    dx = _smooth_noise(rng, height, width, stride) * reach
    ys = np.clip(np.arange(height, dtype=np.float32)[:, None] + dy, 0, height - 1).astype(np.intp)
    xs = np.clip(np.arange(width, dtype=np.float32)[None, :] + dx, 0, width - 1).astype(np.intp)
    pred = gt[ys, xs]
    # Blobs of a confusable class, and whole regions that were missed.
    table = np.arange(256, dtype=np.uint8)
    table[list(CONFUSABLE)] = list(CONFUSABLE.values())
    wrong = _smooth_noise(rng, height, width, stride * 4) + 0.35 * _smooth_noise(rng, height, width, stride)
    threshold = 3.0 - 5.6 * severity if severity > 0 else math.inf
    pred = np.where(wrong > threshold, table[pred], pred)
    answer: LabelMap = np.where(pred == VOID, table[VOID], pred)
    return answer


def _smooth_noise(rng: np.random.Generator, height: int, width: int, stride: int) -> npt.NDArray[np.float32]:
    """Gaussian noise on a grid of `stride` pixels, enlarged bicubically. Shape (height, width)."""
    coarse = rng.standard_normal((height // stride + 2, width // stride + 2)).astype(np.float32)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(smooth, dtype=np.float32)


def save_with_pillow(path: Path, label_map: LabelMap) -> None:
    """Write 8-bit greyscale PNG as most Python tooling does: `Image.save` with its defaults."""
    Image.fromarray(label_map).save(path)


def write_split(
    folder: Path,
    pairs: int,
    *,
    seed: int = 0,
    height: int = 1080,
    width: int = 1920,
    drives: int = 4,
    quality: float = 0.75,
    save: Callable[[Path, LabelMap], None] = save_with_pillow,
) -> tuple[Path, Path]:
    """Write `pairs` scenes in IDD's folder layout under `folder`; return the gt and the prediction root.

    Files are `<root>/<drive>/frame<number>_gtFine_labellevel3Ids.png`. Frames of a drive differ in
    quality together (some drives are harder), as frames of a real drive do.
    """
    gts, preds = folder / "gt", folder / "pred"
    difficulty = np.random.default_rng([seed, 3]).normal(0.0, 0.05, drives)
    for number in range(pairs):
        drive = number % drives
        name = f"frame{number:04d}_gtFine_labellevel3Ids.png"
        gt = street_gt(seed * 1_000_003 + number, height, width)
        frame_quality = float(np.clip(quality + difficulty[drive], 0.0, 1.0))
        pred = street_prediction(gt, seed * 1_000_003 + number, frame_quality)
        for root, label_map in ((gts, gt), (preds, pred)):
            (root / str(drive)).mkdir(parents=True, exist_ok=True)
            save(root / str(drive) / name, label_map)
    return gts, preds
