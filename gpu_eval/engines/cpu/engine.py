"""The CPU engine: libdeflate and the Numba kernels, threads over pairs; instances are in `cpu_overlaps`.

A thread takes a few pairs at a time, reads their files into its own buffers, and spends the rest of
the time in kernels that hold no lock.

Whatever the kernels do not take (16-bit, interlaced, packed palettes) or stumble over goes to
`inputs.png`, the readable decoder, which either returns the pixels or knows what is wrong with them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from queue import Empty, SimpleQueue
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from gpu_eval.engines import png_kernels
from gpu_eval.engines import resize as nearest
from gpu_eval.engines.counts import aspect_warning, fold_outside
from gpu_eval.engines.cpu import semantic_kernels as kernels
from gpu_eval.engines.cpu.instance import count_image
from gpu_eval.engines.cpu.workspace import Bytes, Files, Ints, Workspace, grown
from gpu_eval.engines.engine import Confusion, ImageOverlaps, ImageResult, ScoreTask
from gpu_eval.engines.libdeflate import load_libdeflate
from gpu_eval.errors import EngineUnavailable, InputError, LabelOutOfRange, MissingPrediction
from gpu_eval.inputs.instance_split import InstanceImage
from gpu_eval.inputs.pairs import Pair
from gpu_eval.inputs.sources import Source

T = TypeVar("T")
R = TypeVar("R")

# Pairs a thread takes at a time: enough to make Python's part small, few enough to share the end evenly.
PAIRS_PER_TURN = 4


def available() -> tuple[bool, str]:
    """Whether the CPU engine serves here, and in what shape."""
    try:
        libdeflate = load_libdeflate()
    except EngineUnavailable as error:
        return False, str(error)
    return True, f"{available_cores()} cores, libdeflate {libdeflate.version}, Numba {_numba_version()}"


def available_cores() -> int:
    """Cores this process may run on (a container or a batch system may have given it fewer)."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def _numba_version() -> str:
    from importlib.metadata import version

    return version("numba")


@dataclass(frozen=True)
class _Luts:
    """The tables of a task in the kernels' form: int64, the gt table premultiplied."""

    classes: int  # n_classes + 2
    gt: Ints
    pred: Ints


@lru_cache(maxsize=256)
def _weights(source: int, target: int) -> tuple[Ints, Ints, Ints]:
    """Of one axis: source index per target position, target positions per source index, and their sums."""
    table = nearest.index_table(source, target)
    starts = np.array(nearest.starts(table, source), dtype=np.int64)
    return table.astype(np.int64), np.diff(starts), starts


