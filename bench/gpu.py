"""`python -m bench gpu`: equality first, then each kernel, inflate's rivals, whole splits and their rivals.

Everything is counted twice before anything is timed: by the CPU engine and on the device, to the last pixel.
"""

from __future__ import annotations

import argparse
import statistics
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console
from rich.table import Table

import gpu_eval
from bench import gpu_kernels, machine, workload
from bench.output import write_json
from gpu_eval.engines.cpu.engine import CpuEngine
from gpu_eval.engines.cuda import cupy_device
from gpu_eval.engines.cuda.cupy_device import CupyDevice
from gpu_eval.engines.cuda.engine import CudaEngine
from gpu_eval.engines.engine import Engine
from gpu_eval.engines.semantic import SemanticJob, make_job
from gpu_eval.inputs.pairs import Pair, pair_up
from gpu_eval.inputs.sources import Source, open_source
from gpu_eval.labels import load_labels

PARTS = ("kernels", "inflate", "split", "rivals")
PILLOW_WORKERS = 16

Confusion = npt.NDArray[np.int64]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m bench gpu`."""
    parser.add_argument("--pairs", type=int, default=4038, help="of the split that is scored end to end")
    parser.add_argument(
        "--distinct", type=int, default=32, help="drawn pairs; the others are hard links to them"
    )
    parser.add_argument(
        "--kernel-pairs", type=int, default=2048, help="on the device at once for each kernel"
    )
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[64, 512, 4096], help="numbers of streams for inflate"
    )
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path("bench/results/gpu.json"))


def main(words: list[str] | None = None) -> int:
    """`python -m bench.gpu`, for machines without the rivals that `python -m bench` imports."""
    parser = argparse.ArgumentParser(prog="python -m bench gpu", description=__doc__)
    add_arguments(parser)
    return run(Options.of(parser.parse_args(words)))


@dataclass(frozen=True, kw_only=True)
class Options:
    """See `add_arguments`."""

    pairs: int
    distinct: int
    kernel_pairs: int
    batches: list[int]
    repeat: int
    seed: int
    parts: list[str]
    out: Path

    @classmethod
    def of(cls, parsed: argparse.Namespace) -> Options:
        return cls(**{field.name: getattr(parsed, field.name) for field in fields(cls)})


def run(options: Options) -> int:
    """Measure what `options` say.

    Exit code: 0, 1 where counts differ (nothing is timed then), 2 without a device.
    """
    console = Console(width=None if Console().is_terminal else 160)
    serves, why, _ = cupy_device.available()
    if not serves:
        console.print(f"the CUDA benchmark needs a device: {why}", markup=False)
        return 2
    report: dict[str, Any] = {
        "benchmark": "gpu",
        "machine": machine.describe(),
        "device": why,
        "repeat": options.repeat,
        "clock": "kernels: CUDA events, buffers take turns; splits: wall time, files in the page cache",
    }
    console.print(f"{machine.headline(report['machine'])}\n{why}", markup=False)
    with tempfile.TemporaryDirectory(prefix="gpu-eval-bench-") as folder:
        root = Path(folder)
        if {"kernels", "inflate"} & set(options.parts):
            report["writers"] = [
                entry
                for writer in workload.WRITERS
                if (entry := _writer(console, root / writer, writer, options))
            ]
            if any(entry.get("differs") for entry in report["writers"]):
                write_json(options.out, report)
                return 1
        if {"split", "rivals"} & set(options.parts):
            report["split"] = _split(console, root / "split", options)
    write_json(options.out, report)
    console.print(f"\nwritten: {options.out}", markup=False)
    return int(any(row.get("differs") for row in report.get("split", ())))


# --- kernels and inflate -------------------------------------------------------------------------


def _writer(console: Console, folder: Path, writer: str, options: Options) -> dict[str, Any] | None:
    """The kernels on files of one writer; None where the writer is not installed."""
    try:
        split = workload.build(folder, writer, options.distinct, options.seed)
    except ImportError as error:
        console.print(f"\nwritten by {writer}: {error.name} is not installed")
        return None
    entry: dict[str, Any] = {"workload": split.describe()}
    device = CupyDevice()
    if "kernels" in options.parts:
        rounds = max(options.kernel_pairs // options.distinct, 1)
        expected = _literal_total(split) * rounds
        sets = [
            gpu_kernels.Prepared(device, split.gts, split.preds, rounds * options.distinct)
            for _ in range(gpu_kernels.BUFFERS)
        ]
        for prepared in sets:
            total, bad = prepared.counted()
            if bad or not np.array_equal(total[:27, :27], expected) or total[27:].any():
                console.print(f"[bold red]not timed: {bad} maps did not decode, or counts differ")
                return {**entry, "differs": True}
        entry["copy_bytes_per_s"] = bandwidth = gpu_kernels.copy_bandwidth(device, 2 * options.repeat)
        entry["kernels"] = gpu_kernels.kernel_rows(device, sets, bandwidth, 2 * options.repeat)
        _show_kernels(console, writer, entry)
        del sets
    device.close()
    if "inflate" in options.parts:
        entry["inflate"] = [_inflate(split, batch, options.repeat) for batch in options.batches]
        _show_inflate(console, writer, entry["inflate"])
    return entry


def _literal_total(split: workload.Workload) -> Confusion:
    total = np.zeros(27 * 27, np.int64)
    for gt, pred in zip(split.gts, split.preds, strict=True):
        sides = [workload.CLASS_OF[np.asarray(Image.open(path))].astype(np.int64) for path in (gt, pred)]
        total += np.bincount((sides[0] * 27 + sides[1]).ravel(), minlength=27 * 27)
    return total.reshape(27, 27)


def _inflate(split: workload.Workload, batch: int, repeat: int) -> dict[str, Any]:
    """Streams per second of one batch size, ours and the rivals'."""
    device = CupyDevice()
    sets = [
        gpu_kernels.Prepared(device, split.gts, split.preds, batch // 2) for _ in range(gpu_kernels.BUFFERS)
    ]
    timing = gpu_kernels.timed(device, [prepared.inflate for prepared in sets], 2 * repeat)
    del sets
    device.close()
    streams = [split.payloads[i % len(split.payloads)] for i in range(batch)]
    nvcomp = gpu_kernels.nvcomp_streams_per_s(device, streams, zlib.decompress(streams[0]), 2 * repeat)
    return {
        "batch": batch,
        "ours_streams_per_s": batch / timing["median_s"],
        "ours": timing,
        "libdeflate_streams_per_s": gpu_kernels.libdeflate_streams_per_s(streams, repeat),
        "nvcomp_streams_per_s": nvcomp,
    }


# --- whole splits --------------------------------------------------------------------------------


def _split(console: Console, folder: Path, options: Options) -> list[dict[str, Any]]:
    """A row per contestant: pairs per second from a folder and from a tar."""
    roots = workload.link_many(folder, options.pairs, options.distinct, options.seed)
    tars = tuple(pack(root) for root in roots)
    job = make_job(load_labels("idd"), resolution=(workload.HEIGHT, workload.WIDTH))
    rows: list[dict[str, Any]] = []
    engine, cpu = CudaEngine(), CpuEngine()
    expected: Confusion | None = None
    for name, locations in (("folder", roots), ("tar", tars)):
        gts, preds = (open_source(location) for location in locations)
        pairs = list_pairs(gts, preds)
        total = _total(cpu, pairs, gts, preds, job, "simd")
        expected = total if expected is None else expected
        if not (np.array_equal(total, expected)
                and np.array_equal(_total(engine, pairs, gts, preds, job, "cuda"), expected)):  # fmt: skip
            console.print(f"[bold red]not timed: the engines differ on the {name}")
            return [{"from": name, "differs": True}]
        contestants: list[tuple[str, Engine, int]] = []
        if "split" in options.parts:
            contestants.append(("gpu-eval, CUDA engine", engine, options.repeat))
        if "rivals" in options.parts:
            contestants.append((f"gpu-eval, CPU engine, {cpu.threads} threads", cpu, 2))
        for label, contestant, times in contestants:
            engine.take_seconds()
            work = partial(contestant.count, job, pairs, gts, preds)
            row = timed_row({"contestant": label, "from": name}, len(pairs), work, times)
            if contestant is engine:
                row["stages_s"] = {stage: s / times for stage, s in engine.take_seconds().items()}
            rows.append(row)
        gts.close()
        preds.close()
        if "split" in options.parts:
            rows.append(_whole_run(name, locations, folder / f"run-{name}", expected, options.repeat))
    engine.close()
    cpu.close()
    if "rivals" in options.parts:
        rows.append(_torchmetrics(roots, options.pairs))
    _show_split(console, rows)
    return rows


def _whole_run(
    name: str, locations: tuple[Path, Path], out: Path, expected: Confusion, repeat: int
) -> dict[str, Any]:
    """`gpu-eval score` without the start of its process: listing, scoring, parts, tables, intervals."""
    facts: list[dict[str, Any]] = []

    def work() -> None:
        run = gpu_eval.score(*locations, out=out, engine="cuda", overwrite=True)
        if not np.array_equal(run.confusion(), expected):
            raise ValueError(f"a whole run counts other pixels than its engine: {out}")
        facts.append(run.facts)

    work()
    about = {"contestant": "gpu-eval score, CUDA engine", "from": name}
    row = timed_row(about, facts[0]["images"], work, repeat)
    row["seconds"] = [one["seconds"] for one in facts[1:]]
    return row


def pack(root: Path) -> Path:
    """A tar of a folder in which every hard link is a file of its own, as in a tar of different files."""
    path = root.with_suffix(".tar")
    with tarfile.open(path, "w", dereference=True) as archive:
        for file in sorted(root.rglob("*.png")):
            member = archive.gettarinfo(file, file.relative_to(root).as_posix())
            member.type, member.linkname, member.size = tarfile.REGTYPE, "", file.stat().st_size
            with file.open("rb") as data:
                archive.addfile(member, data)
    return path


def list_pairs(gts: Source, preds: Source) -> tuple[Pair, ...]:
    suffix = load_labels("idd").gt_suffix
    split = pair_up(
        gts.entries(), preds.entries(), gt_suffix=suffix, pred_suffix=suffix, gt_location="gt",
        pred_location="pred",
    )  # fmt: skip
    return tuple(split.pairs)


def _total(
    engine: Engine, pairs: tuple[Pair, ...], gts: Source, preds: Source, job: SemanticJob, decoder: str
) -> Confusion:
    """The sum over a split; raises where an image has an error or another decoder ran."""
    total = np.zeros((27, 27), np.int64)
    for pair, result in zip(pairs, engine.count(job, pairs, gts, preds), strict=True):
        if result.confusion is None or result.decoder != decoder:
            raise ValueError(f"{pair.key}: {result.error or result.decoder}")
        total += result.confusion
    return total


def timed_row(about: dict[str, Any], pairs: int, work: Callable[[], Any], times: int) -> dict[str, Any]:
    """A row of results: what it is about, and the wall time of some calls."""
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return {
        **about,
        "pairs": pairs,
        "min_s": min(seconds),
        "median_s": statistics.median(seconds),
        "pairs_per_s": pairs / statistics.median(seconds),
    }


class _PillowPairs:
    """A dataset as a user of torchmetrics writes it: both maps decoded by Pillow, void as 26."""

    def __init__(self, files: list[tuple[Path, Path]]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        gt, pred = self.files[index]
        return tuple(np.minimum(np.asarray(Image.open(path)), workload.VOID) for path in (gt, pred))


def _torchmetrics(roots: tuple[Path, Path], number: int) -> dict[str, Any]:
    """torchmetrics on the device, fed by Pillow in worker processes; the workers are started beforehand."""
    label = f"torchmetrics on the device, {PILLOW_WORKERS} Pillow processes"
    try:
        import torch
        import torchmetrics  # noqa: F401
    except ImportError as error:
        return {"contestant": label, "from": "folder", "missing": error.name}
    if not torch.cuda.is_available():
        return {"contestant": label, "from": "folder", "missing": "a torch with CUDA"}
    try:
        return timed_row(
            {"contestant": label, "from": "folder"}, number, _torchmetrics_work(roots, number), 1
        )
    except (RuntimeError, ValueError, OSError) as error:  # a rival that fails must not cost our own results
        return {"contestant": label, "from": "folder", "missing": str(error).partition("\n")[0]}


def _torchmetrics_work(roots: tuple[Path, Path], number: int) -> Callable[[], None]:
    """Counts the split once, and has done so: its worker processes are there."""
    from torch.utils.data import DataLoader
    from torchmetrics.classification import MulticlassConfusionMatrix

    gts = sorted(roots[0].rglob("*.png"))
    files = [(gt, roots[1] / gt.relative_to(roots[0])) for gt in gts]
    loader = DataLoader(
        _PillowPairs(files),
        batch_size=8,
        num_workers=PILLOW_WORKERS,
        pin_memory=True,
        persistent_workers=True,
    )
    metric = MulticlassConfusionMatrix(num_classes=27, validate_args=False).to("cuda")

    def work() -> None:
        metric.reset()
        for gt, pred in loader:
            metric.update(pred.to("cuda", non_blocking=True), gt.to("cuda", non_blocking=True))
        if int(metric.compute().sum()) != number * workload.HEIGHT * workload.WIDTH:
            raise ValueError("torchmetrics did not count every pixel")

    work()
    return work


# --- on the terminal -----------------------------------------------------------------------------


def _show_kernels(console: Console, writer: str, entry: dict[str, Any]) -> None:
    table = Table(title=f"\nkernels, files by {writer}; copy {entry['copy_bytes_per_s'] / 1e9:,.0f} GB/s")
    for name in ("kernel", "ms", "pairs/s", "GB/s", "GB/s of output", "share of copy"):
        table.add_column(name, justify="left" if name == "kernel" else "right")
    for row in entry["kernels"]:
        table.add_row(
            row["kernel"],
            f"{row['median_s'] * 1e3:.2f}",
            f"{row['pairs_per_s']:,.0f}",
            f"{row['bytes_per_s'] / 1e9:,.0f}",
            f"{row['output_bytes_per_s'] / 1e9:,.0f}",
            f"{row['share_of_copy']:.0%}",
        )
    console.print(table)


def _show_inflate(console: Console, writer: str, rows: list[dict[str, Any]]) -> None:
    table = Table(title=f"\ninflate, files by {writer}, streams/s")
    for name in ("batch", "ours", "libdeflate, all cores", "nvCOMP"):
        table.add_column(name, justify="right")
    for row in rows:
        nvcomp = row["nvcomp_streams_per_s"]
        table.add_row(
            str(row["batch"]),
            f"{row['ours_streams_per_s']:,.0f}",
            f"{row['libdeflate_streams_per_s']:,.0f}",
            nvcomp if isinstance(nvcomp, str) else f"{nvcomp:,.0f}",
        )
    console.print(table)


def _show_split(console: Console, rows: list[dict[str, Any]]) -> None:
    table = Table(title="\nwhole split of 1080p pairs, files in the page cache")
    for name in ("contestant", "from", "s", "pairs/s"):
        table.add_column(name, justify="left" if name in ("contestant", "from") else "right")
    for row in rows:
        if "missing" in row:
            table.add_row(row["contestant"], row["from"], f"not here: {row['missing']}", "")
            continue
        table.add_row(row["contestant"], row["from"], f"{row['median_s']:.3f}", f"{row['pairs_per_s']:,.0f}")
    console.print(table)


if __name__ == "__main__":
    raise SystemExit(main())
