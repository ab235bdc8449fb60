"""What is known of a shard after its work, and of a run after all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_eval import errors
from gpu_eval.errors import FatalImage, GpuEvalError

# Warnings and errors differ per image; of each kind the first few are told, the rest are in the tables.
WARNINGS_KEPT = 5

# What an error is made of, in its table columns and in run.json.
FACTS = ("message", "file", "found", "expected", "fix")


@dataclass(slots=True)
class Tally:
    """The small summary that a shard's work sends back; tallies add up.

    `counts` has "status ok", "decoder simd" and the like. `seconds` are the engine's by stage, and those of
    writing. `problems` leaves out what listing the split has told already. `confusion` (int64, shape
    (n + 1, n + 1), rows gt, columns prediction, void last) is None for instances, whose scores are no sum
    over images.
    """

    images: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    problems: list[GpuEvalError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    confusion: npt.NDArray[np.int64] | None = None

    def __iadd__(self, other: Tally) -> Tally:
        self.images += other.images
        self.counts += other.counts
        self.seconds += other.seconds
        self.problems += other.problems
        self.warnings = (self.warnings + other.warnings)[:WARNINGS_KEPT]
        if self.confusion is None:
            self.confusion = None if other.confusion is None else other.confusion.copy()
        elif other.confusion is not None:
            self.confusion += other.confusion
        return self

    @property
    def scored(self) -> int:
        """Images that are in the scores."""
        return self.counts["status ok"] + self.counts["status void"]


def error_facts(error: GpuEvalError) -> dict[str, str | None]:
    """An error as a row of a table."""
    return {"kind": error.kind, **{name: getattr(error, name) for name in FACTS}}


def to_error(facts: Mapping[str, Any]) -> GpuEvalError:
    """The error that a row of a table tells of."""
    kind: type[GpuEvalError] = getattr(errors, facts["kind"])
    return kind(facts["message"], **{name: facts[name] for name in FACTS[1:]})


def count_values(tally: Tally, name: str, values: Iterable[Mapping[str, Any]]) -> None:
    """Add the rows of `value_counts` of a column as "<name> <value>"."""
    tally.counts.update({f"{name} {value['values']}": value["counts"] for value in values})


def fatal_image(file: str) -> FatalImage:
    """The error of an image whose scoring killed one process after another."""
    return FatalImage(
        "scoring this image kills the process",
        file=file,
        expected="a result or an error",
        fix="look at the image and the worker's log; the rest of the split is scored without it",
    )
