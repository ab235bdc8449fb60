"""Every kernel becomes machine code for every architecture, within the budgets beside its constants."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from gpu_eval.engines.cuda import kernels
from tests.support import nvrtc

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)

# Of compute capability 9.0, the CUDA C++ programming guide's table of technical specifications.
SM_REGISTERS, SM_SHARED, SM_BLOCKS, SM_THREADS = 65536, 228 * 1024, 32, 2048
REGISTER_UNIT = 8  # a thread gets its registers in eights
BLOCK_RESERVES = 1024  # bytes of shared memory that the system takes per block

_KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(')
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)

CONFUSION_INT64 = kernels.confusion_kernel(8, 8)  # what argmax gives

KERNEL_FILES = sorted(path.name for path in kernels.folder().iterdir() if path.name.endswith(".cu"))


def all_kernels() -> Iterator[kernels.Kernel]:
    """All kernels that `engines/cuda/kernels.py` launches, with all their variants."""
    yield CONFUSION_INT64
    for value in vars(kernels).values():
        if isinstance(value, kernels.Kernel):
            yield value
        elif isinstance(value, dict):
            yield from (entry for entry in value.values() if isinstance(entry, kernels.Kernel))


def variants() -> list[kernels.Source]:
    """The sources of all kernels, once each."""
    found: dict[tuple[str, tuple[str, ...]], kernels.Source] = {}
    for kernel in all_kernels():
        found.setdefault((kernel.source.file, kernel.source.options()), kernel.source)
    return list(found.values())


def describe(source: kernels.Source) -> str:
    return " ".join([source.file, *source.options()[1:]])


def code(file: str) -> str:
    return _COMMENT.sub("", (kernels.folder() / file).read_text(encoding="utf-8"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", variants(), ids=describe)
def test_kernels_compile_within_their_budgets(source: kernels.Source, architecture: int) -> None:
    library = nvrtc.library()
    if library is None:
        pytest.skip("no nvrtc: the wheel nvidia-cuda-nvrtc-cu12 is not installed")
    if architecture not in nvrtc.architectures(library):
        pytest.skip(f"nvrtc {'.'.join(map(str, nvrtc.version(library)))} does not know sm_{architecture}")
    cubin, usages = nvrtc.compile_kernels(library, source.text(), source.options(), architecture)
    assert cubin.startswith(b"\x7fELF")
    for kernel in all_kernels():
        if kernel.source.file != source.file or kernel.source.options() != source.options():
            continue
        usage = usages[kernel.name]
        assert (usage.stack, usage.spill_stores, usage.spill_loads) == (0, 0, 0), kernel.name
        assert usage.registers <= kernel.registers, kernel.name
        assert usage.shared <= kernel.shared, kernel.name
        if architecture == 90:
            assert resident_blocks(kernel.threads, usage) >= kernel.blocks_per_sm, kernel.name


def resident_blocks(threads: int, usage: nvrtc.Usage) -> int:
    """Blocks that an SM of compute capability 9.0 holds at once."""
    registers = -(-usage.registers // REGISTER_UNIT) * REGISTER_UNIT * (-(-threads // 32) * 32)
    return min(
        SM_BLOCKS,
        SM_THREADS // threads,
        SM_REGISTERS // registers,
        SM_SHARED // (usage.shared + BLOCK_RESERVES),
    )


@pytest.mark.parametrize("file", KERNEL_FILES)
def test_every_kernel_has_a_launch_and_every_launch_a_kernel(file: str) -> None:
    written = set(_KERNEL.findall(code(file)))
    assert written == {kernel.name for kernel in all_kernels() if kernel.source.file == file}
    assert len(re.findall(r"__global__", code(file))) == len(written)


@pytest.mark.parametrize("file", KERNEL_FILES)
@pytest.mark.parametrize(
    "forbidden",
    [
        r"#\s*include",
        r"\basm\b",
        r"cooperative_groups",
        r"extern\s+__shared__",
        r"\bvolatile\b",
        r"\b(float|double)\b",
        r"_sync\s*\((?!\s*(ALL|FULL|FULL_MASK|0xffffffffu?|~0u)\b)",
        r"__(shfl|ballot|any|all)\s*\(",
        r"__activemask",
        r"__nanosleep",
    ],
)
def test_kernels_keep_the_rules(file: str, forbidden: str) -> None:
    assert re.search(forbidden, code(file)) is None


def test_the_log_of_ptxas_is_read() -> None:
    log = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'two' for 'sm_90'
ptxas info    : Function properties for two
    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 16 bytes cumulative stack size, 6080 bytes smem
ptxas info    : Compiling entry function 'one' for 'sm_90'
ptxas info    : Function properties for one
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers
"""
    assert nvrtc.parse_log(log) == {"two": nvrtc.Usage(40, 6080, 16, 8, 4), "one": nvrtc.Usage(8, 0, 0, 0, 0)}


def test_text_that_does_not_compile_is_an_error_with_the_log() -> None:
    library = nvrtc.library()
    if library is None:
        pytest.skip("no nvrtc: the wheel nvidia-cuda-nvrtc-cu12 is not installed")
    with pytest.raises(nvrtc.CompileFailed, match='identifier "y" is undefined'):
        nvrtc.compile_kernels(library, 'extern "C" __global__ void k() { int x = y; }', [], 90)
