"""Tables that fit the terminal: no number is cut; what matters less is left out by the column, and named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

# A text that folds is given this much before numbers are left out for it.
_TEXT_WIDTH = 24
# What a column takes beside its cells: a blank on either side and a line.
_BORDER = 3


@dataclass(frozen=True)
class Column:
    """A column: numbers, which are never cut, or `text`, which folds.

    Columns with `spare` 0 always stand; of the others those with the highest are left out first, together.
    """

    name: str
    text: bool = False
    spare: int = 0


class Footnotes:
    """Reasons that would stand in many cells: a letter in the cell, and the reason once below."""

    def __init__(self) -> None:
        self._letters: dict[str, str] = {}

    def mark(self, reason: str) -> str:
        """The letter of a reason, "(a)", and the same one whenever it occurs."""
        return self._letters.setdefault(reason, f"({_letters(len(self._letters))})")

    def __iter__(self) -> Iterator[str]:
        return (f"{letter} {reason}" for reason, letter in self._letters.items())


def _letters(number: int) -> str:
    """a to z, aa, ab and so on."""
    head, last = divmod(number, 26)
    return (_letters(head - 1) if head else "") + chr(ord("a") + last)


def fits(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int) -> bool:
    """Whether the table is no wider, its texts folded."""
    total = 1
    for i, column in enumerate(columns):
        lines = [line for cell in (column.name, *(row[i].plain for row in rows)) for line in cell.split("\n")]
        needed = max(map(cell_len, lines))
        total += _BORDER + (min(needed, _TEXT_WIDTH) if column.text else needed)
    return total <= width


def show_fitted(
    console: Console,
    title: str,
    columns: Sequence[Column],
    rows: Sequence[Sequence[Text]],
    *,
    styles: Sequence[str | None] | None = None,
    elsewhere: str = "wider terminals and --format json",
) -> Sequence[str]:
    """Print the table; below it, which of its columns the terminal is too narrow for. Returns their names.

    `elsewhere` is where those are shown.
    """
    kept = list(range(len(columns)))
    while not fits([columns[i] for i in kept], [[row[i] for i in kept] for row in rows], console.width):
        spare = max((columns[i].spare for i in kept), default=0)
        if not spare:
            break
        kept = [i for i in kept if columns[i].spare < spare]
    table = Table(title=title, title_justify="left", title_style="bold")
    for i in kept:
        text = columns[i].text
        table.add_column(
            columns[i].name,
            justify="left" if text else "right",
            overflow="fold" if text else "ellipsis",
            no_wrap=not text,
        )
    for row, style in zip(rows, styles or [None] * len(rows), strict=True):
        table.add_row(*(row[i] for i in kept), style=style)
    console.print(table)
    left_out = [column.name.replace("\n", " ") for i, column in enumerate(columns) if i not in kept]
    if left_out:
        console.print(Text(f"{elsewhere} show also: {', '.join(left_out)}", style="dim"))
    return left_out
