"""The contract of engines for label maps: what each counts and refuses, against Pillow and a literal count.

A suite subclasses these classes for its engine and has two fixtures: `engine`, and `decoder`, the name of the
engine's own fast decoder.
"""

from __future__ import annotations

import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gpu_eval.engines.engine import Engine
from gpu_eval.engines.semantic import SemanticJob, SemanticResult, make_job
from gpu_eval.errors import (
    CorruptImage,
    ImageTooLarge,
    InputError,
    LabelOutOfRange,
    MissingPrediction,
    UnreadableFile,
    WrongImageMode,
)
from gpu_eval.inputs import png
from gpu_eval.inputs.pairs import Pair, pair_up
from gpu_eval.inputs.sources import open_source
from gpu_eval.labels import load_labels, numbered_labels
from gpu_eval.synthetic import street_gt, street_prediction
from tests.reference.counting import level3_matrix, raw_counts
from tests.support.memory import memory_pairs
from tests.support.png_builder import (
    assemble,
    broken_adler,
    broken_crc,
    build_png,
    ihdr,
    read_chunks,
    short_rows,
    with_stream,
    zlib_stream,
)
from tests.support.shared import SHARED, needs_shared, shared_json

IDD = load_labels("idd")
NATIVE = make_job(IDD)


def score(
    engine: Engine, files: list[tuple[bytes | None, bytes | None]], job: SemanticJob
) -> list[SemanticResult]:
    return engine.count(job, *memory_pairs(files))


