"""Instance scoring on a device: all masks of several images per batch, in two steps.

First gts and masks are decoded and the values of each gt marked; from the marks the host knows how long a row
of counts is, and launches the counting. Images with anything out of the ordinary (a gt that is not 16-bit
grey, a mask that is not 8-bit grey of the gt's size, run-length masks, a broken file) are left to the CPU
engine whole.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from gpu_eval.engines import png_kernels
from gpu_eval.engines.cuda import kernels as launch
from gpu_eval.engines.cuda.batches import Batch, Limits, fitted
from gpu_eval.engines.cuda.decode import Decoding, Maps, costs, fits_slot
from gpu_eval.engines.cuda.device import DeviceArray, OutOfDeviceMemory
from gpu_eval.engines.cuda.files import Files, Ints, find_streams, read_files
from gpu_eval.engines.cuda.kernels import MapPlace
from gpu_eval.engines.cuda.lane import Lane
from gpu_eval.engines.engine import ImageOverlaps
from gpu_eval.inputs.instance_split import InstanceImage, Rle
from gpu_eval.inputs.source import Entry
from gpu_eval.inputs.sources import Source

EVERYWHERE = MapPlace(-1, 0)  # as a mask


@dataclass(frozen=True)
class _Chosen:
    """An image of a batch: its index in the call, and among the batch's maps its gt and the first mask."""

    image: int
    gt: int
    masks: range


