"""Names of predictions: twins, what a list of names demands, and which file is meant by which name."""

from __future__ import annotations

import csv
import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu_eval.doctor.doubt import Doubt
from gpu_eval.errors import DuplicateFile, InputError, OptionError, UnreadableFile
from gpu_eval.inputs.source import Entry, plain_name

MAX_LIST_BYTES = 2**28

# Names may be listed as those of frames, as the archives of the benchmarks have them.
FRAME_ENDINGS = ("_leftImg8bit", "_image")
_EXTENSION = re.compile(r"\.[A-Za-z]\w{0,4}\Z")  # ".png", not the ".01" of a frame's number

SHOWN = 10


@dataclass(frozen=True)
class Wanted:
    """The names that a list demands, and those that it holds more than once."""

    names: tuple[str, ...]
    repeated: tuple[str, ...]


@dataclass(frozen=True)
class Matched:
    """Which file is meant by which key: `pairs` has file names by key.

    `missing` are keys without a file, `extra` files without a key. `moved` are those of the pairs whose file
    does not have the key's path, and is meant beyond doubt: another folder, case or Unicode form.
    """

    pairs: Mapping[str, str]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    moved: tuple[str, ...]


def read_names(file: str) -> Wanted:
    """The names in a text file, one a line, or in the column `key` of a CSV file.

    Blank lines are passed over; a BOM, CRLF, and folders spelled with backslashes are taken.

    Raises OptionError where the file cannot be read, is not text, or names nothing.
    """
    try:
        if (size := Path(file).stat().st_size) > MAX_LIST_BYTES:
            raise OptionError("the list of names is too long", file=file, found=f"{size} bytes")
        text = Path(file).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OptionError(
            "the list of names is not UTF-8 text",
            file=file,
            found=f"byte 0x{error.object[error.start]:02x} at {error.start}",
            expected="one name a line, or a CSV file with a column `key`",
            fix="save it as UTF-8",
        ) from error
    except (OSError, ValueError) as error:  # ValueError: NUL in the path
        raise OptionError(
            "the list of names cannot be read",
            file=file,
            found=getattr(error, "strerror", None) or str(error),
            fix="check the path",
        ) from error
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, strict=True)]
    except csv.Error:
        rows = []  # a quote in a name, where there is no CSV
    if rows and "key" in rows[0]:
        column = rows[0].index("key")
        cells = [row[column] for row in rows[1:] if len(row) > column]
    else:
        cells = lines
    names = [name for name in (plain_name(cell.strip()) for cell in cells) if name]
    if not names:
        raise OptionError(
            "the list of names is empty",
            file=file,
            expected="one name a line, or a CSV file with a column `key`",
        )
    counts = Counter(names)
    return Wanted(tuple(counts), tuple(name for name, count in counts.items() if count > 1))


def keys_of(names: Sequence[str], endings: Iterable[str], known: Iterable[str] = ()) -> dict[str, str]:
    """The key that each name stands for, by name: without its ending, and without folders that all share.

    `endings` are those that files of the split may have. Folders are left out as far as the keys `known` say;
    without any that meet they all stay.
    """
    stems = {posixpath.splitext(ending)[0] for ending in endings} | set(FRAME_ENDINGS)
    longest_first = sorted((stem for stem in stems if stem), key=len, reverse=True)
    there = set(known)
    plain = {name: _without(name, longest_first, there) for name in names}
    folder = _surplus_folder(set(plain.values()), there)
    return {name: key.removeprefix(folder) for name, key in plain.items()}


def _without(name: str, stems: Sequence[str], known: set[str]) -> str:
    if name in known:
        return name
    bare = _EXTENSION.sub("", name)
    ending = next((stem for stem in stems if bare.endswith(stem) and len(bare) > len(stem)), "")
    return bare.removesuffix(ending)


