"""Maps that show another part of the picture than their ground truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import mix_ups
from bench.doctor import doubts_of, has_kind
from bench.mix_ups import Split
from gpu_eval.engines.semantic import same_ratio


def raw(values: mix_ups.Map) -> mix_ups.Map:
    return np.where(values == 26, 255, values).astype(np.uint8)


@pytest.mark.parametrize("kind", mix_ups.SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_it_is_named(kind: str, seed: int, tmp_path: Path) -> None:
    doubts = doubts_of(mix_ups.of_other_size(kind, np.random.default_rng([seed, 80])), tmp_path)
    assert has_kind(kind, doubts), doubts


@pytest.mark.parametrize("seed", range(6))
def test_other_resolution_is_left_alone(seed: int, tmp_path: Path) -> None:
    assert doubts_of(mix_ups.honest_size(np.random.default_rng([seed, 81])), tmp_path) == []


def test_region_that_is_told_holds_the_picture(tmp_path: Path) -> None:
    pairs = mix_ups.street(np.random.default_rng(1), 0.9)
    padded = [(raw(gt), np.pad(raw(pred), ((5, 13), (0, 0)), constant_values=255)) for gt, pred in pairs]
    (doubt,) = doubts_of(Split("idd", padded), tmp_path)
    assert "18 rows of padding" in doubt.message
    size, _, region = doubt.mend["pred_region"].partition(":")
    assert size == "480x288"
    top, left, height, width = map(int, region.split(","))
    assert (left, height, width) == (0, *pairs[0][0].shape)
    assert abs(top - 9) <= 4  # of the places that are tried, the nearest


def test_each_size_of_a_mixed_split_has_its_region(tmp_path: Path) -> None:
    pairs = []
    for i, (gt, pred) in enumerate(mix_ups.street(np.random.default_rng(5), 0.9)):
        size = (270, 480) if i % 2 else (180, 320)
        one, other = (mix_ups.resized(raw(side), *size) for side in (gt, pred))
        pairs.append((one, np.pad(other, ((0, -size[0] % 32), (0, 0)), constant_values=0)))
    (doubt,) = doubts_of(Split("idd", pairs), tmp_path)
    assert sorted(doubt.mend["pred_region"].split(";")) == ["320x192:0,0,180,320", "480x288:0,0,270,480"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [(256, 256), (512, 512), (384, 672), (288, 480)])
def test_constant_model_of_another_size_is_left_alone(
    seed: int, size: tuple[int, int], tmp_path: Path
) -> None:
    rng = np.random.default_rng([seed, 82])
    pairs = [(raw(gt), np.full(size, rng.integers(3), np.uint8)) for gt, _ in mix_ups.street(rng, 0.9)]
    assert doubts_of(Split("idd", pairs), tmp_path) == []


def test_mirrored_model_of_another_size_is_left_alone(tmp_path: Path) -> None:
    pairs = mix_ups.street(np.random.default_rng(6), 0.9)
    mirrored = [(raw(gt), mix_ups.resized(raw(pred)[:, ::-1], 512, 512)) for gt, pred in pairs]
    assert doubts_of(Split("idd", mirrored), tmp_path) == []


def test_padding_to_the_same_ratio_is_found(tmp_path: Path) -> None:
    pairs = [tuple(mix_ups.resized(raw(side), 540, 960) for side in pair)
             for pair in mix_ups.street(np.random.default_rng(7), 0.9)]  # fmt: skip
    padded = [(mix_ups.resized(gt, 1080, 1920), np.pad(pred, ((0, 36), (0, 64)))) for gt, pred in pairs]
    (doubt,) = doubts_of(Split("idd", padded), tmp_path)
    assert "padded at the bottom and right" in doubt.message
    assert doubt.mend["pred_region"] == "1024x576:0,0,540,960"


@pytest.mark.parametrize(
    ("turn", "told"),
    [(1, "turned to the left"), (-1, "turned to the right"), ("T", "transposed")],
)
def test_turned_maps_are_told_with_the_expression_that_turns_them_back(
    turn: int | str, told: str, tmp_path: Path
) -> None:
    pairs = [(raw(gt), raw(pred)) for gt, pred in mix_ups.street(np.random.default_rng(3), 0.8)]
    turned = [np.ascontiguousarray(pred.T if turn == "T" else np.rot90(pred, turn)) for _, pred in pairs]  # type: ignore[arg-type]
    (doubt,) = doubts_of(Split("idd", [(gt, t) for (gt, _), t in zip(pairs, turned, strict=True)]), tmp_path)
    assert told in doubt.message
    assert doubt.certain
    back = eval(doubt.fix.rsplit(": ", 1)[1], {"np": np, "ids": turned[0]})
    assert np.array_equal(back, pairs[0][1])


def test_one_cropped_map_among_many_is_doubted_not_refused(tmp_path: Path) -> None:
    pairs = [(raw(gt), raw(pred)) for gt, pred in mix_ups.street(np.random.default_rng(2), 0.9)]
    pairs[1] = (pairs[1][0], pairs[1][1][:, :300])
    (doubt,) = doubts_of(Split("idd", pairs), tmp_path)
    assert "1 of 4 predictions that were looked at" in doubt.message
    assert not doubt.certain


@pytest.mark.parametrize(
    ("gt", "pred", "same"),
    [
        ((1080, 1920), (720, 1280), True),
        ((1080, 1920), (480, 854), True),  # 853.3
        ((1080, 1920), (480, 858), True),  # the public script's
        ((720, 1280), (240, 426), True),
        ((1080, 1920), (1088, 1920), False),
        ((1080, 1920), (1072, 1920), False),
        ((1080, 1920), (1920, 1080), False),
        ((1080, 1920), (512, 512), False),
        ((1024, 2048), (1025, 2049), True),
        ((512, 512), (480, 858), False),
        ((544, 960), (540, 960), False),
        ((3, 5), (3, 5), True),
    ],
)
def test_ratio_is_that_of_gt_up_to_a_pixel_of_rounding(
    gt: tuple[int, int], pred: tuple[int, int], same: bool
) -> None:
    assert same_ratio(gt, pred) is same


@pytest.mark.parametrize("width", range(1, 400, 7))
def test_every_rounded_size_has_the_ratio(width: int) -> None:
    for rounded in (int, round, lambda value: int(np.ceil(value))):
        assert same_ratio((1080, 1920), (max(1, rounded(width * 1080 / 1920)), width))
