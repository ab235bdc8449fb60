"""Which classes a benchmark has, how they are grouped, and how pixel values become classes."""

from __future__ import annotations

import os
from numbers import Integral
from pathlib import Path

from gpu_eval.errors import OptionError
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
    """A label space given as one, by the name of a benchmark, as a CSV file, or as a number of classes.

    Raises OptionError for anything else, LabelTableError for a table or a number that is none.
    """
    given: object = labels
    if isinstance(labels, LabelSpace):
        return labels
    if isinstance(given, Integral) and not isinstance(given, bool):  # NumPy's, too
        return numbered_labels(int(given))
    if isinstance(given, str | os.PathLike):
        return load_labels(os.fspath(given))
    raise OptionError(
        "no labels",
        found=repr(given)[:80],
        expected="the name of a benchmark, the path of a label CSV, or a number of classes",
    )
