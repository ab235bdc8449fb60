"""The contract of an engine, and which engine serves on this machine.

An engine turns pairs of encoded label maps into one confusion matrix per image. Engines agree to the
last integer; `tests/test_engines.py` holds them to one slow reference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gpu_eval.errors import EngineUnavailable, InputError, OptionError
from gpu_eval.inputs.instance_split import InstanceImage
from gpu_eval.inputs.pairs import Pair
from gpu_eval.inputs.sources import Source
from gpu_eval.labels import LabelSpace

Confusion = npt.NDArray[np.int64]

ENGINES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class ScoreTask:
    """What an engine must know besides the files.

    `gt_table` and `pred_table` (uint16, shape (256,)) send a raw value to a class, to `n_classes`
    (void) or to `n_classes + 1` (outside the encoding: counted as void, and reported).
    `resolution` is the (height, width) that both maps are resized to; None keeps the gt's own size.
    `encodings` are the tables to try when an image's values do not fit. With `void_on_error` an image
    whose prediction is missing or broken is counted as predicted void everywhere.
    """

    n_classes: int
    gt_table: npt.NDArray[np.uint16]
    pred_table: npt.NDArray[np.uint16]
    resolution: tuple[int, int] | None
    encodings: Mapping[str, npt.NDArray[np.uint16]]
    void_on_error: bool = False


def make_task(
    labels: LabelSpace,
    *,
    gt_encoding: str | None = None,
    pred_encoding: str | None = None,
    resolution: tuple[int, int] | None = None,
    void_on_error: bool = False,
) -> ScoreTask:
    """The task of scoring maps of `labels`; an encoding that is not named is the label space's default."""
    return ScoreTask(
        n_classes=labels.n_classes,
        gt_table=labels.encoding(gt_encoding or labels.default_encoding).table,
        pred_table=labels.encoding(pred_encoding or labels.default_encoding).table,
        resolution=resolution,
        encodings={name: encoding.table for name, encoding in labels.encodings.items()},
        void_on_error=void_on_error,
    )


@dataclass(slots=True)
class ImageResult:
    """What an engine found out about one pair.

    `confusion`: int64, shape (n_classes + 1, n_classes + 1), rows gt, columns prediction, last index
    void; None if the image could not be scored. `error` says why; with `void_on_error` both are set.
    Sizes are (height, width). `decoder` is "simd" for the fast path of the CPU, "cuda" for that of a device,
    "pillow" for maps they do not take. `gt_outside` and `pred_outside` count pixels outside the encoding, at
    the scored resolution.
    """

    confusion: Confusion | None = None
    error: InputError | None = None
    warning: str | None = None
    decoder: str | None = None
    gt_size: tuple[int, int] | None = None
    pred_size: tuple[int, int] | None = None
    gt_outside: int = 0
    pred_outside: int = 0


@dataclass(slots=True)
class ImageOverlaps:
    """What an engine found out about the instances of one image.

    `gt_values`: int64, shape (g,), the raw pixel values that occur in the gt, ascending; `gt_pixels`:
    int64 (g,), how often; `overlaps`: int64 (predictions, g), pixels of each mask on each gt value, so a
    row's sum is the mask's area, None if any mask is broken; all three are None if the gt is. `errors` holds
    every broken file of the image. `size` is the gt's (height, width). `decoders` counts files by decoder:
    "simd", "cuda", "pillow", "rle".
    """

    gt_values: npt.NDArray[np.int64] | None = None
    gt_pixels: npt.NDArray[np.int64] | None = None
    overlaps: npt.NDArray[np.int64] | None = None
    errors: list[InputError] = field(default_factory=list)
    size: tuple[int, int] | None = None
    decoders: Counter[str] = field(default_factory=Counter)


class Engine(Protocol):
    """One device's worth of decoding and counting."""

    name: str

    def describe(self) -> str:
        """One line for `gpu-eval info` and `run.json`: device, threads, libraries."""

    def score(self, pairs: Sequence[Pair], gts: Source, preds: Source, task: ScoreTask) -> list[ImageResult]:
        """One result per pair, in input order; an image that cannot be scored is a result too."""

    def overlaps(self, images: Sequence[InstanceImage], gts: Source, preds: Source) -> list[ImageOverlaps]:
        """The joint counts of all masks of each image with its gt, in input order.

        An image without a list of predictions (None) is counted as one without predictions.
        """

    def confusion(
        self, gt: npt.NDArray[np.uint8], pred: npt.NDArray[np.uint8], task: ScoreTask
    ) -> npt.NDArray[np.int64]:
        """Joint count of two raw maps of one shape (height, width).

        Shape (n_classes + 2, n_classes + 2), rows gt, columns prediction; the last two indices are
        void and outside.
        """

    def take_seconds(self) -> dict[str, float]:
        """Seconds by stage since the last call, summed over threads: of read, decode, copy and kernel."""

    def close(self) -> None:
        """Free threads and device memory."""


@dataclass(frozen=True)
class EngineStatus:
    """Whether an engine serves here, why or why not, and on how many devices."""

    name: str
    available: bool
    why: str
    devices: int = 0


def survey() -> list[EngineStatus]:
    """What `gpu-eval info` tells about every engine."""
    from gpu_eval.engines.cpu import engine as cpu
    from gpu_eval.engines.cuda import engine as cuda

    return [EngineStatus("cpu", *cpu.available()), EngineStatus("cuda", *cuda.available())]


def count_gpus() -> int:
    """How many CUDA devices this process sees. Raises EngineUnavailable where the CUDA engine has none."""
    status = next(status for status in survey() if status.name == "cuda")
    if not status.available:
        raise EngineUnavailable(
            "no GPU can be used here", found=status.why, fix="--workers N starts workers without GPUs"
        )
    return status.devices


def make_engine(name: str = "auto", threads: int | None = None) -> tuple[Engine, str]:
    """The engine of that name and the reason it was chosen.

    `auto` takes the first engine that is available, CUDA before CPU. Raises OptionError for an
    unknown name and EngineUnavailable for one that cannot serve here: never another one in silence.
    """
    if name not in ENGINES:
        raise OptionError("no such engine", found=name, expected=" or ".join(ENGINES))
    if name == "cpu":
        return _cpu(threads), "asked for"
    if name == "cuda":
        check_available("cuda")
        return _cuda(threads), "asked for"
    cuda = next(status for status in survey() if status.name == "cuda")
    if cuda.available:
        return _cuda(threads), f"a CUDA device: {cuda.why}"
    return _cpu(threads), f"no CUDA: {cuda.why}"


def check_available(name: str) -> None:
    """Raises EngineUnavailable where the engine of that name cannot serve."""
    status = next(status for status in survey() if status.name == name)
    if not status.available:
        raise EngineUnavailable(
            f"the {name.upper()} engine cannot serve here",
            found=status.why,
            fix="--engine cpu gives the same integers",
        )


def _cpu(threads: int | None) -> Engine:
    from gpu_eval.engines.cpu.engine import CpuEngine

    return CpuEngine(threads)


def _cuda(threads: int | None) -> Engine:
    from gpu_eval.engines.cuda.engine import CudaEngine

    return CudaEngine(threads)