def blocky(rng: np.random.Generator, height: int, width: int, values: list[int]) -> np.ndarray:
    """A map of rectangles with some single-pixel noise."""
    coarse = rng.choice(values, (height // 5 + 1, width // 9 + 1))
    label_map = np.kron(coarse, np.ones((5, 9), np.int64))[:height, :width]
    noise = rng.random((height, width)) < 0.03
    return np.where(noise, rng.choice(values, (height, width)), label_map).astype(np.uint8)


def header_only(side: int) -> bytes:
    """A PNG that promises side x side pixels and holds 99 bytes of them."""
    return assemble([(b"IHDR", ihdr(side, side)), (b"IDAT", zlib.compress(bytes(99))), (b"IEND", b"")])


VALUES = [0, 1, 2, 9, 25, 26, 27, 254, 255]


class SemanticParity:
    """Every map that can be read counts as Pillow and a literal loop count it."""

    @settings(max_examples=150, deadline=None)
    @given(
        height=st.integers(1, 40),
        width=st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 127, 128, 129, 200])),
        seed=st.integers(0, 2**32),
        kinds=st.lists(st.integers(0, 4), min_size=1, max_size=6),
        palette=st.booleans(),
        noise=st.booleans(),
    )
    def test_every_filter_and_size_counts_as_pillow_does(
        self,
        engine: Engine,
        decoder: str,
        height: int,
        width: int,
        seed: int,
        kinds: list[int],
        palette: bool,
        noise: bool,
    ) -> None:
        rng = np.random.default_rng(seed)
        draw = (lambda: rng.integers(0, 256, (height, width), np.uint8)) if noise else None
        gt, pred = (draw() if draw else blocky(rng, height, width, VALUES) for _ in range(2))
        filters = [int(k) for k in rng.choice(kinds, height)]
        files = [
            build_png(gt, filters=filters, colour_type=3 if palette else 0),
            build_png(pred, filters=filters[::-1], idat_size=50),
        ]
        (result,) = score(engine, [(files[0], files[1])], loose(NATIVE))
        assert result.error is None
        assert result.decoder == decoder
        assert result.confusion.tolist() == level3_matrix(raw_counts(*files, None))

    @settings(max_examples=150, deadline=None)
    @given(
        gt_size=st.tuples(st.integers(1, 70), st.integers(1, 150)),
        pred_size=st.tuples(st.integers(1, 70), st.integers(1, 150)),
        target=st.one_of(st.none(), st.tuples(st.integers(1, 90), st.integers(1, 200))),
        same=st.booleans(),
        seed=st.integers(0, 2**32),
    )
    def test_any_sizes_resize_as_pillow_nearest(
        self,
        engine: Engine,
        gt_size: tuple[int, int],
        pred_size: tuple[int, int],
        target: tuple[int, int] | None,
        same: bool,
        seed: int,
    ) -> None:
        rng = np.random.default_rng(seed)
        gt = build_png(blocky(rng, *gt_size, [0, 3, 7, 26]), filters=4)
        pred = build_png(blocky(rng, *(gt_size if same else pred_size), [0, 3, 8, 255]), filters=1)
        (result,) = score(engine, [(gt, pred)], make_job(IDD, resolution=target))
        assert result.confusion.tolist() == level3_matrix(raw_counts(gt, pred, target))

    def test_street_maps_count_as_pillow_does(self, engine: Engine) -> None:
        files = []
        for seed in range(9):
            gt = street_gt(seed, 270, 480)
            files.append((pillow_png(gt), pillow_png(street_prediction(gt, seed))))
        for result, pair in zip(score(engine, files, NATIVE), files, strict=True):
            assert result.confusion.tolist() == level3_matrix(raw_counts(*pair, None))

    def test_swapping_gt_and_prediction_transposes(self, engine: Engine) -> None:
        gt = street_gt(1, 135, 240)
        pair = (pillow_png(gt), pillow_png(street_prediction(gt, 1)))
        straight, swapped = score(engine, [pair, pair[::-1]], NATIVE)
        assert np.array_equal(straight.confusion, swapped.confusion.T)

    def test_row_sums_are_the_gt_histogram(self, engine: Engine) -> None:
        gt = street_gt(2, 135, 240)
        (result,) = score(engine, [(pillow_png(gt), pillow_png(street_prediction(gt, 2)))], NATIVE)
        histogram = np.bincount(np.minimum(gt, 26).ravel(), minlength=27)
        assert result.confusion.sum(axis=1).tolist() == histogram.tolist()

    @pytest.mark.parametrize("form", ["16-bit", "interlaced", "4-bit palette", "1-bit palette"])
    def test_unusual_pngs_go_through_pillow_and_say_so(self, engine: Engine, form: str) -> None:
        rng = np.random.default_rng(3)
        values = [0, 1] if form == "1-bit palette" else [0, 1, 5, 9]
        gt, pred = (blocky(rng, 21, 37, values) for _ in range(2))
        options = {
            "16-bit": {"bit_depth": 16},
            "interlaced": {"interlaced": True},
            "4-bit palette": {"bit_depth": 4, "colour_type": 3},
            "1-bit palette": {"bit_depth": 1, "colour_type": 3},
        }[form]
        files = (build_png(gt, **options), build_png(pred))
        for resolution in (None, (30, 50)):
            (result,) = score(engine, [files], make_job(IDD, resolution=resolution))
            assert result.decoder == "pillow"
            assert result.confusion.tolist() == level3_matrix(raw_counts(*files, resolution))

    def test_16_bit_values_above_255_are_void(self, engine: Engine) -> None:
        gt = np.array([[0, 1, 300, 65535, 2, 2, 2, 2]], np.uint16)
        (result,) = score(
            engine, [(build_png(gt, bit_depth=16), build_png(np.zeros((1, 8), np.uint8)))], NATIVE
        )
        assert result.confusion[:, 0].tolist() == [1, 1, 4] + [0] * 23 + [2]
        assert result.gt_outside == 2

    def test_no_pairs_give_no_results(self, engine: Engine) -> None:
        assert score(engine, [], NATIVE) == []

    def test_results_come_in_input_order_whatever_the_sizes(self, engine: Engine) -> None:
        files = []
        for n in range(1, 41):
            label_map = np.full((n, 2 * n), n % 26, np.uint8)
            files.append((build_png(label_map), build_png(label_map)))
        results = score(engine, files, NATIVE)
        for n, result in enumerate(results, start=1):
            assert result.gt_size == (n, 2 * n)
            assert result.confusion[n % 26, n % 26] == 2 * n * n

    @pytest.mark.parametrize("n", [1, 2, 64, 255, 256])
    def test_label_spaces_up_to_256_classes(self, engine: Engine, n: int) -> None:
        rng = np.random.default_rng(n)
        gt, pred = (rng.integers(0, n, (40, 60), np.uint8) for _ in range(2))
        (result,) = score(engine, [(build_png(gt), build_png(pred))], make_job(numbered_labels(n)))
        expected = np.zeros((n + 1, n + 1), np.int64)
        np.add.at(expected, (gt.ravel(), pred.ravel()), 1)
        assert np.array_equal(result.confusion, expected)

    def test_submission_encoding_counts_from_one(self, engine: Engine) -> None:
        gt = np.arange(27, dtype=np.uint8).reshape(3, 9)
        job = make_job(IDD, pred_encoding="submission")
        (result,) = score(engine, [(build_png(gt), build_png(gt + 1))], job)
        assert np.array_equal(result.confusion, np.eye(27, dtype=np.int64))


