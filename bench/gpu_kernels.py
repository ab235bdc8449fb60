"""Each kernel alone on a device, by CUDA events, on buffers that take turns; inflate beside its rivals."""

from __future__ import annotations

import ctypes
import glob
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.workload import HEIGHT, WIDTH
from gpu_eval.engines.cpu.threads import available_cores
from gpu_eval.engines.cuda import kernels
from gpu_eval.engines.cuda.decode import Decoding, Maps
from gpu_eval.engines.cuda.device import Device, Event
from gpu_eval.engines.cuda.files import find_streams, read_files
from gpu_eval.engines.cuda.lane import Lane, Stopwatch
from gpu_eval.engines.libdeflate import load_libdeflate
from gpu_eval.inputs.source import Entry, Source
from gpu_eval.inputs.sources import open_source
from gpu_eval.labels import load_labels

RAW_BYTES = HEIGHT * (WIDTH + 1)
BUFFERS = 2
WARM_UP = 2


class Prepared:
    """A batch of 1080p pairs on the device, encoded; the gts are the first half of its maps."""

    def __init__(self, device: Device, gts: Sequence[Path], preds: Sequence[Path], pairs: int) -> None:
        self.device, self.pairs = device, pairs
        self.lane = Lane(device, Stopwatch())
        parts = [_part(files, pairs) for files in (gts, preds)]
        files_read = read_files(self.lane, parts, None)
        every = np.arange(2 * pairs)
        maps = Maps(files_read.heights, files_read.widths, np.ones(2 * pairs, np.int64), files_read.payloads)
        self.decoding = Decoding(self.lane, maps, find_streams(self.lane.staging, files_read, every))
        self.encoded_bytes = int(files_read.payloads.sum())
        table = load_labels("idd").encoding("level3").table
        place = self.decoding.place
        jobs = [kernels.pair_job(place(i), place(pairs + i), HEIGHT, WIDTH) for i in range(pairs)]
        placed = [self.lane.put(array) for array in (np.array(jobs, np.int64), table)]
        self.slab = device.allocate(self.decoding.slab_bytes)
        self.raw = device.allocate(self.decoding.raw_bytes)
        self.pixels = device.allocate(self.decoding.pixels_bytes)
        self.statuses = device.allocate(8 * pairs).view(np.int32)
        self.cells = device.allocate(8 * pairs * 28 * 28).view(np.int64).reshape(pairs, 28, 28)
        staged = self.decoding.staged_in(self.slab)
        self.lane.send(staged)
        self.jobs, self.table = (one.on(staged) for one in placed)
        self.no_tables = self.slab[:0].view(np.int32)

    def inflate(self) -> None:
        self.decoding.inflate(self.slab, self.raw, self.statuses)

    def unfilter(self) -> None:
        self.decoding.unfilter(self.slab, self.raw, self.pixels, self.statuses)

    def confusion(self) -> None:
        kernels.confusion(
            self.device.module(kernels.CONFUSION.source),
            self.pixels, self.pixels, self.jobs, self.no_tables, self.table, self.table,
            self.statuses, self.statuses, self.cells, bands=kernels.bands(self.pairs, HEIGHT),
        )  # fmt: skip

    def all(self) -> None:
        self.inflate()
        self.unfilter()
        self.confusion()

    def counted(self) -> tuple[npt.NDArray[np.int64], int]:
        """The total of a fresh count, and how many maps did not decode."""
        self.device.zero(self.cells)
        self.all()
        cells, statuses = np.zeros(self.cells.shape, np.int64), np.zeros(2 * self.pairs, np.int32)
        self.device.download(self.cells, cells)
        self.device.download(self.statuses, statuses)
        self.device.record().synchronize()
        return cells.sum(axis=0), int(np.count_nonzero(statuses))


def _part(files: Sequence[Path], count: int) -> tuple[Source, list[Entry]]:
    """`count` entries that name these files in turn, and their source."""
    root = os.path.commonpath([file.parent for file in files])
    entries = [Entry(file.relative_to(root).as_posix(), file.stat().st_size, "") for file in files]
    return open_source(root), [entries[i % len(entries)] for i in range(count)]


def timed(device: Device, works: Sequence[Callable[[], None]], repeat: int) -> dict[str, float]:
    """Minimum and median seconds of a call, by events; the works take turns, so that no cache stays warm."""
    for number in range(WARM_UP * len(works)):
        works[number % len(works)]()
    seconds = []
    for number in range(repeat):
        begin: Event = device.record()
        works[number % len(works)]()
        end: Event = device.record()
        end.synchronize()
        seconds.append(device.seconds(begin, end))
    return {"min_s": min(seconds), "median_s": statistics.median(seconds)}


