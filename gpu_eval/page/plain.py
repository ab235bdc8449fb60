"""The page of a run of any task, from the contract of runs alone: scores, classes, where it comes from.

Label maps have a page of their own (`html`), with charts and pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from string import Template
from typing import Any

from gpu_eval.page.blocks import alerts, asset, subtitle, table
from gpu_eval.page.words import DASH, number
from gpu_eval.results import interval_words
from gpu_eval.results.run import Score, ScoredRun


def page(run: ScoredRun) -> str:
    """The text of the page; it loads nothing and runs no script."""
    facts = run.facts
    name = "/".join(run.folder.resolve().parts[-2:]).lstrip("/")
    main = next(iter(run.board_columns.values()))
    score = run.score_of(main.scored, run.protocols[0])
    return Template(asset("plain.html")).substitute(
        title=escape(f"{name}: {main.title} {number(score.value)}"),
        heading=escape(name),
        subtitle=subtitle(facts),
        style=asset("report.css"),
        alerts=alerts(run, run.warnings, facts["notes"]),
        cards=_cards(run),
        intervals=escape(interval_words.of_run(run)),
        classes=_classes(run),
        facts=_facts(run),
    )


def _cards(run: ScoredRun) -> str:
    cards = []
    for column in run.board_columns.values():
        first, *others = [(protocol, run.score_of(column.scored, protocol)) for protocol in run.protocols]
        lines = "".join(
            f"<p><span>{escape(protocol)}</span> <b>{number(score.value)}</b>"
            f"<small>{_bounds(score)}</small></p>"
            for protocol, score in others
        )
        cards.append(
            f'<article class="card"><h3>{escape(column.title)} <small>{escape(first[0])}</small></h3>'
            f'<p class="big">{number(first[1].value)}</p><p class="span">{_bounds(first[1])}</p>'
            f'<div class="others">{lines}</div></article>'
        )
    return "".join(cards)


def _bounds(score: Score) -> str:
    if score.reason is not None:
        return escape(score.reason)
    return f"{score.low:.4f} {DASH} {score.high:.4f}"


def _classes(run: ScoredRun) -> str:
    """The classes table as it is, but for what is NaN or of no use to eyes."""
    columns = [name for name in run.classes.column_names if name != "class_id"]
    texts = [name for name in ("class_name", "protocol") if name in columns]
    columns = [*texts, *(name for name in columns if name not in texts)]
    rows = [[_cell(row[name]) for name in columns] for row in run.classes.to_pylist()]
    return table([name.replace("_", " ") for name in columns], rows, text=len(texts))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return DASH if math.isnan(value) else number(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _facts(run: ScoredRun) -> str:
    facts = run.facts
    lines: Sequence[tuple[str, object]] = (
        ("ground truth", facts["gts"]),
        ("predictions", facts["preds"]),
        ("labels", facts["labels"]["name"]),
        ("engine", f"{facts['engine']['name']}: {facts['engine']['device']}"),
        ("gpu-eval", facts["decides"]["version"]),
        ("scored", facts["created"]),
        ("fingerprint", facts["fingerprint"]),
    )
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(str(told))}</dd></div>" for name, told in lines)
