"""`python -m bench instances`: overlaps and AP of a whole split, against cityscapesScripts and the floor.

Equality first, on the images that the rival scores too; then milliseconds per image on one core, each
repeat beginning with another contestant; then the memory of a command at 100 masks an image.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import math
import os
import shutil
import statistics
import tempfile
import time
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

from bench import commands, machine, rivals
from bench.cpu import Timing, ratio
from bench.output import write_json
from bench.workload import HEIGHT, WIDTH, zlib_stream
from gpu_eval import score_instances, synthetic
from gpu_eval.engines.cpu.engine import CpuEngine
from gpu_eval.engines.instance import InstanceJob
from gpu_eval.inputs.instance_split import read_split
from gpu_eval.inputs.sources import open_source
from gpu_eval.labels import load_labels
from gpu_eval.labels.instance_space import load_instances
from gpu_eval.results.instance_run import InstanceRun

IDD = load_instances("idd")
GT_INSTANCES, MASKS = 20, 25
# Images of a drive: the rival, which takes most of a second for one, scores the first drive alone.
PER_DRIVE = 20
SHARD = 128
GOAL = 15.0
MEMORY_IMAGES, MEMORY_MASKS, MEMORY_DISTINCT = 100, 100, 4

SCRIPT = "cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling"
VERTICES = 36


@dataclass(frozen=True)
class Split:
    """A split on disk, IDD's layout: `images` images in drives of PER_DRIVE."""

    root: Path
    images: int

    @property
    def gts(self) -> Path:
        return self.root / "gt"

    @property
    def preds(self) -> Path:
        return self.root / "pred"

    @property
    def first_drive(self) -> int:
        """How many images the first drive has."""
        return min(self.images, PER_DRIVE)

    @cached_property
    def streams(self) -> list[tuple[bytes, int]]:
        """The zlib stream of each gt and mask, and how long its rows are in bytes, filter byte included."""
        gts = [(zlib_stream(path), 2 * WIDTH + 1) for path in sorted(self.gts.rglob("*.png"))]
        return gts + [(zlib_stream(path), WIDTH + 1) for path in sorted(self.preds.rglob("*.png"))]

    def describe(self) -> dict[str, Any]:
        sizes = {
            name: [path.stat().st_size for path in root.rglob("*.png")]
            for name, root in (("gt", self.gts), ("mask", self.preds))
        }
        return {
            "images": self.images,
            "height": HEIGHT,
            "width": WIDTH,
            "masks_per_image": len(sizes["mask"]) / self.images,
            **{f"mean_{name}_bytes": round(statistics.mean(size), 1) for name, size in sizes.items()},
        }


# --- the workload -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shape:
    """The outline of one object; coordinates in pixels."""

    label: int
    x: float
    y: float
    rx: float
    ry: float
    radii: npt.NDArray[np.float64]

    def draw(self, image: Image.Image, value: int) -> None:
        angles = np.linspace(0, 2 * math.pi, VERTICES, endpoint=False)
        xs, ys = (
            self.x + self.rx * self.radii * np.cos(angles),
            self.y + self.ry * self.radii * np.sin(angles),
        )
        ImageDraw.Draw(image).polygon(list(zip(xs.tolist(), ys.tolist(), strict=True)), fill=value)


def build(root: Path, images: int, seed: int = 0, masks: int = MASKS) -> Split:
    """Write `images` street scenes with GT_INSTANCES objects each and `masks` predictions each.

    Three in four predictions are near hits of an object, the rest lies anywhere. What a `done` file marks
    as written is used again.
    """
    split = Split(root, images)
    if not (root / "done").exists():
        for number in range(images):
            _write_image(split, number, np.random.default_rng([seed, 5, number]), masks)
        (root / "done").touch()
    return split


def _write_image(split: Split, number: int, rng: np.random.Generator, masks: int) -> None:
    drive, frame = str(number // PER_DRIVE), f"frame{number:05d}"
    objects = sorted((_object(rng) for _ in range(GT_INSTANCES)), key=lambda one: one.y)  # far ones first
    gt = Image.fromarray(_background(int(rng.integers(1 << 30))).astype(np.int32))
    for instance, one in enumerate(objects):
        one.draw(gt, one.label * 1000 + instance)
    folder = split.preds / drive / frame
    for path in (split.gts / drive, folder):
        path.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(gt).astype(np.uint16)).save(
        split.gts / drive / f"{frame}_gtFine_instanceids.png"
    )
    lines = []
    for at in range(masks):
        hit = rng.random() < 0.75
        one = _near(rng, objects[int(rng.integers(len(objects)))]) if hit else _object(rng)
        mask = Image.new("L", (WIDTH, HEIGHT))
        one.draw(mask, 255)
        mask.save(folder / f"{at:03d}.png")
        confidence = rng.beta(5, 2) if hit else rng.beta(2, 4)
        lines.append(f"{frame}/{at:03d}.png {one.label} {confidence:.6f}\n")
    folder.with_name(f"{frame}_leftImg8bit.txt").write_text("".join(lines))