def copy_bandwidth(device: Device, repeat: int) -> float:
    """Bytes per second of a device-to-device copy of 1 GiB, read and written bytes both counted.

    Of less where the device has less than eight times that.
    """
    size = min(1 << 30, device.free_memory() // 8)
    buffers = [(device.allocate(size), device.allocate(size)) for _ in range(BUFFERS)]

    def copy(source: Any, target: Any) -> Callable[[], None]:
        return lambda: target.data.copy_from_device_async(source.data, size)

    return 2 * size / timed(device, [copy(*pair) for pair in buffers], repeat)["median_s"]


def kernel_rows(
    device: Device, sets: Sequence[Prepared], bandwidth: float, repeat: int
) -> list[dict[str, Any]]:
    """A row per kernel; `bytes` are those that must move through device memory, each once."""
    pairs = sets[0].pairs
    maps = 2 * pairs
    moved = {
        "inflate": maps * RAW_BYTES + sets[0].encoded_bytes,
        "unfilter": maps * (RAW_BYTES + HEIGHT * WIDTH),
        "confusion": maps * HEIGHT * WIDTH,
        "all": maps * (2 * RAW_BYTES + 2 * HEIGHT * WIDTH) + sets[0].encoded_bytes,
    }
    rows = []
    for name, size in moved.items():
        timing = timed(device, [getattr(one, name) for one in sets], repeat)
        rate = size / timing["median_s"]
        rows.append(
            {
                "kernel": name,
                "pairs": pairs,
                **timing,
                "pairs_per_s": pairs / timing["median_s"],
                "bytes": size,
                "bytes_per_s": rate,
                "share_of_copy": rate / bandwidth,
                "output_bytes_per_s": maps * RAW_BYTES / timing["median_s"],
            }
        )
    return rows


def libdeflate_streams_per_s(streams: Sequence[bytes], repeat: int) -> float:
    """Streams per second of libdeflate on all cores; each thread inflates its share into one buffer."""
    inflate = load_libdeflate().library.libdeflate_zlib_decompress
    size, pointer = ctypes.c_size_t, ctypes.c_void_p
    inflate.argtypes = [pointer, ctypes.c_char_p, size, pointer, size, pointer]
    cores = available_cores()

    def work(core: int) -> None:
        state = load_libdeflate().new_decompressor()
        buffer = np.zeros(RAW_BYTES, np.uint8)
        for stream in streams[core::cores]:
            if inflate(state, stream, len(stream), buffer.ctypes.data, RAW_BYTES, None) != 0:
                raise ValueError("a stream of the workload does not inflate")
        load_libdeflate().free_decompressor(state)

    seconds = []
    with ThreadPoolExecutor(cores) as pool:
        for _ in range(repeat + 1):
            begin = time.perf_counter()
            list(pool.map(work, range(cores)))
            seconds.append(time.perf_counter() - begin)
    return len(streams) / statistics.median(seconds[1:])


class NvcompOptions(ctypes.Structure):
    """`nvcompBatchedDeflateDecompressOpts_t` of nvCOMP 5 and 6: 64 bytes, by value."""

    _fields_ = (("backend", ctypes.c_int), ("sort", ctypes.c_int), ("reserved", ctypes.c_char * 56))


def nvcomp_streams_per_s(
    device: Device, streams: Sequence[bytes], expected: bytes, repeat: int
) -> float | str:
    """Streams per second of nvCOMP's batched Deflate, or why it did not run.

    It gets the same streams without zlib's header and checksum, which it neither reads nor checks. `expected`
    is what the first stream holds.
    """
    try:
        import cupy
        import nvidia.libnvcomp as nvcomp
    except ImportError as error:
        return f"not installed: {error.name}"
    library = ctypes.CDLL(glob.glob(nvcomp.__path__[0] + "/lib64/libnvcomp.so.*")[0])
    size, pointer = ctypes.c_size_t, ctypes.c_void_p
    temp_size, decompress = (
        library.nvcompBatchedDeflateDecompressGetTempSize,
        library.nvcompBatchedDeflateDecompressAsync,
    )
    temp_size.argtypes = [size, size, NvcompOptions, ctypes.POINTER(size), size, pointer]
    decompress.argtypes = [
        pointer, pointer, pointer, pointer, size, pointer, size, pointer, NvcompOptions, pointer, pointer,
    ]  # fmt: skip
    count = len(streams)
    raw = [stream[2:-4] for stream in streams]
    places = np.cumsum([0, *(-(-len(stream) // 16) * 16 for stream in raw)])
    slab = np.zeros(int(places[-1]), np.uint8)
    for at, stream in zip(places, raw, strict=False):
        slab[at : at + len(stream)] = np.frombuffer(stream, np.uint8)
    on_device = cupy.asarray(slab)
    lengths = cupy.asarray([len(stream) for stream in raw], dtype=cupy.uint64)
    sources = cupy.asarray(on_device.data.ptr + places[:-1].astype(np.uint64))
    slot = -(-RAW_BYTES // 16) * 16
    output = cupy.empty((count, slot), cupy.uint8)
    targets = cupy.asarray(output.data.ptr + np.arange(count, dtype=np.uint64) * np.uint64(slot))
    room, found = cupy.full(count, RAW_BYTES, cupy.uint64), cupy.zeros(count, cupy.uint64)
    statuses = cupy.full(count, -1, cupy.int32)
    options, needed = NvcompOptions(2, 0, b""), size()  # 2: its CUDA kernels
    stream_pointer = cupy.cuda.get_current_stream().ptr
    if temp_size(count, RAW_BYTES, options, ctypes.byref(needed), count * RAW_BYTES, stream_pointer):
        return "nvCOMP refused the batch"
    scratch = cupy.empty(max(needed.value, 1), cupy.uint8)

    def work() -> None:
        failed = decompress(
            sources.data.ptr, lengths.data.ptr, room.data.ptr, found.data.ptr, count, scratch.data.ptr,
            needed.value, targets.data.ptr, options, statuses.data.ptr, stream_pointer,
        )  # fmt: skip
        if failed:
            raise RuntimeError(f"nvCOMP: error {failed}")

    try:
        work()
    except RuntimeError as error:
        return str(error)
    if statuses.any() or not (found == RAW_BYTES).all() or output[0, :RAW_BYTES].get().tobytes() != expected:
        return "nvCOMP gave other bytes"
    return count / timed(device, [work], repeat)["median_s"]
