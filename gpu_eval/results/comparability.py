"""When runs may be set beside each other, and all the reasons to refuse it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpu_eval.errors import IncomparableRuns, OptionError
from gpu_eval.metrics.confusion import Counts
from gpu_eval.results.images import ScoredImages
from gpu_eval.results.run import ScoredRun

# Image names in an error message.
_EXAMPLES = 3


def check_same_kind(runs: Sequence[ScoredRun]) -> None:
    """Raise OptionError for runs of several tasks, naming one of each of two."""
    for run in runs:
        if run.kind != runs[0].kind:
            raise OptionError(
                "runs of different kinds have no score in common",
                file=str(run.folder),
                found=f"a run of the {run.kind} task",
                expected=f"the {runs[0].kind} task, as {runs[0].folder}",
                fix="give runs of one kind; those of the other make a comparison or a board of their own",
            )


def check_same_rules(run_a: ScoredRun, run_b: ScoredRun) -> None:
    """Raise IncomparableRuns where labels, protocols, resolution or area differ, and say which.

    Both are of one kind.
    """
    others = run_b.rules
    for what, (one, shown) in run_a.rules.items():
        other, shown_other = others[what]
        if one != other:
            raise IncomparableRuns(
                f"the runs have different {what}",
                file=str(run_b.folder),
                found=shown_other if shown_other != shown else f"another table named {shown}",
                expected=f"{shown}, as {run_a.folder}",
                fix="score both with the same options",
            )


def check_same_gt(
    a: ScoredImages, b: ScoredImages, at: tuple[Counts, Counts], names: tuple[str, str]
) -> None:
    """Raise IncomparableRuns unless the images at these places have the same ground truth in both.

    What counts is the content, so a copy of the ground truth with other dates or another compression is the
    same.
    """
    other = np.flatnonzero((a.gt[at[0]] != b.gt[at[1]]).any(axis=1))
    if other.size:
        raise IncomparableRuns(
            "the runs were scored against different ground truth",
            file=names[1],
            found=f"{other.size} of {at[0].size} images differ from {names[0]}: "
            + _some([a.keys[at[0][i]] for i in other]),
            fix="score both against the same ground truth",
        )


def check_same_split(a: ScoredImages, b: ScoredImages, names: tuple[str, str]) -> None:
    """Raise IncomparableRuns unless both have the same images, scored or not, and the same ground truth
    wherever both are scored."""
    all_keys = [set(side.keys) | side.missing for side in (a, b)]
    if all_keys[0] != all_keys[1]:
        odd = sorted(all_keys[0] ^ all_keys[1])
        raise IncomparableRuns(
            "the runs are of different splits",
            file=names[1],
            found=f"{len(all_keys[1])} images; {len(odd)} are in one run only: {_some(odd)}",
            expected=f"the {len(all_keys[0])} images of {names[0]}",
        )
    check_same_gt(a, b, _both(a, b), names)


def in_common(
    a: ScoredImages, b: ScoredImages, names: tuple[str, str], allowed: bool
) -> tuple[Counts, Counts]:
    """Where the images that both have scored stand in each, int64 (n,), in the order of the first.

    Raises IncomparableRuns where there is none, or where the images differ and that is not `allowed`.
    """
    at_a, at_b = _both(a, b)
    if at_a.size == len(a.keys) == len(b.keys) or (at_a.size and allowed):
        return at_a, at_b
    if not at_a.size:
        raise IncomparableRuns(
            "the runs have no image in common",
            file=names[1],
            found=_some(b.keys),
            expected=f"{_some(a.keys)}, as {names[0]}",
        )
    only = [sorted(set(one.keys) - set(other.keys)) for one, other in ((a, b), (b, a))]
    found = [
        f"{len(keys)} only in {name}: {_some(keys)}" for keys, name in zip(only, names, strict=True) if keys
    ]
    raise IncomparableRuns(
        "the runs have scored different images",
        file=names[1],
        found="; ".join(found),
        expected=f"the same {len(a.keys)} images as {names[0]}",
        fix=f"--common compares the {at_a.size} images that both have",
    )


def _both(a: ScoredImages, b: ScoredImages) -> tuple[Counts, Counts]:
    if a.keys == b.keys:
        everything = np.arange(len(a.keys))
        return everything, everything
    place = {key: i for i, key in enumerate(b.keys)}
    both = [(i, place[key]) for i, key in enumerate(a.keys) if key in place]
    at = np.array(both, np.int64).reshape(-1, 2)
    return at[:, 0], at[:, 1]


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:_EXAMPLES]) + (", ..." if len(keys) > _EXAMPLES else "")
