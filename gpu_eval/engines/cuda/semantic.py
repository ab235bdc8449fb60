"""Semantic scoring on a device: batches of pairs, one upload each, one matrix per pair back.

What the kernels do not take, and every pair whose maps or values turn out to be bad, is left to the CPU
engine, which scores it or knows what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from gpu_eval.engines import png_kernels, resize, semantic
from gpu_eval.engines.cuda import kernels
from gpu_eval.engines.cuda.batches import Batches, Launched, Limits
from gpu_eval.engines.cuda.decode import Decoding, Maps, costs, fits_slot
from gpu_eval.engines.cuda.files import Files, Ints, find_streams
from gpu_eval.engines.cuda.lane import Lane
from gpu_eval.engines.semantic import SemanticJob, SemanticResult
from gpu_eval.inputs.pairs import Pair
from gpu_eval.inputs.sources import Entry, Source


def batches(
    job: SemanticJob,
    pairs: Sequence[Pair],
    gts: Source,
    preds: Source,
    *,
    limits: Limits,
    readers: ThreadPoolExecutor | None,
) -> Batches[Pair, SemanticResult]:
    """The batches of one call."""
    return _Pairs(job, pairs, gts, preds, limits, readers)


@dataclass(frozen=True)
class _Counting:
    """A batch on the device: the pairs by index, their maps' sizes, and where their statuses will be."""

    pairs: list[int]
    classes: int
    gt_sizes: list[tuple[int, int]]
    pred_sizes: list[tuple[int, int]]
    gt_statuses: Ints
    pred_statuses: Ints


