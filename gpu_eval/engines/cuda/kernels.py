"""How each kernel is compiled and launched: -D constants, block sizes, budgets, and one wrapper per kernel.

Imports no GPU library. A `Module` is a `cupy.RawModule` with CuPy arrays, or the tests' host executor with
NumPy arrays; the wrappers are the same for both. CuPy does not check what it hands to a kernel, so the
wrappers do: dtype, contiguity and scalar width.

The budgets are what the occupancy plan in `docs/architecture.md` needs; `tests/kernels` holds the compiled
kernels to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Dimensions = tuple[int, ...]


class Module(Protocol):
    """Compiled kernels by name: `cupy.RawModule` or the host executor."""

    def get_function(self, name: str, /) -> Callable[[Dimensions, Dimensions, tuple[Any, ...]], None]: ...


class Array(Protocol):
    """What the wrappers need to know of an array: CuPy's and NumPy's alike."""

    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def size(self) -> int: ...
    @property
    def flags(self) -> Any: ...


def folder() -> Traversable:
    """Where the `.cu` files are: in the package, or beside it in a checkout that is not installed."""
    try:
        return files("gpu_eval.kernels")
    except ModuleNotFoundError:
        return Path(__file__).parents[3] / "kernels"


@dataclass(frozen=True)
class Source:
    """A `.cu` file with the constants it is compiled with, and the files that stand before it.

    Kernels include nothing; what would be a header is joined in front.
    """

    file: str
    defines: Mapping[str, int | str] = field(default_factory=dict)
    before: tuple[str, ...] = ()

    def text(self) -> str:
        """The joined files; messages of compilers name each file and its own lines."""
        parts = []
        for file in (*self.before, self.file):
            text = (folder() / file).read_text(encoding="utf-8")
            parts.append(f'#line 1 "kernels/{file}"\n{text}')
        return "".join(parts)

    def options(self) -> tuple[str, ...]:
        """For nvrtc. The host executor takes the -D options only."""
        return ("--std=c++17", *(f"-D{name}={value}" for name, value in self.defines.items()))


@dataclass(frozen=True)
class Kernel:
    """One function of a source: its block size and what it may cost.

    `registers` is per thread, on every architecture; `shared` is static shared memory in bytes per block;
    `blocks_per_sm` is how many blocks must fit on an SM of compute capability 9.0 at once.
    """

    source: Source
    name: str
    threads: int
    registers: int
    shared: int
    blocks_per_sm: int = 1

    def launch(self, module: Module, blocks: Dimensions, arguments: tuple[Any, ...]) -> None:
        """Launch over `blocks`; nothing is launched where that is empty, since CUDA refuses an empty grid."""
        if all(blocks):
            module.get_function(self.name)(blocks, (self.threads,), arguments)


def expect(array: Array, dtype: type[np.generic], *shape: int | None, name: str) -> None:
    """Refuse an array that a kernel would misread; None in `shape` takes any extent.

    Raises
        TypeError: another dtype, shape or layout.
    """
    fits = len(array.shape) == len(shape) and all(
        wanted is None or extent == wanted for extent, wanted in zip(array.shape, shape, strict=True)
    )
    if array.dtype != dtype or not fits or not array.flags.c_contiguous:
        layout = "contiguous" if array.flags.c_contiguous else "strided"
        wanted = ", ".join("any" if extent is None else str(extent) for extent in shape)
        raise TypeError(
            f"{name}: {layout} {array.dtype} of shape {array.shape}, expected "
            f"contiguous {np.dtype(dtype)} of shape ({wanted})"
        )


# --- inflate.cu ----------------------------------------------------------------------------------


class InflateStatus(IntEnum):
    """How a stream ended; each is described in `kernels/inflate.cu`. Anything but OK is judged again by
    `inputs/png.py`, which knows the words."""

    OK = 0
    CORRUPT = 1
    SHORT = 2
    TOO_LONG = 3
    TRUNCATED = 4
    REFUSED = 5


# Slots of inflated data begin at multiples of this many bytes, and hold at most so many.
SLOT_ALIGNMENT = 16
MAX_SLOT = 1 << 28

LITERAL_BITS, DISTANCE_BITS = 10, 8
GATHER_THREADS = 256

INFLATE_CU = Source(
    "inflate.cu",
    {"LITERAL_BITS": LITERAL_BITS, "DISTANCE_BITS": DISTANCE_BITS, "GATHER_THREADS": GATHER_THREADS},
    before=("deflate_codes.cu",),
)
# 32 blocks of one warp are the most that an SM of compute capability 9.0 holds.
INFLATE = Kernel(INFLATE_CU, "inflate", 32, registers=80, shared=6 * 1024, blocks_per_sm=32)
GATHER = Kernel(INFLATE_CU, "gather", GATHER_THREADS, registers=32, shared=0, blocks_per_sm=8)


def gather(module: Module, slab: Array, sources: Array, targets: Array, lengths: Array) -> None:
    """Copy segments within the slab, so that the payload of several IDAT chunks becomes one stream.

    slab is uint8; sources, targets (int64) and lengths (int32) have one entry per segment.

    Raises
        TypeError: an array of another dtype, shape or layout.
    """
    count = sources.shape[0]
    _expect_slab(slab)
    expect(sources, np.int64, count, name="sources")
    expect(targets, np.int64, count, name="targets")
    expect(lengths, np.int32, count, name="lengths")
    GATHER.launch(module, (count,), (slab, np.int64(slab.size), sources, targets, lengths))


def inflate(
    module: Module,
    slab: Array,
    offsets: Array,
    lengths: Array,
    output: Array,
    targets: Array,
    sizes: Array,
    statuses: Array,
) -> None:
    """Inflate one zlib stream per entry of `offsets` and write an `InflateStatus` for each.

    slab and output are uint8; offsets and targets int64, lengths, sizes and statuses int32, one entry per
    stream. A stream is `lengths[i]` bytes of the slab, its slot `sizes[i]` bytes of the output from
    `targets[i]` on, a multiple of SLOT_ALIGNMENT. The largest streams should come first: they take longest.

    Raises
        TypeError: an array of another dtype, shape or layout.
    """
    count = offsets.shape[0]
    _expect_slab(slab)
    expect(offsets, np.int64, count, name="offsets")
    expect(lengths, np.int32, count, name="lengths")
    expect(output, np.uint8, None, name="output")
    expect(targets, np.int64, count, name="targets")
    expect(sizes, np.int32, count, name="sizes")
    expect(statuses, np.int32, count, name="statuses")
    inputs = (slab, np.int64(slab.size), offsets, lengths)
    INFLATE.launch(module, (count,), (*inputs, output, np.int64(output.size), targets, sizes, statuses))


def _expect_slab(slab: Array) -> None:
    expect(slab, np.uint8, None, name="slab")
    if slab.size % 4:
        raise TypeError(f"slab: {slab.size} bytes, expected a multiple of 4, since whole words are read")


# --- unfilter.cu ---------------------------------------------------------------------------------

# Status of an image with a filter type that PNG does not have; inflate's own statuses are below it.
UNKNOWN_FILTER = 16

UNFILTER_WARPS = 4


def _unfilter(bytes_per_pixel: int, tiles: int, blocks: int) -> Kernel:
    defines = {
        "BPP": bytes_per_pixel,
        "WARPS": UNFILTER_WARPS,
        "BLOCKS": blocks,
        "TILES": tiles,
        "UNKNOWN_FILTER": UNKNOWN_FILTER,
    }
    threads = UNFILTER_WARPS * 32
    registers = 65536 // (blocks * threads) // 8 * 8
    shared = UNFILTER_WARPS * tiles * 512
    return Kernel(Source("unfilter.cu", defines), "unfilter", threads, registers, shared, blocks)


# By bytes per pixel. A warp's shared memory holds a row of 2048 pixels; wider rows are right, and slower.
UNFILTER = {1: _unfilter(1, tiles=4, blocks=8), 2: _unfilter(2, tiles=8, blocks=6)}


def padded(size: int) -> int:
    """`size` rounded up to SLOT_ALIGNMENT: the pitch of a row of pixels, or the room of a raw image."""
    return -(-size // SLOT_ALIGNMENT) * SLOT_ALIGNMENT


def unfilter(
    module: Module,
    raw: Array,
    raw_at: Array,
    heights: Array,
    widths: Array,
    pixels: Array,
    pixels_at: Array,
    statuses: Array,
    *,
    bytes_per_pixel: int = 1,
) -> None:
    """Undo the filters of the images in `raw` whose status is 0 into rows of `padded` bytes in `pixels`.

    Raises
        TypeError: an array of another dtype, shape or layout than the contract in `kernels/unfilter.cu`.
    """
    images = statuses.size
    for array, name in ((raw, "raw"), (pixels, "pixels")):
        expect(array, np.uint8, None, name=name)
    for array, name in ((raw_at, "raw_at"), (pixels_at, "pixels_at")):
        expect(array, np.int64, images, name=name)
    for array, name in ((heights, "heights"), (widths, "widths"), (statuses, "statuses")):
        expect(array, np.int32, images, name=name)
    arguments = (raw, raw_at, heights, widths, pixels, pixels_at, statuses, np.int32(images))
    UNFILTER[bytes_per_pixel].launch(module, (-(-images // UNFILTER_WARPS),), arguments)


# --- confusion.cu --------------------------------------------------------------------------------

# Bands are cut until a launch has this many blocks (four waves on 132 multiprocessors), but not
# below this many rows, as each block pays for clearing and adding its counters.
ENOUGH_BLOCKS, MIN_ROWS = 2112, 32

MAX_CLASSES = 258  # 256 classes, void and outside
PAIR_FIELDS = 12


def confusion_kernel(gt_bytes: int = 1, pred_bytes: int = 1) -> Kernel:
    """The kernel for labels of these widths (1, 2, 4 or 8 bytes); PNG maps and uint8 arrays are 1 and 1."""
    cells = 66 * 66  # 64 classes, void and outside
    defines = {
        "GT_BYTES": gt_bytes,
        "PRED_BYTES": pred_bytes,
        "THREADS": 256,
        "BLOCKS": 4,
        "SHARED_CELLS": cells,
    }
    shared = 4 * cells + 2 * 2 * 258
    return Kernel(Source("confusion.cu", defines), "confusion", 256, 64, shared, blocks_per_sm=4)


CONFUSION = confusion_kernel()


@dataclass(frozen=True)
class MapPlace:
    """Where a label map lies: `at` and `stride` in bytes, its index tables' places in `tables`, its status's.

    -1 means no table (the map has the target's size along that axis), or no status.
    """

    at: int
    stride: int
    rows: int = -1
    columns: int = -1
    status: int = -1

    def fields(self) -> tuple[int, ...]:
        return (self.at, self.stride, self.rows, self.columns, self.status)


def pair_job(gt: MapPlace, pred: MapPlace, height: int, width: int) -> tuple[int, ...]:
    """One row of `pairs`: two maps shown on a target grid of (height, width).

    Raises
        ValueError: a target of 2^32 pixels or more, which the kernel's 32-bit counters do not hold.
    """
    _refuse_overflow(height, width)
    return (*gt.fields(), *pred.fields(), height, width)


def _refuse_overflow(height: int, width: int) -> None:
    if height * width >= 2**32:
        raise ValueError(f"{height}x{width} pixels do not fit 32-bit counters")


def bands(items: int, rows: int) -> int:
    """Into how many bands of rows each of `items` maps of up to `rows` rows is cut. Any number is right."""
    return max(1, min(-(-ENOUGH_BLOCKS // max(items, 1)), rows // MIN_ROWS))


def confusion(
    module: Module,
    gts: Array,
    preds: Array,
    pairs: Array,
    tables: Array,
    gt_table: Array,
    pred_table: Array,
    gt_statuses: Array,
    pred_statuses: Array,
    cells: Array,
    *,
    bands: int,
    kernel: Kernel = CONFUSION,
) -> None:
    """Add the joint counts of `pairs` (rows from `pair_job`) to `cells`, int64 (pairs, classes, classes).

    Rows of a matrix are gt, columns prediction; the last two of `classes` are void and outside. Labels are
    given as bytes, whatever their width.

    Raises
        TypeError: an array of another dtype, shape or layout than the contract in `kernels/confusion.cu`.
        ValueError: more than MAX_CLASSES classes.
    """
    count, classes = pairs.shape[0], cells.shape[-1]
    if not 1 <= classes <= MAX_CLASSES:
        raise ValueError(f"{classes} classes with void and outside, expected at most {MAX_CLASSES}")
    expect(gts, np.uint8, None, name="gts")
    expect(preds, np.uint8, None, name="preds")
    expect(pairs, np.int64, count, PAIR_FIELDS, name="pairs")
    expect(tables, np.int32, None, name="tables")
    expect(gt_table, np.uint16, 256, name="gt_table")
    expect(pred_table, np.uint16, 256, name="pred_table")
    expect(gt_statuses, np.int32, None, name="gt_statuses")
    expect(pred_statuses, np.int32, None, name="pred_statuses")
    expect(cells, np.int64, count, classes, classes, name="cells")
    inputs = (gts, preds, pairs, tables, gt_table, pred_table, gt_statuses, pred_statuses)
    kernel.launch(module, (count, bands), (*inputs, cells, np.int32(classes)))


# --- overlap.cu ----------------------------------------------------------------------------------

MARK_WORDS = 2048  # one bit for each 16-bit value
GT_FIELDS, MASK_FIELDS = 5, 11

_OVERLAP_CU = Source("overlap.cu", {"THREADS": 256, "BLOCKS": 4, "SHARED_IDS": 1024})
MARK_VALUES = Kernel(_OVERLAP_CU, "mark_values", 256, 64, 4 * MARK_WORDS, blocks_per_sm=4)
OVERLAP = Kernel(_OVERLAP_CU, "overlap", 256, 64, 4 * 1024, blocks_per_sm=4)


def gt_job(gt: MapPlace, height: int, width: int) -> tuple[int, ...]:
    """One row of `gt_jobs`: a big-endian 16-bit map."""
    return (gt.at, gt.stride, gt.status, height, width)


def mask_job(
    gt: MapPlace, mask: MapPlace, height: int, width: int, *, image: int, counts_at: int, ids: int
) -> tuple[int, ...]:
    """One row of `jobs`: a mask of the gt in row `image` of the marks. A mask at -1 is set everywhere.

    Its counts are `ids` numbers from `counts_at` on, one per marked gt value in rising order.

    Raises
        ValueError: a map of 2^32 pixels or more, which the kernel's 32-bit counters do not hold.
    """
    _refuse_overflow(height, width)
    places = (gt.at, gt.stride, gt.status, mask.at, mask.stride, mask.status)
    return (*places, height, width, image, counts_at, ids)


def mark_values(
    module: Module, gts: Array, gt_jobs: Array, gt_statuses: Array, marks: Array, *, bands: int
) -> None:
    """Set bit v of row i of `marks`, uint32 (gts, MARK_WORDS), for every value v of gt i.

    Raises
        TypeError: an array of another dtype, shape or layout than the contract in `kernels/overlap.cu`.
    """
    count = gt_jobs.shape[0]
    expect(gts, np.uint8, None, name="gts")
    expect(gt_jobs, np.int64, count, GT_FIELDS, name="gt_jobs")
    expect(gt_statuses, np.int32, None, name="gt_statuses")
    expect(marks, np.uint32, count, MARK_WORDS, name="marks")
    MARK_VALUES.launch(module, (count, bands), (gts, gt_jobs, gt_statuses, marks))


def marked_values(marks: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """The values whose bits are set in one row of marks, rising."""
    bits = np.unpackbits(marks.astype("<u4").view(np.uint8), bitorder="little")
    return np.flatnonzero(bits).astype(np.int64)


def ranks_of(marks: npt.NDArray[np.uint32]) -> npt.NDArray[np.int32]:
    """How many marked values lie below each word of 32: int32, the shape of `marks`, (gts, MARK_WORDS)."""
    upto = np.cumsum(np.bitwise_count(marks), axis=1, dtype=np.int32)
    ranks = np.zeros_like(upto)
    ranks[:, 1:] = upto[:, :-1]
    return ranks


def overlap(
    module: Module,
    gts: Array,
    masks: Array,
    jobs: Array,
    marks: Array,
    ranks: Array,
    gt_statuses: Array,
    mask_statuses: Array,
    counts: Array,
    *,
    bands: int,
) -> None:
    """Add to `counts`, int64, the pixels of each mask (rows from `mask_job`) on each marked gt value.

    Raises
        TypeError: an array of another dtype, shape or layout than the contract in `kernels/overlap.cu`.
    """
    count = jobs.shape[0]
    expect(gts, np.uint8, None, name="gts")
    expect(masks, np.uint8, None, name="masks")
    expect(jobs, np.int64, count, MASK_FIELDS, name="jobs")
    expect(marks, np.uint32, None, MARK_WORDS, name="marks")
    expect(ranks, np.int32, marks.shape[0], MARK_WORDS, name="ranks")
    expect(gt_statuses, np.int32, None, name="gt_statuses")
    expect(mask_statuses, np.int32, None, name="mask_statuses")
    expect(counts, np.int64, None, name="counts")
    inputs = (gts, masks, jobs, marks, ranks, gt_statuses, mask_statuses)
    OVERLAP.launch(module, (count, bands), (*inputs, counts))
