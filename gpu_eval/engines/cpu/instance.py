"""Instance scoring on the CPU: one image's ground truth as runs, its masks counted along them.

The gt is decoded once and kept as runs. Masks are read in turns of bounded size, so that memory does not
grow with their number, and all masks of a turn are inflated and counted in one call that holds no lock.
What the kernels do not take goes to `inputs.png` (gt) and `inputs.masks`, which give the pixels or know what
is wrong with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_eval.engines import png_kernels
from gpu_eval.engines.cpu import instance_kernels as kernels
from gpu_eval.engines.cpu.threads import Threads
from gpu_eval.engines.cpu.workspace import HUGE_PAGES, Bytes, Files, Ints, Workspace, grown, raw_size
from gpu_eval.engines.instance import InstanceJob, InstanceResult, mask_of_another_size
from gpu_eval.errors import InputError
from gpu_eval.inputs.instance_split import InstanceImage, Prediction, Rle
from gpu_eval.inputs.masks import decode_mask
from gpu_eval.inputs.rle import decode_rle
from gpu_eval.inputs.sources import Entry, Source

# Bytes of the encoded masks that a thread reads at a time. A larger mask makes a turn of its own.
TURN_BYTES = 16 << 20


@dataclass(frozen=True)
class _Gt:
    """A gt in the kernels' form; runs, starts and index are the workspace's own."""

    name: str
    size: tuple[int, int]
    values: Ints  # ascending
    pixels: Ints
    runs: Ints
    starts: Ints  # (height, words)
    index: Ints


def count(
    threads: Threads,
    job: InstanceJob,  # noqa: ARG001  # it holds nothing
    images: Sequence[InstanceImage],
    gts: Source,
    preds: Source,
) -> list[InstanceResult]:
    """One result per image, in input order."""
    return threads.map(lambda ws, image: _count_image(ws, image, gts, preds), images)


def _count_image(ws: Workspace, image: InstanceImage, gts: Source, preds: Source) -> InstanceResult:
    """The joint counts of all masks of an image with its gt, or everything that is wrong with its files."""
    result = InstanceResult()
    gt = None
    try:
        gt = _read_gt(ws, image.gt, gts, result)
    except InputError as error:
        result.errors.append(error)
    predictions = image.predictions or ()
    masks = _Masks(ws, preds, gt, result, len(predictions))
    for turn in _turns(predictions):
        masks.take(turn)
    for place, prediction in enumerate(predictions):
        if isinstance(prediction.mask, Rle):
            masks.take_rle(place, prediction.mask, f"{image.list_file}, entry {prediction.line}")
    result.errors += [masks.errors[place] for place in sorted(masks.errors)]
    if gt is not None:
        result.size, result.gt_values, result.gt_pixels = gt.size, gt.values, gt.pixels
        if not result.errors:
            result.overlaps = masks.overlaps
    return result


def _turns(predictions: Sequence[Prediction]) -> Iterator[list[tuple[int, Entry]]]:
    """The mask files with their places among the predictions, in turns of at most TURN_BYTES."""
    turn: list[tuple[int, Entry]] = []
    size = 0
    for place, prediction in enumerate(predictions):
        mask = prediction.mask
        if isinstance(mask, Rle):
            continue
        if turn and size + mask.size > TURN_BYTES:
            yield turn
            turn, size = [], 0
        turn.append((place, mask))
        size += mask.size
    if turn:
        yield turn


def _read_gt(ws: Workspace, entry: Entry, gts: Source, result: InstanceResult) -> _Gt:
    ws.gt_slab = grown(ws.gt_slab, entry.size)
    files = Files(ws, gts, [entry], ws.gt_slab)
    files.raise_unreadable(0)
    form = files.form(0)
    if form in (png_kernels.GREY_16, png_kernels.GREY_8, png_kernels.PALETTE_8):
        size = files.size(0)
        ws.gt_raw = grown(ws.gt_raw, max(raw_size(size, form), HUGE_PAGES))
        ws.payload = grown(ws.payload, files.payload(0))
        if files.inflate(0, ws.gt_raw):
            gt = _list_gt(ws, files.name(0), size, form, None)
            if gt is not None:
                result.decoders["simd"] += 1
                return gt
    values = files.decode(0).astype(np.uint16, copy=False)
    gt = _list_gt(ws, files.name(0), values.shape, png_kernels.OTHER, values)
    assert gt is not None
    result.decoders["pillow"] += 1
    return gt


def _list_gt(
    ws: Workspace, name: str, size: tuple[int, int], form: int, decoded: npt.NDArray[np.uint16] | None
) -> _Gt | None:
    """The runs of the decoded gt, or of the filtered one in `ws.gt_raw`; None for a damaged one."""
    height, width = size
    words = kernels.words(width)
    ws.rows = grown(ws.rows, png_kernels.rows_size(kernels.ROWS, width))
    if ws.gt_starts.size < height * words:
        ws.gt_starts = np.zeros(height * words, np.int64)
    starts = ws.gt_starts[: height * words].reshape(height, words)
    while True:
        if decoded is None:
            known = kernels.list_runs(
                ws.gt_raw, height, width, form, ws.rows, ws.gt_runs, starts, ws.histogram
            )
        else:
            known = kernels.list_array_runs(decoded, ws.rows, ws.gt_runs, starts, ws.histogram)
        if known == kernels.BAD:
            return None
        if known <= ws.gt_runs.size:
            break
        ws.gt_runs = np.zeros(known + known // 4, np.int64)
    values = np.flatnonzero(ws.histogram)
    ws.index[values] = np.arange(values.size)
    return _Gt(name, size, values, ws.histogram[values], ws.gt_runs, starts, ws.index)


class _Masks:
    """The masks of one image on their way through one workspace.

    `overlaps`: int64 (predictions, gt values); `errors` by place among the predictions. Without a gt
    nothing is counted, but every mask is still checked.
    """

    def __init__(
        self,
        ws: Workspace,
        preds: Source,
        gt: _Gt | None,
        result: InstanceResult,
        predictions: int,
    ) -> None:
        self.ws, self.preds, self.gt = ws, preds, gt
        self.decoders = result.decoders
        self.overlaps = np.zeros((predictions, 0 if gt is None else gt.values.size), np.int64)
        self.errors: dict[int, InputError] = {}

    def take(self, turn: Sequence[tuple[int, Entry]]) -> None:
        """Count the masks of these files."""
        entries = [entry for _, entry in turn]
        self.ws.pred_slab = grown(self.ws.pred_slab, sum(entry.size for entry in entries))
        files = Files(self.ws, self.preds, entries, self.ws.pred_slab)
        places = np.array([place for place, _ in turn], np.int64)
        counted = self._count_simple(files, places)
        self.decoders["simd"] += int(counted.sum())
        for at in np.flatnonzero(counted == 0).tolist():
            place = int(places[at])
            try:
                files.raise_unreadable(at)
                self._count(place, decode_mask(files.data(at), files.name(at)), files.name(at))
                self.decoders["pillow"] += 1
            except InputError as error:
                self.errors[place] = error

    def take_rle(self, place: int, rle: Rle, file: str) -> None:
        try:
            self._count(place, decode_rle(rle, file), file)
            self.decoders["rle"] += 1
        except InputError as error:
            self.errors[place] = error

    def _count_simple(self, files: Files, places: Ints) -> Bytes:
        """Count what the kernels take; 1 for each file that was counted, uint8."""
        ws, gt = self.ws, self.gt
        counted = np.zeros(places.size, np.uint8)
        if gt is None:
            return counted
        ws.pred_raw = grown(ws.pred_raw, max(raw_size(gt.size), HUGE_PAGES))
        ws.payload = grown(ws.payload, files.payload(np.arange(places.size)))
        cells = np.zeros((places.size, gt.values.size), np.int64)
        kernels.count_masks(
            files.slab, files.offsets, files.scans, *gt.size, ws.payload, ws.pred_raw, ws.rows,
            ws.decompressor, ws.libdeflate.decompress, gt.runs, gt.starts, gt.index, cells, counted,
        )  # fmt: skip
        self.overlaps[places[counted == 1]] = cells[counted == 1]
        return counted

    def _count(self, place: int, mask: Bytes, file: str) -> None:
        """Count a decoded mask."""
        gt = self.gt
        if gt is None:
            return
        if mask.shape != gt.size:
            raise mask_of_another_size(mask.shape, gt.size, file=file, gt_file=gt.name)
        kernels.count_array(
            np.require(mask, np.uint8, "C"), self.ws.rows, gt.runs, gt.starts, gt.index, self.overlaps[place]
        )