class SemanticBadInput:
    """A file that is wrong is an error row with the readable decoder's words, and nothing else suffers."""

    GOOD = build_png(np.arange(12, dtype=np.uint8).reshape(3, 4))
    CHUNKS = read_chunks(GOOD)

    @pytest.mark.parametrize(
        ("broken", "error"),
        [
            (b"", CorruptImage),
            (b"\xff\xd8\xff\xe0" + bytes(60), CorruptImage),
            (GOOD[:-20], CorruptImage),
            (GOOD[:-12], CorruptImage),
            (broken_crc(GOOD), CorruptImage),
            (broken_adler(GOOD), CorruptImage),
            (short_rows(GOOD, 1, 5), CorruptImage),
            (build_png(np.zeros((3, 4), np.uint8), colour_type=3).replace(b"PLTE", b"plTE"), CorruptImage),
            (build_png(np.zeros((3, 4), np.uint8), before_idat=[(b"t\0Xt", b"")]), CorruptImage),
            (assemble([CHUNKS[0], (b"IDAT", b""), (b"tEXt", b""), *CHUNKS[1:]]), CorruptImage),
            (with_stream(GOOD, zlib.compress(bytes(20))), CorruptImage),
            (with_stream(GOOD, zlib.compress(b"\7" + bytes(14))), CorruptImage),
            (with_stream(GOOD, zlib.compress(bytes(10) + b"\7" + bytes(4))), CorruptImage),
            (build_png(np.zeros((3, 4, 3), np.uint8), colour_type=2), WrongImageMode),
            (build_png(np.zeros((3, 4), np.uint8), bit_depth=4), WrongImageMode),
            (header_only(60000), ImageTooLarge),
            (header_only(9000), CorruptImage),
            (None, UnreadableFile),
        ],
    )  # fmt: skip
    def test_a_broken_map_is_an_error_row_and_its_neighbours_are_counted(
        self, engine: Engine, broken: bytes | None, error: type[InputError]
    ) -> None:
        good = self.GOOD
        results = score(engine, [(good, good), (broken, good), (good, broken), (good, good)], NATIVE)
        assert [result.confusion is None for result in results] == [False, True, True, False]
        assert type(results[1].error) is error
        assert type(results[2].error) is error
        assert results[1].error.file == "memory/000001.png"
        assert (
            results[0].confusion.tolist()
            == results[3].confusion.tolist()
            == level3_matrix(raw_counts(good, good, None))
        )

    def test_a_missing_prediction_is_an_error_row(self, engine: Engine) -> None:
        pairs, gts, preds = memory_pairs([(self.GOOD, self.GOOD)])
        lone = Pair("lone", "", pairs[0].gt, None)
        results = engine.count(NATIVE, [lone, pairs[0], lone], gts, preds)
        assert [type(result.error) for result in results] == [
            MissingPrediction,
            type(None),
            MissingPrediction,
        ]

    def test_void_on_error_counts_the_whole_gt_against_void(self, engine: Engine) -> None:
        job = make_job(IDD, void_on_error=True)
        pairs, gts, preds = memory_pairs([(self.GOOD, self.GOOD[:-20]), (self.GOOD[:-20], self.GOOD)])
        broken_pred, broken_gt = engine.count(job, pairs, gts, preds)
        assert type(broken_pred.error) is CorruptImage
        assert broken_pred.confusion[:, 26].tolist() == [1] * 12 + [0] * 15
        assert broken_pred.confusion.sum() == 12
        assert broken_gt.confusion is None
        assert broken_gt.error.file == "memory/000001.png"

    def test_values_outside_the_encoding_are_void_and_counted(self, engine: Engine) -> None:
        gt = np.array([[0, 1, 26, 255], [27, 3, 3, 3]], np.uint8)
        pred = np.array([[0, 99, 98, 255], [0, 3, 3, 3]], np.uint8)
        (result,) = score(engine, [(build_png(gt), build_png(pred))], NATIVE)
        assert result.confusion.tolist() == level3_matrix(raw_counts(build_png(gt), build_png(pred), None))
        assert (result.gt_outside, result.pred_outside) == (1, 2)

    def test_a_map_of_mostly_foreign_values_is_refused_with_the_encoding_that_fits(
        self, engine: Engine
    ) -> None:
        gt = np.zeros((4, 8), np.uint8)
        pred = np.full((4, 8), 33, np.uint8)  # the raw id of sky
        (result,) = score(engine, [(build_png(gt), build_png(pred))], NATIVE)
        assert type(result.error) is LabelOutOfRange
        assert "--pred-encoding id" in str(result.error)
        assert "33" in result.error.found

    def test_another_aspect_ratio_is_a_warning(self, engine: Engine) -> None:
        wide, narrow = build_png(np.zeros((9, 16), np.uint8)), build_png(np.zeros((9, 12), np.uint8))
        odd, even = score(engine, [(wide, narrow), (wide, wide)], NATIVE)
        assert "12x9" in odd.warning
        assert odd.confusion.sum() == 144
        assert even.warning is None

    @settings(max_examples=400, deadline=None)
    @given(seed=st.integers(0, 2**32), cut=st.booleans(), inside=st.booleans())
    def test_a_mutated_png_gives_the_pixels_or_the_error_of_the_readable_decoder(
        self, engine: Engine, seed: int, cut: bool, inside: bool
    ) -> None:
        rng = np.random.default_rng(seed)
        good = build_png(
            blocky(rng, 9, 70, [0, 1, 2]), filters=[int(k) for k in rng.integers(0, 5, 9)], idat_size=40
        )
        if inside:  # break the deflate stream below valid checksums of its chunks
            stream = bytearray(zlib_stream(good))
            stream[rng.integers(len(stream))] ^= 1 << rng.integers(8)
            broken = with_stream(good, bytes(stream))
        else:
            mutable = bytearray(good)
            mutable[rng.integers(len(mutable))] = rng.integers(256)
            broken = bytes(mutable[: rng.integers(len(mutable))] if cut else mutable)
        job = loose(NATIVE)
        (result,) = score(engine, [(broken, broken)], job)
        pixels, error = decoded(broken)
        assert (type(result.error), str(result.error)) == (type(error), str(error))
        if pixels is not None:
            table = job.gt_table[np.minimum(pixels, 255)]
            histogram = np.bincount(np.minimum(table, 26).ravel(), minlength=27)
            assert np.diagonal(result.confusion).tolist() == histogram.tolist()


