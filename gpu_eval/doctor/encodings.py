"""Whether the ids of a split are mixed up, judged from a joint count of raw values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_eval.doctor.agreement import ENOUGH, Agreement, agreement, best_relabelling
from gpu_eval.doctor.doubt import Doubt
from gpu_eval.doctor.readings import OWN, VALUES, Reading, plain_encoding, readings
from gpu_eval.labels import LabelSpace, Level

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Agreement that leaves nothing to doubt, whatever else the values could mean.
GOOD = 0.8
# How far another reading must be ahead (as `Agreement.weight`) to be likely, and to be certain.
LIKELY_WEIGHT, LIKELY_GAIN, LIKELY_RATIO = 0.15, 0.10, 0.75
CERTAIN_WEIGHT, CERTAIN_GAIN, CERTAIN_RATIO = 0.35, 0.25, 0.5
# In how many classes it must show, of all that gt has: an untrained network gets a few by chance. One less
# where the agreement is clear.
SHOWN_BY, CLEAR = 5, 0.5
# Where the reading in use leaves so many pixels outside, and the other one almost none, less will do.
STRANGE, KNOWN = 0.01, 0.002
# What every split of streets has much of, if it is not misread.
STREETS, NO_ROAD, ROAD = "road", 0.002, 0.1
# Where a reading keeps values that are void, it must give so much more of gt a class.
EXPLAINED = 0.1
# A value of a smaller share of gt is not counted as seen.
SPECK = 0.0005
STRANGE_WEIGHT, STRANGE_GAIN = 0.05, 0.03
# How much of a side a reading must know to be proposed for its values alone.
MOSTLY = 0.9
# How much more a shifted column must explain than a column, and two misread sides than one.
SHIFTED, TWICE = 1.05, 1.3
# Images of another encoding than the others.
SEVERAL = 2
# The best of all relabellings is doubted only where it moves many classes to a good end.
RELABELLED, NOT_AT_ALL, MOVED = 0.65, 0.1, 5


@dataclass(frozen=True)
class _Judged:
    """A reading of both sides: how far they agree at the coarser of their levels, and what it leaves out.

    `gt_outside` and `pred_outside` are shares of pixels that the reading does not have; `strange` is the
    share of gt that is no class although it is not 255, which is void in every reading.
    """

    gt: Reading
    pred: Reading
    found: Agreement
    gt_outside: float
    pred_outside: float
    strange: float

    @property
    def level(self) -> Level:
        return min(self.gt.level, self.pred.level, key=lambda level: level.number)

    @property
    def weight(self) -> float:
        """That of the agreement; less for readings that people hit upon less often."""
        shifted = any(reading.name.endswith(("+1", "-1")) for reading in (self.gt, self.pred))
        return self.found.weight / (SHIFTED if shifted else 1.0)


def judge_encodings(joint: Counts, space: LabelSpace, gt_encoding: str, pred_encoding: str) -> list[Doubt]:
    """What the raw values say about the encodings in use; nothing where a model is merely bad.

    `joint` counts pixels of raw values, int64 (257, 257), rows gt, columns prediction; the last index is for
    values above a byte.
    """
    if joint.sum() == 0:
        return []
    judge = _Judge(joint, space, gt_encoding, pred_encoding)
    best = judge.best()
    if best is not None:
        return [judge.doubt(best)]
    outside = judge.mostly_outside()
    return outside or judge.relabelled()


def judge_each(
    joints: Sequence[Counts], space: LabelSpace, gt_encoding: str, pred_encoding: str
) -> list[Doubt]:
    """Whether some of the images, each by itself, are certainly in another encoding than the others.

    `joints` are of single images, as `judge_encodings` has them. Only values that the encoding does not have
    make it look: honest predictions have none.
    """
    total = np.sum(joints, axis=0).sum(axis=0) if joints else np.zeros(VALUES, np.int64)
    table = np.append(space.encoding(pred_encoding).table, space.n_classes + 1)
    if total[table > space.n_classes].sum() < STRANGE * total.sum() or not total.any():
        return []
    found: dict[str, list[Doubt]] = {}
    for joint in joints:
        for doubt in judge_encodings(joint, space, gt_encoding, pred_encoding):
            if doubt.certain:
                found.setdefault(doubt.message, []).append(doubt)
    message, doubts = max(found.items(), key=lambda one: len(one[1]), default=("", []))
    if len(doubts) < SEVERAL or len(doubts) * 4 < len(joints):
        return []
    who = f"in {len(doubts)} of {len(joints)} images that were looked at {message}"
    fix = "write all of them in one encoding"
    return [Doubt("encoding", who, f"in one of them {doubts[0].evidence}", fix)]


class _Judge:
    def __init__(self, joint: Counts, space: LabelSpace, gt_encoding: str, pred_encoding: str) -> None:
        self.space, self.finest = space, space.levels[0]
        self.gts, self.preds = readings(space, gt_encoding), readings(space, pred_encoding)
        # Of 66,049 cells a split uses few: all else is done on those.
        self.gt_values = np.flatnonzero(joint.sum(axis=1))
        self.pred_values = np.flatnonzero(joint.sum(axis=0))
        self.joint = joint[np.ix_(self.gt_values, self.pred_values)].astype(np.float64)
        self.used = self._judged(self.gts[0], self.preds[0])

    def _classes(self, gt: Reading, pred: Reading, level: Level) -> Counts:
        """The joint count of classes at a level, (n + 2, n + 2)."""
        size = np.arange(len(level.names) + 2)[:, None]
        rows = (gt.at(level)[self.gt_values] == size).astype(np.float64)
        columns = (pred.at(level)[self.pred_values] == size).astype(np.float64)
        counted: Counts = np.rint(rows @ self.joint @ columns.T).astype(np.int64)
        return counted

    def _judged(self, gt: Reading, pred: Reading, level: Level | None = None) -> _Judged:
        at = level or min(gt.level, pred.level, key=lambda own: own.number)
        joint = self._classes(gt, pred, at)
        pixels = joint.sum()
        no_class = (gt.at(at)[self.gt_values] >= len(at.names)) & (self.gt_values != 255)
        return _Judged(
            gt,
            pred,
            agreement(joint),
            float(joint[-1].sum() / pixels),
            float(joint[:, -1].sum() / pixels),
            float(self.joint[no_class].sum() / pixels),
        )

    def _others(self) -> Iterator[tuple[Reading, Reading]]:
        """One side read otherwise; or both, in two ways."""
        gt, pred = self.gts[0], self.preds[0]
        yield from ((gt, other) for other in self.preds[1:])
        yield from ((other, pred) for other in self.gts[1:])
        # Hundreds of them, which `_is_likely` would refuse in any other case.
        if self.used.strange < STRANGE and self.used.found.weight > NOT_AT_ALL:
            return
        yield from (
            (one, other) for one in self.gts[1:] for other in self.preds[1:] if one.name != other.name
        )

    def best(self) -> _Judged | None:
        """The reading that is likely meant instead of the one in use, if there is one."""
        alike = self._alike()
        if self.used.found.weight >= GOOD:
            return alike
        one: _Judged | None = None
        both: _Judged | None = None
        for gt, pred in self._others():
            judged = self._judged(gt, pred)
            if not self._is_likely(judged):
                continue
            if gt is self.gts[0] or pred is self.preds[0]:
                one = _better(judged, one)
            else:
                both = _better(judged, both)
        if alike is not None and (one is None or one.weight <= TWICE * alike.weight):
            return alike
        # Two mistakes are less likely than one that explains as much.
        if one is None or (both is not None and both.weight > TWICE * one.weight):
            return both
        return one

    def _alike(self) -> _Judged | None:
        """A reading of both sides that their agreement cannot tell from the one in use, but gt's values can.

        As read, some values of gt are no classes, or no street has a road; under the other reading all are,
        and there is one. Of such readings, that of which the split uses the largest part, if it is a larger
        part than that of the one in use.
        """
        now = self.used
        roadless = self._road(self.gts[0]) < NO_ROAD and now.found.present >= SHOWN_BY
        if now.strange < STRANGE and not roadless:
            return None
        best: tuple[float, _Judged] | None = None
        by_name = {pred.name: pred for pred in self.preds}
        for gt in self.gts[1:]:
            pred = by_name.get(gt.name)
            if gt.level is not self.finest or pred is None:
                continue
            other = self._judged(gt, pred)
            keeps = other.found.kappa >= 0.85 * now.found.kappa and other.found.weight >= LIKELY_WEIGHT
            part = self._part_used(gt)
            if not keeps or part <= self._part_used(self.gts[0]):
                continue
            # Labels that a benchmark ignores are void, and yet meant.
            more = other.gt_outside <= KNOWN and other.found.labelled >= now.found.labelled + EXPLAINED
            if other.strange > KNOWN and not more:
                continue
            if now.strange < STRANGE and self._road(gt) < ROAD:
                continue
            part /= TWICE if gt.name.endswith(("+1", "-1")) else 1.0
            part /= TWICE if self._road(gt) < ROAD else 1.0  # false where there is no such class
            if best is None or part > best[0]:
                best = (part, other)
        return None if best is None else best[1]

    def _road(self, gt: Reading) -> float:
        """The share of gt that is road; nan where the label space has no such class."""
        if STREETS not in self.space.names:
            return float("nan")
        road = gt.table[self.gt_values] == self.space.names.index(STREETS)
        return float(self.joint[road].sum() / self.joint.sum())

    def _part_used(self, gt: Reading) -> float:
        """Of the values that a reading has for classes or that gt has, the share that both have."""
        shares = self.joint.sum(axis=1) / self.joint.sum()
        seen = set(self.gt_values[shares >= SPECK].tolist()) - {255}
        have = set(np.flatnonzero(gt.table[:255] < gt.n_classes).tolist())
        return len(seen & have) / max(1, len(seen | have))

    def _used_at(self, level: Level) -> _Judged:
        return self.used if level is self.finest else self._judged(self.gts[0], self.preds[0], level)

    def _is_likely(self, other: _Judged) -> bool:
        found, now = other.found, self._used_at(other.level)
        gain = found.weight - now.found.weight
        enough = SHOWN_BY - (found.weight >= CLEAR)
        if found.classes < min(enough, found.present) or found.classes <= now.found.classes:
            return False
        if now.found.weight > LIKELY_RATIO * found.weight:
            return False
        if other.gt is not self.gts[0]:
            # Ground truth is made with care: under the reading that was meant, nothing of it is left out.
            shows = now.strange >= STRANGE and other.strange <= KNOWN
            both = other.pred is not self.preds[0]
            worse = other.gt_outside > KNOWN or (other.strange > now.strange + KNOWN and not both)
            # From nothing to this in so many classes: no chance brings that about, on both sides at once.
            plain = found.weight >= CERTAIN_WEIGHT and (
                not both or (now.found.weight <= NOT_AT_ALL and found.classes >= SHOWN_BY)
            )
            if worse or not (shows or plain):
                return False
        strange = (now.pred_outside >= STRANGE and other.pred_outside <= KNOWN) or (
            now.gt_outside >= STRANGE and other.gt_outside <= KNOWN
        )
        if strange and found.weight >= STRANGE_WEIGHT and gain >= STRANGE_GAIN:
            return True
        return found.weight >= LIKELY_WEIGHT and gain >= LIKELY_GAIN

    def doubt(self, best: _Judged) -> Doubt:
        now = self._used_at(best.level)
        gain = best.found.weight - now.found.weight
        alike = best.gt is not self.gts[0] and best.gt.name == best.pred.name
        certain = (
            best.found.weight >= CERTAIN_WEIGHT
            and gain >= CERTAIN_GAIN
            and (alike or now.found.weight <= CERTAIN_RATIO * best.found.weight)
        )
        sides, names, used, options, mend = [], [], [], [], {}
        for side, word, other, own in (
            ("gt", "ground truth", best.gt, self.gts[0]),
            ("pred", "predictions", best.pred, self.preds[0]),
        ):
            if other is own:
                continue
            sides.append(word)
            names.append(other.name)
            used.append(own.name)
            if other.option is not None:
                options.append(f"--{side}-encoding {other.option}")
                mend[f"{side}_encoding"] = other.option
        look = "looks" if sides == ["ground truth"] else "look"
        coarse = best.level is not self.finest
        at = f" at level {best.level.number}" if coarse and best.level.number != OWN else ""
        evidence = (
            f"under {_and(names)} the agreement{at} is {best.found.miou:.2f}, "
            f"under {_and(used)} {now.found.miou:.2f}"
        )
        if abs(best.found.miou - now.found.miou) < 0.05:
            evidence += (
                f"; {best.found.labelled:.0%} of the ground truth has a class under {_and(names)}, "
                f"{now.found.labelled:.0%} under {_and(used)}"
            )
        unusable = len(options) < len(sides)
        fix = f"give {' '.join(options)}" if options else ""
        if unusable:
            mend, fix = self._unusable(best)
        return Doubt(
            "encoding",
            f"the {' and the '.join(sides)} {look} like {_and(names)}, not {_and(used)}",
            evidence,
            fix,
            certain,
            mend,
        )

    def _unusable(self, best: _Judged) -> tuple[dict[str, str], str]:
        """What mends ids that cannot be scored as they are."""
        of_table = [reading.name.split() for reading in (best.gt, best.pred)]
        if any(len(words) == 2 for words in of_table):  # numbered classes that a bundled table has
            (table,) = {words[0] for words in of_table if len(words) == 2}
            mend = {"labels": table}
            for side, words in zip(("gt", "pred"), of_table, strict=True):
                mend[f"{side}_encoding"] = words[1] if len(words) == 2 else plain_encoding(table)
            options = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in mend.items())
            return mend, f"give {options}"
        own = f"level {self.finest.number}"
        if best.level.number != OWN:
            return {}, f"write ids of {own}: a coarser id cannot be turned back into one"
        return {}, f"write ids of {own}: of these a value stands for several classes"

    def mostly_outside(self) -> list[Doubt]:
        """Sides of which most pixels are no value of their encoding, whatever they may mean."""
        sides = [
            (side, word, outside, values, counts)
            for side, word, outside, values, counts in (
                ("gt", "ground truth", self.used.gt_outside, self.gt_values, self.joint.sum(axis=1)),
                ("pred", "predictions", self.used.pred_outside, self.pred_values, self.joint.sum(axis=0)),
            )
            if outside * 2 > 1
        ]
        if not sides:
            return []
        gts = self._knowing(self.gts, sides, "gt")
        preds = self._knowing(self.preds, sides, "pred")
        judged = [self._judged(gt, pred) for gt in gts for pred in preds]
        best = max(judged, key=lambda one: one.weight, default=None)
        fix, mend = "write the ids of the label table", {}
        if best is not None and best.weight >= STRANGE_WEIGHT and best.gt.option and best.pred.option:
            # Only what agreement speaks for is advised: many readings know all values.
            if best.gt is not self.gts[0]:
                mend["gt_encoding"] = best.gt.option
            if best.pred is not self.preds[0]:
                mend["pred_encoding"] = best.pred.option
            options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in mend.items())
            fix = f"give {options}, under which the agreement is {best.found.miou:.2f}"
        words = " and of the ".join(word for _, word, *_ in sides)
        shown = "; ".join(
            f"{outside:.0%} of the pixels of the {word}, values {shown_values(values)}"
            for _, word, outside, values, _ in sides
        )
        used = _and([(self.gts if side == "gt" else self.preds)[0].name for side, *_ in sides])
        message = f"most values of the {words} are neither a class nor void under {used}"
        return [Doubt("encoding", message, shown, fix, certain=True, mend=mend)]

    def _knowing(
        self, of_side: list[Reading], sides: list[tuple[str, str, float, Counts, Floats]], side: str
    ) -> list[Reading]:
        """The readings of a side that may be meant: the one in use, or those that know most of its values."""
        outside = [(values, counts) for one, _, _, values, counts in sides if one == side]
        if not outside:
            return of_side[:1]
        ((values, counts),) = outside
        return [
            reading
            for reading in of_side[1:]
            if reading.level is self.finest
            and counts[reading.table[values] <= reading.n_classes].sum() > MOSTLY * counts.sum()
        ]

    def relabelled(self) -> list[Doubt]:
        """Ids that no reading explains, but that some relabelling of the predictions would."""
        if self.used.found.weight > NOT_AT_ALL:
            return []
        n = self.space.n_classes
        size = np.arange(n)[:, None]
        rows = (self.gts[0].table[self.gt_values] == size).astype(np.float64)
        joint = np.rint(rows @ self.joint).astype(np.int64)
        spare = max(0, n - joint.shape[1])
        columns = best_relabelling(np.pad(joint, ((0, 0), (0, spare))))
        picked = np.zeros((n + 2, n + 2), np.int64)
        picked[:n, :n] = np.pad(joint, ((0, 0), (0, spare)))[:, columns]
        picked[:n, n] = joint.sum(axis=1) - picked[:n, :n].sum(axis=1)
        found = agreement(picked)
        right = np.diagonal(picked)[:n]
        union = picked[:n].sum(axis=1) + picked[:n, :n].sum(axis=0) - right
        moved = []
        for c in np.flatnonzero((right > 0) & (right >= 3 * ENOUGH * union)).tolist():
            value = int(self.pred_values[columns[c]])
            if int(self.preds[0].table[value]) != c:
                moved.append((c, value, int(right[c])))
        kept = np.count_nonzero((right > 0) & (right >= 3 * ENOUGH * union)) - len(moved)
        if found.kappa < RELABELLED or len(moved) < MOVED or kept * 4 > len(moved):
            return []
        first = sorted(moved, key=lambda move: -move[2])[:4]
        told = ", ".join(f"{value} is {self.space.names[c]}" for c, value, _ in first)
        return [
            Doubt(
                "encoding",
                "the ids of the predictions are mixed up, and no encoding of the label table explains them",
                f"with one relabelling ({told}, ...) the agreement would be {found.miou:.2f}, "
                f"under `{self.preds[0].name}` it is {self.used.found.miou:.2f}",
                "map the ids of the predictions to those of the label table before they are saved",
            )
        ]


def _better(judged: _Judged, best: _Judged | None) -> _Judged:
    """The one that explains more; of equals, the one that was seen first."""
    return best if best is not None and best.weight >= judged.weight else judged


def shown_values(values: npt.NDArray[np.int64]) -> str:
    """The first raw values, for people."""
    told = ["above 255" if value > 255 else str(value) for value in values[:12].tolist()]
    return ", ".join(told) + (", ..." if values.size > 12 else "")


def _and(names: list[str]) -> str:
    return " and ".join(f"`{name}`" for name in dict.fromkeys(names))