class _Pairs(Batches[Pair, SemanticResult]):
    """Pairs of maps; a batch holds `limits.pairs` of them."""

    def __init__(
        self,
        job: SemanticJob,
        pairs: Sequence[Pair],
        gts: Source,
        preds: Source,
        limits: Limits,
        readers: ThreadPoolExecutor | None,
    ) -> None:
        super().__init__(pairs, gts, preds, limits=limits, readers=readers, most=2 * limits.pairs)
        self.job = job

    def files(self, image: Pair) -> Sequence[Entry] | None:
        return None if image.pred is None else (image.gt, image.pred)

    def launch(self, lane: Lane, picks: list[int], files: Files) -> Launched | None:
        if self.job.in_colour:
            return None
        number = len(picks)
        simple = np.isin(files.forms, (png_kernels.GREY_8, png_kernels.PALETTE_8)) & fits_slot(files)
        taken = np.flatnonzero(simple[:number] & simple[number:])
        if taken.size == 0:
            return None
        classes = self.job.n_classes + 2
        of_files = costs(files.heights, files.widths) + files.payloads
        of_pairs = of_files[taken] + of_files[taken + number] + 8 * classes**2
        fit = max(int(np.searchsorted(np.cumsum(of_pairs), self.limits.budget - files.size, "right")), 1)
        beyond = picks[taken[fit] :] if fit < taken.size else []
        taken = taken[:fit]
        wanted = np.concatenate([taken, taken + number])
        heights, widths = files.heights[wanted], files.widths[wanted]
        maps = Maps(heights, widths, np.ones_like(heights), files.payloads[wanted])
        decoding = Decoding(lane, maps, find_streams(lane.staging, files, wanted))
        sizes = list(zip(heights.tolist(), widths.tolist(), strict=True))
        half = taken.size
        self._count(lane, decoding, heights, widths)
        counting = _Counting(
            [picks[i] for i in taken.tolist()],
            classes,
            sizes[:half],
            sizes[half:],
            decoding.statuses_at[:half],
            decoding.statuses_at[half:],
        )
        return Launched([partial(self._collect, counting)], beyond)

    def _count(self, lane: Lane, decoding: Decoding, heights: Ints, widths: Ints) -> None:
        """Stage the jobs, then upload, decode, count and download; the gts are the first half of the maps."""
        device, half, classes = lane.device, decoding.count // 2, self.job.n_classes + 2
        tables = _IndexTables()
        target = self.job.resolution
        target_heights = heights[:half] if target is None else np.full(half, target[0])
        target_widths = widths[:half] if target is None else np.full(half, target[1])
        columns: list[Ints] = []  # in the order of `kernels.pair_job`
        for side in (slice(0, half), slice(half, None)):
            columns += [
                decoding.pixels_at[side],
                decoding.pitches[side],
                tables.places(heights[side], target_heights),
                tables.places(widths[side], target_widths),
                decoding.statuses_at[side],
            ]
        jobs = lane.put(np.stack([*columns, target_heights, target_widths], axis=1).astype(np.int64))
        index_tables = lane.put(tables.concatenated())
        gt_table, pred_table = lane.put(self.job.gt_table), lane.put(self.job.pred_table)

        cell_bytes, status_bytes = 8 * half * classes**2, 4 * decoding.count
        slab = lane.buffer("slab", decoding.slab_bytes)
        raw = lane.buffer("raw", decoding.raw_bytes)
        pixels = lane.buffer("pixels", decoding.pixels_bytes)
        results = lane.buffer("results", cell_bytes + status_bytes)
        cells = results[:cell_bytes].view(np.int64).reshape(half, classes, classes)
        statuses = results[cell_bytes:].view(np.int32)
        staged = decoding.staged_in(slab)
        with lane.stream:
            lane.send(staged)
            lane.mark("kernel")
            device.zero(results)
            decoding.launch(slab, raw, pixels, statuses)
            kernels.confusion(
                device.module(kernels.CONFUSION.source),
                pixels,
                pixels,
                jobs.on(staged),
                index_tables.on(staged),
                gt_table.on(staged),
                pred_table.on(staged),
                statuses,
                statuses,
                cells,
                bands=kernels.bands(half, int(target_heights.max())),
            )
            lane.fetch(results)

    def _collect(self, counting: _Counting, lane: Lane) -> None:
        """Results of all pairs that decoded and whose values fit their encodings.

        The others are left to the CPU engine, whose `_accept` in `cpu/semantic` says what is wrong with them.
        """
        fetched = lane.wait()
        half, classes = len(counting.pairs), counting.classes
        cell_bytes = 8 * half * classes**2
        joint = fetched[:cell_bytes].view(np.int64).reshape(half, classes, classes)
        statuses = fetched[cell_bytes:].view(np.int32)
        pixels = joint.sum(axis=(1, 2))
        gt_outside, pred_outside = semantic.outside(joint)
        good = (
            (statuses[counting.gt_statuses] == kernels.InflateStatus.OK)
            & (statuses[counting.pred_statuses] == kernels.InflateStatus.OK)
            & ~self.job.refused(np.maximum(gt_outside, pred_outside), pixels)
        )
        folded = semantic.fold_outside(joint)
        outside = np.stack([gt_outside, pred_outside], axis=1).tolist()
        for at in np.flatnonzero(good).tolist():
            gt_size, pred_size = counting.gt_sizes[at], counting.pred_sizes[at]
            self.results[counting.pairs[at]] = SemanticResult(
                confusion=folded[at],
                warning=semantic.aspect_warning(gt_size, pred_size),
                decoder="cuda",
                gt_size=gt_size,
                pred_size=pred_size,
                gt_outside=outside[at][0],
                pred_outside=outside[at][1],
            )


class _IndexTables:
    """The index tables of a batch, each once, one after the other."""

    def __init__(self) -> None:
        self._tables: list[np.ndarray[tuple[int], np.dtype[np.int32]]] = []
        self._places: dict[tuple[int, int], int] = {}
        self._used = 0

    def places(self, sources: Ints, targets: Ints) -> Ints:
        """Where the table of each (source, target) begins; -1 where nothing is resized."""
        keys, which = np.unique(np.stack([sources, targets], axis=1), axis=0, return_inverse=True)
        places = [self._place(source, target) for source, target in keys.tolist()]
        return np.array(places, np.int64)[which.reshape(-1)]

    def _place(self, source: int, target: int) -> int:
        if source == target:
            return -1
        if (source, target) not in self._places:
            self._places[source, target] = self._used
            self._tables.append(resize.index_table(source, target))
            self._used += target
        return self._places[source, target]

    def concatenated(self) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        return np.concatenate([np.zeros(0, np.int32), *self._tables])