def _object(rng: np.random.Generator) -> _Shape:
    """An object on the ground, the larger the nearer: 0.05 to 6 % of the image."""
    y = float(rng.uniform(0.45, 0.9))
    size = (y - 0.4) * HEIGHT * float(rng.uniform(0.2, 0.55))
    tall = float(rng.choice([0.5, 0.8, 1.3]))
    radii = 1 + rng.normal(0, 0.06, VERTICES)
    return _Shape(
        int(rng.choice(IDD.ids)), float(rng.random()) * WIDTH, y * HEIGHT - size / 2, size / tall, size, radii
    )


def _near(rng: np.random.Generator, one: _Shape) -> _Shape:
    """What a detector answers for an object: shifted, resized, with another outline, sometimes misnamed."""
    dx, dy = rng.normal(0, 0.06, 2)
    sx, sy = rng.normal(1, 0.06, 2)
    label = int(rng.choice(IDD.ids)) if rng.random() < 0.1 else one.label
    radii = one.radii + rng.normal(0, 0.04, VERTICES)
    return _Shape(label, one.x + dx * one.rx, one.y + dy * one.ry, one.rx * sx, one.ry * sy, radii)


def _background(seed: int) -> npt.NDArray[np.int64]:
    """A street scene as raw ids, its traffic taken for road: objects are drawn one by one."""
    level3 = load_labels("idd").encoding("id").table
    raw_of = np.zeros(256, np.int64)
    for raw in range(255, -1, -1):
        if raw in IDD.known_ids and raw not in IDD.void_ids:
            raw_of[level3[raw]] = raw
    raw_of[synthetic.VOID] = min(IDD.void_ids)
    raw_of[[level3[raw] for raw in IDD.ids]] = raw_of[synthetic.ROAD]
    return raw_of[synthetic.street_gt(seed, HEIGHT, WIDTH)]


# --- the contestants ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Contestant:
    """`work` goes over `images` images once; None where the tool is not installed."""

    key: str
    label: str
    work: Callable[[], object] | None
    images: int


def _line_up(split: Split, folder: Path) -> list[Contestant]:
    script = _load_script()
    theirs = None if script is None else functools.partial(rival, script, split, folder)
    few = f"cityscapesScripts evaluateImgLists, the first {split.first_drive} images"
    whole, alone = "gpu-eval, the whole run: lists, overlaps, AP, tables", "gpu-eval, its engine alone"
    floor = "floor: libdeflate inflate of gt and masks, nothing else"
    return [
        Contestant("ours", whole, functools.partial(ours, split, folder), split.images),
        Contestant("engine", alone, _engine_alone(split), split.images),
        Contestant("floor", floor, functools.partial(_inflate, split), split.images),
        Contestant("cityscapes", few, theirs, split.first_drive),
    ]


def ours(split: Split, folder: Path, drive: str = "") -> InstanceRun:
    """The whole of `score_instances` on one core; of one drive if it is named.

    All images are one shard: two shards in flight would keep two cores busy.
    """
    return score_instances(
        split.gts / drive,
        split.preds / drive,
        out=folder / "run",
        threads=1,
        shard_size=split.images,
        overwrite=True,
    )


def _engine_alone(split: Split) -> Callable[[], None]:
    gts, preds = open_source(split.gts), open_source(split.preds)
    images = read_split(gts, preds, IDD).images
    engine = CpuEngine(1)

    def count() -> None:
        for first in range(0, len(images), SHARD):
            for result in engine.count(InstanceJob(), images[first : first + SHARD], gts, preds):
                if result.errors or result.decoders["pillow"]:
                    raise ValueError(f"not the engine under test: {result.errors or result.decoders}")

    return count


def _inflate(split: Split) -> None:
    """Inflate every stream from memory into one buffer."""
    inflate = rivals.libdeflate().libdeflate_zlib_decompress
    state, _ = rivals.floor_state()
    target = _target()
    for stream, row in split.streams:
        if inflate(state, stream, len(stream), target.ctypes.data, HEIGHT * row, None) != 0:
            raise ValueError("a stream does not inflate")


