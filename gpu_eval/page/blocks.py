"""What the pages of all tasks are built of. Everything that comes from files is escaped."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from gpu_eval.results.run import ScoredRun


def asset(name: str) -> str:
    """A file of `assets/`."""
    return importlib.resources.files("gpu_eval.page").joinpath("assets", name).read_text(encoding="utf-8")


def subtitle(facts: Mapping[str, Any]) -> str:
    entry = facts.get("entry") or {}
    words = [
        *(str(entry[name]) for name in ("team", "method") if entry.get(name)),
        f"{facts['images_scored']:,} of {facts['images']:,} images",
        f"labels {facts['labels']['name']}",
        f"scored {str(facts['created'])[:10]}",
    ]
    return escape(" · ".join(words))


def alerts(run: ScoredRun, warnings: Sequence[str], notes: Sequence[str]) -> str:
    """Doubts and incompleteness first, then warnings and notes; empty where there is nothing to tell."""
    facts = run.facts
    blocks = []
    if run.doubts:
        blocks.append(("bad", "This looks like a mix-up, not like a bad model", list(run.doubts)))
    if facts["images_failed"] or facts["images_void"]:
        text = f"{facts['images_failed']:,} of {facts['images']:,} images are not in these scores; "
        text += f"{facts['images_void']:,} are {run.void_means} (--on-error {facts['on_error']})."
        blocks.append(("bad", "Incomplete: do not compare these scores with complete ones", [text]))
    if warnings:
        blocks.append(("near", "Warnings", list(warnings)))
    if notes:
        blocks.append(("note", "Notes", list(notes)))
    return "\n".join(
        f'<section class="alert {kind}"><h2>{escape(title)}</h2>{_items(lines)}</section>'
        for kind, title, lines in blocks
    )


def _items(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(str(line))}</li>" for line in lines) + "</ul>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], text: int) -> str:
    """A table of plain cells, escaped; the first `text` columns are text, the others numbers."""
    titles = "".join(
        f'<th scope="col"{"" if i < text else " class=n"}>{escape(name)}</th>' for i, name in enumerate(head)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{escape(cell)}</th>' if i == 0
            else f"<td{'' if i < text else ' class=n'}>{escape(cell)}</td>"
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )  # fmt: skip
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="Table"><table><thead><tr>{titles}</tr>'
        f"</thead><tbody>{body}</tbody></table></div>"
    )
