"""A source of files that exist in memory only, for suites that need thousands of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from gpu_eval.errors import InputError, UnreadableFile
from gpu_eval.inputs.pairs import Pair
from gpu_eval.inputs.sources import Entry


class MemorySource:
    """Files by name; a value of None is listed but cannot be read."""

    location = "memory"

    def __init__(self, files: Mapping[str, bytes | None]) -> None:
        self.files = dict(files)

    def entries(self) -> list[Entry]:
        return [Entry(name, len(self.files[name] or b""), "0") for name in sorted(self.files)]

    def read_into(
        self, entries: Sequence[Entry], buffer: npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.int64], dict[int, InputError]]:
        offsets = np.cumsum([0, *(entry.size for entry in entries)], dtype=np.int64)
        errors: dict[int, InputError] = {}
        for i, entry in enumerate(entries):
            data = self.files[entry.name]
            if data is None:
                errors[i] = UnreadableFile("cannot be read", file=f"{self.location}/{entry.name}")
            else:
                buffer[offsets[i] : offsets[i + 1]] = np.frombuffer(data, np.uint8)
        return offsets, errors

    def close(self) -> None:
        pass


def memory_pairs(
    files: Sequence[tuple[bytes | None, bytes | None]],
) -> tuple[list[Pair], MemorySource, MemorySource]:
    """Pairs of (gt, pred) PNG bytes with their two sources."""
    gts = MemorySource({f"{i:06d}.png": gt for i, (gt, _) in enumerate(files)})
    preds = MemorySource({f"{i:06d}.png": pred for i, (_, pred) in enumerate(files)})
    pairs = [
        Pair(gt.name[:-4], "", gt, pred) for gt, pred in zip(gts.entries(), preds.entries(), strict=True)
    ]
    return pairs, gts, preds
