"""`python -m bench doctor`: are mix-ups named, and are bad models left alone?

Each split is written as PNGs and examined as a run does it before it scores.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from bench import instance_mix_ups, machine, mix_ups
from bench.mix_ups import Split
from bench.output import write_json
from gpu_eval.doctor.doubt import Doubt, Sight
from gpu_eval.doctor.semantic import examine
from gpu_eval.engines.choose import make_engine
from gpu_eval.inputs.pairs import pair_up
from gpu_eval.inputs.sources import open_source
from gpu_eval.labels import load_labels
from gpu_eval.labels.instance_coding import FACTOR
from gpu_eval.labels.instance_readings import choose_reading, load_readings
from gpu_eval.labels.instance_space import load_instances
from gpu_eval.metrics.matching import AREA
from gpu_eval.tasks.instance import InstanceTask


@dataclass
class Row:
    """Splits of one kind: how many were named right, doubted (right or wrong), and refused."""

    kind: str
    splits: int
    named: int = 0
    doubted: int = 0
    refused: int = 0


def doubts_of(split: Split, folder: Path) -> list[Doubt]:
    """What the doctor says of a split, written below `folder`."""
    space = load_labels(split.labels)
    for i, pair in enumerate(split.pairs):
        for side, values in zip(("gt", "pred"), pair, strict=True):
            path = folder / side / "drive" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path, compress_level=1)
    gts, preds = open_source(folder / "gt"), open_source(folder / "pred")
    pairs = pair_up(
        gts.entries(), preds.entries(), gt_suffix=".png", pred_suffix=".png",
        gt_location=gts.location, pred_location=preds.location,
    ).pairs  # fmt: skip
    engine, _ = make_engine("cpu", 1)
    own = space.default_encoding
    found = examine(
        pairs,
        space,
        split.gt_encoding or own,
        split.pred_encoding or own,
        Sight(gts, preds, engine),
        whole=True,
    )
    engine.close()
    return found


def doubts_of_instances(scenes: instance_mix_ups.Scenes, folder: Path, labels: str) -> list[Doubt]:
    """The same of a split of instances."""
    at_gts, at_preds = instance_mix_ups.write(folder, scenes)
    space = load_instances(labels)
    readings = load_readings(labels, space)
    task = InstanceTask(
        space, AREA, gt_suffix="_gtFine_instanceids.png", list_suffix=None, gt_factor=FACTOR,
        reading=choose_reading(readings, None), readings=readings, void_on_error=False,
    )  # fmt: skip
    listing = task.list_split(str(at_gts), str(at_preds), open_source)
    engine, _ = make_engine("cpu", 1)
    found = task.examine(listing, Sight(open_source(at_gts), open_source(at_preds), engine))
    engine.close()
    return list(found)


def rows(seeds: range) -> list[tuple[str, Row]]:
    """Every kind, with the group it belongs to: what must be named, and what must not be doubted."""
    done = []
    for mix_up in mix_ups.ENCODINGS:
        named = partial(is_named, mix_up.names)
        done.append(("mix-up", _row(mix_up.title, _labels(mix_up.split), named, seeds)))
    for kind in mix_ups.SIZES:
        make = partial(mix_ups.of_other_size, kind)
        done.append(("mix-up", _row(f"{kind} maps", _labels(make), partial(has_kind, kind), seeds)))
    for mixed in instance_mix_ups.MIX_UPS:
        examined = _instances(mixed.make, mixed.labels)
        done.append(("mix-up", _row(mixed.title, examined, partial(is_told, mixed.word), seeds)))
    for labels in ("idd", "cityscapes", "idd-lite"):
        for kind in mix_ups.HONEST:
            make = partial(mix_ups.honest, kind, labels)
            done.append(("honest", _row(f"{labels}: {kind}", _labels(make), _is_silent, seeds)))
    done.append(("honest", _row("other sizes", _labels(mix_ups.honest_size), _is_silent, seeds)))
    for kind, draw in instance_mix_ups.HONEST.items():
        examined = _instances(draw, "idd")
        done.append(("honest", _row(f"idd instances: {kind}", examined, _is_silent, seeds)))
    return done


Examined = Callable[[np.random.Generator, Path], Sequence[Doubt]]


def _labels(make: Callable[[np.random.Generator], Split]) -> Examined:
    return lambda rng, folder: doubts_of(make(rng), folder)


def _instances(make: Callable[[np.random.Generator], instance_mix_ups.Scenes], labels: str) -> Examined:
    return lambda rng, folder: doubts_of_instances(make(rng), folder, labels)


def is_told(word: str, doubts: Sequence[Doubt]) -> bool:
    """Whether a doubt of instances has the word, in what it says or in what it advises."""
    return any(word in f"{doubt.message} {doubt.mend.values()}" for doubt in doubts)


def is_named(names: Sequence[str], doubts: Sequence[Doubt]) -> bool:
    """Whether the encoding that was written is named, as what it looks like or as what to give."""
    return any(
        doubt.kind == "encoding" and any(f"`{n}`" in doubt.message or n in doubt.mend.values() for n in names)
        for doubt in doubts
    )


def has_kind(kind: str, doubts: Sequence[Doubt]) -> bool:
    """Whether sizes are doubted, for this reason."""
    return any(doubt.kind == "size" and kind in doubt.message for doubt in doubts)


def _is_silent(doubts: Sequence[Doubt]) -> bool:
    return not doubts


def _row(
    kind: str,
    examined: Examined,
    is_right: Callable[[Sequence[Doubt]], bool],
    seeds: range,
) -> Row:
    row = Row(kind, len(seeds))
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            doubts = examined(np.random.default_rng([seed, *kind.encode()]), Path(folder))
        row.named += is_right(doubts)
        row.doubted += bool(doubts)
        row.refused += any(doubt.certain for doubt in doubts)
        if not is_right(doubts):
            print(f"   {kind}, seed {seed}: {[str(doubt) for doubt in doubts]}")
    print(f"{kind:48} right {row.named:3} of {len(seeds)}, doubted {row.doubted:3}, refused {row.refused:3}")
    return row


def run(*, seeds: int, first: int, out: Path) -> int:
    started = time.perf_counter()
    done = rows(range(first, first + seeds))
    print(f"{time.perf_counter() - started:.0f} s")
    results = [{"group": group, **asdict(row)} for group, row in done]
    write_json(out, {**machine.describe(), "seeds": seeds, "first": first, "rows": results})
    return 0
