"""Files read straight into a lane's staging memory, their headers parsed, their zlib streams found."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_eval.engines import png_kernels
from gpu_eval.engines.cuda import stream_kernels
from gpu_eval.engines.cuda.device import Bytes
from gpu_eval.engines.cuda.lane import Lane
from gpu_eval.engines.libdeflate import load_libdeflate
from gpu_eval.inputs import png
from gpu_eval.inputs.sources import Entry, Source

Ints = npt.NDArray[np.int64]

# Files that one thread reads at a time; a remote source fetches so many at once.
STRIPE = 128


@dataclass(frozen=True)
class Files:
    """What the host knows of the files of a batch; all arrays have one entry per file.

    `begins` are places in the staging memory, `forms` those of `png_kernels`; nothing else is known of OTHER
    files: files that could not be read are among them.
    """

    size: int  # bytes of all files
    begins: Ints
    forms: Ints
    heights: Ints
    widths: Ints
    payloads: Ints


@dataclass(frozen=True)
class Streams:
    """Where zlib streams lie. Those of several chunks are to be gathered into `room` bytes in front of all.

    `places` has one entry per file and counts from the first gathered byte on; rows of `segments` are those
    of `stream_kernels`, counted alike.
    """

    places: Ints
    segments: Ints
    room: int


def read_files(
    lane: Lane, parts: Sequence[tuple[Source, Sequence[Entry]]], pool: ThreadPoolExecutor | None
) -> Files:
    """Read and scan the files of `parts`, one after the other, in stripes that `pool` reads side by side.

    Raises OutOfDeviceMemory where the host has not the memory to read them.
    """
    stripes: list[tuple[Source, Sequence[Entry], int, int]] = []
    at = 0
    for source, entries in parts:
        for first in range(0, len(entries), STRIPE):
            stripe = entries[first : first + STRIPE]
            size = sum(entry.size for entry in stripe)
            stripes.append((source, stripe, at, size))
            at += size
    slab = lane.begin(at)

    def read(stripe: tuple[Source, Sequence[Entry], int, int]) -> tuple[Ints, Ints]:
        source, entries, begin, size = stripe
        part = slab[begin : begin + size]
        scans = np.zeros((len(entries), png_kernels.SCAN_COLUMNS), np.int64)
        with lane.stopwatch.time("read"):
            offsets, _ = source.read_into(entries, part)  # a file with a problem is zeros, and so OTHER
            png_kernels.scan(part, offsets, png.MAX_PIXELS, load_libdeflate().crc32, scans)
        return offsets[:-1] + begin, scans

    if pool is None:
        read_stripes = [read(stripe) for stripe in stripes]
    else:
        futures = [pool.submit(read, stripe) for stripe in stripes]
        try:
            read_stripes = [future.result() for future in futures]
        finally:
            wait(futures)  # none of them may still write when the lane goes to another batch
    scans = np.concatenate([scans for _, scans in read_stripes])
    return Files(
        at,
        np.concatenate([begins for begins, _ in read_stripes]),
        scans[:, png_kernels.FORM],
        scans[:, png_kernels.HEIGHT],
        scans[:, png_kernels.WIDTH],
        scans[:, png_kernels.PAYLOAD],
    )


def find_streams(slab: Bytes, files: Files, wanted: Ints) -> Streams:
    """The zlib streams of the files `wanted`, by index, none of form OTHER; places in that order."""
    begins, payloads = files.begins[wanted], files.payloads[wanted]
    places = np.zeros(wanted.size, np.int64)
    segments = np.zeros((0, stream_kernels.SEGMENT_COLUMNS), np.int64)
    while True:
        count = int(stream_kernels.find_streams(slab, begins, payloads, places, segments))
        if count <= segments.shape[0]:
            break
        segments = np.zeros((count, stream_kernels.SEGMENT_COLUMNS), np.int64)
    scattered = places < 0
    room = -(-int(payloads[scattered].sum()) // 16) * 16
    segments[:, stream_kernels.SOURCE] += room
    return Streams(np.where(scattered, -1 - places, places + room), segments, room)
