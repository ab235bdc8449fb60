"""What the view of a task says where the views of all tasks meet."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ComparisonWords:
    """The headings of a comparison: of its scores, its classes and its images.

    Of classes with several measures, `measure` is the one that is shown.
    """

    score: str
    classes: str
    images: str
    measure: str | None = None
