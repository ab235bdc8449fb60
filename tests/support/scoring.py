"""`gpu_eval.score` and its like with the options that tests want: one call for the splits of every task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pytest

import gpu_eval
from gpu_eval import errors

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "semantic": {"threads": 1, "res": "native"},
    "instance": {"threads": 1},
}

SCORERS: Mapping[str, Callable[..., Any]] = {
    "semantic": gpu_eval.score,
    "instance": gpu_eval.score_instances,
}


class Split(Sized, Protocol):
    """What `semantic_split.TinySplit` and `instance_split.InstanceFiles` have in common."""

    task: ClassVar[str]

    @property
    def gts(self) -> Path: ...

    @property
    def preds(self) -> Path: ...


def score(split: Split, out: Path | str, **options: Any) -> Any:
    """The run of a split, at its own size and by one thread unless `options` say otherwise.

    `gts` and `preds` among the options are inputs in place of the split's own: archives, URLs.
    """
    given = {"gts": split.gts, "preds": split.preds, "out": out, **DEFAULTS[split.task], **options}
    return SCORERS[split.task](given.pop("gts"), given.pop("preds"), **given)


def problems_of(split: Split, out: Path | str, **options: Any) -> list[errors.GpuEvalError]:
    """The problems that stop the run of a split."""
    with pytest.raises(errors.SplitProblems) as caught:
        score(split, out, **options)
    problems = list(caught.value.problems)
    assert caught.value.exit_code == 2
    assert caught.value.found == f"{len(problems)} in {len(split)} images"
    return problems
