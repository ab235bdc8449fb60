"""The index tables against Pillow itself, and against tables that Pillow gave elsewhere."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gpu_eval.engines.resize import index_table, parse_resolution, starts
from gpu_eval.errors import OptionError
from tests.support.shared import SHARED, needs_shared

sides = st.one_of(st.integers(1, 40), st.integers(1, 3000))


def literal_table(source: int, target: int) -> list[int]:
    step = source / target
    position, table = 0.5 * step, []
    for _ in range(target):
        table.append(int(position))
        position += step
    return table


def pillow_table(source: int, target: int, *, along_rows: bool, sixteen_bit: bool = False) -> list[int]:
    """What Image.resize makes of a ramp of indexes: 1..source, so that unwritten pixels (0) show."""
    ramp = np.arange(1, source + 1, dtype=np.uint16 if sixteen_bit else np.int32)
    image = Image.fromarray(ramp[:, None] if along_rows else ramp[None, :])
    size = (1, target) if along_rows else (target, 1)
    resized = np.asarray(image.resize(size, Image.Resampling.NEAREST)).ravel()
    return [int(value) - 1 for value in resized]


@given(sides, sides)
def test_table_is_the_literal_running_sum_and_never_leaves_the_source(source: int, target: int) -> None:
    table = index_table(source, target)
    assert table.dtype == np.int32
    literal = literal_table(source, target)
    assert table.tolist() == literal
    assert max(literal) < source  # so clipping to the source changes nothing
    assert np.all(np.diff(table) >= 0)


@pytest.mark.parametrize(("source", "target"), [(1, 100_003), (99_991, 100_003), (7, 1_000_003)])
def test_long_running_sums_stay_inside_the_source(source: int, target: int) -> None:
    literal = literal_table(source, target)
    assert literal[-1] == source - 1
    assert index_table(source, target).tolist() == literal


@given(sides, sides, st.booleans())
def test_table_is_what_pillow_does(source: int, target: int, along_rows: bool) -> None:
    assert index_table(source, target).tolist() == pillow_table(source, target, along_rows=along_rows)


@given(sides, sides, st.booleans())
def test_sixteen_bit_table_is_what_pillow_does(source: int, target: int, along_rows: bool) -> None:
    expected = pillow_table(source, target, along_rows=along_rows, sixteen_bit=True)
    assert index_table(source, target, sixteen_bit=True).tolist() == expected


def test_running_sum_differs_from_the_direct_formula_at_720p() -> None:
    running, direct = index_table(1280, 1920), index_table(1280, 1920, sixteen_bit=True)
    assert int((running != direct).sum()) == 405
    assert int((index_table(720, 1080) != index_table(720, 1080, sixteen_bit=True)).sum()) == 151


def test_same_size_is_the_identity() -> None:
    assert index_table(1080, 1080).tolist() == list(range(1080))


def test_table_is_shared_and_cannot_be_written() -> None:
    table = index_table(480, 1080)
    assert index_table(480, 1080) is table
    with pytest.raises(ValueError, match="read-only"):
        table[0] = 1


@needs_shared
def test_tables_equal_the_golden_ones() -> None:
    pairs = json.loads((SHARED / "golden/nearest/nearest.json").read_text())["pairs"]
    assert pairs
    for pair in pairs:
        (source_width, source_height), (width, height) = pair["src"], pair["dst"]
        assert index_table(source_width, width).tolist() == pair["x"]
        assert index_table(source_height, height).tolist() == pair["y"]


@given(st.integers(1, 60), st.integers(1, 60))
def test_starts_count_the_targets_below_each_source_index(source: int, target: int) -> None:
    table = index_table(source, target)
    counts = starts(table, source)
    assert counts.dtype == np.int64
    assert counts.tolist() == [sum(index < i for index in table.tolist()) for i in range(source + 1)]
    assert np.diff(counts).tolist() == np.bincount(table, minlength=source).tolist()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1080", (1080, 1920)),
        ("720", (720, 1280)),
        ("480", (480, 858)),
        ("240", (240, 426)),
        ("native", None),
        ("2048x1024", (1024, 2048)),
        ("1X1", (1, 1)),
        ("1080p", (1080, 1920)),
        ("720P", (720, 1280)),
        ("1920X1080", (1080, 1920)),
        ("1920 x 1080", (1080, 1920)),
        ("1920*1080", (1080, 1920)),
    ],
)
def test_resolutions_are_height_and_width(text: str, size: tuple[int, int] | None) -> None:
    assert parse_resolution(text) == size


@pytest.mark.parametrize(
    "text", ["", "1081", "0x5", "5x0", "-5x5", "5x", "axb", "1.5x2", "99999x99999", "٣x٣", "9" * 30 + "x1"]
)
def test_other_resolutions_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="resolution"):
        parse_resolution(text)
