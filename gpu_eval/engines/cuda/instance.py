"""Instance scoring on a device: all masks of several images per batch, in two steps.

First gts and masks are decoded and the values of each gt marked; from the marks the host knows how long a row
of counts is, and launches the counting. Images with anything out of the ordinary (a gt that is not 16-bit
grey, a mask that is not 8-bit grey of the gt's size, run-length masks, a broken file) are left to the CPU
engine whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from gpu_eval.engines import png_kernels
from gpu_eval.engines.cuda import kernels
from gpu_eval.engines.cuda.batches import Batches, Launched, Limits
from gpu_eval.engines.cuda.decode import Decoding, Maps, costs, fits_slot
from gpu_eval.engines.cuda.device import DeviceArray
from gpu_eval.engines.cuda.files import Files, Ints, find_streams
from gpu_eval.engines.cuda.kernels import MapPlace
from gpu_eval.engines.cuda.lane import Lane
from gpu_eval.engines.instance import InstanceJob, InstanceResult
from gpu_eval.inputs.instance_split import InstanceImage, Rle
from gpu_eval.inputs.sources import Entry, Source

EVERYWHERE = MapPlace(-1, 0)  # as a mask


def batches(
    job: InstanceJob,  # noqa: ARG001  # it holds nothing
    images: Sequence[InstanceImage],
    gts: Source,
    preds: Source,
    *,
    limits: Limits,
    readers: ThreadPoolExecutor | None,
) -> Batches[InstanceImage, InstanceResult]:
    """The batches of one call."""
    return _Images(images, gts, preds, limits=limits, readers=readers, most=limits.files)


@dataclass(frozen=True)
class _Chosen:
    """An image of a batch: its index in the call, and among the batch's maps its gt and the first mask."""

    image: int
    gt: int
    masks: range


class _Images(Batches[InstanceImage, InstanceResult]):
    """Images with their masks; a batch holds `limits.files` of them, gts included."""

    def files(self, image: InstanceImage) -> Sequence[Entry] | None:
        masks = [prediction.mask for prediction in image.predictions or ()]
        files = [mask for mask in masks if not isinstance(mask, Rle)]
        return [image.gt, *files] if len(files) == len(masks) else None

    def launch(self, lane: Lane, picks: list[int], files: Files) -> Launched | None:
        """Decode the maps of as many images as fit, and mark the gts' values; `_Counting` goes on."""
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
            masks = range(first, first + len(self.entries[image]) - 1)
            first = masks.stop
            maps = [gt, *masks]
            # A mask of another size is an error, which `instance.mask_of_another_size` words on the CPU.
            same = (files.heights[maps] == files.heights[gt]) & (files.widths[maps] == files.widths[gt])
            if not (simple[maps] & same).all():
                continue
            cost += int(of_files[maps].sum()) + 12 * kernels.MARK_WORDS
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

        def collect(lane: Lane) -> None:
            self.results.update(counting.collect(lane))

        return Launched([counting.count, collect], beyond)


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
            np.array([kernels.gt_job(decoding.place(gt), *self._size(gt)) for gt in gts], np.int64)
        )
        slab = lane.buffer("slab", decoding.slab_bytes)
        raw = lane.buffer("raw", decoding.raw_bytes)
        self._pixels = lane.buffer("pixels", decoding.pixels_bytes)
        mark_bytes = 4 * kernels.MARK_WORDS * len(gts)
        results = lane.buffer("results", mark_bytes + 4 * decoding.count)
        self._marks: DeviceArray = results[:mark_bytes].view(np.uint32).reshape(len(gts), kernels.MARK_WORDS)
        self._statuses: DeviceArray = results[mark_bytes:].view(np.int32)
        staged = decoding.staged_in(slab)
        with lane.stream:
            lane.send(staged)
            lane.mark("kernel")
            device.zero(results)
            decoding.launch(slab, raw, self._pixels, self._statuses)
            kernels.mark_values(
                device.module(kernels.MARK_VALUES.source),
                self._pixels,
                jobs.on(staged),
                self._statuses,
                self._marks,
                bands=kernels.bands(len(gts), int(self.maps.heights[gts].max())),
            )
            lane.fetch(results)

    def count(self, lane: Lane) -> None:
        """Launch the counting of the images whose maps all decoded."""
        fetched, device = lane.wait(), lane.device
        mark_bytes = 4 * kernels.MARK_WORDS * len(self.chosen)
        marks = fetched[:mark_bytes].view(np.uint32).reshape(len(self.chosen), kernels.MARK_WORDS)
        statuses = fetched[mark_bytes:].view(np.int32)[self.decoding.statuses_at]
        ranks = kernels.ranks_of(marks)
        jobs: list[tuple[int, ...]] = []
        counts = 0
        for row, one in enumerate(self.chosen):
            if statuses[[one.gt, *one.masks]].any():
                continue
            values = kernels.marked_values(marks[row])
            self._good.append(one)
            self._values.append(values)
            self._rows.append(counts)
            gt = self.decoding.place(one.gt)
            for mask in (EVERYWHERE, *map(self.decoding.place, one.masks)):
                jobs.append(
                    kernels.mask_job(
                        gt, mask, *self._size(one.gt), image=row, counts_at=counts, ids=values.size
                    )
                )
                counts += values.size
        lane.begin(0)
        jobs_placed = lane.put(np.array(jobs, np.int64).reshape(-1, kernels.MASK_FIELDS))
        ranks_placed = lane.put(ranks)
        slab = lane.buffer("jobs", lane.staged)
        found = lane.buffer("counts", 8 * counts)
        with lane.stream:
            lane.send(slab)
            lane.mark("kernel")
            device.zero(found)
            kernels.overlap(
                device.module(kernels.OVERLAP.source),
                self._pixels,
                self._pixels,
                jobs_placed.on(slab),
                self._marks,
                ranks_placed.on(slab),
                self._statuses,
                self._statuses,
                found.view(np.int64),
                bands=kernels.bands(len(jobs), int(self.maps.heights.max())),
            )
            lane.fetch(found)

    def collect(self, lane: Lane) -> dict[int, InstanceResult]:
        """Results by image."""
        counts = lane.wait().view(np.int64)
        results = {}
        for one, values, begin in zip(self._good, self._values, self._rows, strict=True):
            rows = 1 + len(one.masks)
            table = counts[begin : begin + rows * values.size].reshape(rows, values.size).copy()
            results[one.image] = InstanceResult(
                gt_values=values,
                gt_pixels=table[0],
                overlaps=table[1:],
                size=self._size(one.gt),
                decoders=Counter(cuda=rows),
            )
        return results

    def _size(self, at: int) -> tuple[int, int]:
        return int(self.maps.heights[at]), int(self.maps.widths[at])
