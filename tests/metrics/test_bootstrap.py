"""Intervals: equal to a literal resampler, honest in simulation, and stored with the run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import gpu_eval
from gpu_eval.errors import OptionError
from gpu_eval.labels import load_labels
from gpu_eval.metrics import bootstrap, semantic
from gpu_eval.metrics import confusion as cm
from gpu_eval.metrics.semantic_sums import Columns
from gpu_eval.results.semantic_run import Run
from tests.reference import bootstrap as reference
from tests.support.scoring import score
from tests.support.semantic_runs import random_matrices, write_run
from tests.support.semantic_split import TinySplit

IDD = load_labels("idd")
LITE = load_labels("idd-lite")

Matrix = npt.NDArray[np.int64]


def sparse_images(images: int, seed: int) -> Matrix:
    """Matrices (images, 27, 27) with most cells empty and classes that many resamples lack."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2000, (images, 27, 27)) * (rng.random((images, 27, 27)) < 0.01)


def columns_of(columns: Columns, matrices: Matrix) -> Matrix:
    image, gt, pred = np.nonzero(matrices)
    size = matrices.shape[-1]
    return columns.count(gt * size + pred, image, matrices[image, gt, pred], len(matrices))


@pytest.mark.parametrize("labels", [IDD, LITE], ids=["idd", "idd-lite"])
def test_scores_of_column_sums_are_the_scores_of_the_matrices(labels: gpu_eval.LabelSpace) -> None:
    size = labels.n_classes + 1
    matrices = sparse_images(30, 1)[:, :size, :size]
    columns = Columns(labels)
    found = columns.scores(columns_of(columns, matrices).sum(axis=0))
    for protocol in labels.protocols:
        for level in semantic.score(matrices.sum(axis=0), labels, protocol):
            miou, iou = found[protocol, level.level]
            assert np.array_equal(iou, level.iou, equal_nan=True)
            assert np.array_equal(miou, level.miou, equal_nan=True)


@pytest.mark.parametrize("drives", [1, 9])
@pytest.mark.parametrize("protocol", ["idd", "autonue"])
def test_resamples_equal_the_literal_resampler(protocol: str, drives: int) -> None:
    matrices = sparse_images(18, 2)
    if protocol == "autonue":
        matrices[:12, range(26), range(26)] += 1  # so that many resamples have every class
    names = [f"drive{i % drives}" for i in range(18)]
    columns = Columns(IDD)
    units = bootstrap.units(names)
    assert units.kind == ("drives" if drives == 9 else "images")
    sums = bootstrap.resample(units.sums(columns_of(columns, matrices)), 25, seed=5)
    drawn = reference.draws(units.count, 25, seed=5)
    children = [[list(group) for group in level.children] for level in IDD.levels[1:]]
    expected = reference.scores(matrices.tolist(), units.of_image.tolist(), drawn, protocol, children)
    found = columns.scores(sums)
    for i, level in enumerate(IDD.levels):
        miou, iou = found[protocol, level.number]
        np.testing.assert_array_equal(iou, [resample[i][1] for resample in expected])
        np.testing.assert_allclose(miou, [resample[i][0] for resample in expected], rtol=0, atol=1e-12)
        low, high = bootstrap.interval(miou, 0.8)
        np.testing.assert_allclose(
            [low, high], reference.interval(miou.tolist(), 0.8), rtol=0, atol=1e-12, equal_nan=True
        )


def test_slabs_and_chunks_do_not_change_a_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = np.random.default_rng(3).integers(0, 2**40, (101, 7))
    whole = bootstrap.resample(sums, 40)
    monkeypatch.setattr(bootstrap, "_SLAB_BYTES", 101 * 8 * 3)
    monkeypatch.setattr(bootstrap, "_CHUNK", 13)
    assert np.array_equal(bootstrap.resample(sums, 40), whole)


def test_sums_near_2_to_the_53_are_exact_and_beyond_refused() -> None:
    sums = np.array([[2**50 + 1], [2**50 + 3], [2**50 + 7]])
    drawn = reference.draws(3, 50, seed=0)
    assert bootstrap.resample(sums, 50, seed=0)[:, 0].tolist() == [
        sum(int(sums[unit, 0]) for unit in units) for units in drawn
    ]
    with pytest.raises(OptionError, match="exact"):
        bootstrap.resample(np.full((8, 1), 2**50), 5)


