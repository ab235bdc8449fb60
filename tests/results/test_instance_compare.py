"""Two instance runs compared by AP and AP50, through Python and through the command with its gate."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

import gpu_eval
from gpu_eval.errors import OptionError
from gpu_eval.metrics import student
from gpu_eval.metrics.matching import PROTOCOLS
from gpu_eval.results.instance_run import InstanceRun
from gpu_eval.results.semantic_run import Run
from tests.reference.instances import Image
from tests.support.commands import gpu_eval_command
from tests.support.instance_runs import random_images, repeated, write_instance_run


class TestCompare:
    def test_run_with_itself_differs_by_exactly_0_and_never_significantly(
        self, runs: list[InstanceRun]
    ) -> None:
        result = gpu_eval.compare(runs[0], runs[0].folder)
        assert (result.kind, result.intervals["units"]) == ("instance", "10 drives")
        assert [(row["protocol"], row["measure"]) for row in result.scores.to_pylist()] == [
            (protocol, measure) for protocol in PROTOCOLS for measure in ("ap", "ap50")
        ]
        classes = result.classes.to_pylist()
        assert len(classes) == 2 * 2 * len(runs[0].space.ids)
        defined = [row for row in classes if not np.isnan(row["ap_a"])]
        assert len(defined) == 2 * 2 * 3
        for row in [*result.scores.to_pylist(), *defined]:
            assert (row["difference"], row["low"], row["high"], row["p"]) == (0.0, 0.0, 0.0, 1.0)
        assert set(result.images["difference"].to_pylist()) == {0.0}

    def test_class_without_gt_has_no_difference(self, runs: list[InstanceRun]) -> None:
        rows = [row for row in gpu_eval.compare(*runs[:2]).classes.to_pylist() if row["class_name"] == "bus"]
        assert len(rows) == 4
        for row in rows:
            assert np.isnan([row[name] for name in ("ap_a", "ap_b", "difference", "low", "high", "p")]).all()

    def test_intervals_and_p_are_those_of_images_really_left_out(self, tmp_path: Path) -> None:
        sides = [random_images(16), random_images(16, found=0.15)]
        pair = [write_instance_run(tmp_path / name, side) for name, side in zip("ab", sides, strict=True)]
        result = gpu_eval.compare(*pair)
        assert result.intervals["units"] == "16 images"
        for protocol in PROTOCOLS:
            everything = [repeated(list(side.values()), range(16), range(16), protocol) for side in sides]
            without = [
                [
                    repeated(list(side.values()), range(16), [j for j in range(16) if j != i], protocol)
                    for i in range(16)
                ]
                for side in sides
            ]
            for row in result.scores.to_pylist():
                if row["protocol"] != protocol:
                    continue
                name = f"mean_{row['measure']}"
                full = [getattr(ap, name) for ap in everything]
                assert (row["ap_a"], row["ap_b"]) == pytest.approx(full, abs=1e-12)
                moves = np.array(
                    [
                        getattr(b, name) - full[1] - (getattr(a, name) - full[0])
                        for a, b in zip(*without, strict=True)
                    ]
                )
                error = np.sqrt(15 / 16 * np.square(moves - moves.mean()).sum())
                # How many standard errors wide it is, is for the degrees of freedom to say: 1 to 15.
                half = (row["high"] - row["low"]) / 2
                assert row["low"] + half == pytest.approx(row["difference"], abs=1e-12)
                assert student.quantile(0.05, np.array(15.0)) <= half / error * (1 + 1e-9)
                assert half / error <= student.quantile(0.05, np.array(1.0)) * (1 + 1e-9)
                assert row["difference"] == result.difference(protocol=protocol, measure=row["measure"])

    def test_swapping_the_runs_negates_everything_but_p(self, runs: list[InstanceRun]) -> None:
        forth = gpu_eval.compare(*runs[:2]).scores.to_pylist()
        back = gpu_eval.compare(*reversed(runs[:2])).scores.to_pylist()
        for one, other in zip(forth, back, strict=True):
            assert one["difference"] == -other["difference"] != 0
            assert (one["low"], one["high"]) == pytest.approx((-other["high"], -other["low"]), abs=1e-12)
            assert one["p"] == other["p"]

    def test_common_compares_what_both_have(self, runs: list[InstanceRun], tmp_path: Path) -> None:
        images: dict[str, Image | None] = {**random_images(40, drives=10, found=0.5)}
        keys = list(images)
        images[keys[6]] = None
        del images[keys[5]]
        result = gpu_eval.compare(runs[1], write_instance_run(tmp_path / "b", images), common=True)
        assert (result.image_count, result.left_out) == (38, 2)
        kept = [key for key in keys if key not in keys[5:7]]
        whole = [random_images(40, drives=10, found=share) for share in (0, 0.5)]
        sides = [{key: side[key] for key in kept} for side in whole]
        alone = gpu_eval.compare(*(write_instance_run(tmp_path / f"c{i}", s) for i, s in enumerate(sides)))
        # NaN equal to NaN
        assert repr(alone.scores.to_pylist()) == repr(result.scores.to_pylist())
        assert repr(alone.classes.to_pylist()) == repr(result.classes.to_pylist())
        assert repr(alone.images.to_pylist()) == repr(result.images.to_pylist())

    def test_image_whose_f1_moved_comes_first(self, tmp_path: Path) -> None:
        images = random_images(12, found=0.5)
        key = list(images)[7]
        changed = {**images, key: images[key]._replace(predictions=[])}
        result = gpu_eval.compare(
            *(write_instance_run(tmp_path / name, side) for name, side in (("a", images), ("b", changed)))
        )
        for protocol in PROTOCOLS:
            rows = [row for row in result.images.to_pylist() if row["protocol"] == protocol]
            assert rows[0]["key"] == key
            assert rows[0]["f1_b"] == 0 < rows[0]["f1_a"] == -rows[0]["difference"]
            assert {row["difference"] for row in rows[1:]} == {0.0}

    def test_f1_of_an_image_is_that_of_its_instances_at_one_half(self, runs: list[InstanceRun]) -> None:
        result = gpu_eval.compare(runs[0], runs[2])
        run = runs[2]
        keys = dict(zip(run.images["image_id"].to_pylist(), run.images["key"].to_pylist(), strict=True))
        for protocol in PROTOCOLS:
            counts = run.sql(
                f"SELECT image_id, count(*) FILTER (kind = 'pred' AND {protocol} = 'TP') AS tp, "
                f"count(*) FILTER ({protocol} IN ('FP', 'FN')) AS wrong FROM instances GROUP BY image_id"
            ).to_pylist()
            expected = {keys[r["image_id"]]: 2 * r["tp"] / (2 * r["tp"] + r["wrong"]) for r in counts}
            rows = [row for row in result.images.to_pylist() if row["protocol"] == protocol]
            assert {row["key"]: row["f1_b"] for row in rows} == expected

    def test_level_or_unknown_measure_is_refused(self, runs: list[InstanceRun], semantic: Run) -> None:
        result = gpu_eval.compare(*runs[:2])
        for options in ({"level": 3}, {"measure": "ap75"}, {"protocol": "idd"}):
            with pytest.raises(OptionError, match="no such measure and protocol"):
                result.difference(**options)
        with pytest.raises(OptionError, match="no such level and protocol"):
            gpu_eval.compare(semantic, semantic).difference(measure="ap")
        refused = gpu_eval_command("compare", runs[0].folder, runs[1].folder, "--level", 3)
        assert refused.exit_code == 2
        assert "no levels" in refused.stderr

    def test_single_image_is_compared_without_an_interval(self, tmp_path: Path) -> None:
        pair = [
            write_instance_run(tmp_path / str(i), random_images(1, seed=2, found=float(i))) for i in range(2)
        ]
        result = gpu_eval.compare(*pair)
        assert result.difference() > 0
        assert np.isnan(result.scores.to_pylist()[0]["low"])
        assert result.scores["reason"][0].as_py() == "1 image: no other to compare with"
        assert gpu_eval_command("compare", *(run.folder for run in pair)).exit_code == 0

    def test_repr_tells_the_result(self, runs: list[InstanceRun]) -> None:
        result = gpu_eval.compare(runs[0], runs[2])
        assert f"AP autonue {result.difference():+.4f}" in repr(result)
        assert "40 images" in repr(result)


class TestCommand:
    def test_gate_fails_with_3_only_where_ap_is_worse_by_more(self, made: dict[str, InstanceRun]) -> None:
        worse, better = made["worst"], made["best"]
        drop = better.ap() - worse.ap()
        for first, later, allowed, code in (
            (better, worse, drop / 2, 3),
            (better, worse, drop * 1.01, 0),
            (worse, better, 0, 0),
            (worse, worse, 0, 0),
        ):
            result = gpu_eval_command("compare", first.folder, later.folder, "--fail-if-worse", allowed)
            assert result.exit_code == code
            assert (f"{-drop:+.4f} AP against" in result.stderr) == (code == 3)

    def test_gate_asks_for_the_protocol_given(self, made: dict[str, InstanceRun]) -> None:
        worse, better = made["worst"], made["best"]
        drops = [better.ap(protocol) - worse.ap(protocol) for protocol in PROTOCOLS]
        assert drops[0] != drops[1]
        chosen = ["autonue", "cityscapes"][int(np.argmax(drops))]
        arguments = ("compare", better.folder, worse.folder, "--fail-if-worse", sum(drops) / 2)
        for protocol in PROTOCOLS:
            code = 3 if protocol == chosen else 0
            assert gpu_eval_command(*arguments, "--protocol", protocol).exit_code == code

    def test_json_and_csv_hold_the_same_numbers(self, runs: list[InstanceRun]) -> None:
        folders = [run.folder for run in runs[:2]]
        told = json.loads(gpu_eval_command("compare", *folders, "--format", "json").stdout)
        rows = list(
            csv.DictReader(io.StringIO(gpu_eval_command("compare", *folders, "--format", "csv").stdout))
        )
        expected = gpu_eval.compare(*runs[:2]).difference()
        assert told["scores"][0]["difference"] == float(rows[0]["difference"]) == expected
        assert (told["kind"], told["protocol"], told["image_count"]) == ("instance", "autonue", 40)
        assert {row["measure"] for row in told["classes"]} == {"ap", "ap50"}
        assert len(told["images"]) == 10
        for table in ("scores", "classes", "images"):
            assert {row["protocol"] for row in told[table]} == {"autonue"}

    def test_table_says_which_is_better(self, made: dict[str, InstanceRun]) -> None:
        shown = gpu_eval_command("compare", made["worst"].folder, made["best"].folder).stdout
        assert "average precision, protocol autonue" in shown
        assert "B better" in shown
        assert "B worse" not in shown
        assert "mIoU" not in shown
        assert "B worse" in gpu_eval_command("compare", made["best"].folder, made["worst"].folder).stdout
