"""The seeded street-like split that every contestant scores, and what it consists of."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from gpu_eval import synthetic

HEIGHT, WIDTH = 1080, 1920
VOID = 26  # index of void in the 27 x 27 matrices

# Raw value -> row or column of the matrix, for the contestants that map values themselves.
CLASS_OF = np.full(256, VOID, dtype=np.uint8)
CLASS_OF[:VOID] = np.arange(VOID)


@dataclass(frozen=True)
class Facts:
    """What the workload is, for the reader of a figure."""

    writer: str
    seed: int
    pairs: int
    height: int
    width: int
    bytes: int
    mean_file_bytes: float
    gt_edges_per_row: float
    pred_edges_per_row: float
    row_filters: dict[str, float]


@dataclass(frozen=True)
class Workload:
    """One split on disk.

    `remapped_gts` are copies of the ground truth with 255 written as 26, for tools that index a matrix
    with the raw value (cityscapesScripts). `payloads` are the zlib streams of gt, pred, gt, pred, ...
    """

    gts: list[Path]
    preds: list[Path]
    remapped_gts: list[Path]
    payloads: list[bytes]
    facts: Facts

    def describe(self) -> dict[str, Any]:
        return asdict(self.facts)


def save_with_opencv(path: Path, label_map: synthetic.LabelMap) -> None:
    """Write with `cv2.imwrite` and its defaults; raises ImportError without OpenCV."""
    import cv2

    if not cv2.imwrite(str(path), label_map):
        raise OSError(f"OpenCV could not write {path}")


WRITERS = {"pillow": synthetic.save_with_pillow, "opencv": save_with_opencv}


def build(folder: Path, writer: str, pairs: int, seed: int = 0) -> Workload:
    """Write `pairs` 1080p scenes under `folder` with `writer` and read back what they are made of."""
    save = WRITERS[writer]
    gt_root, pred_root = synthetic.write_split(
        folder, pairs, seed=seed, height=HEIGHT, width=WIDTH, save=save
    )
    gts = sorted(gt_root.rglob("*.png"))
    preds = [pred_root / path.relative_to(gt_root) for path in gts]
    remapped_gts = []
    edges = {"gt": 0, "pred": 0}
    for gt, pred in zip(gts, preds, strict=True):
        gt_map, pred_map = (np.asarray(Image.open(path)) for path in (gt, pred))
        edges["gt"] += _edges(gt_map)
        edges["pred"] += _edges(pred_map)
        remapped = folder / "gt_void26" / gt.relative_to(gt_root)
        remapped.parent.mkdir(parents=True, exist_ok=True)
        save(remapped, CLASS_OF[gt_map])
        remapped_gts.append(remapped)
    payloads = [zlib_stream(path) for pair in zip(gts, preds, strict=True) for path in pair]
    size = sum(path.stat().st_size for path in (*gts, *preds))
    facts = Facts(
        writer=writer,
        seed=seed,
        pairs=pairs,
        height=HEIGHT,
        width=WIDTH,
        bytes=size,
        mean_file_bytes=round(size / (2 * pairs), 1),
        gt_edges_per_row=round(edges["gt"] / (pairs * HEIGHT), 2),
        pred_edges_per_row=round(edges["pred"] / (pairs * HEIGHT), 2),
        row_filters=_filter_shares(payloads),
    )
    return Workload(gts, preds, remapped_gts, payloads, facts)


def link_many(folder: Path, pairs: int, distinct: int = 16, seed: int = 0) -> tuple[Path, Path]:
    """A split of `pairs` pairs that are hard links to `distinct` ones; return the gt and prediction root."""
    gt_root, pred_root = synthetic.write_split(
        folder / "distinct", distinct, seed=seed, height=HEIGHT, width=WIDTH
    )
    roots = (folder / "gt", folder / "pred")
    for source, root in zip((gt_root, pred_root), roots, strict=True):
        originals = sorted(source.rglob("*.png"))
        for number in range(pairs):
            drive = root / str(number // 500)
            drive.mkdir(parents=True, exist_ok=True)
            os.link(originals[number % distinct], drive / f"frame{number:05d}_gtFine_labellevel3Ids.png")
    return roots


def zlib_stream(path: Path) -> bytes:
    """The concatenated IDAT chunks of a PNG that this benchmark wrote itself; checks nothing."""
    data = path.read_bytes()
    at, parts = 8, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            parts.append(data[at + 8 : at + 8 + size])
        at += 12 + size
    return b"".join(parts)


def _edges(label_map: npt.NDArray[np.uint8]) -> int:
    return int(np.count_nonzero(label_map[:, 1:] != label_map[:, :-1]))


def _filter_shares(payloads: list[bytes]) -> dict[str, float]:
    """Share of rows per PNG filter type over all maps."""
    import zlib

    counts = np.zeros(5, dtype=np.int64)
    for payload in payloads:
        raw = np.frombuffer(zlib.decompress(payload), dtype=np.uint8)
        counts += np.bincount(raw[:: WIDTH + 1], minlength=5)
    names = ("none", "sub", "up", "average", "paeth")
    return {name: round(float(c / counts.sum()), 4) for name, c in zip(names, counts, strict=True)}