def test_no_units_or_no_resamples_give_no_interval() -> None:
    for units, resamples in ((0, 10), (5, 0)):
        drawn = bootstrap.resample(np.ones((units, 4), np.int64), resamples)
        assert drawn.shape == (resamples, 4)
    assert np.isnan(bootstrap.interval(np.zeros((0, 3)))).all()
    assert np.isnan(bootstrap.p_value(np.zeros((0, 3)))).all()


def test_interval_leaves_undefined_resamples_out() -> None:
    rng = np.random.default_rng(0)
    samples = rng.random((200, 3))
    samples[rng.random(200) < 0.3, 1] = math.nan
    samples[:, 2] = math.nan
    low, high = bootstrap.interval(samples, 0.9)
    for i in range(2):
        np.testing.assert_allclose((low[i], high[i]), np.nanquantile(samples[:, i], [0.05, 0.95]))
    assert math.isnan(low[2])
    assert math.isnan(high[2])


def test_p_value_is_the_literal_one_and_1_where_nothing_differs() -> None:
    rng = np.random.default_rng(1)
    samples = rng.normal(0.8, 1, (500, 2))
    samples[::7, 1] = math.nan
    found = bootstrap.p_value(samples)
    assert found.tolist() == [reference.p_value(samples[:, i].tolist()) for i in range(2)]
    assert bootstrap.p_value(np.zeros(99)) == 1.0
    assert bootstrap.p_value(np.ones(99)) == 2 / 100


def test_drives_are_drawn_from_eight_on() -> None:
    assert bootstrap.units([f"d{i % 7}" for i in range(70)]).kind == "images"
    units = bootstrap.units([f"d{i % 8}" for i in range(70)])
    assert (units.kind, units.count) == ("drives", 8)
    sums = units.sums(np.arange(70)[:, None])
    assert sums[:, 0].tolist() == [sum(range(d, 70, 8)) for d in range(8)]


# Coverage: two classes of 1,000-pixel images whose difficulty varies by image, or by drive as well.