@needs_shared
class SemanticGolden:
    """The golden sets' matrices, to the last pixel."""

    @pytest.mark.parametrize("res", ["1080", "720", "480", "240"])
    def test_each_image_of_the_semantic_set(self, engine: Engine, res: str) -> None:
        expected = shared_json("golden/semantic/expected.json")
        width, height = expected["resolutions"][res]
        results = self.score_split(engine, "golden/semantic", IDD, (height, width))
        assert set(results) == set(expected["images"])
        for key, result in results.items():
            image = expected["images"][key]
            matrix = np.zeros((27, 27), np.int64)
            for gt, pred, pixels in image["confusion_nonzero"][res]:
                matrix[gt, pred] = pixels
            assert np.array_equal(result.confusion, matrix), key
            assert result.gt_size[::-1] == tuple(image["gt_size"])
        total = sum(result.confusion for result in results.values())
        assert total.tolist() == expected["cases"]["all"]["resolutions"][res]["confusion_matrix"]

    def test_the_lite_set_at_every_resolution(self, engine: Engine) -> None:
        expected = shared_json("golden/lite/expected.json")
        for case in expected["resolutions"].values():
            width, height = case["size"]
            results = self.score_split(engine, "golden/lite", load_labels("idd-lite"), (height, width))
            total = sum(result.confusion for result in results.values())
            assert total.tolist() == case["confusion_matrix"]

    def test_camvid_at_1080(self, engine: Engine) -> None:
        results = self.score_split(engine, "camvid", IDD, (1080, 1920))
        total = sum(result.confusion for result in results.values())
        assert len(results) == 231
        assert total.tolist() == shared_json("camvid/expected.json")["confusion"]

    @staticmethod
    def score_split(engine: Engine, folder: str, labels, size: tuple[int, int]) -> dict[str, SemanticResult]:
        gts, preds = open_source(SHARED / folder / "gt"), open_source(SHARED / folder / "pred")
        split = pair_up(
            gts.entries(),
            preds.entries(),
            gt_suffix=labels.gt_suffix,
            pred_suffix=labels.pred_suffix,
            gt_location="gt",
            pred_location="pred",
            exclude=labels.exclude,
        )
        assert not split.problems
        results = engine.count(make_job(labels, resolution=size), split.pairs, gts, preds)
        gts.close()
        preds.close()
        return {pair.key: result for pair, result in zip(split.pairs, results, strict=True)}


def decoded(data: bytes) -> tuple[np.ndarray | None, InputError | None]:
    """What the readable decoder makes of a file: pixels or an error."""
    try:
        return png.decode(data, "memory/000000.png"), None
    except InputError as error:
        return None, error


def loose(job: SemanticJob) -> SemanticJob:
    """The job with every value above 25 void, none outside: nothing is refused for its values."""
    table = np.minimum(np.arange(256), 26).astype(np.uint16)
    return SemanticJob(job.n_classes, table, table, job.resolution, {})


def pillow_png(label_map: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(label_map).save(buffer, "PNG")
    return buffer.getvalue()
