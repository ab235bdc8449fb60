"""The run folder: what its tables are called, hold and mean."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gpu_eval
from gpu_eval import errors
from gpu_eval.results.semantic_run import Run
from gpu_eval.run_folder import schema, semantic_schema
from tests.reference import semantic as reference
from tests.support.scoring import score
from tests.support.semantic_split import CLASSES, HEIGHT, WIDTH, TinySplit, make_split

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[TinySplit, Run]:
    """A split of two shards, one prediction missing, scored with on_error="skip"."""
    root = tmp_path_factory.mktemp("report")
    split = make_split(root / "split")
    (split.preds / split.names[5]).unlink()
    run = score(split, root / "run", shard_size=4, on_error="skip")
    del split.maps[split.names[5]]
    return split, run


@pytest.fixture
def run(scored: tuple[TinySplit, Run]) -> Run:
    return gpu_eval.open_run(scored[1].folder)


def files_of(run: Run, name: str) -> list[Path]:
    single = run.folder / f"{name}.parquet"
    return (
        [single]
        if name in schema.tables_of("semantic").whole
        else sorted((run.folder / name).glob("part-*.parquet"))
    )


def rows(table: pa.Table, **wanted: Any) -> list[dict[str, Any]]:
    return [row for row in table.to_pylist() if all(row[name] == value for name, value in wanted.items())]


class TestSchema:
    @pytest.mark.parametrize("name", schema.tables_of("semantic").by_name)
    def test_written_table_has_the_schema(self, run: Run, name: str) -> None:
        expected = schema.tables_of("semantic").by_name[name]
        files = files_of(run, name)
        assert len(files) == (1 if name in schema.tables_of("semantic").whole else 2)
        for path in files:
            written = pq.read_schema(path)
            assert written.names == expected.names
            for field, wanted in zip(written, expected, strict=True):
                assert (field.type, field.nullable) == (wanted.type, wanted.nullable), field.name
                kept = {key: field.metadata[key] for key in wanted.metadata}
                assert kept == wanted.metadata

    @pytest.mark.parametrize("name", schema.tables_of("semantic").by_name)
    def test_every_column_says_what_it_means(self, name: str) -> None:
        for field in schema.tables_of("semantic").by_name[name]:
            assert field.metadata[b"meaning"], field.name

    @pytest.mark.parametrize("name", schema.tables_of("semantic").by_name)
    def test_column_that_may_not_be_null_is_not(self, run: Run, name: str) -> None:
        for path in files_of(run, name):
            table = pq.read_table(path)
            for field in table.schema:
                assert field.nullable or table[field.name].null_count == 0, field.name

    def test_docs_are_generated_from_the_schema(self) -> None:
        written = (DOCS / "schema.md").read_text(encoding="utf-8")
        assert written == schema.markdown(), "run python docs/make_schema.py"

    def test_parts_are_zstd(self, run: Run) -> None:
        for name in schema.tables_of("semantic").by_name:
            for path in files_of(run, name):
                assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"

    def test_images_have_a_column_per_level(self) -> None:
        names = semantic_schema.images([7, 2]).names
        assert names[-2:] == ["miou_level7", "miou_level2"]


class TestTables:
    def test_cells_add_up_to_the_confusion_table(self, scored: tuple[TinySplit, Run], run: Run) -> None:
        split, _ = scored
        total = split.total()
        summed = np.zeros_like(total)
        for row in run.sql(
            "SELECT gt, pred, sum(pixels)::BIGINT AS pixels FROM cells GROUP BY ALL"
        ).to_pylist():
            summed[row["gt"], row["pred"]] = row["pixels"]
        assert np.array_equal(summed, total)
        for row in run.sql("SELECT * FROM confusion").to_pylist():
            assert total[row["gt"], row["pred"]] == row["pixels"]
        assert np.array_equal(run.confusion(), total)

    def test_confusion_table_is_whole_and_named(self, run: Run) -> None:
        table = run.sql("SELECT * FROM confusion ORDER BY gt, pred")
        assert table.num_rows == (CLASSES + 1) ** 2
        names = [*run.labels.names, "void"]
        assert table["gt_name"].to_pylist() == [name for name in names for _ in names]
        assert table["pred_name"].to_pylist() == names * len(names)

    def test_cells_are_sorted_and_not_zero(self, run: Run) -> None:
        cells = run.cells.to_pylist()
        keys = [(row["image_id"], row["gt"], row["pred"]) for row in cells]
        assert keys == sorted(set(keys))
        assert min(row["pixels"] for row in cells) > 0

    def test_image_classes_add_up_to_the_classes(self, run: Run) -> None:
        sums = run.sql(
            "SELECT level, class_id, sum(tp)::BIGINT AS tp, sum(fp)::BIGINT AS fp, sum(fn)::BIGINT AS fn "
            "FROM image_classes GROUP BY ALL ORDER BY ALL"
        )
        classes = run.sql(
            "SELECT level, class_id, tp, fp, fn FROM classes "
            "WHERE protocol = 'idd' AND tp + fp + fn > 0 ORDER BY level, class_id"
        )
        assert sums.to_pylist() == classes.to_pylist()

    def test_class_absent_from_an_image_has_no_row(self, run: Run) -> None:
        assert min(row["tp"] + row["fp"] + row["fn"] for row in run.image_classes.to_pylist()) > 0

    @pytest.mark.parametrize("protocol", ["idd", "autonue"])
    def test_scores_are_those_of_the_literal_reference(
        self, scored: tuple[TinySplit, Run], run: Run, protocol: str
    ) -> None:
        children = [[list(group) for group in level.children] for level in run.labels.levels[1:]]
        matrices = reference.level_matrices(scored[0].total().tolist(), protocol, children)
        for level, matrix in zip(run.labels.levels, matrices, strict=True):
            tp, fp, fn = reference.tp_fp_fn(matrix)
            found = rows(run.classes, protocol=protocol, level=level.number)
            assert [row["class_name"] for row in found] == list(level.names)
            assert [(row["tp"], row["fp"], row["fn"]) for row in found] == list(zip(tp, fp, fn, strict=True))
            ious = reference.iou(tp, fp, fn)
            assert [row["iou"] for row in found] == pytest.approx(ious, abs=1e-12, nan_ok=True)
            mean = reference.mean_iou(ious, protocol)
            assert run.miou(level.number, protocol) == pytest.approx(mean, abs=1e-12, nan_ok=True)

    def test_images_follow_from_their_cells(self, scored: tuple[TinySplit, Run], run: Run) -> None:
        images = run.images.to_pylist()
        assert [row["image_id"] for row in images] == list(range(6))
        assert [row["drive"] for row in images] == ["a"] * 3 + ["b"] * 3
        for row, (gt, pred) in zip(images, scored[0].maps.values(), strict=False):
            inside = gt < CLASSES
            assert (row["status"], row["pixels"]) == ("ok", HEIGHT * WIDTH)
            assert (row["gt_height"], row["gt_width"]) == (HEIGHT, WIDTH)
            assert row["gt_void_share"] == pytest.approx(1 - inside.mean(), abs=1e-12)
            assert row["pixel_accuracy"] == pytest.approx((gt == pred)[inside].mean(), abs=1e-12)
            ious = [
                image_class["iou"]
                for image_class in rows(run.image_classes, image_id=row["image_id"], level=2)
            ]
            assert row["miou_level2"] == pytest.approx(np.mean(ious), abs=1e-12)

    def test_image_that_was_not_scored_has_a_row_of_nulls(self, run: Run) -> None:
        row = run.images.to_pylist()[5]
        assert (row["status"], row["errors"][0]["kind"]) == ("error", "MissingPrediction")
        assert row["pred_file"] is None
        for name in ("pixels", "gt_outside", "pixel_accuracy", "miou_level3", "gt_void_share"):
            assert row[name] is None
        assert rows(run.cells, image_id=5) == []
        assert rows(run.image_classes, image_id=5) == []


class TestRun:
    @pytest.mark.parametrize("level", [3, 2, 1])
    def test_confusion_of_a_level_sums_its_groups(
        self, scored: tuple[TinySplit, Run], run: Run, level: int
    ) -> None:
        groups = run.labels.level(level).groups
        home = [len(groups)] * (CLASSES + 1)
        for group, members in enumerate(groups):
            for member in members:
                home[member] = group
        expected = np.zeros((len(groups) + 1,) * 2, np.int64)
        for (gt, pred), pixels in np.ndenumerate(scored[0].total()):
            expected[home[gt], home[pred]] += pixels
        matrix = run.confusion(level)
        assert matrix.dtype == np.int64
        assert np.array_equal(matrix, expected)

    def test_finest_level_is_the_default(self, run: Run) -> None:
        assert run.miou() == run.miou(level=3, protocol="idd")
        assert np.array_equal(run.confusion(), run.confusion(level=3))

    @pytest.mark.parametrize("level", [4, -1, 0])
    def test_level_that_is_not_there_is_an_error(self, run: Run, level: int) -> None:
        with pytest.raises(errors.OptionError, match="no such level"):
            run.miou(level)
        with pytest.raises(errors.OptionError, match="no such level"):
            run.confusion(level)

    def test_protocol_that_is_not_there_is_an_error(self, run: Run) -> None:
        with pytest.raises(errors.OptionError, match="no such protocol") as caught:
            run.miou(3, protocol="coco")
        assert caught.value.expected == "idd or autonue"

    def test_repr_names_folder_and_scores(self, run: Run) -> None:
        assert str(run.folder) in repr(run)
        assert f"L3 {run.miou(3):.4f}" in repr(run)

    def test_tables_are_those_on_disk(self, run: Run) -> None:
        for name in ("levels", "classes", "images", "cells", "image_classes"):
            table = getattr(run, name)
            assert table.num_rows == sum(pq.read_metadata(path).num_rows for path in files_of(run, name))


class TestSql:
    @pytest.mark.parametrize("name", schema.tables_of("semantic").by_name)
    def test_every_table_is_a_view_with_its_columns(self, run: Run, name: str) -> None:
        answer = run.sql(f"SELECT * FROM {name}")
        assert answer.column_names == schema.tables_of("semantic").by_name[name].names
        assert answer.num_rows == sum(pq.read_metadata(path).num_rows for path in files_of(run, name))

    def test_tables_join(self, run: Run) -> None:
        answer = run.sql(
            "SELECT drive, class_name, sum(ic.tp) AS tp FROM image_classes ic JOIN images USING (image_id) "
            "JOIN classes c ON c.level = ic.level AND c.class_id = ic.class_id AND protocol = 'idd' "
            "WHERE ic.level = 1 GROUP BY ALL"
        )
        assert set(answer["drive"].to_pylist()) == {"a", "b"}

    @pytest.mark.parametrize("query", ["SELECT", "SELECT x FROM classes", "SELECT * FROM nothing", "no"])
    def test_wrong_query_is_told_in_duckdbs_words(self, run: Run, query: str) -> None:
        with pytest.raises(errors.OptionError, match="Error") as caught:
            run.sql(query)
        assert caught.value.exit_code == 2

    def test_empty_query_is_an_error(self, run: Run) -> None:
        with pytest.raises(errors.OptionError, match="no rows"):
            run.sql("")

    @pytest.mark.parametrize("name", ["it's [1] good*", "lr=0.1", "level=9", "100% ü?"])
    def test_name_of_the_folder_means_nothing_to_sql(
        self, split: TinySplit, tmp_path: Path, name: str
    ) -> None:
        run = score(split, tmp_path / name)
        for table, expected in schema.tables_of("semantic").by_name.items():
            answer = run.sql(f"SELECT * FROM {table}")
            assert answer.column_names == expected.names
            assert run.table(table).column_names == expected.names
        assert run.sql("SELECT DISTINCT level FROM image_classes ORDER BY level")["level"].to_pylist() == [
            1,
            2,
            3,
        ]

    @pytest.mark.parametrize("name", ["images", "levels"])
    def test_lost_table_is_a_corrupt_run(self, split: TinySplit, tmp_path: Path, name: str) -> None:
        run = score(split, tmp_path / "run")
        for path in files_of(run, name):
            path.unlink()
        with pytest.raises(errors.CorruptRun):
            run.sql(f"SELECT * FROM {name}")

    @pytest.mark.parametrize("name", ["cells", "levels"])
    def test_truncated_table_is_a_corrupt_run(self, split: TinySplit, tmp_path: Path, name: str) -> None:
        run = score(split, tmp_path / "run")
        path = files_of(run, name)[0]
        path.write_bytes(path.read_bytes()[:40])
        with pytest.raises(errors.CorruptRun) as caught:
            getattr(run, name)
        assert name in str(caught.value.file)

    def test_lost_part_is_not_scored_in_silence(self, split: TinySplit, tmp_path: Path) -> None:
        run = score(split, tmp_path / "run", shard_size=2)
        files_of(run, "images")[1].unlink()
        with pytest.raises(errors.CorruptRun):
            len(gpu_eval.open_run(run.folder).images)


class TestFacts:
    def test_run_json_says_what_was_scored_and_how(self, scored: tuple[TinySplit, Run], run: Run) -> None:
        split, _ = scored
        facts = json.loads((run.folder / "run.json").read_text())
        assert facts == run.facts
        assert facts["complete"] is True
        assert facts["format_version"] == schema.FORMAT_VERSION
        assert (facts["gts"], facts["preds"]) == (str(split.gts), str(split.preds))
        assert facts["on_error"] == "skip"
        assert (facts["images"], facts["images_scored"], facts["images_failed"]) == (6, 5, 1)
        assert facts["decides"]["version"] == gpu_eval.__version__
        assert facts["decides"]["resolution"] == "native"
        assert facts["decides"]["gt_encoding"] == facts["decides"]["pred_encoding"] == "level3"
        assert facts["engine"]["name"] == "cpu"
        assert facts["engine"]["why"]
        assert facts["decoders"] == {"simd": 5, "cuda": 0, "pillow": 0}
        assert len(facts["fingerprint"]) == 64
        assert facts["seconds"]["scoring"] > 0
        (problem,) = facts["problems"]
        assert problem["kind"] == "MissingPrediction"
        assert problem["file"] == str(split.preds / "b/frame0005_gtFine_labellevel3Ids.png")

    def test_run_json_is_strict_json(self, run: Run) -> None:
        def refuse(word: str) -> None:
            raise AssertionError(word)

        json.loads((run.folder / "run.json").read_text(), parse_constant=refuse)

    def test_label_space_comes_back_from_run_json(self, run: Run) -> None:
        labels = gpu_eval.load_labels("idd")
        assert run.labels.levels == labels.levels
        assert run.labels.protocols == labels.protocols
        assert run.labels.colours == labels.colours
        assert run.facts["labels"]["digest"] == labels.digest()

    def test_run_of_a_later_version_is_refused(self, split: TinySplit, tmp_path: Path) -> None:
        run = score(split, tmp_path / "run")
        path = run.folder / "run.json"
        path.write_text(json.dumps({**run.facts, "format_version": 99}))
        with pytest.raises(errors.CorruptRun, match="format 99"):
            gpu_eval.open_run(run.folder)

    def test_manifest_lists_the_split_in_order(self, scored: tuple[TinySplit, Run], run: Run) -> None:
        manifest = pq.read_table(run.folder / "manifest.parquet").to_pylist()
        assert [row["gt_name"] for row in manifest[:5]] == scored[0].names
        assert manifest[5]["pred_name"] is None
        assert manifest[0]["gt_size"] == (scored[0].gts / scored[0].names[0]).stat().st_size

    def test_mean_of_nothing_is_nan(self, tmp_path: Path) -> None:
        from PIL import Image

        for side in ("gt", "pred"):
            (tmp_path / side).mkdir()
            Image.fromarray(np.full((4, 4), 255, np.uint8)).save(tmp_path / side / "x.png")
        run = gpu_eval.score(tmp_path / "gt", tmp_path / "pred", out=tmp_path / "run", labels=3)
        assert math.isnan(run.miou())
        assert run.levels["classes_in_mean"].to_pylist() == [0]
