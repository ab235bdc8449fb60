"""`python -m bench.gpu_smoke`: small images through every kernel, equal to the CPU engine or exit code 1.

Small and without any framework, for runs under compute-sanitizer.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from gpu_eval import synthetic
from gpu_eval.engines.cpu.engine import CpuEngine
from gpu_eval.engines.cuda import cupy_device
from gpu_eval.engines.cuda.engine import CudaEngine
from gpu_eval.engines.instance import InstanceJob
from gpu_eval.engines.semantic import make_job
from gpu_eval.errors import InputError
from gpu_eval.inputs.instance_split import InstanceImage, Prediction
from gpu_eval.inputs.pairs import Pair
from gpu_eval.inputs.source import Entry
from gpu_eval.labels import load_labels

SIZES = ((1, 1), (5, 700), (48, 64), (97, 131), (64, 2100))


class _Memory:
    """A source of files in memory."""

    location = "memory"

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}

    def add(self, name: str, data: bytes) -> Entry:
        self._files[name] = data
        return Entry(name, len(data), "")

    def entries(self) -> list[Entry]:
        return [Entry(name, len(data), "") for name, data in sorted(self._files.items())]

    def read_into(
        self, entries: Sequence[Entry], buffer: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.int64], dict[int, InputError]]:
        offsets = np.cumsum([0, *(entry.size for entry in entries)], dtype=np.int64)
        for i, entry in enumerate(entries):
            buffer[offsets[i] : offsets[i + 1]] = np.frombuffer(self._files[entry.name], np.uint8)
        return offsets, {}

    def close(self) -> None:
        pass


def main() -> int:
    serves, why, _ = cupy_device.available()
    if not serves:
        print(f"the smoke test needs a device: {why}")
        return 2
    differences = compare(CudaEngine(threads=1))
    print("equal to the CPU engine" if not differences else "\n".join(differences))
    return int(bool(differences))


def compare(engine: CudaEngine) -> list[str]:
    """What the engine counts unlike the CPU engine; closes it."""
    cpu = CpuEngine(threads=1)
    files = _Memory()
    pairs, images = _draw(files)
    differences = []
    for resolution in (None, (50, 70)):
        job = make_job(load_labels("idd"), resolution=resolution)
        scored = zip(engine.count(job, pairs, files, files), cpu.count(job, pairs, files, files), strict=True)
        for pair, (one, other) in zip(pairs, scored, strict=True):
            if (one.decoder == "cuda") != (other.decoder == "simd") or type(one.error) is not type(
                other.error
            ):
                differences.append(f"{pair.key}: {one.decoder}, {one.error!r} beside {other.error!r}")
            elif other.confusion is not None and not np.array_equal(one.confusion, other.confusion):
                differences.append(f"{pair.key}: other counts at {resolution}")
    instances = InstanceJob()
    counted = zip(
        engine.count(instances, images, files, files), cpu.count(instances, images, files, files), strict=True
    )
    for image, (mine, theirs) in zip(images, counted, strict=True):
        if not np.array_equal(mine.overlaps, theirs.overlaps) or not mine.decoders["cuda"]:
            differences.append(f"{image.key}: other overlaps")
    engine.close()
    cpu.close()
    return differences


def _draw(files: _Memory) -> tuple[list[Pair], list[InstanceImage]]:
    """Pairs and images of several sizes; the last pair's prediction has a wrong checksum."""
    rng = np.random.default_rng(0)
    pairs, images = [], []
    for number, (height, width) in enumerate(SIZES):
        gt = synthetic.street_gt(number, 270, 480)[:height, :width] if height < 90 and width <= 480 else None
        if gt is None:
            gt = rng.choice([0, 1, 7, 25, 255], (height // 4 + 1, width // 4 + 1)).astype(np.uint8)
            gt = gt.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
        wrong = rng.random(gt.shape) < 0.05
        pred = np.where(wrong, rng.integers(0, 26, gt.shape), gt).astype(np.uint8)
        entries = [
            files.add(f"{number}/{name}.png", _png(side)) for name, side in (("gt", gt), ("pred", pred))
        ]
        pairs.append(Pair(str(number), "", entries[0], entries[1]))
        instances = gt.astype(np.uint16) * 1000 + (rng.random(gt.shape) < 0.1)
        masks = [files.add(f"{number}/{value}.png", _png((gt == value) * np.uint8(255))) for value in (0, 7)]
        predictions = tuple(Prediction(mask, 9, 0.5, line) for line, mask in enumerate(masks, start=1))
        gt_entry = files.add(f"{number}/instances.png", _png(instances.astype(np.uint16)))
        images.append(InstanceImage(str(number), "", gt_entry, predictions, None))
    good = bytearray(_png(rng.integers(0, 26, (40, 60), np.uint8)))
    good[-18] ^= 1  # the last byte of the zlib stream, whose chunk's CRC is then wrong as well
    broken = files.add("broken.png", bytes(good))
    pairs.append(Pair("broken", "", pairs[2].gt, broken))
    return pairs, images


def _png(pixels: npt.NDArray[np.integer]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    raise SystemExit(main())