def population(rng: np.random.Generator, images: int, per_drive: int) -> Matrix:
    """int64 (images, 8, 8): gt of three classes, accuracy drawn per drive and image."""
    drives = -(-images // per_drive)
    mood = np.repeat(rng.normal(0, 1.0 if per_drive > 1 else 0.0, drives), per_drive)[:images]
    matrices = np.zeros((images, 8, 8), np.int64)
    gt = rng.multinomial(1000, [0.6, 0.25, 0.15], images)
    for c, ease in enumerate((2.0, 1.0, 0.0)):
        share = 1 / (1 + np.exp(-(ease + mood + rng.normal(0, 0.7, images))))
        right = rng.binomial(gt[:, c], share)
        matrices[:, c, c] = right
        matrices[:, c, (c + 1) % 3] = gt[:, c] - right
    return matrices


def coverage(images: int, per_drive: int, *, by_drive: bool) -> float:
    """The share of 400 samples whose nominal 95 % interval holds the superpopulation's mIoU."""
    rng = np.random.default_rng(11)
    columns = Columns(LITE)
    truth = columns.scores(columns_of(columns, population(rng, 200_000, per_drive)).sum(axis=0))["idd", 1][0]
    names = [f"d{i // per_drive}" if by_drive else "" for i in range(images)]
    hits = 0
    for trial in range(400):
        sums = bootstrap.units(names).sums(columns_of(columns, population(rng, images, per_drive)))
        low, high = bootstrap.interval(columns.scores(bootstrap.resample(sums, 400, trial))["idd", 1][0])
        hits += bool(low <= truth <= high)
    return hits / 400


def test_95_percent_intervals_cover_95_percent_of_independent_images() -> None:
    assert 0.92 <= coverage(120, 1, by_drive=False) <= 0.98


def test_95_percent_intervals_over_drives_cover_correlated_images() -> None:
    assert 0.92 <= coverage(480, 8, by_drive=True) <= 0.98


def test_intervals_over_images_of_correlated_drives_cover_too_little() -> None:
    assert coverage(480, 8, by_drive=False) < 0.85


def test_drive_intervals_are_wider_on_correlated_images() -> None:
    columns = Columns(LITE)
    sums = columns_of(columns, population(np.random.default_rng(4), 480, 8))
    widths = []
    for names in ([""] * 480, [f"d{i // 8}" for i in range(480)]):
        drawn = bootstrap.resample(bootstrap.units(names).sums(sums))
        low, high = bootstrap.interval(columns.scores(drawn)["idd", 1][0])
        widths.append(high - low)
    assert widths[1] > 1.5 * widths[0]


def stored(run: Run) -> list[tuple[float, float, float]]:
    return [(row["miou_low"], row["miou"], row["miou_high"]) for row in run.levels.to_pylist()]


class TestInARun:
    def test_tables_hold_the_intervals_of_the_literal_resampler(self, tmp_path: Path) -> None:
        matrices = random_matrices(20, drives=10)
        run = write_run(tmp_path / "run", matrices, resamples=30, shard_size=7)
        drawn = reference.draws(10, 30, seed=bootstrap.SEED)
        unit_of = [i // 2 for i in range(20)]
        images = [matrix.tolist() for matrix in matrices.values()]
        samples = [levels[0] for levels in reference.scores(images, unit_of, drawn, "idd", [])]
        level, rows = run.levels.to_pylist()[0], run.classes.to_pylist()
        np.testing.assert_allclose(
            (level["miou_low"], level["miou_high"]),
            reference.interval([miou for miou, _ in samples], 0.95),
        )
        for row in rows[:7]:
            expected = reference.interval([iou[row["class_id"]] for _, iou in samples], 0.95)
            np.testing.assert_allclose((row["iou_low"], row["iou_high"]), expected)
        assert run.facts["intervals"] == {
            "method": "percentile bootstrap",
            "units": "drives",
            "unit_count": 10,
            "resamples": 30,
            "confidence": 0.95,
            "seed": 0,
        }

    def test_scored_split_has_intervals_around_its_scores(self, split: TinySplit, tmp_path: Path) -> None:
        run = score(split, tmp_path / "run")
        assert all(low < miou < high for low, miou, high in stored(run))
        assert run.facts["intervals"]["unit_count"] == len(split.maps)

    def test_bootstrap_0_means_no_intervals(self, split: TinySplit, tmp_path: Path) -> None:
        run = score(split, tmp_path / "run", bootstrap=0)
        assert all(math.isnan(low) and math.isnan(high) for low, _, high in stored(run))
        assert run.facts["intervals"] is None

    def test_one_image_has_no_interval(self, tmp_path: Path) -> None:
        run = write_run(tmp_path / "run", random_matrices(1))
        assert all(math.isnan(low) and math.isnan(high) for low, _, high in stored(run))

    def test_negative_bootstrap_is_refused_before_anything_is_written(
        self, split: TinySplit, tmp_path: Path
    ) -> None:
        with pytest.raises(OptionError, match="bootstrap"):
            gpu_eval.score(split.gts, split.preds, out=tmp_path / "run", bootstrap=-1)
        assert not (tmp_path / "run").exists()

    def test_images_that_failed_are_not_drawn(self, tmp_path: Path) -> None:
        matrices = random_matrices(30)
        with_failed = {**matrices, "drive00/frame0005x": None, "zzz/last": None}
        run = write_run(tmp_path / "a", with_failed)
        assert stored(run) == stored(write_run(tmp_path / "b", matrices))
        assert run.facts["intervals"]["unit_count"] == 30
        assert run.image_counts().missing == {"drive00/frame0005x", "zzz/last"}

    def test_parts_are_read_back_as_the_matrices(self, tmp_path: Path) -> None:
        matrices = random_matrices(30)
        run = write_run(tmp_path / "run", matrices, shard_size=7)
        counted = run.image_counts()
        assert list(counted.keys) == list(matrices)
        assert np.array_equal(counted.gt, [matrix.sum(axis=1) for matrix in matrices.values()])
        tp, fp, fn = cm.tp_fp_fn(np.stack(list(matrices.values())))
        assert np.array_equal(counted.sums, np.concatenate([tp, tp + fp + fn], axis=1))

    def test_fingerprints_follow_the_content_not_the_cut(self, tmp_path: Path) -> None:
        matrices = random_matrices(30)
        names = ("gt_fingerprint", "pred_fingerprint")

        def prints(name: str, content: dict[str, Matrix], **options: int) -> list[str]:
            run = write_run(tmp_path / name, content, **options)  # type: ignore[arg-type]
            return [run.facts[fingerprint] for fingerprint in names]

        one = prints("one", matrices)
        assert prints("cut", matrices, shard_size=7) == one
        other_pred = {key: matrix[:, ::-1] for key, matrix in matrices.items()}
        other = prints("pred", other_pred)
        assert (other[0] == one[0], other[1] == one[1]) == (True, False)
        renamed = {key + "x": matrix for key, matrix in matrices.items()}
        assert not set(prints("names", renamed)) & set(one)