class OverlapScoring:
    """One call of `overlaps`: `results` by image, where a device can give them; the other images are left."""

    def __init__(
        self,
        images: Sequence[InstanceImage],
        gts: Source,
        preds: Source,
        *,
        limits: Limits,
        readers: ThreadPoolExecutor | None,
    ) -> None:
        self.images, self.gts, self.preds = images, gts, preds
        self.limits, self.readers = limits, readers
        self.results: dict[int, ImageOverlaps] = {}
        self._limit = limits.files
        self._masks = [_mask_files(image) for image in images]
        self._todo = deque(i for i, masks in enumerate(self._masks) if masks is not None)

    @property
    def left(self) -> list[int]:
        """The images without a result, in input order."""
        return [i for i in range(len(self.images)) if i not in self.results]

    def start(self, lane: Lane) -> Batch | None:
        """The next batch; None where all images have been in one."""
        if not self._todo:
            return None
        picks: list[int] = []
        files = size = 0
        while self._todo:
            image = self._todo[0]
            files += self._files(image)
            size += self.images[image].gt.size + sum(mask.size for mask in self._masks[image] or ())
            if picks and (files > self._limit or size > self.limits.bytes):
                break
            picks.append(self._todo.popleft())
        return self._batch(lane, picks)

    def _files(self, image: int) -> int:
        return 1 + len(self._masks[image] or ())

    def _batch(self, lane: Lane, picks: list[int]) -> Batch:
        def decode(some: list[int]) -> _Counting | None:
            return self._decode(lane, some, self._read(lane, some))

        step = fitted(lane, self.limits, picks, decode, self._too_many)
        if step is None:
            return
        yield
        try:
            step.count(lane)
        except OutOfDeviceMemory:  # of one row of counts per mask: images of thousands of values
            lane.settle()
            lane.free()
            return
        yield
        self.results.update(step.collect(lane))

    def _too_many(self, beyond: list[int], next_number: int) -> None:  # noqa: ARG002  # files are limited here
        self._limit = max(self._limit // 2, 1)
        self._todo.extendleft(reversed(beyond))

    def _read(self, lane: Lane, picks: Sequence[int]) -> Files:
        """The gts' files, then all masks, image after image."""
        gts = [self.images[i].gt for i in picks]
        masks = [entry for i in picks for entry in self._masks[i] or ()]
        return read_files(lane, [(self.gts, gts), (self.preds, masks)], self.readers)

    def _decode(self, lane: Lane, picks: list[int], files: Files) -> _Counting | None:
        """Decode the maps of as many images as fit, and mark the gts' values; None if it takes no image."""
        wide = np.arange(files.forms.size) < len(picks)
        bytes_per_pixel = 1 + wide.astype(np.int64)
        simple = np.where(
            wide, files.forms == png_kernels.GREY_16, files.forms == png_kernels.GREY_8
        ) & fits_slot(files, bytes_per_pixel)
        of_files = costs(files.heights, files.widths, bytes_per_pixel) + files.payloads
        chosen: list[_Chosen] = []
        beyond: list[int] = []
        wanted: list[int] = []
        cost = files.size
        first = len(picks)
        for gt, image in enumerate(picks):
            masks = range(first, first + self._files(image) - 1)
            first = masks.stop
            maps = [gt, *masks]
            same = (files.heights[maps] == files.heights[gt]) & (files.widths[maps] == files.widths[gt])
            if not (simple[maps] & same).all():
                continue
            cost += int(of_files[maps].sum()) + 12 * launch.MARK_WORDS
            if chosen and cost > self.limits.budget:
                beyond = picks[gt:]
                break
            chosen.append(_Chosen(image, len(wanted), range(len(wanted) + 1, len(wanted) + len(maps))))
            wanted += maps
        if not chosen:
            return None
        at = np.array(wanted, np.int64)
        maps_of = Maps(files.heights[at], files.widths[at], bytes_per_pixel[at], files.payloads[at])
        counting = _Counting(chosen, maps_of, Decoding(lane, maps_of, find_streams(lane.staging, files, at)))
        counting.decode(lane)
        self._todo.extendleft(reversed(beyond))
        return counting


class _Counting:
    """The chosen images of a batch on the device: `decode`, then `count`, then `collect`."""

    def __init__(self, chosen: list[_Chosen], maps: Maps, decoding: Decoding) -> None:
        self.chosen, self.maps, self.decoding = chosen, maps, decoding
        self._good: list[_Chosen] = []
        self._values: list[Ints] = []
        self._rows: list[int] = []  # where the counts of each good image begin

    def decode(self, lane: Lane) -> None:
        """Upload, decode and mark; the marks and the statuses come back."""
        decoding, device = self.decoding, lane.device
        gts = [one.gt for one in self.chosen]
        jobs = lane.put(
            np.array([launch.gt_job(decoding.place(gt), *self._size(gt)) for gt in gts], np.int64)
        )
        slab = lane.buffer("slab", decoding.slab_bytes)
        raw = lane.buffer("raw", decoding.raw_bytes)
        self._pixels = lane.buffer("pixels", decoding.pixels_bytes)
        mark_bytes = 4 * launch.MARK_WORDS * len(gts)
        results = lane.buffer("results", mark_bytes + 4 * decoding.count)
        self._marks: DeviceArray = results[:mark_bytes].view(np.uint32).reshape(len(gts), launch.MARK_WORDS)
        self._statuses: DeviceArray = results[mark_bytes:].view(np.int32)
        staged = decoding.staged_in(slab)
        with lane.stream:
            lane.send(staged)
            lane.mark("kernel")
            device.zero(results)
            decoding.launch(slab, raw, self._pixels, self._statuses)
            launch.mark_values(
                device.module(launch.MARK_VALUES.source),
                self._pixels,
                jobs.on(staged),
                self._statuses,
                self._marks,
                bands=launch.bands(len(gts), int(self.maps.heights[gts].max())),
            )
            lane.fetch(results)

    def count(self, lane: Lane) -> None:
        """Launch the counting of the images whose maps all decoded."""
        fetched, device = lane.wait(), lane.device
        mark_bytes = 4 * launch.MARK_WORDS * len(self.chosen)
        marks = fetched[:mark_bytes].view(np.uint32).reshape(len(self.chosen), launch.MARK_WORDS)
        statuses = fetched[mark_bytes:].view(np.int32)[self.decoding.statuses_at]
        ranks = launch.ranks_of(marks)
        jobs: list[tuple[int, ...]] = []
        counts = 0
        for row, one in enumerate(self.chosen):
            if statuses[[one.gt, *one.masks]].any():
                continue
            values = launch.marked_values(marks[row])
            self._good.append(one)
            self._values.append(values)
            self._rows.append(counts)
            gt = self.decoding.place(one.gt)
            for mask in (EVERYWHERE, *map(self.decoding.place, one.masks)):
                jobs.append(
                    launch.mask_job(
                        gt, mask, *self._size(one.gt), image=row, counts_at=counts, ids=values.size
                    )
                )
                counts += values.size
        lane.begin(0)
        jobs_placed = lane.put(np.array(jobs, np.int64).reshape(-1, launch.MASK_FIELDS))
        ranks_placed = lane.put(ranks)
        slab = lane.buffer("jobs", lane.staged)
        found = lane.buffer("counts", 8 * counts)
        with lane.stream:
            lane.send(slab)
            lane.mark("kernel")
            device.zero(found)
            launch.overlap(
                device.module(launch.OVERLAP.source),
                self._pixels,
                self._pixels,
                jobs_placed.on(slab),
                self._marks,
                ranks_placed.on(slab),
                self._statuses,
                self._statuses,
                found.view(np.int64),
                bands=launch.bands(len(jobs), int(self.maps.heights.max())),
            )
            lane.fetch(found)

    def collect(self, lane: Lane) -> dict[int, ImageOverlaps]:
        """Results by image."""
        counts = lane.wait().view(np.int64)
        results = {}
        for one, values, begin in zip(self._good, self._values, self._rows, strict=True):
            rows = 1 + len(one.masks)
            table = counts[begin : begin + rows * values.size].reshape(rows, values.size).copy()
            results[one.image] = ImageOverlaps(
                gt_values=values,
                gt_pixels=table[0],
                overlaps=table[1:],
                size=self._size(one.gt),
                decoders=Counter(cuda=rows),
            )
        return results

    def _size(self, at: int) -> tuple[int, int]:
        return int(self.maps.heights[at]), int(self.maps.widths[at])


def _mask_files(image: InstanceImage) -> list[Entry] | None:
    """The files of an image's masks; None where some are no files."""
    masks = [prediction.mask for prediction in image.predictions or ()]
    files = [mask for mask in masks if not isinstance(mask, Rle)]
    return files if len(files) == len(masks) else None
