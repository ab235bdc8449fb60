"""What is known of a shard after its work, and of a run after all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from gpu_eval import errors
from gpu_eval.errors import FatalImage, GpuEvalError
from gpu_eval.run_folder.schema import ERROR_FACTS

# Warnings and errors differ per image; of each kind the first few are told, the rest are in the tables.
WARNINGS_KEPT = 5


@dataclass(slots=True)
class Summary:
    """The little that a shard's work sends back; summaries add up.

    `counts` has "status ok", "decoder simd" and the like. `seconds` are the engine's by stage, and those of
    writing. `problems` leaves out what listing the split has told already.
    """

    images: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    problems: list[GpuEvalError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def __iadd__(self, other: Summary) -> Summary:
        self.images += other.images
        self.counts += other.counts
        self.seconds += other.seconds
        self.problems += other.problems
        self.warnings = (self.warnings + other.warnings)[:WARNINGS_KEPT]
        return self

    @property
    def scored(self) -> int:
        """Images that are in the scores."""
        return self.counts["status ok"] + self.counts["status void"]

    def count_values(self, name: str, values: Iterable[Mapping[str, Any]]) -> None:
        """Add the rows of `value_counts` of a column as "<name> <value>"."""
        self.counts.update({f"{name} {value['values']}": value["counts"] for value in values})


def summary_of(images: pa.Table, told: tuple[type[GpuEvalError], ...]) -> Summary:
    """Images, their status and their problems from an images table; `told` are those that listing tells."""
    summary = Summary(images.num_rows)
    summary.count_values("status", images["status"].value_counts().to_pylist())
    problems = [to_error(row) for errors in images["errors"].to_pylist() for row in errors]
    summary.problems = [problem for problem in problems if not isinstance(problem, told)]
    return summary


def error_facts(error: GpuEvalError) -> dict[str, str | None]:
    """An error as a row of a table."""
    return {name: getattr(error, name) for name in ERROR_FACTS}


def to_error(facts: Mapping[str, Any]) -> GpuEvalError:
    """The error that a row of a table tells of."""
    kind: type[GpuEvalError] = getattr(errors, facts["kind"])
    return kind(facts["message"], **{name: facts[name] for name in ERROR_FACTS[2:]})


def fatal_image(file: str) -> FatalImage:
    """The error of an image whose scoring killed one process after another."""
    return FatalImage(
        "scoring this image kills the process",
        file=file,
        expected="a result or an error",
        fix="look at the image and the worker's log; the rest of the split is scored without it",
    )
