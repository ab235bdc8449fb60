"""Runs that are stopped midway, and which of their files stay what they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import gpu_eval
from tests.support.scoring import Split, score

Identity = tuple[int, int]


def stop_at(split: Split, out: Path, images: int, **options: Any) -> None:
    """A run, a shard an image, that is interrupted once `images` images are done."""

    def interrupt(progress: gpu_eval.Progress) -> None:
        if progress.done >= images:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(split, out, progress=interrupt, **{"shard_size": 1, **options})


def identity(path: Path) -> Identity:
    """Of a file: one that is written again has another."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def parts_of(folder: Path) -> dict[Path, Identity]:
    """All parts of a run, committed or not."""
    return {path: identity(path) for path in folder.rglob("part-*.parquet")}


def committed_parts(folder: Path) -> dict[Path, Identity]:
    """The parts of shards that are done: those of which the images part, the last one, is written."""
    names = {path.name for path in (folder / "images").glob("part-*.parquet")}
    return {path: stamp for path, stamp in parts_of(folder).items() if path.name in names}
