"""The worst images of a run: which they are, and their section of the page.

Pictures come finished from outside: this layer never touches pixels.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gpu_eval.page import findings
from gpu_eval.page.words import class_name, number, percent
from gpu_eval.results.semantic_run import Run

# What the pixels of an error map mean; the order is that of their indices.
ERROR_COLOURS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "right": (214, 219, 224),
        "ground truth void": (120, 128, 138),
        "wrong, same parent class": (232, 163, 38),
        "wrong, another parent class": (205, 38, 56),
        "predicted void": (124, 58, 190),
    }
)


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """One image as three PNGs of one size: gt, prediction and error map."""

    image_id: int
    height: int
    width: int
    gt: bytes
    pred: bytes
    errors: bytes


@dataclass(frozen=True, slots=True)
class Pictures:
    """The thumbnails of the worst images, worst first, or a note that says why there are none."""

    thumbnails: tuple[Thumbnail, ...]
    note: str | None = None


def worst_images(run: Run, count: int) -> list[dict[str, Any]]:
    """The rows of the images table with the lowest mIoU at the finest level, worst first.

    Images whose prediction is missing or broken are left out: there is nothing to see.
    """
    score = f"miou_level{run.labels.levels[0].number}"
    images = run.images
    seen = images.filter(pc.and_(pc.equal(images["status"], "ok"), pc.is_valid(images[score])))
    seen = seen.filter(pc.invert(pc.is_nan(seen[score])))
    rows: list[dict[str, Any]] = seen.sort_by([(score, "ascending"), ("image_id", "ascending")]).slice(
        0, count
    ).to_pylist()  # fmt: skip
    return rows


def section(run: Run, pictures: Pictures | None) -> str:
    if pictures is None or not pictures.thumbnails:
        note = pictures.note if pictures and pictures.note else "There are no pictures in this report."
        return (
            f'<p class="muted">{escape(note)}</p><p class="muted">To see the worst images: '
            "<code>gpu-eval report RUN --images GTS PREDS</code></p>"
        )
    ids = pa.array([thumb.image_id for thumb in pictures.thumbnails], pa.int64())
    seen = run.images.filter(pc.is_in(run.images["image_id"], value_set=ids))
    rows = {row["image_id"]: row for row in seen.to_pylist()}
    legend = "".join(
        f'<li><i style="background:rgb{colour}"></i>{escape(meaning)}</li>'
        for meaning, colour in ERROR_COLOURS.items()
    )
    told = _told(run, list(rows))
    figures = []
    for rank, thumb in enumerate(pictures.thumbnails, 1):
        row = rows[thumb.image_id]
        score = row[f"miou_level{run.labels.levels[0].number}"]
        views = "".join(
            f'<figure><img decoding="async" width="{thumb.width}" height="{thumb.height}" '
            f'alt="{escape(what + " of " + row["key"])}" '
            f'src="data:image/png;base64,{base64.b64encode(data).decode()}"><figcaption>{what}</figcaption>'
            "</figure>"
            for what, data in (
                ("Ground truth", thumb.gt), ("Prediction", thumb.pred), ("Error map", thumb.errors),
            )
        )  # fmt: skip
        figures.append(
            f'<article class="worst"><h3><span class="rank">{rank}</span> {escape(row["key"])}</h3>'
            f"<p>mIoU <b>{number(score)}</b> · pixel accuracy <b>{number(row['pixel_accuracy'])}</b>"
            f"{told.get(thumb.image_id, '')}</p>"
            f'<div class="views">{views}</div></article>'
        )
    return f'<ul class="legend" aria-label="Colours of the error maps">{legend}</ul>' + "".join(figures)


def _told(run: Run, ids: Sequence[int], count: int = 3) -> dict[int, str]:
    """The largest mistakes of single images, in words."""
    names = [*run.labels.names, "void"]
    colours = [*findings.colours(run.labels, run.labels.levels[0].number), "#000000"]
    told = {}
    cells = run.cells.filter(pc.is_in(run.cells["image_id"], value_set=pa.array(ids, pa.int64())))
    of_image: dict[int, list[dict[str, Any]]] = {}
    for cell in cells.to_pylist():
        of_image.setdefault(cell["image_id"], []).append(cell)
    for image_id, found in of_image.items():
        total = sum(cell["pixels"] for cell in found)
        wrong = [cell for cell in found if cell["gt"] not in (cell["pred"], run.labels.void)]
        wrong.sort(key=lambda cell: -cell["pixels"])
        words = [
            f"{class_name(names, colours, cell['gt'])} called {class_name(names, colours, cell['pred'])} "
            f"({percent(cell['pixels'] / total)})"
            for cell in wrong[:count]
        ]
        told[image_id] = " · mostly " + ", ".join(words) if words else ""
    return told
