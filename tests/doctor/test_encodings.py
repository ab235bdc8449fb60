"""Mix-ups of ids are named; bench/doctor.py shows the same with many more seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gpu_eval
from bench import mix_ups
from bench.doctor import doubts_of, is_named
from bench.mix_ups import MixUp, Split
from gpu_eval.doctor.encodings import judge_encodings
from gpu_eval.doctor.readings import readings
from gpu_eval.labels import load_labels, numbered_labels


def raw_joint(pairs: mix_ups.Pairs) -> np.ndarray:
    counted = np.zeros((257, 257), np.int64)
    for gt, pred in pairs:
        np.add.at(counted, (gt.ravel(), pred.ravel()), 1)
    return counted


@pytest.mark.parametrize("mix_up", mix_ups.ENCODINGS, ids=lambda mix_up: mix_up.title)
@pytest.mark.parametrize("seed", range(2))
def test_mix_up_is_named(mix_up: MixUp, seed: int, tmp_path: Path) -> None:
    doubts = doubts_of(mix_up.split(np.random.default_rng([seed, 77])), tmp_path)
    assert is_named(mix_up.names, doubts), doubts


@pytest.mark.parametrize("kind", mix_ups.HONEST)
@pytest.mark.parametrize("labels", ["idd", "cityscapes", "idd-lite"])
def test_bad_model_is_left_alone(kind: str, labels: str, tmp_path: Path) -> None:
    assert doubts_of(mix_ups.honest(kind, labels, np.random.default_rng([5, 78])), tmp_path) == []


@pytest.mark.parametrize("mix_up", mix_ups.ENCODINGS, ids=lambda mix_up: mix_up.title)
def test_advice_is_an_encoding_under_which_nothing_is_doubted(mix_up: MixUp, tmp_path: Path) -> None:
    split = mix_up.split(np.random.default_rng([3, 79]))
    (doubt,) = doubts_of(split, tmp_path / "before")
    if not doubt.mend:
        assert "write ids of level" in doubt.fix
        return
    mended = Split(split.labels, split.pairs, doubt.mend.get("gt_encoding"), doubt.mend.get("pred_encoding"))
    assert doubts_of(mended, tmp_path / "after") == []


def test_evidence_is_the_miou_that_the_advice_leads_to() -> None:
    space = load_labels("cityscapes")
    rng = np.random.default_rng(4)
    pairs = mix_ups.in_table(mix_ups.blocks(rng, 0.8), "cityscapes")
    joint = raw_joint(mix_ups.encoded(pairs, "cityscapes", "id", "train", rng))
    (doubt,) = judge_encodings(joint, space, "id", "train") or judge_encodings(joint, space, "id", "id")
    classes = np.zeros((20, 20), np.int64)
    for gt, pred in pairs:
        np.add.at(classes, (gt.ravel(), pred.ravel()), 1)
    right = np.diagonal(classes)[:19]
    union = classes[:19].sum(axis=1) + classes[:19, :19].sum(axis=0) - right
    miou = (right[union > 0] / union[union > 0]).mean()
    assert f"under `train` the agreement is {miou:.2f}" in doubt.evidence
    assert judge_encodings(joint, space, "id", "train") == []


def test_ids_that_no_column_explains_are_told_with_the_best_relabelling() -> None:
    rng = np.random.default_rng(6)
    shuffled = np.append(rng.permutation(100)[:26] + 40, 255).astype(np.uint8)
    pairs = [(gt, shuffled[pred]) for gt, pred in mix_ups.street(rng, 0.8)]
    joint = raw_joint([(np.where(gt == 26, 255, gt).astype(np.uint8), pred) for gt, pred in pairs])
    (doubt,) = judge_encodings(joint, load_labels("idd"), "level3", "level3")
    assert "most values of the predictions are neither a class nor void" in doubt.message
    within = np.append(rng.permutation(26), 255).astype(np.uint8)
    pairs = [(gt, within[pred]) for gt, pred in mix_ups.street(rng, 0.8)]
    joint = raw_joint([(np.where(gt == 26, 255, gt).astype(np.uint8), pred) for gt, pred in pairs])
    (doubt,) = judge_encodings(joint, load_labels("idd"), "level3", "level3")
    assert "no encoding of the label table explains them" in doubt.message
    assert f"{within[0]} is road" in doubt.evidence
    assert not doubt.certain


@pytest.mark.parametrize(
    ("gt", "pred", "gt_encoding", "pred_encoding"), [("id", "train", "id", "train"), ("id", "id", "id", "id")]
)
def test_numbered_classes_fed_ids_of_a_bundled_table_are_named(
    gt: str, pred: str, gt_encoding: str, pred_encoding: str
) -> None:
    rng = np.random.default_rng(8)
    pairs = mix_ups.encoded(
        mix_ups.in_table(mix_ups.street(rng, 0.8), "cityscapes"), "cityscapes", gt, pred, rng
    )
    (doubt,) = judge_encodings(raw_joint(pairs), numbered_labels(19), "id", "id")
    assert doubt.mend == {"labels": "cityscapes", "gt_encoding": gt_encoding, "pred_encoding": pred_encoding}


def test_empty_sample_is_not_judged() -> None:
    assert judge_encodings(np.zeros((257, 257), np.int64), load_labels("idd"), "level3", "level3") == []


def test_readings_are_told_apart_by_what_they_read() -> None:
    found = readings(load_labels("cityscapes"), "id")
    assert [reading.name for reading in found][:5] == ["id", "train", "submission", "level2", "level1"]
    assert len({reading.name for reading in found}) == len(found)
    tables = [(reading.level.number, reading.table.tobytes()) for reading in found]
    assert len(set(tables)) == len(tables)


def test_palettes_in_an_order_of_their_own_are_meant_by_colour(tmp_path: Path) -> None:
    space = load_labels("cityscapes")
    rng = np.random.default_rng(9)
    colours = np.array([*space.colours, (0, 0, 0)], np.uint8)
    order = rng.permutation(len(colours))
    own, indices = mix_ups.encoder(space, "id", rng), np.argsort(order).astype(np.uint8)
    for i, (gt, pred) in enumerate(mix_ups.in_table(mix_ups.street(rng, 0.8), "cityscapes")):
        for name in ("gt", "pred"):
            (tmp_path / name / "d").mkdir(parents=True, exist_ok=True)
        Image.fromarray(own[gt]).save(tmp_path / "gt" / "d" / f"{i}_gtFine_labelIds.png")
        image = Image.fromarray(indices[pred])
        image.putpalette(colours[order].tobytes())
        image.save(tmp_path / "pred" / "d" / f"{i}_gtFine_labelIds.png")
    sides = (tmp_path / "gt", tmp_path / "pred")
    with pytest.raises(gpu_eval.Doubtful, match=r"meant by colour.*--pred-encoding colour"):
        gpu_eval.score(*sides, out=tmp_path / "run", labels="cityscapes")
    run = gpu_eval.score(*sides, out=tmp_path / "run", labels="cityscapes", pred_encoding="colour")
    assert run.miou() > 0.5


def test_palettes_whose_indices_are_the_ids_are_left_alone(tmp_path: Path) -> None:
    space = load_labels("idd")
    palette = np.array([*space.colours, *[(0, 0, 0)] * 230], np.uint8).tobytes()
    for i, maps in enumerate(mix_ups.street(np.random.default_rng(10), 0.6)):
        for name, classes in zip(("gt", "pred"), maps, strict=True):
            path = tmp_path / name / "d" / f"{i}_gtFine_labellevel3Ids.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(np.where(classes == 26, 255, classes).astype(np.uint8))
            image.putpalette(palette)
            image.save(path)
    assert gpu_eval.score(tmp_path / "gt", tmp_path / "pred", out=tmp_path / "run").doubts == ()


def test_part_of_a_split_in_another_encoding_is_doubted(tmp_path: Path) -> None:
    rng = np.random.default_rng(12)
    pairs = mix_ups.street(rng, 0.9) + mix_ups.street(rng, 0.9)
    raw = mix_ups.encoded(pairs[:3], "idd", "level3", "id", rng)
    right = mix_ups.encoded(pairs[3:], "idd", "level3", "level3", rng)
    (doubt,) = doubts_of(Split("idd", raw + right), tmp_path)
    assert (
        "in 3 of 8 images that were looked at the predictions look like `id`, not `level3`" in doubt.message
    )
    assert not doubt.certain
