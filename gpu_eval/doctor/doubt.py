"""What the doctor says, and what it may look with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gpu_eval.engines.engine import Engine
from gpu_eval.errors import Doubtful
from gpu_eval.inputs.source import Source

# The kind of doubt about maps that hold no labels: nothing scores them as they are.
UNSCORABLE = "mode"


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something that looks like a mix-up, not like a bad model.

    `kind` is what it is about ("encoding", "size", "classes", "instances", ...), `message` what it looks
    like, `evidence` the figures that say so, `fix` the option or the command that mends it. What is `certain`
    is refused unless the user says to score it as it is.

    `mend` says the same as `fix` to programs: keyword arguments of `score` ("pred_encoding": "train"), or
    "pred_region": "WIDTHxHEIGHT:top,left,height,width;...", the part of each prediction of that size that
    shows what its gt shows.
    """

    kind: str
    message: str
    evidence: str
    fix: str
    certain: bool = False
    mend: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.message} ({self.evidence}); {self.fix}"

    def facts(self) -> dict[str, Any]:
        """As run.json has it."""
        return asdict(self)


@dataclass(frozen=True)
class Sight:
    """What the doctor may look with: the open sources, and an engine of this process.

    There is no engine where a cluster scores: an image that kills the process that counts it would kill the
    driver then, and not a worker.
    """

    gts: Source
    preds: Source
    engine: Engine | None


def refuse_certain(doubts: Iterable[Doubt]) -> None:
    """Raise Doubtful for doubts that are certain."""
    certain = [doubt for doubt in doubts if doubt.certain]
    if not certain:
        return
    first, *others = certain
    raise Doubtful(
        first.message,
        found="; ".join([first.evidence, *map(str, others)]),
        fix=first.fix if first.kind == UNSCORABLE else f"{first.fix}; or --as-is scores on as it is",
    )
