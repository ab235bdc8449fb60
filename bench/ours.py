"""This engine as a contestant: the one place to change when its interface changes."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.workload import HEIGHT, WIDTH
from gpu_eval.engines.cpu.engine import CpuEngine
from gpu_eval.engines.semantic import SemanticJob, make_job
from gpu_eval.inputs.pairs import Pair
from gpu_eval.inputs.sources import Entry, Source, open_source
from gpu_eval.labels import load_labels


def score_pairs(gt_files: list[Path], pred_files: list[Path], threads: int) -> npt.NDArray[np.int64]:
    """Total joint count of all pairs, read from disk; shape (27, 27), rows gt, columns prediction.

    The engine keeps its buffers and threads between calls, as in a run. The rivals get a list of paths,
    so listing the folders is not part of the figure here either.
    """
    pairs, gts, preds = _split(tuple(gt_files), tuple(pred_files))
    total = np.zeros((27, 27), dtype=np.int64)
    for pair, result in zip(pairs, _engine(threads).count(_job(), pairs, gts, preds), strict=True):
        if result.confusion is None:
            raise ValueError(f"{pair.key}: {result.error}")
        if result.decoder != "simd":
            raise ValueError(f"{pair.key}: decoded by {result.decoder}, not by the engine under test")
        total += result.confusion
    return total


@functools.cache
def _engine(threads: int) -> CpuEngine:
    return CpuEngine(threads)


@functools.cache
def _job() -> SemanticJob:
    return make_job(load_labels("idd"), resolution=(HEIGHT, WIDTH))


@functools.lru_cache(maxsize=1)
def _split(
    gt_files: tuple[Path, ...], pred_files: tuple[Path, ...]
) -> tuple[tuple[Pair, ...], Source, Source]:
    gt_root, pred_root = os.path.commonpath(gt_files), os.path.commonpath(pred_files)
    pairs = tuple(
        Pair(gt.stem, gt.parent.name, _entry(gt, gt_root), _entry(pred, pred_root))
        for gt, pred in zip(gt_files, pred_files, strict=True)
    )
    return pairs, open_source(gt_root), open_source(pred_root)


def _entry(path: Path, root: str) -> Entry:
    status = path.stat()
    return Entry(path.relative_to(root).as_posix(), status.st_size, str(status.st_mtime_ns))
