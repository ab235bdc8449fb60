"""What one thread of the CPU engine works in: buffers that are kept, and the files read into them.

Nothing is allocated per image once the buffers have grown to the largest map seen: page faults cost more
than inflating.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gpu_eval.engines import colours, png_kernels
from gpu_eval.engines.colours import Side
from gpu_eval.engines.cpu import instance_kernels, semantic_kernels
from gpu_eval.engines.libdeflate import Libdeflate
from gpu_eval.engines.simd import PAD
from gpu_eval.inputs import png
from gpu_eval.inputs.sources import Entry, Source

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

# NumPy asks the kernel for huge pages from this array size on.
HUGE_PAGES = 1 << 22


@dataclass
class Workspace:
    """The buffers of one thread, all grown on demand and never shrunk."""

    libdeflate: Libdeflate
    decompressor: int
    gt_slab: Bytes = field(default_factory=lambda: np.zeros(1 << 20, np.uint8))
    pred_slab: Bytes = field(default_factory=lambda: np.zeros(1 << 20, np.uint8))
    payload: Bytes = field(default_factory=lambda: np.zeros(1 << 18, np.uint8))
    gt_raw: Bytes = field(default_factory=lambda: np.zeros(0, np.uint8))
    pred_raw: Bytes = field(default_factory=lambda: np.zeros(0, np.uint8))
    rows: Bytes = field(default_factory=lambda: np.zeros(0, np.uint8))
    runs: Ints = field(default_factory=lambda: np.zeros((2, 2, 0), np.int64))  # of a row of both maps
    gt_runs: Ints = field(default_factory=lambda: np.zeros(1 << 16, np.int64))  # of an instance gt, all rows
    gt_starts: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    histogram: Ints = field(default_factory=lambda: np.zeros(instance_kernels.VALUES, np.int64))
    index: Ints = field(default_factory=lambda: np.zeros(instance_kernels.VALUES, np.int64))
    busy_s: float = 0.0  # seconds in use, reading included
    reading_s: float = 0.0

    def fit_slabs(self, gt_bytes: int, pred_bytes: int) -> None:
        self.gt_slab = grown(self.gt_slab, gt_bytes)
        self.pred_slab = grown(self.pred_slab, pred_bytes)

    def fit_maps(self, gt_size: tuple[int, int], pred_size: tuple[int, int], payload: int) -> None:
        """Room for two maps of a byte per pixel, filtered."""
        width = max(gt_size[1], pred_size[1])
        self.gt_raw = grown(self.gt_raw, max(raw_size(gt_size), HUGE_PAGES))
        self.pred_raw = grown(self.pred_raw, max(raw_size(pred_size), HUGE_PAGES))
        self.payload = grown(self.payload, payload)
        self.rows = grown(self.rows, semantic_kernels.rows_size(width))
        if self.runs.shape[2] < width + 2:
            self.runs = np.zeros((2, 2, width + 2), np.int64)


def grown(buffer: Bytes, size: int) -> Bytes:
    """A buffer with room for `size` bytes and the padding that the kernels read beyond them."""
    return buffer if buffer.size >= size + PAD else np.zeros(size + size // 4 + PAD, np.uint8)


def raw_size(size: tuple[int, int], form: int = png_kernels.GREY_8) -> int:
    """Bytes of the filtered rows of a (height, width) map with their filter bytes."""
    return size[0] * (int(png_kernels.stride(form, size[1])) + 1)


class Files:
    """Some files of one source: read into a slab, scanned, decoded on demand."""

    def __init__(self, ws: Workspace, source: Source, entries: Sequence[Entry], slab: Bytes) -> None:
        self.ws, self.entries, self.slab = ws, entries, slab
        self.location = source.location
        begun = time.perf_counter()
        self.offsets, self.errors = source.read_into(entries, slab)
        ws.reading_s += time.perf_counter() - begun
        self.scans = np.zeros((len(entries), png_kernels.SCAN_COLUMNS), np.int64)
        png_kernels.scan(slab, self.offsets, png.MAX_PIXELS, ws.libdeflate.crc32, self.scans)

    def name(self, index: int) -> str:
        return f"{self.location}/{self.entries[index].name}"

    def raise_unreadable(self, index: int) -> None:
        if index in self.errors:
            raise self.errors[index]

    def form(self, index: int) -> int:
        """Which of the kernels' forms a file has; OTHER for what they do not take."""
        return int(self.scans[index, png_kernels.FORM])

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of a file whose form is not OTHER."""
        scan = self.scans[index]
        return int(scan[png_kernels.HEIGHT]), int(scan[png_kernels.WIDTH])

    def payload(self, index: int | Ints) -> int:
        """Bytes of the largest zlib stream among these files."""
        return int(np.max(self.scans[index, png_kernels.PAYLOAD]))

    def inflate(self, index: int, raw: Bytes) -> bool:
        """Inflate a file whose form is not OTHER into `raw`; False if its pixel data is damaged."""
        status = png_kernels.inflate(
            self.slab, self.offsets[index], self.payload(index), self.ws.payload, raw,
            raw_size(self.size(index), self.form(index)),
            self.ws.decompressor, self.ws.libdeflate.decompress,
        )  # fmt: skip
        return bool(status == 0)

    def data(self, index: int) -> memoryview:
        return self.slab[self.offsets[index] : self.offsets[index + 1]].data

    def decode(self, index: int, side: Side | None = None) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        """The label values by the readable decoder, which raises what is wrong; label maps have a side."""
        if side is not None:
            return colours.decode(self.data(index), self.name(index), side)
        return png.decode(self.data(index), self.name(index))
