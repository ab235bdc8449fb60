"""From a batch's files on the device to rows of pixels: gather, inflate, unfilter, for maps of any sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_eval.engines.cuda import kernels, stream_kernels
from gpu_eval.engines.cuda.device import DeviceArray
from gpu_eval.engines.cuda.files import Files, Ints, Streams
from gpu_eval.engines.cuda.kernels import MAX_SLOT, SLOT_ALIGNMENT, MapPlace
from gpu_eval.engines.cuda.lane import Lane, Placed


def raw_sizes(heights: Ints, widths: Ints, bytes_per_pixel: int | Ints = 1) -> Ints:
    """Bytes of filtered rows, with their filter bytes."""
    return heights * (widths * bytes_per_pixel + 1)


def fits_slot(files: Files, bytes_per_pixel: int | Ints = 1) -> npt.NDArray[np.bool_]:
    """Which files `inflate` has slots for."""
    return raw_sizes(files.heights, files.widths, bytes_per_pixel) <= MAX_SLOT


def costs(heights: Ints, widths: Ints, bytes_per_pixel: int | Ints = 1) -> Ints:
    """Device memory that each map takes besides its file."""
    return _padded(raw_sizes(heights, widths, bytes_per_pixel)) + heights * _padded(widths * bytes_per_pixel)


def _padded(sizes: Ints) -> Ints:
    return -(-sizes // SLOT_ALIGNMENT) * SLOT_ALIGNMENT


def _starts(sizes: Ints) -> Ints:
    """Where each of these begins when they follow one another."""
    return np.cumsum(sizes) - sizes


@dataclass(frozen=True)
class Maps:
    """The maps to decode; one entry per map. `bytes_per_pixel` is 1 or 2."""

    heights: Ints
    widths: Ints
    bytes_per_pixel: Ints
    payloads: Ints


class Decoding:
    """The decoding of `maps`, whose streams are known: staged by the constructor, launched by `launch`.

    `pixels_at`, `pitches` (bytes) and `statuses_at` say by map where its pixels and its status will be.
    """

    def __init__(self, lane: Lane, maps: Maps, streams: Streams) -> None:
        self.count = maps.heights.size
        self._lane = lane
        self._room = streams.room
        sizes = raw_sizes(maps.heights, maps.widths, maps.bytes_per_pixel)
        slots = _padded(sizes)
        raw_at = _starts(slots)
        self.raw_bytes = int(slots.sum())
        self.pitches = _padded(maps.widths * maps.bytes_per_pixel)
        self.pixels_at = _starts(maps.heights * self.pitches)
        self.pixels_bytes = int((maps.heights * self.pitches).sum())
        # 16-bit maps first, as they are unfiltered by another kernel; then the streams that take longest.
        order = np.lexsort((-maps.payloads, -maps.bytes_per_pixel))
        self.statuses_at = np.empty(self.count, np.int64)
        self.statuses_at[order] = np.arange(self.count)
        wide = int((maps.bytes_per_pixel == 2).sum())
        self._groups = [(2, 0, wide), (1, wide, self.count)]

        def put(values: Ints, dtype: type[np.generic]) -> Placed:
            return lane.put(values.astype(dtype))

        self._offsets = put(streams.places[order], np.int64)
        self._lengths = put(maps.payloads[order], np.int32)
        self._raw_at = put(raw_at[order], np.int64)
        self._sizes = put(sizes[order], np.int32)
        self._heights = put(maps.heights[order], np.int32)
        self._widths = put(maps.widths[order], np.int32)
        self._pixels_at = put(self.pixels_at[order], np.int64)
        self._segments = [
            put(streams.segments[:, column], dtype)
            for column, dtype in (
                (stream_kernels.SOURCE, np.int64),
                (stream_kernels.TARGET, np.int64),
                (stream_kernels.LENGTH, np.int32),
            )
        ]

    @property
    def slab_bytes(self) -> int:
        """Size of the slab once all is staged: room for gathered streams, then what is staged."""
        return self._room + self._lane.staged

    def staged_in(self, slab: DeviceArray) -> DeviceArray:
        """The part of the slab where what is staged goes."""
        return slab[self._room :]

    def launch(self, slab: DeviceArray, raw: DeviceArray, pixels: DeviceArray, statuses: DeviceArray) -> None:
        """Decode into `pixels` and `statuses`, int32 (maps,). The staged bytes are in the slab."""
        self.inflate(slab, raw, statuses)
        self.unfilter(slab, raw, pixels, statuses)

    def inflate(self, slab: DeviceArray, raw: DeviceArray, statuses: DeviceArray) -> None:
        """Gather and inflate all streams into `raw`, and write all `statuses`."""
        staged = self.staged_in(slab)
        module = self._lane.device.module(kernels.INFLATE_CU)
        kernels.gather(module, slab, *(placed.on(staged) for placed in self._segments))
        offsets, lengths = self._offsets.on(staged), self._lengths.on(staged)
        raw_at, sizes = self._raw_at.on(staged), self._sizes.on(staged)
        kernels.inflate(module, slab, offsets, lengths, raw, raw_at, sizes, statuses)

    def unfilter(
        self, slab: DeviceArray, raw: DeviceArray, pixels: DeviceArray, statuses: DeviceArray
    ) -> None:
        """Unfilter what has been inflated."""
        staged = self.staged_in(slab)
        raw_at, pixels_at = self._raw_at.on(staged), self._pixels_at.on(staged)
        heights, widths = self._heights.on(staged), self._widths.on(staged)
        for bytes_per_pixel, first, end in self._groups:
            if first == end:
                continue
            kernels.unfilter(
                self._lane.device.module(kernels.UNFILTER[bytes_per_pixel].source),
                raw,
                raw_at[first:end],
                heights[first:end],
                widths[first:end],
                pixels,
                pixels_at[first:end],
                statuses[first:end],
                bytes_per_pixel=bytes_per_pixel,
            )

    def place(self, index: int) -> MapPlace:
        """Where a map's pixels are, shown at its own size."""
        return MapPlace(
            int(self.pixels_at[index]), int(self.pitches[index]), status=int(self.statuses_at[index])
        )
