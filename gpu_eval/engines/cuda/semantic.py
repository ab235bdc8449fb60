"""Semantic scoring on a device: batches of pairs, one upload each, one matrix per pair back.

What the kernels do not take, and every pair whose maps or values turn out to be bad, is left to the CPU
engine, which scores it or knows what is wrong with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from gpu_eval.engines import png_kernels
from gpu_eval.engines import resize as nearest
from gpu_eval.engines.counts import aspect_warning, fold_outside
from gpu_eval.engines.cuda import kernels as launch
from gpu_eval.engines.cuda.batches import Batch, Limits, fitted
from gpu_eval.engines.cuda.decode import Decoding, Maps, costs, fits_slot
from gpu_eval.engines.cuda.files import Files, Ints, find_streams, read_files
from gpu_eval.engines.cuda.lane import Lane
from gpu_eval.engines.engine import ImageResult, ScoreTask
from gpu_eval.inputs.pairs import Pair
from gpu_eval.inputs.sources import Source


@dataclass(frozen=True)
class _Counting:
    """A batch on the device: the pairs by index, their maps' sizes, and where their statuses will be."""

    pairs: list[int]
    classes: int
    gt_sizes: list[tuple[int, int]]
    pred_sizes: list[tuple[int, int]]
    gt_statuses: Ints
    pred_statuses: Ints


class PairScoring:
    """One call of `score`: `results` by pair, where a device can give them; the other pairs are `left`."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        gts: Source,
        preds: Source,
        task: ScoreTask,
        *,
        limits: Limits,
        readers: ThreadPoolExecutor | None,
    ) -> None:
        self.pairs, self.gts, self.preds, self.task = pairs, gts, preds, task
        self.limits, self.readers = limits, readers
        self.results: dict[int, ImageResult] = {}
        self._limit = limits.pairs
        self._todo = deque(i for i, pair in enumerate(pairs) if pair.pred is not None)

    @property
    def left(self) -> list[int]:
        """The pairs without a result, in input order."""
        return [i for i in range(len(self.pairs)) if i not in self.results]

    def start(self, lane: Lane) -> Batch | None:
        """The next batch; None where all pairs have been in one."""
        if not self._todo:
            return None
        picks: list[int] = []
        size = 0
        while self._todo and len(picks) < self._limit:
            size += self._size(self._todo[0])
            if picks and size > self.limits.bytes:
                break
            picks.append(self._todo.popleft())
        return self._batch(lane, picks)

    def _size(self, index: int) -> int:
        pair = self.pairs[index]
        return pair.gt.size + (0 if pair.pred is None else pair.pred.size)

    def _put_back(self, picks: Sequence[int]) -> None:
        self._todo.extendleft(reversed(picks))

    def _batch(self, lane: Lane, picks: list[int]) -> Batch:
        def launch(some: list[int]) -> _Counting | None:
            return self._launch(lane, some, self._read(lane, some))

        counting = fitted(lane, self.limits, picks, launch, self._too_many)
        if counting is not None:
            yield
            self._collect(lane, counting)

    def _too_many(self, beyond: list[int], next_number: int) -> None:
        self._limit = max(next_number, 1)
        self._put_back(beyond)

    def _read(self, lane: Lane, picks: Sequence[int]) -> Files:
        """The gts' files, then the predictions'."""
        gts = [self.pairs[i].gt for i in picks]
        preds = [entry for i in picks if (entry := self.pairs[i].pred) is not None]
        return read_files(lane, [(self.gts, gts), (self.preds, preds)], self.readers)

    def _launch(self, lane: Lane, picks: list[int], files: Files) -> _Counting | None:
        """Put as many of these pairs on the device as fit; None if it takes none of them."""
        number = len(picks)
        simple = np.isin(files.forms, (png_kernels.GREY_8, png_kernels.PALETTE_8)) & fits_slot(files)
        taken = np.flatnonzero(simple[:number] & simple[number:])
        if taken.size == 0:
            return None
        classes = self.task.n_classes + 2
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
        self._limit = fit if beyond else min(2 * self._limit, self.limits.pairs)
        self._put_back(beyond)
        return _Counting(
            [picks[i] for i in taken.tolist()],
            classes,
            sizes[:half],
            sizes[half:],
            decoding.statuses_at[:half],
            decoding.statuses_at[half:],
        )

    def _count(self, lane: Lane, decoding: Decoding, heights: Ints, widths: Ints) -> None:
        """Stage the jobs, then upload, decode, count and download; the gts are the first half of the maps."""
        device, half, classes = lane.device, decoding.count // 2, self.task.n_classes + 2
        tables = _IndexTables()
        target = self.task.resolution
        target_heights = heights[:half] if target is None else np.full(half, target[0])
        target_widths = widths[:half] if target is None else np.full(half, target[1])
        columns: list[Ints] = []  # in the order of `launch.pair_job`
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
        gt_table, pred_table = lane.put(self.task.gt_table), lane.put(self.task.pred_table)

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
            launch.confusion(
                device.module(launch.CONFUSION.source),
                pixels,
                pixels,
                jobs.on(staged),
                index_tables.on(staged),
                gt_table.on(staged),
                pred_table.on(staged),
                statuses,
                statuses,
                cells,
                bands=launch.bands(half, int(target_heights.max())),
            )
            lane.fetch(results)

    def _collect(self, lane: Lane, counting: _Counting) -> None:
        """Results of all pairs that decoded and whose values fit their encodings."""
        fetched = lane.wait()
        half, classes = len(counting.pairs), counting.classes
        cell_bytes = 8 * half * classes**2
        joint = fetched[:cell_bytes].view(np.int64).reshape(half, classes, classes)
        statuses = fetched[cell_bytes:].view(np.int32)
        pixels = joint.sum(axis=(1, 2))
        gt_outside, pred_outside = joint[:, -1].sum(axis=1), joint[:, :, -1].sum(axis=1)
        good = (
            (statuses[counting.gt_statuses] == launch.InflateStatus.OK)
            & (statuses[counting.pred_statuses] == launch.InflateStatus.OK)
            & (np.maximum(gt_outside, pred_outside) * 2 <= pixels)
        )
        folded = fold_outside(joint)
        outside = np.stack([gt_outside, pred_outside], axis=1).tolist()
        for at in np.flatnonzero(good).tolist():
            gt_size, pred_size = counting.gt_sizes[at], counting.pred_sizes[at]
            self.results[counting.pairs[at]] = ImageResult(
                confusion=folded[at],
                warning=aspect_warning(gt_size, pred_size),
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
            self._tables.append(nearest.index_table(source, target))
            self._used += target
        return self._places[source, target]

    def concatenated(self) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        return np.concatenate([np.zeros(0, np.int32), *self._tables])
