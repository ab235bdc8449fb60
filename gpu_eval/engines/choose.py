"""Which engine serves on this machine, and why.

An engine is imported when it is made: Numba takes half a second to load.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpu_eval.engines.cuda import cupy_device
from gpu_eval.engines.engine import Engine
from gpu_eval.errors import EngineUnavailable, OptionError

ENGINES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class EngineStatus:
    """Whether an engine serves here, why or why not, and on how many devices."""

    name: str
    available: bool
    why: str
    devices: int = 0


def survey() -> list[EngineStatus]:
    """What `gpu-eval info` tells about every engine."""
    return [_status("cpu"), _status("cuda")]


def count_gpus() -> int:
    """How many CUDA devices this process sees. Raises EngineUnavailable where the CUDA engine has none."""
    status = _status("cuda")
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
    cuda = _status("cuda")
    if cuda.available:
        return _cuda(threads), f"a CUDA device: {cuda.why}"
    return _cpu(threads), f"no CUDA: {cuda.why}"


def check_available(name: str) -> None:
    """Raises EngineUnavailable where the engine of that name, "cpu" or "cuda", cannot serve."""
    status = _status(name)
    if not status.available:
        raise EngineUnavailable(
            f"the {name.upper()} engine cannot serve here",
            found=status.why,
            fix="--engine cpu gives the same integers",
        )


def _status(name: str) -> EngineStatus:
    """Of one engine; no other is asked."""
    if name == "cuda":
        return EngineStatus(name, *cupy_device.available())
    from gpu_eval.engines.cpu import engine as cpu

    return EngineStatus(name, *cpu.available())


def _cpu(threads: int | None) -> Engine:
    from gpu_eval.engines.cpu.engine import CpuEngine

    return CpuEngine(threads)


def _cuda(threads: int | None) -> Engine:
    from gpu_eval.engines.cuda.engine import CudaEngine

    return CudaEngine(threads)
