"""How numbers, shares and classes are written in pages. What comes from files is escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

SCORE_DIGITS = 4
DASH = "\N{EN DASH}"
NO_BREAK = "\N{NO-BREAK SPACE}"


def number(value: float | None, digits: int = SCORE_DIGITS) -> str:
    return "NaN" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def percent(share: float) -> str:
    """A share with two telling digits: 18 %, 4.2 %, 0.31 %."""
    value = 100 * share
    digits = f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.995 else f"{value:.2g}"
    return f"{digits}{NO_BREAK}%"


def class_name(names: Sequence[str], colours: Sequence[str], c: int) -> str:
    return f'<span class="class"><i style="background:{colours[c]}"></i>{escape(names[c])}</span>'


def millions(pixels: int) -> str:
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if pixels >= size:
            return f"{pixels / size:.3g} {unit}"
    return str(pixels)