@functools.cache
def _target() -> npt.NDArray[np.uint8]:
    return np.zeros(HEIGHT * (2 * WIDTH + 1), np.uint8)


def _load_script() -> Any:
    """The script with IDD's labels in place of its own and the two things mended that NumPy 2 broke.

    It counts as published; only `np.in1d` is gone and counts are no longer Python's integers, which its
    JSON needs. None where cityscapesScripts is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what its import has to say about its own text
        try:
            script = importlib.import_module(SCRIPT)
        except ImportError:
            return None
        reader = importlib.import_module("cityscapesscripts.evaluation.instances2dict")
        label = importlib.import_module("cityscapesscripts.helpers.labels").Label
    evaluated = dict(zip(IDD.ids, IDD.names, strict=True))
    labels = [
        label(evaluated.get(raw, f"label {raw}"), raw, raw, "", 0, raw in evaluated, raw in IDD.void_ids, ())
        for raw in [*IDD.ids, *sorted({*IDD.known_ids, 255} - set(IDD.ids))]
    ]
    for module in (script, reader):
        module.labels = labels
        module.id2label = {one.id: one for one in labels}
    script.np = types.SimpleNamespace(**{**vars(np), "in1d": np.isin})
    script.writeDict2JSON = _write_json
    script.args.quiet = True
    script.args.JSONOutput = False
    return script


def rival(script: Any, split: Split, folder: Path) -> npt.NDArray[np.float64]:
    """`evaluateImgLists` on the first drive; its AP matrix, (classes, thresholds).

    It caches the ground truth and leaves its matches in the working folder: both are removed.
    """
    gts = sorted((split.gts / "0").glob("*.png"))
    preds = sorted((split.preds / "0").glob("*.txt"))
    scratch = folder / "rival"
    scratch.mkdir()
    script.args.gtInstancesFile = str(scratch / "gtInstances.json")
    script.args.predictionPath = str(split.preds)
    with contextlib.chdir(scratch):
        found = script.evaluateImgLists(
            [str(path) for path in preds], [str(path) for path in gts], script.args
        )
    shutil.rmtree(scratch)
    return np.array(found["resultApMatrix"][0])


def _write_json(content: Any, path: str) -> None:
    """The script's `writeDict2JSON`, for NumPy's integers too."""
    Path(path).write_text(json.dumps(content, default=int, sort_keys=True, indent=4))


# --- the run ------------------------------------------------------------------------------------


def run(*, images: int, repeat: int, seed: int, cache: Path | None, out: Path) -> int:
    """Returns the exit code: 1 if the AP differs or a command fails, 0 otherwise.

    With `cache` the drawn images are kept in that folder and used again.
    """
    console = Console(width=None if Console().is_terminal else 160)
    report: dict[str, Any] = {
        "benchmark": "instances",
        "unit": "ms per image, wall, one thread, files in the page cache",
        "repeat": repeat,
        "machine": machine.describe(),
    }
    console.print(machine.headline(report["machine"]))
    with tempfile.TemporaryDirectory(prefix="gpu-eval-bench-") as name:
        folder = Path(name)
        try:
            report["memory"] = _memory(folder)
        except commands.CommandFailedError as error:
            print(error)
            return 1
        split = build((cache or folder) / f"instances-{images}-{seed}", images, seed)
        contestants = _line_up(split, folder)
        disagreement = _disagreement(contestants, split, folder)
        if disagreement:
            console.print(f"[bold red]not timed: {disagreement}")
            return 1
        timings = _measure([c for c in contestants if c.work is not None], repeat)
        report["workload"] = split.describe()
    report["contestants"] = [_entry(c, timings) for c in contestants]
    measured = ratio(timings, "cityscapes", "ours")
    report["goal"] = {
        "goal": f">= {GOAL:g}x cityscapesScripts",
        "measured": None if measured is None else round(measured, 2),
        "reached": None if measured is None else measured >= GOAL,
    }
    _show(console, report)
    write_json(out, report)
    console.print(f"\nwritten: {out}")
    return 0


def _disagreement(contestants: list[Contestant], split: Split, folder: Path) -> str | None:
    """In which cells of the AP matrix the script and we differ, on the first drive; None if in none."""
    theirs = next((c.work for c in contestants if c.key == "cityscapes"), None)
    if theirs is None:
        return None
    rows = ours(split, folder, "0").average_precision.to_pylist()
    mine = np.array([row["ap"] for row in rows if row["protocol"] == "cityscapes"])
    expected = np.asarray(theirs()).ravel()
    same = np.isclose(mine, expected, rtol=0, atol=1e-12, equal_nan=True)
    if same.all() and np.nanmean(expected) > 0.05:
        return None
    return (
        f"{int((~same).sum())} of {same.size} cells of the AP matrix differ; mean {np.nanmean(expected):.4f}"
    )


def _measure(contestants: list[Contestant], repeat: int) -> dict[str, Timing]:
    """Wall milliseconds per image; a slow minute of a shared machine hits all alike."""
    timings = {contestant.key: Timing() for contestant in contestants}
    for contestant in contestants:
        if contestant.key != "cityscapes":  # `_disagreement` has warmed it up
            contestant.work()
    for number in range(repeat):
        first = number % len(contestants)
        for contestant in contestants[first:] + contestants[:first]:
            wall, busy = time.perf_counter(), time.process_time()
            contestant.work()
            wall, busy = time.perf_counter() - wall, time.process_time() - busy
            timings[contestant.key].wall.append(wall * 1e3 / contestant.images)
            timings[contestant.key].cores.append(busy / wall)
    return timings


def _memory(folder: Path) -> dict[str, Any]:
    """The peak of `gpu-eval instances` on MEMORY_IMAGES images of MEMORY_MASKS masks, all cores.

    The images are hard links to MEMORY_DISTINCT ones.
    """
    drawn = build(folder / "drawn", MEMORY_DISTINCT, seed=1, masks=MEMORY_MASKS)
    gts, preds = folder / "many" / "gt", folder / "many" / "pred"
    for root, target in ((drawn.gts, gts), (drawn.preds, preds)):
        for drive in range(MEMORY_IMAGES // MEMORY_DISTINCT):
            shutil.copytree(root / "0", target / str(drive), copy_function=os.link)
    done = commands.gpu_eval(folder / "log", "instances", gts, preds, "-o", folder / "many-run")
    return {
        "images": MEMORY_IMAGES,
        "masks_per_image": MEMORY_MASKS,
        "wall_s": round(done.wall_s, 3),
        "peak_mb": round(done.peak_mb, 1),
        "unpacked_masks_of_an_image_mb": MEMORY_MASKS * HEIGHT * WIDTH / 1e6,
    }


def _entry(contestant: Contestant, timings: dict[str, Timing]) -> dict[str, Any]:
    timing = timings.get(contestant.key)
    entry = {"key": contestant.key, "label": contestant.label, "images": contestant.images}
    if timing is None:
        return {**entry, "installed": False}
    return {
        **entry,
        "installed": True,
        "min_ms": round(min(timing.wall), 3),
        "median_ms": round(statistics.median(timing.wall), 3),
        "all_ms": [round(x, 3) for x in timing.wall],
        "all_cpu_ms": [round(x * y, 3) for x, y in zip(timing.wall, timing.cores, strict=True)],
        "busy_cores": round(statistics.median(timing.cores), 3),
        "ratio_to_ours": ratio(timings, contestant.key, "ours"),
        "ratio_to_floor": ratio(timings, contestant.key, "floor"),
    }


def _show(console: Console, report: dict[str, Any]) -> None:
    about = report["workload"]
    table = Table(
        title=f"\n{about['images']} images of 1080p, {about['masks_per_image']:g} masks each "
        f"({about['mean_mask_bytes'] / 1000:.1f} kB; gt {about['mean_gt_bytes'] / 1000:.1f} kB); ms per image"
    )
    table.add_column("contestant")
    for column in ("min", "median", "min CPU", "to ours", "to floor", "busy cores"):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in report["contestants"]:
        if not entry["installed"]:
            table.add_row(entry["label"], "not installed")
            continue
        table.add_row(
            entry["label"],
            f"{entry['min_ms']:.2f}",
            f"{entry['median_ms']:.2f}",
            f"{min(entry['all_cpu_ms']):.2f}",
            f"{entry['ratio_to_ours']:.2f}x",
            f"{entry['ratio_to_floor']:.2f}x",
            f"{entry['busy_cores']:.2f}",
        )
    console.print(table)
    goal, memory = report["goal"], report["memory"]
    verdict = "cannot be told: cityscapesScripts is not installed"
    if goal["measured"] is not None:
        verdict = f"{goal['measured']:.1f}x, " + ("reached" if goal["reached"] else "NOT reached")
    console.print(f"  {goal['goal']:<34} {verdict}", highlight=False)
    console.print(
        f"  peak memory, {memory['images']} images of {memory['masks_per_image']} masks, all cores: "
        f"{memory['peak_mb']:.0f} MB",
        highlight=False,
    )
