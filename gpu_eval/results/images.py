"""What a run says per image, whatever its task, for everything that judges, compares or ranks scores."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from gpu_eval.metrics.confusion import Counts, Ratios
from gpu_eval.metrics.uncertainty import Parts
from gpu_eval.metrics.units import Units

# Protocol and what is scored under it: the number of a level of label maps, or "ap" and "ap50" of instances.
Key = tuple[str, Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class ScoredImages(ABC):
    """The scored images of a run in the order of the split: all that judging and comparing need of it.

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
    def parts(self, units: Units, protocols: Sequence[str] | None = None) -> Mapping[Key, Parts]:
        """Every score under these protocols (default: all), as the mean of its classes' scores, and what
        becomes of it without each unit."""

    @abstractmethod
    def image_scores(self) -> Mapping[int | str, Ratios]:
        """A score of each image alone, (images,): per level of label maps, per protocol of instances."""

    def _taken(self, index: Counts) -> dict[str, Any]:
        """The fields that every task's have, of some of the images."""
        return {
            "keys": tuple(self.keys[i] for i in index),
            "drives": tuple(self.drives[i] for i in index),
            "gt": self.gt[index],
        }


def digest_of_keys(keys: Sequence[str]) -> bytes:
    """SHA-256 of the names of images, each with a zero byte behind it: what all fingerprints begin with."""
    return hashlib.sha256("".join(f"{key}\0" for key in keys).encode("utf-8", "surrogateescape")).digest()