class CpuEngine:
    """Scores pairs on the CPU with `threads` threads (default: the cores this process may use)."""

    name = "cpu"

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or available_cores()
        self._libdeflate = load_libdeflate()
        self._workspaces: SimpleQueue[Workspace] = SimpleQueue()
        self._owned: list[Workspace] = []
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._taken = (0.0, 0.0)

    def describe(self) -> str:
        return f"{self.threads} threads; {available()[1]}"

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        with self._lock:
            for workspace in self._owned:
                self._libdeflate.free_decompressor(workspace.decompressor)
            self._owned.clear()
            self._workspaces = SimpleQueue()

    def score(self, pairs: Sequence[Pair], gts: Source, preds: Source, task: ScoreTask) -> list[ImageResult]:
        turns = [pairs[i : i + PAIRS_PER_TURN] for i in range(0, len(pairs), PAIRS_PER_TURN)]
        scored = self._in_threads(lambda ws, turn: _Turn(ws, turn, gts, preds, task).run(), turns)
        return [result for results in scored for result in results]

    def overlaps(self, images: Sequence[InstanceImage], gts: Source, preds: Source) -> list[ImageOverlaps]:
        return self._in_threads(lambda ws, image: count_image(ws, image, gts, preds), images)

    def confusion(self, gt: Bytes, pred: Bytes, task: ScoreTask) -> Confusion:
        luts = _luts(task)
        cells = np.zeros(luts.classes**2, np.int64)
        height, width = gt.shape
        if height and width:
            with self._workspace() as ws:
                ws.rows = grown(ws.rows, kernels.rows_size(width))
                columns = np.arange(width + 1, dtype=np.int64)
                gt, pred = (np.require(side, np.uint8, ("C", "W")) for side in (gt, pred))
                kernels.count_arrays(gt, pred, columns, luts.gt, luts.pred, ws.rows, cells)
        return cells.reshape(luts.classes, luts.classes)

    def take_seconds(self) -> dict[str, float]:
        """`decode` is inflating, unfiltering and counting, which are one pass here."""
        with self._lock:
            reading = sum(workspace.reading_s for workspace in self._owned)
            busy = sum(workspace.busy_s for workspace in self._owned)
            taken = self._taken
            self._taken = (reading, busy)
        return {"read": reading - taken[0], "decode": (busy - taken[1]) - (reading - taken[0])}

    @contextmanager
    def _workspace(self) -> Iterator[Workspace]:
        try:
            workspace = self._workspaces.get_nowait()
        except Empty:
            workspace = Workspace(self._libdeflate, self._libdeflate.new_decompressor())
            with self._lock:
                self._owned.append(workspace)
        try:
            yield workspace
        finally:
            self._workspaces.put(workspace)

    def _in_threads(self, work: Callable[[Workspace, T], R], items: Sequence[T]) -> list[R]:
        """What `work` makes of each item, in order; each call has a workspace to itself."""

        def run(item: T) -> R:
            with self._workspace() as ws:
                begun = time.perf_counter()
                try:
                    return work(ws, item)
                finally:
                    ws.busy_s += time.perf_counter() - begun

        if self.threads == 1 or len(items) < 2:
            return [run(item) for item in items]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="gpu-eval")
        futures = [self._pool.submit(run, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()


def _luts(task: ScoreTask) -> _Luts:
    classes = task.n_classes + 2
    return _Luts(classes, task.gt_table.astype(np.int64) * classes, task.pred_table.astype(np.int64))


class _Turn:
    """A few pairs on their way through one workspace."""

    def __init__(
        self, ws: Workspace, pairs: Sequence[Pair], gts: Source, preds: Source, task: ScoreTask
    ) -> None:
        self.ws, self.pairs, self.task = ws, pairs, task
        self.luts = _luts(task)
        gt_entries = [pair.gt for pair in pairs]
        pred_entries = [pair.pred for pair in pairs if pair.pred is not None]
        ws.fit_slabs(sum(e.size for e in gt_entries), sum(e.size for e in pred_entries))
        self.gts = Files(ws, gts, gt_entries, ws.gt_slab)
        self.preds = Files(ws, preds, pred_entries, ws.pred_slab)
        self.counted = self._count_alike()

    def run(self) -> list[ImageResult]:
        results = []
        pred_index = 0
        for gt_index, pair in enumerate(self.pairs):
            result = ImageResult()
            try:
                if pair.pred is None:
                    raise MissingPrediction(
                        "no prediction", file=pair.key, expected="one prediction per ground truth"
                    )
                self._score(result, gt_index, pred_index)
            except InputError as error:
                result.confusion, result.error = None, error
                if self.task.void_on_error:
                    self._score_as_void(result, gt_index)
            pred_index += pair.pred is not None
            results.append(result)
        return results

    def _score(self, result: ImageResult, gt: int, pred: int) -> None:
        self.gts.raise_unreadable(gt)
        self.preds.raise_unreadable(pred)
        cells = self._score_simple(result, gt, pred)
        if cells is None:
            cells = self._score_with_pillow(result, gt, pred)
        self._accept(result, cells, gt, pred)
        assert result.gt_size is not None
        assert result.pred_size is not None
        result.warning = aspect_warning(result.gt_size, result.pred_size)

    def _count_alike(self) -> dict[int, Ints]:
        """Cells of all pairs of simple maps of one size, by gt index, but those the kernels stumble over.

        One call per size, which is mostly one per turn, because each call gives up and takes back
        Python's lock, which threads then queue for.
        """
        groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
        pred = 0
        for gt, pair in enumerate(self.pairs):
            if pair.pred is None:
                continue
            size = _label_size(self.gts, gt)
            if size is not None and size == _label_size(self.preds, pred):
                groups.setdefault(size, []).append((gt, pred))
            pred += 1
        ws, luts, gts, preds = self.ws, self.luts, self.gts, self.preds
        counted = {}
        for size, group in groups.items():
            picks = np.array(group, np.int64)
            ws.fit_maps(size, size, int(max(gts.payload(picks[:, 0]), preds.payload(picks[:, 1]))))
            height, width = self.task.resolution or size
            _, row_weights, _ = _weights(size[0], height)
            _, _, columns = _weights(size[1], width)
            cells = np.zeros((len(group), luts.classes**2), np.int64)
            statuses = np.zeros(len(group), np.int64)
            kernels.count_alike(
                gts.slab, gts.offsets, gts.scans, preds.slab, preds.offsets, preds.scans, picks,
                row_weights, columns, luts.gt, luts.pred, ws.payload, ws.gt_raw, ws.pred_raw, ws.rows,
                ws.decompressor, ws.libdeflate.decompress, cells, statuses,
            )  # fmt: skip
            for (gt, _), status, of_pair in zip(group, statuses.tolist(), cells, strict=True):
                if status == kernels.OK:
                    counted[gt] = of_pair
        return counted

    def _score_simple(self, result: ImageResult, gt: int, pred: int) -> Ints | None:
        """The cells of two simple maps. None if the kernels do not take one of them, or stumble over it."""
        gt_size, pred_size = _label_size(self.gts, gt), _label_size(self.preds, pred)
        if gt_size is None or pred_size is None:
            return None
        cells = self.counted.get(gt) if gt_size == pred_size else self._count_resized(gt, pred)
        if cells is not None:
            result.gt_size, result.pred_size, result.decoder = gt_size, pred_size, "simd"
        return cells

    def _count_resized(self, gt: int, pred: int) -> Ints | None:
        """Inflate and count two maps of different sizes; None if the kernels stumble over one of them."""
        ws, luts, gts, preds = self.ws, self.luts, self.gts, self.preds
        gt_size, pred_size = _label_size(gts, gt), _label_size(preds, pred)
        assert gt_size is not None
        assert pred_size is not None
        ws.fit_maps(gt_size, pred_size, int(max(gts.payload(gt), preds.payload(pred))))
        if not (gts.inflate(gt, ws.gt_raw) and preds.inflate(pred, ws.pred_raw)):
            return None
        height, width = self.task.resolution or gt_size
        gt_rows, _, _ = _weights(gt_size[0], height)
        _, _, gt_columns = _weights(gt_size[1], width)
        pred_rows, _, _ = _weights(pred_size[0], height)
        _, _, pred_columns = _weights(pred_size[1], width)
        cells = np.zeros(luts.classes**2, np.int64)
        status = kernels.count_resized(
            ws.gt_raw, *gt_size, gt_rows, gt_columns,
            ws.pred_raw, *pred_size, pred_rows, pred_columns,
            luts.gt, luts.pred, ws.rows, ws.runs[0], ws.runs[1], cells,
        )  # fmt: skip
        return cells if status == kernels.OK else None

    def _score_with_pillow(self, result: ImageResult, gt: int, pred: int) -> Ints:
        gt_map, pred_map = self.gts.decode(gt), self.preds.decode(pred)
        result.gt_size, result.pred_size, result.decoder = gt_map.shape, pred_map.shape, "pillow"
        size = self.task.resolution or gt_map.shape
        gt_classes = _resized(_classes(gt_map, self.task.gt_table, self.task.n_classes), size, gt_map.dtype)
        pred_classes = _resized(
            _classes(pred_map, self.task.pred_table, self.task.n_classes), size, pred_map.dtype
        )
        joint = gt_classes.astype(np.int64) * self.luts.classes + pred_classes
        return np.bincount(joint.ravel(), minlength=self.luts.classes**2)

    def _score_as_void(self, result: ImageResult, gt: int) -> None:
        """Count the gt against a prediction that is void everywhere; leaves the error that led here."""
        pred_error = result.error
        try:
            self.gts.raise_unreadable(gt)
            gt_map = self.gts.decode(gt)
            size = self.task.resolution or gt_map.shape
            classes = _resized(_classes(gt_map, self.task.gt_table, self.task.n_classes), size, gt_map.dtype)
            joint = np.zeros((self.luts.classes, self.luts.classes), np.int64)
            joint[:, self.task.n_classes] = np.bincount(classes.ravel(), minlength=self.luts.classes)
            self._accept(result, joint.ravel(), gt, None)
        except InputError as gt_error:  # without ground truth there is nothing to count
            result.error = gt_error
        else:
            result.gt_size, result.decoder, result.error = gt_map.shape, "pillow", pred_error

    def _accept(self, result: ImageResult, cells: Ints, gt: int, pred: int | None) -> None:
        """Fold the cells outside the encodings into void, or refuse maps that are mostly outside."""
        n = self.task.n_classes
        joint = cells.reshape(n + 2, n + 2)
        pixels = int(joint.sum())
        result.gt_outside, result.pred_outside = int(joint[n + 1].sum()), int(joint[:, n + 1].sum())
        for side, index, outside in (
            (self.gts, gt, result.gt_outside),
            (self.preds, pred, result.pred_outside),
        ):
            if index is not None and outside * 2 > pixels:
                raise self._out_of_range(side, index, outside / pixels)
        result.confusion = fold_outside(joint)

    def _out_of_range(self, side: Files, index: int, share: float) -> LabelOutOfRange:
        option = "--gt-encoding" if side is self.gts else "--pred-encoding"
        values = side.decode(index)
        histogram = np.bincount(np.minimum(values.astype(np.int64), 256).ravel(), minlength=257)
        fits = {
            encoding: float(histogram[:256][table <= self.task.n_classes].sum() / histogram.sum())
            for encoding, table in self.task.encodings.items()
        }
        best = max(fits, key=lambda encoding: fits[encoding])
        seen = np.flatnonzero(histogram)
        listed = ", ".join(str(v) for v in seen[:12]) + (", ..." if seen.size > 12 else "")
        return LabelOutOfRange(
            "most pixels are neither a class nor void",
            file=side.name(index),
            found=f"{share:.0%} outside the encoding; values {listed}",
            expected=f"a class 0..{self.task.n_classes - 1} or void after encoding",
            fix=f"{option} {best} would fit {fits[best]:.0%} of the pixels" if fits[best] > 0.9 else None,
        )


def _label_size(files: Files, index: int) -> tuple[int, int] | None:
    """(height, width) of a map that the counting kernels take; None for any other."""
    taken = files.form(index) in (png_kernels.GREY_8, png_kernels.PALETTE_8)
    return files.size(index) if taken else None


def _classes(
    values: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], table: npt.NDArray[np.uint16], n_classes: int
) -> npt.NDArray[np.uint16]:
    """Classes of raw values; values above 255, which only 16-bit maps have, are outside every encoding."""
    if values.dtype == np.uint8:
        return table[values]
    outside = np.uint16(n_classes + 1)
    return np.where(values < 256, table[np.minimum(values, 255)], outside)


def _resized(
    classes: npt.NDArray[np.uint16], size: tuple[int, int], dtype: np.dtype[np.unsignedinteger]
) -> npt.NDArray[np.uint16]:
    """Nearest-resized to (height, width). Pillow resizes 16-bit images by another rule: `nearest`."""
    sixteen_bit = dtype == np.uint16
    rows = nearest.index_table(classes.shape[0], size[0], sixteen_bit=sixteen_bit)
    columns = nearest.index_table(classes.shape[1], size[1], sixteen_bit=sixteen_bit)
    return classes[rows[:, None], columns[None, :]]
