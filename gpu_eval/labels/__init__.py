"""Which classes a benchmark has, how they are grouped, and how pixel values become classes."""

from __future__ import annotations

from pathlib import Path

from gpu_eval.labels.space import Encoding, LabelSpace, Level
from gpu_eval.labels.table import BUNDLED, load_labels, numbered_labels

__all__ = [
    "BUNDLED",
    "Encoding",
    "LabelSpace",
    "Labels",
    "Level",
    "as_labels",
    "load_labels",
    "numbered_labels",
]

Labels = LabelSpace | str | Path | int


def as_labels(labels: Labels) -> LabelSpace:
    """A label space given as one, by the name of a benchmark, as a CSV file, or as a number of classes."""
    if isinstance(labels, LabelSpace):
        return labels
    return numbered_labels(labels) if isinstance(labels, int) else load_labels(labels)