def _surplus_folder(keys: set[str], known: set[str]) -> str:
    """The leading folders that all keys share and that must go for them to meet the known ones."""
    if not keys or not known:
        return ""
    low, high = min(keys).split("/")[:-1], max(keys).split("/")[:-1]
    folder, best, most = "", "", len(keys & known)
    for one, other in zip(low, high, strict=False):
        if one != other:
            break
        folder += f"{one}/"
        met = sum(key[len(folder) :] in known for key in keys)
        if met > most:
            best, most = folder, met
    return best


def without_top(files: Mapping[str, str], wanted: Iterable[str]) -> dict[str, str]:
    """Files by key, without folders that all share and that none of the wanted keys has."""
    folder = _surplus_folder(set(files), set(wanted))
    return {key.removeprefix(folder): name for key, name in files.items()}


def folded(name: str) -> str:
    """What names have in common that file systems may take for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def match(keys: Iterable[str], files: Mapping[str, str]) -> Matched:
    """Which file is meant by which key; `files` has the file's name by its own key.

    A file of the very key is taken first; then the only one that differs in case or Unicode form; then the
    only one of the same base name, where no other key has it.
    """
    wanted = list(dict.fromkeys(keys))
    pairs = {key: files[key] for key in wanted if key in files}
    left = [key for key in wanted if key not in pairs]
    free = {key: name for key, name in files.items() if key not in pairs}
    moved: list[str] = []
    bases = Counter(folded(posixpath.basename(key)) for key in wanted)
    for same in (folded, lambda key: folded(posixpath.basename(key))):
        by_likeness: defaultdict[str, list[str]] = defaultdict(list)
        for key in free:
            by_likeness[same(key)].append(key)
        asked = Counter(map(same, left))
        for key in left:
            like = same(key)
            only_base = same is not folded
            if len(by_likeness[like]) == 1 and asked[like] == 1 and (not only_base or bases[like] == 1):
                pairs[key] = free.pop(by_likeness[like].pop())
                moved.append(key)
        left = [key for key in left if key not in pairs]
    return Matched(pairs, tuple(left), tuple(free.values()), tuple(moved))


def duplicates(entries: Sequence[Entry], location: str) -> list[InputError]:
    """Files of an archive that have one name, and names that are not UTF-8."""
    problems: list[InputError] = []
    counts = Counter(entry.name for entry in entries)
    problems += [
        DuplicateFile(
            "two files of the archive have one name; readers differ in which one they take",
            file=f"{location}/{name}",
            found=f"{count} files",
            expected="one file per image",
            fix="pack the archive again without the second one",
        )
        for name, count in counts.items()
        if count > 1
    ]
    problems += [
        UnreadableFile(
            "the file name is not UTF-8",
            file=f"{location}/{entry.name.encode('utf-8', 'backslashreplace').decode()}",
            fix="rename the file",
        )
        for entry in entries
        if not entry.name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in entry.name)
    ]
    return problems


def twins(entries: Iterable[Entry]) -> Doubt | None:
    """Names that differ only in case or Unicode form: on some systems they are one file."""
    alike: defaultdict[str, set[str]] = defaultdict(set)
    for entry in entries:
        alike[folded(entry.name)].add(entry.name)
    groups = [sorted(names) for names in alike.values() if len(names) > 1]
    if not groups:
        return None
    return Doubt(
        kind="names",
        message="files whose names differ only in case or Unicode form",
        evidence=f"{len(groups)} such groups; the first: " + " and ".join(map(ascii, groups[0][:2])),
        fix="keep one of each: where case or form does not count, the second replaces the first",
    )


def ending_of(name: str) -> str:
    """What a file name has in common with its neighbours: "_gtFine.png" of "17/frame_0001_gtFine.png"."""
    stem, extension = posixpath.splitext(posixpath.basename(name))
    words = stem.split("_")
    first = len(words)
    while first > 1 and words[first - 1] and not any(letter.isdigit() for letter in words[first - 1][:1]):
        first -= 1
    return "".join(f"_{word}" for word in words[first:]) + extension or "(nothing)"


def first_of(names: Sequence[str]) -> str:
    """The first of many names, and how many more there are."""
    shown = ", ".join(names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
