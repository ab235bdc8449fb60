"""Shards: how a split is cut."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shard:
    """Images `first` up to but not including `last` of the sorted split.

    `fatal` are those of them that kill the process that scores them: they become error rows.
    """

    number: int
    first: int
    last: int
    fatal: tuple[int, ...] = ()


def cut(images: int, shard_size: int) -> list[Shard]:
    """Shards of `shard_size` images that cover 0..images-1; the last one may be smaller."""
    firsts = range(0, images, shard_size)
    return [Shard(i, first, min(first + shard_size, images)) for i, first in enumerate(firsts)]
