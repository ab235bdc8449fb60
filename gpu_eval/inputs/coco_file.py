"""A COCO results file as it stands: its entries, and the names of its images.

It is a list of {"image_id": "17/024541", "category_id": 12, "segmentation": {"size": [height, width],
"counts": ...}, "score": 0.9}, or an object with that list as "annotations". "images" of the object give
whole-number ids their file names; "categories" are held against the label table.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from gpu_eval.errors import InputError, MalformedPredictions, UnreadableSource
from gpu_eval.inputs.prediction_lists import Findings, shown
from gpu_eval.inputs.source import reason
from gpu_eval.inputs.sources import open_source
from gpu_eval.labels.instance_readings import RAW, Reading
from gpu_eval.labels.instance_space import InstanceSpace

MAX_BYTES = 2**31

_EXPECTED = 'a list of {"image_id", "category_id", "segmentation", "score"}'


@dataclass(frozen=True)
class CocoFile:
    """The file's entries, unchecked, and the file names of its images by id."""

    entries: Sequence[Any]
    names: Mapping[int | str, str]
    problems: tuple[InputError, ...]


def read_coco(file: str, space: InstanceSpace, reading: Reading) -> CocoFile:
    """The COCO results file at a path or an fsspec URL.

    Raises
        UnreadableSource, UnreadableFile: it cannot be read.
        MalformedPredictions: it is not a COCO results file at all.
    """
    try:
        document = json.loads(_read(file))
    except (ValueError, RecursionError) as error:  # ValueError: no JSON, no Unicode, or a number too long
        raise MalformedPredictions("not JSON", file=file, found=str(error), expected=_EXPECTED) from error
    if isinstance(document, list):
        return CocoFile(document, {}, ())
    if not isinstance(document, dict) or not isinstance(document.get("annotations"), list):
        raise MalformedPredictions(
            "not a COCO results file", file=file, found=shown(document), expected=_EXPECTED
        )
    names, problems = _names(document.get("images"), file)
    problems += _wrong_categories(document.get("categories"), space, reading, file)
    return CocoFile(document["annotations"], names, tuple(problems))


def _names(images: Any, file: str) -> tuple[dict[int | str, str], list[InputError]]:
    findings = Findings(file, "image")
    names: dict[int | str, str] = {}
    for at, image in enumerate(images if isinstance(images, list) else [], start=1):
        number = image.get("id") if isinstance(image, dict) else None
        name = image.get("file_name") if isinstance(image, dict) else None
        if not is_image_id(number) or not isinstance(name, str):
            expected = '{"id": number, "file_name": text}'
            findings.add(MalformedPredictions, at, "not an image", found=image, expected=expected)
        elif names.setdefault(number, name) != name:
            expected = f"an id of its own; {shown(names[number])} has this one"
            findings.add(MalformedPredictions, at, "two images have one id", found=image, expected=expected)
    return names, findings.told()


def is_image_id(value: object) -> TypeGuard[int | str]:
    """True for what JSON has for ids: whole numbers and text, not true and false."""
    return isinstance(value, int | str) and not isinstance(value, bool)


def _wrong_categories(categories: Any, space: InstanceSpace, reading: Reading, file: str) -> list[InputError]:
    """Categories with the name of a class but another id: their entries would count for another class."""
    findings = Findings(file, "category")
    ids = dict(zip(space.names, space.ids, strict=True))
    for at, category in enumerate(categories if isinstance(categories, list) else [], start=1):
        if not isinstance(category, dict):
            continue
        name, number = category.get("name"), category.get("id")
        if not isinstance(name, str) or name not in ids:
            continue
        meant = (ids[name],)
        if not isinstance(number, int) or reading.classes.get(number) != meant:
            of_class = [value for value, classes in reading.classes.items() if classes == meant]
            word = "the raw id" if reading.name == RAW else f"an id of {reading.name}:"
            expected = f"{word} {', '.join(map(str, of_class)) or 'none'}"
            findings.add(
                MalformedPredictions, at, "a class under another id", found=category, expected=expected
            )
    return findings.told()


def _read(file: str) -> bytes:
    protocol, separator, path = file.partition("://")
    if separator and protocol not in ("file", "local"):
        return _read_remote(file)
    local = Path(path if separator else file)
    try:
        _check_size(local.stat().st_size, file)
        return local.read_bytes()
    except FileNotFoundError as error:
        raise UnreadableSource("does not exist", file=file, fix="check the path") from error
    except (OSError, ValueError) as error:  # ValueError: NUL in the path
        raise UnreadableSource("cannot be read", file=file, found=reason(error)) from error


def _read_remote(url: str) -> bytes:
    folder, name = posixpath.split(url)
    source = open_source(folder)
    try:
        here = [entry for entry in source.entries() if entry.name == name]
        if not here:
            raise UnreadableSource("does not exist", file=url, fix="check the URL")
        _check_size(here[0].size, url)
        buffer = np.empty(here[0].size, np.uint8)
        _, problems = source.read_into(here, buffer)
    finally:
        source.close()
    if problems:
        raise problems[0]
    return buffer.tobytes()


def _check_size(size: int, file: str) -> None:
    if size > MAX_BYTES:
        raise MalformedPredictions(
            "the file is too long", file=file, found=f"{size} bytes", expected=f"at most {MAX_BYTES} bytes"
        )
