"""Run folders made of matrices: what `score` would have written, without a pixel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_eval.errors import CorruptImage
from gpu_eval.labels import as_labels
from gpu_eval.results.semantic_run import Run
from gpu_eval.run_folder import folder as run_folder
from gpu_eval.run_folder import parts
from gpu_eval.run_folder import semantic_tables as tables
from gpu_eval.run_folder.semantic_schema import describe_labels
from gpu_eval.run_folder.semantic_tables import ImageRow
from gpu_eval.scheduling.shards import cut
from gpu_eval.tasks.summary import error_facts
from tests.support.run_facts import described, frame_key, image_row

Matrix = npt.NDArray[np.int64]


def write_run(
    folder: Path,
    matrices: Mapping[str, Matrix | None],
    *,
    labels: str = "idd-lite",
    resolution: list[int] | str = "native",
    shard_size: int = 64,
    units: str | None = "drives",
    **facts: Any,
) -> Run:
    """A complete run of these images by key ("drive/name"); None is an image that could not be scored."""
    space = as_labels(labels)
    keys = sorted(matrices)
    scored = [matrix for matrix in matrices.values() if matrix is not None]
    facts = (
        described(
            "semantic",
            describe_labels(space),
            matrices,
            {"resolution": resolution, "shard_size": shard_size},
            created="2026-01-01T00:00:00+00:00",
            gts="gts",
            preds=str(folder),
            on_error="skip",
            images_resumed=0,
            decoders={"simd": len(scored), "cuda": 0, "pillow": 0},
            gt_outside=0,
            pred_outside=0,
            problem_count=0,
            problems=[],
            seconds={"listing": 0.0, "scoring": 1.0},
        )
        | facts
    )
    run_folder.begin(folder, facts)
    for shard in cut(len(keys), shard_size):
        some = keys[shard.first : shard.last]
        rows = [_row(shard.first + i, key, matrices[key] is not None) for i, key in enumerate(some)]
        part = tables.part(rows, [matrices[key] for key in some], space)
        parts.commit(folder, shard.number, part, "f")
    Run.finish(folder, facts, units)
    return Run(folder)


def _row(image_id: int, key: str, scored: bool) -> ImageRow:
    known = {
        **image_row(image_id, key, scored),
        "pred_file": f"{key}.png",
        "decoder": "simd",
        "errors": [] if scored else [error_facts(CorruptImage("broken"))],
    }
    return ImageRow(**{name: known.get(name) for name in ImageRow.__slots__})


def random_matrices(
    images: int, *, seed: int = 0, classes: int = 7, drives: int = 0, better: float = 0.0
) -> dict[str, Matrix]:
    """Images of about 1,000 pixels whose gt depends on the seed alone, and predictions right in 70 %.

    `better` of the wrong pixels are put right, at random per image.
    """
    rng, mender = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    matrices = {}
    for i in range(images):
        matrix = np.zeros((classes + 1, classes + 1), np.int64)
        for gt, pixels in enumerate(rng.multinomial(1000, rng.dirichlet(np.full(classes + 1, 0.5)))):
            right = rng.binomial(pixels, rng.beta(7, 3))
            matrix[gt, gt] += right
            matrix[gt] += rng.multinomial(pixels - right, np.full(classes + 1, 1 / (classes + 1)))
        for gt in range(classes):
            for pred in range(classes + 1):
                if pred != gt and better:
                    moved = mender.binomial(matrix[gt, pred], better)
                    matrix[gt, pred] -= moved
                    matrix[gt, gt] += moved
        matrices[frame_key(i, images, drives)] = matrix
    return matrices
