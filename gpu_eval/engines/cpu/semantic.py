"""Semantic scoring on the CPU: a few pairs at a time through one workspace.

Pairs whose maps the kernels take are inflated and counted by them, all of one size in one call. The others
are decoded by `inputs.png`, which gives the pixels or knows what is wrong with them, and counted by the
readable rules of `engines/semantic`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from gpu_eval.engines import png_kernels, resize, semantic
from gpu_eval.engines.cpu import semantic_kernels as kernels
from gpu_eval.engines.cpu.threads import Threads
from gpu_eval.engines.cpu.workspace import Files, Ints, Workspace
from gpu_eval.engines.semantic import Classes, Confusion, SemanticJob, SemanticResult, Table
from gpu_eval.errors import InputError
from gpu_eval.inputs.pairs import Pair
from gpu_eval.inputs.sources import Source

Values = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

# Pairs a thread takes at a time: enough to make Python's part small, few enough to share the end evenly.
PAIRS_PER_TURN = 4


def count(
    threads: Threads, job: SemanticJob, pairs: Sequence[Pair], gts: Source, preds: Source
) -> list[SemanticResult]:
    """One result per pair, in input order."""
    turns = [pairs[i : i + PAIRS_PER_TURN] for i in range(0, len(pairs), PAIRS_PER_TURN)]
    counted = threads.map(lambda ws, turn: _Turn(ws, turn, gts, preds, job).run(), turns)
    return [result for results in counted for result in results]


@lru_cache(maxsize=256)
def _weights(source: int, target: int) -> tuple[Ints, Ints, Ints]:
    """Of one axis: source index per target position, target positions per source index, and their sums."""
    table = resize.index_table(source, target)
    starts = np.array(resize.starts(table, source), dtype=np.int64)
    return table.astype(np.int64), np.diff(starts), starts


class _Turn:
    """A few pairs on their way through one workspace."""

    def __init__(
        self, ws: Workspace, pairs: Sequence[Pair], gts: Source, preds: Source, job: SemanticJob
    ) -> None:
        self.ws, self.pairs, self.job = ws, pairs, job
        self.classes = job.n_classes + 2
        self.gt_lut, self.pred_lut = kernels.luts(job.gt_table, job.pred_table, self.classes)
        gt_entries = [pair.gt for pair in pairs]
        pred_entries = [pair.pred for pair in pairs if pair.pred is not None]
        ws.fit_slabs(sum(e.size for e in gt_entries), sum(e.size for e in pred_entries))
        self.gts = Files(ws, gts, gt_entries, ws.gt_slab)
        self.preds = Files(ws, preds, pred_entries, ws.pred_slab)
        self.counted = self._count_alike()

    def run(self) -> list[SemanticResult]:
        results = []
        pred_index = 0
        for gt_index, pair in enumerate(self.pairs):
            result = SemanticResult()
            try:
                if pair.pred is None:
                    raise semantic.no_prediction(pair)
                self._score(result, gt_index, pred_index)
            except InputError as error:
                result.confusion, result.error = None, error
                if self.job.void_on_error:
                    self._score_as_void(result, gt_index)
            pred_index += pair.pred is not None
            results.append(result)
        return results

    def _score(self, result: SemanticResult, gt: int, pred: int) -> None:
        self.gts.raise_unreadable(gt)
        self.preds.raise_unreadable(pred)
        cells = self._score_simple(result, gt, pred)
        joint = self._score_with_pillow(result, gt, pred) if cells is None else self._joint(cells)
        self._accept(result, joint, gt, pred)
        assert result.gt_size is not None
        assert result.pred_size is not None
        result.warning = semantic.aspect_warning(result.gt_size, result.pred_size)

    def _joint(self, cells: Ints) -> Confusion:
        return cells.reshape(self.classes, self.classes)

    def _count_alike(self) -> dict[int, Ints]:
        """Cells of all pairs of simple maps of one size, by gt index, but those the kernels stumble over.

        One call per size, which is mostly one per turn, because each call gives up and takes back
        Python's lock, which threads then queue for.
        """
        groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
        pred = 0
        for gt, pair in enumerate(() if self.job.in_colour else self.pairs):
            if pair.pred is None:
                continue
            size = _label_size(self.gts, gt)
            if size is not None and size == _label_size(self.preds, pred):
                groups.setdefault(size, []).append((gt, pred))
            pred += 1
        ws, gts, preds = self.ws, self.gts, self.preds
        counted = {}
        for size, group in groups.items():
            picks = np.array(group, np.int64)
            ws.fit_maps(size, size, int(max(gts.payload(picks[:, 0]), preds.payload(picks[:, 1]))))
            height, width = self.job.resolution or size
            _, row_weights, _ = _weights(size[0], height)
            _, _, columns = _weights(size[1], width)
            cells = np.zeros((len(group), self.classes**2), np.int64)
            statuses = np.zeros(len(group), np.int64)
            kernels.count_alike(
                gts.slab, gts.offsets, gts.scans, preds.slab, preds.offsets, preds.scans, picks,
                row_weights, columns, self.gt_lut, self.pred_lut, ws.payload, ws.gt_raw, ws.pred_raw, ws.rows,
                ws.decompressor, ws.libdeflate.decompress, cells, statuses,
            )  # fmt: skip
            for (gt, _), status, of_pair in zip(group, statuses.tolist(), cells, strict=True):
                if status == kernels.OK:
                    counted[gt] = of_pair
        return counted

    def _score_simple(self, result: SemanticResult, gt: int, pred: int) -> Ints | None:
        """The cells of two simple maps. None if the kernels do not take one of them, or stumble over it."""
        gt_size, pred_size = _label_size(self.gts, gt), _label_size(self.preds, pred)
        if gt_size is None or pred_size is None or self.job.in_colour:
            return None
        cells = self.counted.get(gt) if gt_size == pred_size else self._count_resized(gt, pred)
        if cells is not None:
            result.gt_size, result.pred_size, result.decoder = gt_size, pred_size, "simd"
        return cells

    def _count_resized(self, gt: int, pred: int) -> Ints | None:
        """Inflate and count two maps of different sizes; None if the kernels stumble over one of them."""
        ws, gts, preds = self.ws, self.gts, self.preds
        gt_size, pred_size = _label_size(gts, gt), _label_size(preds, pred)
        assert gt_size is not None
        assert pred_size is not None
        ws.fit_maps(gt_size, pred_size, int(max(gts.payload(gt), preds.payload(pred))))
        if not (gts.inflate(gt, ws.gt_raw) and preds.inflate(pred, ws.pred_raw)):
            return None
        height, width = self.job.resolution or gt_size
        gt_rows, _, _ = _weights(gt_size[0], height)
        _, _, gt_columns = _weights(gt_size[1], width)
        pred_rows, _, _ = _weights(pred_size[0], height)
        _, _, pred_columns = _weights(pred_size[1], width)
        cells = np.zeros(self.classes**2, np.int64)
        status = kernels.count_resized(
            ws.gt_raw, *gt_size, gt_rows, gt_columns,
            ws.pred_raw, *pred_size, pred_rows, pred_columns,
            self.gt_lut, self.pred_lut, ws.rows, ws.runs[0], ws.runs[1], cells,
        )  # fmt: skip
        return cells if status == kernels.OK else None

    def _score_with_pillow(self, result: SemanticResult, gt: int, pred: int) -> Confusion:
        gt_side, pred_side = self.job.sides
        gt_map, pred_map = self.gts.decode(gt, gt_side), self.preds.decode(pred, pred_side)
        result.gt_size, result.pred_size, result.decoder = gt_map.shape, pred_map.shape, "pillow"
        size = self.job.resolution or gt_map.shape
        return semantic.joint_count(
            self._shown(gt_map, self.job.gt_table, size),
            self._shown(pred_map, self.job.pred_table, size),
            self.job.n_classes,
        )

    def _score_as_void(self, result: SemanticResult, gt: int) -> None:
        """Count the gt against a prediction that is void everywhere; leaves the error that led here."""
        pred_error = result.error
        try:
            self.gts.raise_unreadable(gt)
            gt_map = self.gts.decode(gt, self.job.sides[0])
            classes = self._shown(gt_map, self.job.gt_table, self.job.resolution or gt_map.shape)
            self._accept(result, semantic.predicted_void(classes, self.job.n_classes), gt, None)
        except InputError as gt_error:  # without ground truth there is nothing to count
            result.error = gt_error
        else:
            result.gt_size, result.decoder, result.error = gt_map.shape, "pillow", pred_error

    def _shown(self, values: Values, table: Table, size: tuple[int, int]) -> Classes:
        """Classes of a decoded map, nearest-resized to (height, width)."""
        return _resized(semantic.to_classes(values, table, self.job.n_classes), size, values.dtype)

    def _accept(self, result: SemanticResult, joint: Confusion, gt: int, pred: int | None) -> None:
        """Fold what is outside the encodings into void, or refuse maps that are mostly outside.

        `cuda/semantic` leaves the pairs that this refuses to it.
        """
        pixels = joint.sum()
        gt_outside, pred_outside = semantic.outside(joint)
        result.gt_outside, result.pred_outside = int(gt_outside), int(pred_outside)
        for files, index, outside, option in (
            (self.gts, gt, gt_outside, "--gt-encoding"),
            (self.preds, pred, pred_outside, "--pred-encoding"),
        ):
            if index is not None and self.job.refused(outside, pixels):
                raise semantic.out_of_range(
                    self.job,
                    files.decode(index),
                    file=files.name(index),
                    option=option,
                    share=outside / pixels,
                )
        result.confusion = semantic.fold_outside(joint)


def _label_size(files: Files, index: int) -> tuple[int, int] | None:
    """(height, width) of a map that the counting kernels take; None for any other."""
    taken = files.form(index) in (png_kernels.GREY_8, png_kernels.PALETTE_8)
    return files.size(index) if taken else None


def _resized(classes: Classes, size: tuple[int, int], dtype: np.dtype[np.unsignedinteger]) -> Classes:
    """Nearest-resized to (height, width). Pillow resizes 16-bit images by another rule: `resize`."""
    sixteen_bit = dtype == np.uint16
    rows = resize.index_table(classes.shape[0], size[0], sixteen_bit=sixteen_bit)
    columns = resize.index_table(classes.shape[1], size[1], sixteen_bit=sixteen_bit)
    return classes[rows[:, None], columns[None, :]]
