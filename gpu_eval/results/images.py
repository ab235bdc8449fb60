"""What a run says per image, whatever its task, for everything that resamples or compares images."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from gpu_eval.metrics.bootstrap import Units
from gpu_eval.metrics.confusion import Counts, Ratios

# Protocol and what is scored under it: the number of a level of label maps, or "ap" and "ap50" of instances.
Score = tuple[str, Any]

# The mean over classes (...), and each class's own score (..., n).
Scores = Mapping[Score, tuple[Ratios, Ratios]]


@dataclass(frozen=True, eq=False, kw_only=True)
class ScoredImages(ABC):
    """The scored images of a run in the order of the split: all that comparing and ranking need of it.

    `gt` is int64 (images, k), equal where the ground truth of an image is. `missing` are the keys of images
    that could not be scored. The fingerprints are SHA-256 over keys and ground truth, and over these and the
    predictions: content, not files, so they are the same wherever the files lie and however they are packed.
    """

    keys: tuple[str, ...]
    drives: tuple[str, ...]
    gt: Counts
    missing: frozenset[str]
    gt_fingerprint: str
    pred_fingerprint: str

    @abstractmethod
    def take(self, index: Counts) -> Self:
        """The same of some of the images; the fingerprints stay those of all."""

    @abstractmethod
    def scores(self) -> Scores:
        """The scores of these images together."""

    @abstractmethod
    def resampled(
        self, resamples: int, seed: int, protocols: Sequence[str] | None = None
    ) -> tuple[Scores, Units]:
        """The scores of every resample (first axis) under these protocols (default: all), and what was drawn.

        There are no resamples of fewer than two units.
        """

    @abstractmethod
    def image_scores(self) -> Mapping[int | str, Ratios]:
        """A score of each image alone, (images,): per level of label maps, per protocol of instances."""

    def _taken(self, index: Counts) -> dict[str, Any]:
        """The fields that every kind of run has, of some of the images."""
        return {
            "keys": tuple(self.keys[i] for i in index),
            "drives": tuple(self.drives[i] for i in index),
            "gt": self.gt[index],
        }


def digest_of_keys(keys: Sequence[str]) -> bytes:
    """SHA-256 of the names of images, each with a zero byte behind it: what all fingerprints begin with."""
    return hashlib.sha256("".join(f"{key}\0" for key in keys).encode("utf-8", "surrogateescape")).digest()
