"""The drive of an examination, whatever the task: list, look, hold against names, ask the task, correct."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpu_eval.checkup import fix as fixing
from gpu_eval.checkup import names as naming
from gpu_eval.checkup.examination import Asked, Examination, Looked, Problems, Side
from gpu_eval.doctor.doubt import Doubt
from gpu_eval.errors import (
    EmptySplit,
    ExtraPrediction,
    InputError,
    MalformedPredictions,
    MissingPrediction,
    OptionError,
)
from gpu_eval.inputs.pairs import gts_by_key
from gpu_eval.inputs.source import Source
from gpu_eval.labels import LabelSpace
from gpu_eval.runs.workers import Workers, make_workers
from gpu_eval.tasks.task import Listing, Task

Look = Callable[[Side, Problems], Looked]


@dataclass(frozen=True)
class Correctable:
    """What a corrected copy needs to know: the classes, how names end, and the encoding of the maps."""

    space: LabelSpace
    gt_suffix: str | None
    suffix: str
    encoding: str


def check(
    task: Task[Any, Any],
    asked: Asked,
    look: Look,
    look_at_gts: Callable[[Source, Collection[str], Problems], None] | None,
    *,
    names: str | None,
    fix: str | None,
    correctable: Correctable | None,
    suffix_given: str | None,
    preds_are_files: bool,
    threads: int | None,
) -> Examination:
    """What is wrong with a split or with its predictions alone, what looks like a mix-up, and what is so.

    `look` looks at the side of the predictions, `look_at_gts` at those files of the ground truth that are
    named; `names` is a list of what must be there. With `fix` a corrected copy is written to that folder.

    Raises
        OptionError: an option has no meaning here, or `fix` names a folder that cannot be used.
        UnreadableSource: a side cannot be opened or listed.
        ReportError: the corrected copy cannot be written.
    """
    if fix is not None and correctable is None:
        raise OptionError(
            "only label maps are corrected",
            found=f"--fix {fix}",
            fix="leave --fix away: the answers say what to write",
        )
    target = None if fix is None else fixing.check_target(fix, asked.preds)
    wanted = None if names is None else naming.read_names(names)
    problems = Problems()
    with make_workers("cpu", threads, None) as workers:
        source = workers.open(asked.preds) if preds_are_files else None
        entries = [] if source is None else source.entries()
        listing, judged, unpaired = _examine(task, asked, workers, problems)
        paired = None if listing is None else _paired_suffix(listing)
        side = Side(asked.preds, source, entries, listing is not None, paired or suffix_given)
        if listing is None:
            problems.extend(naming.duplicates(entries, asked.preds))
        looked = look(side, problems)
        if listing is not None and look_at_gts is not None:
            assert asked.gts is not None
            look_at_gts(workers.open(asked.gts), set(listing.manifest["gt_name"].to_pylist()), problems)
        twins = naming.twins(entries)
        doubts = (*judged, *looked.doubts, *(() if twins is None else (twins,)))
        notes = [*(listing.notes if listing is not None else ()), *looked.notes]
        renames: dict[str, str] = {}
        suffix = correctable.suffix if correctable is not None else ""
        if listing is not None:
            renames |= _by_listing(listing, looked, suffix)
        elif asked.gts is not None and correctable is not None:
            renames |= _by_gts(workers.open(asked.gts), looked, correctable)
        if unpaired is not None:
            problems.add(unpaired, fixable=bool(renames))
        if wanted is not None:
            keys, said = _hold_against(wanted, looked, problems, asked)
            notes += said
            if listing is None:
                renames |= _renames(keys, suffix)
        elif asked.gts is None:
            notes.append("completeness was not checked: --names FILE says which images must be there")
        fixed = None
        if target is not None and correctable is not None and source is not None:
            plan = _plan(correctable, doubts, renames, with_gts=listing is not None)
            fixed = fixing.write_copy(
                source, entries, set(looked.keys.values()), plan, correctable.space, target, threads
            )
            fixed["score"] = _score_fixed(asked, doubts, looked, str(target), suffix, renames)
    return Examination(asked, problems.kinds(asked.fix_command()), doubts, looked.facts, tuple(notes), fixed)


def _examine(
    task: Task[Any, Any], asked: Asked, workers: Workers, problems: Problems
) -> tuple[Listing | None, Sequence[Doubt], InputError | None]:
    """The split as scoring lists it, and what the task doubts; or why nothing could be paired."""
    if asked.gts is None:
        return None, (), None
    try:
        listing = task.list_split(asked.gts, asked.preds, workers.open)
    except (EmptySplit, MalformedPredictions) as error:
        return None, (), error
    for problem in listing.problems:
        problems.add(problem, fixable=isinstance(problem, MissingPrediction) and problem.found is not None)
    with workers.sight(asked.gts, asked.preds if listing.preds_are_files else None) as sight:
        return listing, tuple(task.examine(listing, sight)), None


def _paired_suffix(listing: Listing) -> str | None:
    """How the names of predictions end by most pairs; None where no name begins as its key does."""
    columns = listing.manifest.column_names
    files = listing.manifest["pred_name" if "pred_name" in columns else "list_file"].to_pylist()
    endings: Counter[str] = Counter()
    for key, file in zip(listing.manifest["key"].to_pylist(), files, strict=True):
        base, name = posixpath.basename(key), posixpath.basename(file or "")
        if name.startswith(base):
            endings[name[len(base) :]] += 1
    return endings.most_common(1)[0][0] if endings else None


# --- names -----------------------------------------------------------------------------------------


def _by_listing(listing: Listing, looked: Looked, suffix: str) -> dict[str, str]:
    """New names by name, as the ground truth demands them, for files that are meant beyond doubt."""
    if "pred_name" not in listing.manifest.column_names:
        return {}
    keys = listing.manifest["key"].to_pylist()
    names = listing.manifest["pred_name"].to_pylist()
    paired = {key: name for key, name in zip(keys, names, strict=True) if name is not None}
    taken = set(paired.values())
    free = {key: name for key, name in looked.keys.items() if name not in taken and key not in paired}
    return _renames(naming.match(keys, {**paired, **free}).pairs, suffix)


def _by_gts(gts: Source, looked: Looked, correctable: Correctable) -> dict[str, str]:
    """The same where no prediction has the path of a ground truth."""
    try:
        keys, _, _ = gts_by_key(
            gts.entries(), gts.location, correctable.gt_suffix, exclude=correctable.space.exclude
        )
    except EmptySplit:
        return {}
    return _renames(naming.match(keys, naming.without_top(looked.keys, keys)).pairs, correctable.suffix)


def _renames(names: Mapping[str, str], suffix: str) -> dict[str, str]:
    return {name: f"{key}{suffix}" for key, name in names.items() if name != f"{key}{suffix}"}


def _hold_against(
    wanted: naming.Wanted, looked: Looked, problems: Problems, asked: Asked
) -> tuple[Mapping[str, str], list[str]]:
    """Which file is meant by which listed name; the others go to `problems`."""
    keys = naming.keys_of(wanted.names, looked.endings, looked.keys)
    demanded = dict.fromkeys(keys.values())
    files = naming.without_top(looked.keys, demanded)
    found = naming.match(demanded, files)
    moved = set(found.moved)
    ending = looked.endings[0] if looked.endings else ""
    for key in demanded:
        if key in moved:
            problems.add(
                MissingPrediction(
                    "a listed image has no prediction of its name",
                    file=f"{asked.preds}/{key}{ending}",
                    found=found.pairs[key],
                    fix=f"rename or move it to {key}{ending}",
                ),
                fixable=True,
            )
        elif key not in found.pairs:
            problems.add(
                MissingPrediction(
                    "a listed image has no prediction",
                    file=f"{asked.preds}/{key}{ending}",
                    expected=f"one per listed name, {len(demanded)} in all",
                )
            )
    for name in found.extra:
        problems.add(
            ExtraPrediction(
                "a prediction of an image that is not listed",
                file=f"{asked.preds}/{name}",
                expected="listed names only",
            )
        )
    notes = []
    if wanted.repeated:
        notes.append(
            f"{len(wanted.repeated)} names stand in the list more than once: "
            + naming.first_of(wanted.repeated)
        )
    notes.append(f"{len(found.pairs) - len(moved)} of {len(demanded)} listed images have a prediction")
    return found.pairs, notes


# --- a corrected copy ------------------------------------------------------------------------------


def _plan(
    correctable: Correctable, doubts: Sequence[Doubt], renames: Mapping[str, str], *, with_gts: bool
) -> fixing.Plan:
    """What is certain: what ground truth shows, what the user says, and doubts that are."""
    encoding = correctable.encoding
    regions: dict[tuple[int, int], fixing.Region] = {}
    for doubt in doubts:
        if not (doubt.certain or with_gts):
            continue
        if "pred_encoding" in doubt.mend:
            encoding = correctable.space.encoding(doubt.mend["pred_encoding"]).name
        if "pred_region" in doubt.mend:
            regions |= fixing.parse_regions(doubt.mend["pred_region"])
    return fixing.Plan(encoding, regions, renames)


def _score_fixed(
    asked: Asked,
    doubts: Sequence[Doubt],
    looked: Looked,
    target: str,
    suffix: str,
    renames: Mapping[str, str],
) -> str:
    """The command that scores the corrected copy."""
    mend = {
        name: value
        for doubt in doubts
        for name, value in doubt.mend.items()
        if name.startswith("gt_") or name == "labels"
    }
    names = [renames.get(name, name) for name in looked.keys.values()]
    if names and not all(name.endswith(suffix) for name in names):
        mend["pred_suffix"] = looked.endings[0]
    without = ("pred_encoding", *(() if "pred_suffix" in asked.options else ("pred_suffix",)))
    return asked.score_command(mend, target, without)
