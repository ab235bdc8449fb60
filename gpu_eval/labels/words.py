"""What people write where a name is asked for: spellings of one name, and what they may have meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# What may stand for the name of every encoding besides its own: `colour` in its other spelling.
_OTHER_WORDS = {"color": "colour"}

_OFFSET = re.compile(r"(?P<base>.*?)\s*(?P<sign>[+\-\u2212])\s*1", re.DOTALL)


def same_name(given: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `given` is a spelling of; None where it is none, or one of several.

    Case, blanks, `-` and `_` do not matter, nor do `label` before the name and `id`, `ids` or a plural `s`
    behind it: `trainIds`, `Train_ID` and `labelTrainIds` are all `train`. The name itself always wins.
    """
    names = list(known)
    if given in names:
        return given
    wanted = _forms(given)
    found = [name for name in names if wanted & _stems(name)]
    return found[0] if len(found) == 1 else None


def split_offset(given: str) -> tuple[str, int] | None:
    """(base, 1) of "base+1", (base, -1) of "base-1"; None for a name without an offset."""
    match = _OFFSET.fullmatch(given.strip())
    if match is None or not match["base"]:
        return None
    return match["base"], 1 if match["sign"] == "+" else -1


def did_you_mean(given: str, known: Iterable[str]) -> str | None:
    """A sentence that names the ones of `known` that `given` may stand for; None where none comes near."""
    stems = {name: _squeezed(name) for name in known}
    wanted = {form for form in _forms(given) if len(form) > 2}
    within = [name for name, stem in stems.items() if any(form in stem for form in wanted)]
    near = [
        name
        for name, stem in stems.items()
        if any(difflib.get_close_matches(form, [stem], n=1, cutoff=0.7) for form in wanted)
    ]
    likely = list(dict.fromkeys([*within, *near]))[:3]
    return f"did you mean {' or '.join(likely)}?" if likely else None


def _squeezed(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name.lower())


def _stems(name: str) -> set[str]:
    """A known name without what does not matter."""
    squeezed = _squeezed(name)
    bare = re.sub(r"ids?$", "", squeezed)
    return {squeezed, bare} - {""}


def _forms(given: str) -> set[str]:
    """Everything that a name may be a spelling of."""
    squeezed = _squeezed(given)
    unlabelled = re.sub(r"^labels?(?=.{2})", "", squeezed)
    forms = set()
    for form in {squeezed, unlabelled} - {""}:
        bare = re.sub(r"ids?$", "", form)
        for word in (form, bare or "id", re.sub(r"s$", "", form)):
            forms |= {word, _OTHER_WORDS.get(word, word)}
    return forms - {""}
