"""An examination on a terminal: what is wrong and what mends it, then what is so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from gpu_eval.checkup.examination import Examination, ProblemKind
from gpu_eval.checkup.names import first_of
from gpu_eval.cli.console import counted, out, print_json
from gpu_eval.cli.fitted import Column, show_fitted
from gpu_eval.doctor.doubt import Doubt

# Of a file's entries a line shows so many characters.
LONGEST = 120

VALUES_SHOWN = 8


def show_examination(examination: Examination, output: str) -> None:
    """All of it, as a table or as JSON."""
    if output == "json":
        print_json(examination.to_dict())
        return
    console = out()
    _show_facts(console, examination.facts)
    for note in examination.notes:
        console.print(Text(f"note: {safe(note)}"), soft_wrap=True)
    _show_findings(console, examination)
    if examination.fixed is not None:
        left = sum(kind.command is None for kind in examination.problems)
        _show_fixed(console, examination.fixed, left)


def _show_findings(console: Console, examination: Examination) -> None:
    rows: list[list[Text]] = []
    styles: list[str | None] = []
    commands: list[tuple[int, str]] = []
    found: list[tuple[str, str, str, str | None, str | None]] = []
    found += [(*_of_problem(kind), kind.command, "red") for kind in examination.problems]
    found += [(*_of_doubt(doubt), examination.command(doubt), _style(doubt)) for doubt in examination.doubts]
    for number, (verdict, what, evidence, command, style) in enumerate(found, start=1):
        rows.append([Text(str(number)), Text(verdict), Text(safe(what)), Text(safe(evidence))])
        styles.append(style)
        if command is not None:
            commands.append((number, command))
    if not rows:
        console.print(Text("nothing found", style="bold green"))
        return
    columns = [
        Column("no"),
        Column("verdict"),
        Column("what", text=True),
        Column("evidence and what to do", text=True),
    ]
    show_fitted(console, counted(len(rows), "finding"), columns, rows, styles=styles)
    for number, command in commands:
        # A command is to be copied: it is never folded.
        console.print(Text(f"mends {number}: {safe(command)}", style="bold"), soft_wrap=True)


def _style(doubt: Doubt) -> str:
    return "red" if doubt.certain else "yellow"


def _of_problem(kind: ProblemKind) -> tuple[str, str, str]:
    first = kind.first[0]
    told = [f"{kind.count:,} files; the first: {first.file}" if kind.count > 1 else first.file or ""]
    told += [
        f"{word} {text}" for word, text in (("found", first.found), ("expected", first.expected)) if text
    ]
    return "refused", first.message, "\n".join(_short(line) for line in (*told, first.fix or "") if line)


def _of_doubt(doubt: Doubt) -> tuple[str, str, str]:
    return "certain" if doubt.certain else "doubt", doubt.message, f"{doubt.evidence}\n{doubt.fix}"


def _show_facts(console: Console, facts: Mapping[str, Any]) -> None:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            if not value:
                continue
            items = list(value.items())
            shares = name == "values"
            if shares:
                items.sort(key=lambda item: -item[1])
            shown = ", ".join(
                f"{key} ({count:.1%})" if shares else f"{key} ({count:,})"
                for key, count in items[:VALUES_SHOWN]
            )
            text = shown + (f" and {len(items) - VALUES_SHOWN} more" if len(items) > VALUES_SHOWN else "")
        else:
            text = f"{value:,}" if isinstance(value, int) else str(value)
        console.print(Text(f"{name}: {safe(text)}"))


def _show_fixed(console: Console, fixed: Mapping[str, Any], left: int) -> None:
    done = ", ".join(f"{what} ({count:,})" for what, count in fixed["done"].items()) or "nothing to mend"
    console.print(
        Text(f"wrote {counted(fixed['files'], 'file')} to {safe(fixed['out'])}: {safe(done)}; "
             f"{fixed['unchanged']:,} unchanged"),
        soft_wrap=True,
    )  # fmt: skip
    if fixed["not_fixed"]:
        told = first_of([_short(text) for text in fixed["first_not_fixed"][:3]])
        more = f" and {fixed['not_fixed'] - 3:,} more" if fixed["not_fixed"] > 3 else ""
        console.print(
            Text(f"not mended: {fixed['not_fixed']:,}: {safe(told)}{more}", style="bold yellow"),
            soft_wrap=True,
        )
    if left:
        told = f"{counted(left, 'finding')} above must be mended first: this copy would be refused"
        console.print(Text(told, style="bold yellow"), soft_wrap=True)
    console.print(Text(f"score it: {safe(fixed['score'])}", style="bold"), soft_wrap=True)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def safe(text: str) -> str:
    """Text without what a terminal would obey: control characters are written as Python escapes them."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text
    )
