"""Files looked at one by one: counts are Pillow's, and what scoring refuses is refused in the same words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpu_eval.engines.cpu.threads import Threads
from gpu_eval.engines.cpu.values import Seen, look
from gpu_eval.errors import InputError
from gpu_eval.inputs import png
from gpu_eval.inputs.sources import open_source
from tests.support.png_builder import broken_adler, broken_crc, build_png, longer_rows, short_rows


def slowly(data: memoryview, file: str, index: int) -> Seen:  # noqa: ARG001
    """The readable decoder, marked as such."""
    try:
        values, pixels = np.unique(png.decode(data, file), return_counts=True)
    except InputError as error:
        return Seen(error=error)
    return Seen(mode="slow", values=values, pixels=pixels)


def see(folder: Path, threads: int = 2) -> list[Seen]:
    source, pool = open_source(folder), Threads(threads)
    try:
        entries = source.entries()
        seen = list(look(pool, source, entries, slowly))
    finally:
        pool.close()
        source.close()
    assert [entry for entry, _ in seen] == entries
    return [one for _, one in seen]


def street(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    blocks = rng.integers(0, 256, (height // 5 + 1, width // 7 + 1), np.uint8)
    pixels = blocks.repeat(5, axis=0).repeat(7, axis=1)[:height, :width]
    noisy = rng.random(pixels.shape) < 0.1
    return np.where(noisy, rng.integers(0, 256, pixels.shape, np.uint8), pixels)


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (17, 63), (9, 64), (30, 65), (70, 129)])
@pytest.mark.parametrize("filters", [0, 1, 2, 3, 4, (0, 1, 2, 3, 4)])
def test_counts_are_those_of_the_pixels(
    tmp_path: Path, size: tuple[int, int], filters: int | tuple[int, ...]
) -> None:
    pixels = street(np.random.default_rng([*size, 3]), *size)
    data = build_png(pixels, filters=filters)  # type: ignore[arg-type]
    (tmp_path / "0.png").write_bytes(data)
    (seen,) = see(tmp_path)
    assert seen.size == size
    assert seen.mode == "8-bit grey"
    assert seen.values is not None
    assert seen.pixels is not None
    expected = np.bincount(pixels.ravel(), minlength=256)
    assert seen.values.tolist() == np.flatnonzero(expected).tolist()
    assert seen.pixels.tolist() == expected[expected > 0].tolist()


def test_files_of_many_sizes_and_modes_come_in_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    expected = []
    for number in range(70):
        pixels = street(rng, int(rng.integers(1, 60)), int(rng.integers(1, 90)))
        wide = number % 9 == 0
        palette = number % 7 == 0 and not wide
        data = build_png(pixels, bit_depth=16 if wide else 8, colour_type=3 if palette else 0)
        (tmp_path / f"{number:03d}.png").write_bytes(data)
        mode = "slow" if wide else "8-bit palette" if palette else "8-bit grey"
        expected.append((mode, np.bincount(pixels.ravel(), minlength=256)))
    for seen, (mode, counts) in zip(see(tmp_path), expected, strict=True):
        assert seen.mode == mode
        assert seen.values is not None
        assert seen.pixels is not None
        assert np.array_equal(seen.pixels, counts[seen.values])
        assert seen.pixels.sum() == counts.sum()


@pytest.mark.parametrize("seed", range(40))
def test_a_mutated_file_has_the_error_of_the_readable_decoder_or_its_pixels(
    tmp_path: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    pixels = street(rng, 20, 31)
    good = build_png(pixels, filters=(0, 1, 2, 3, 4), idat_size=50)
    data = bytearray(good)
    for _ in range(int(rng.integers(1, 4))):
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
    if rng.random() < 0.3:
        del data[int(rng.integers(len(data))) :]
    (tmp_path / "0.png").write_bytes(data)
    (seen,) = see(tmp_path)
    right = slowly(memoryview(bytes(data)), f"{tmp_path}/0.png", 0)
    assert str(seen.error) == str(right.error)
    if right.values is not None:
        assert seen.values is not None
        assert seen.values.tolist() == right.values.tolist()


def test_no_damage_is_passed_over(tmp_path: Path) -> None:
    good = build_png(street(np.random.default_rng(0), 20, 31))
    bad = {
        "adler": broken_adler(good),
        "crc": broken_crc(good),
        "empty": b"",
        "long": longer_rows(good),
        "short": short_rows(good, 19, 32),
        "text": b"hello",
        "truncated": good[:-20],
    }
    for name, data in bad.items():
        (tmp_path / f"{name}.png").write_bytes(data)
    seen = see(tmp_path)
    assert len(seen) == len(bad)
    assert all(one.error is not None and one.values is None for one in seen)


def test_a_file_that_is_gone_is_an_error_of_its_own(tmp_path: Path) -> None:
    good = build_png(street(np.random.default_rng(0), 20, 31))
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(good)
    source, pool = open_source(tmp_path), Threads(1)
    entries = source.entries()
    (tmp_path / "b.png").unlink()
    seen = [one for _, one in look(pool, source, entries, slowly)]
    pool.close()
    assert [one.error is None for one in seen] == [True, False, True]
