"""A corrected copy: what is certain is mended, and the copy scores as the command at the end says."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gpu_eval
from gpu_eval.doctor.doubt import Doubt
from gpu_eval.errors import OptionError
from gpu_eval.tasks.semantic import SemanticTask
from tests.support.check_files import RAW_ID, SUBMISSION, Map, coloured, rewrite, three_channels
from tests.support.commands import gpu_eval_command
from tests.support.semantic_split import SUFFIX, TinySplit


@dataclass(frozen=True)
class Files:
    """What lies below a folder, to see that nothing there was touched."""

    contents: dict[str, bytes]

    @classmethod
    def of(cls, folder: Path) -> Files:
        return cls(
            {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
        )


def score_of(command: str, tmp_path: Path) -> np.ndarray:
    """The confusion matrix that a command line of the tool leads to."""
    words = shlex.split(command)
    assert words[0] == "gpu-eval"
    words[words.index("RUN")] = str(tmp_path / "run")
    result = gpu_eval_command(*words[1:], "--res", "native", "--overwrite")
    assert result.exit_code == 0, result.output
    return gpu_eval.open_run(tmp_path / "run", "semantic").confusion()


def fix(split: TinySplit, tmp_path: Path, **options: object) -> gpu_eval.Examination:
    before = Files.of(split.preds)
    found = gpu_eval.check(split.preds, split.gts, fix=tmp_path / "fixed", **options)  # type: ignore[arg-type]
    assert Files.of(split.preds) == before
    assert found.fixed is not None
    return found


@pytest.mark.parametrize(
    ("change", "options", "done"),
    [
        (three_channels, {}, "was a grey map saved with three equal channels"),
        (coloured, {}, "was in `colour`"),
        (lambda v: v.astype(np.uint16), {}, "was 16-bit grey"),
        (lambda v: np.stack([v] * 3 + [np.full_like(v, 255)], 2), {}, "was a grey map saved with three"),
        (SUBMISSION, {"pred_encoding": "submission"}, "was in `submission`"),
        (RAW_ID, {"pred_encoding": "id"}, "was in `id`"),
        (coloured, {"pred_encoding": "colour"}, "was in `colour`"),
        (lambda v: v + np.uint8(1), {"pred_encoding": "level3+1"}, "was in `level3+1`"),
        (lambda v: RAW_ID(v) - np.uint8(1), {"pred_encoding": "id-1"}, "was in `id-1`"),
        (lambda v: three_channels(SUBMISSION(v)), {"pred_encoding": "submission"}, "was in `submission`"),
    ],
)
def test_a_mode_or_an_encoding_is_mended(
    split: TinySplit, tmp_path: Path, change: Callable[[Map], Map], options: dict[str, str], done: str
) -> None:
    rewrite(split.preds, change)
    found = fix(split, tmp_path, **options)
    assert found.fixed is not None
    assert any(what.startswith(done) and count == 6 for what, count in found.fixed["done"].items())
    wanted = split
    if change is coloured:  # which draws class 21 as 20
        maps = {name: (gt, np.where(pred == 21, 20, pred)) for name, (gt, pred) in split.maps.items()}
        wanted = TinySplit(split.gts, split.preds, maps)
    for name, (_, pred) in wanted.maps.items():
        with Image.open(tmp_path / "fixed" / name) as image:
            assert image.mode == "L"
            assert np.array_equal(np.asarray(image), pred)
    assert np.array_equal(score_of(found.fixed["score"], tmp_path), wanted.total())


def test_a_rendering_is_mended_without_ground_truth(split: TinySplit, tmp_path: Path) -> None:
    rewrite(split.preds, coloured)
    found = gpu_eval.check(split.preds, fix=tmp_path / "fixed")
    assert found.fixed is not None
    assert found.fixed["done"] == {"was a colour rendering in the table's colours": 6}
    for name, (_, pred) in split.maps.items():
        fixed = np.asarray(Image.open(tmp_path / "fixed" / name))
        assert np.array_equal(fixed, np.where(pred == 21, 20, pred))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_become_their_true_values(split: TinySplit, tmp_path: Path, bits: int) -> None:
    from tests.support.png_builder import build_png

    wanted = {}
    for name, (_, pred) in split.maps.items():
        wanted[name] = pred % 2**bits
        (split.preds / name).write_bytes(build_png(wanted[name], bit_depth=bits))
    found = fix(split, tmp_path)
    assert found.fixed is not None
    assert found.fixed["done"] == {"was grey of less than 8 bits": 6}
    for name, values in wanted.items():
        assert np.array_equal(np.asarray(Image.open(tmp_path / "fixed" / name)), values)


def test_what_cannot_be_mended_is_copied_and_told(split: TinySplit, tmp_path: Path) -> None:
    first, second, third, *_ = split.names
    (split.preds / first).write_bytes((split.preds / first).read_bytes()[:40])
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(split.preds / second)
    Image.fromarray(np.full((40, 64), 300, np.uint16)).save(split.preds / third)
    (split.preds / "README").write_text("of mine")
    found = fix(split, tmp_path)
    assert Files.of(tmp_path / "fixed") == Files.of(split.preds)
    assert found.fixed is not None
    assert (found.fixed["not_fixed"], found.fixed["unchanged"], found.fixed["files"]) == (3, 7, 7)
    assert [text.split(":")[0] for text in found.fixed["first_not_fixed"]] == [first, second, third]


def test_a_map_outside_the_encoding_is_not_rewritten(split: TinySplit, tmp_path: Path) -> None:
    rewrite(split.preds, SUBMISSION)
    name = split.names[2]
    Image.fromarray(np.full((40, 64), 99, np.uint8)).save(split.preds / name)
    found = fix(split, tmp_path, pred_encoding="submission")
    assert found.fixed is not None
    (told,) = found.fixed["first_not_fixed"]
    assert "values that `submission` does not have: 99" in told
    assert (tmp_path / "fixed" / name).read_bytes() == (split.preds / name).read_bytes()


def test_an_encoding_that_is_only_doubted_without_ground_truth_is_not_rewritten(
    split: TinySplit, tmp_path: Path
) -> None:
    rewrite(split.preds, SUBMISSION)
    found = gpu_eval.check(split.preds, fix=tmp_path / "fixed")
    (doubt,) = found.doubts
    assert not doubt.certain
    assert Files.of(tmp_path / "fixed") == Files.of(split.preds)


def test_the_command_that_a_doubt_advises_leads_to_the_score(split: TinySplit, tmp_path: Path) -> None:
    rewrite(split.preds, SUBMISSION)
    found = gpu_eval.check(split.preds)
    command = found.command(found.doubts[0])
    assert command is not None
    words = shlex.split(command)
    result = gpu_eval_command(*words[1:])
    assert result.exit_code == 0, result.output
    (advised,) = [line for line in result.output.splitlines() if line.startswith("score it: ")]
    line = advised.removeprefix("score it: ").replace("GTS", str(split.gts))
    assert np.array_equal(score_of(line, tmp_path), split.total())


def test_the_folder_that_is_advised_is_free(split: TinySplit, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite(split.preds, three_channels)
    split.preds.with_name("pred-fixed").mkdir()
    monkeypatch.chdir(split.preds)
    command = gpu_eval.check(".").problems[0].command
    assert command == f"gpu-eval check . --fix {split.preds}-fixed-2"
    gpu_eval_command(*shlex.split(command)[1:])
    assert gpu_eval.check(f"{split.preds}-fixed-2").ok


class TestNames:
    @pytest.mark.parametrize("ending", [SUFFIX, "_pred.png", ".png"])
    @pytest.mark.parametrize("how", ["gts", "names"])
    def test_flat_files_go_to_their_drives(
        self, split: TinySplit, tmp_path: Path, ending: str, how: str
    ) -> None:
        for name in split.names:
            base = name.rpartition("/")[2].removesuffix(SUFFIX)
            (split.preds / name).rename(split.preds / f"{base}{ending}")
        for folder in "ab":
            (split.preds / folder).rmdir()
        if how == "gts":
            found = gpu_eval.check(split.preds, split.gts, fix=tmp_path / "fixed")
        else:
            (tmp_path / "names").write_text("\n".join(name.removesuffix(SUFFIX) for name in split.names))
            found = gpu_eval.check(split.preds, names=tmp_path / "names", fix=tmp_path / "fixed")
        assert found.fixed is not None
        assert found.fixed["done"] == {"renamed": 6}
        assert sorted(Files.of(tmp_path / "fixed").contents) == sorted(split.names)
        command = found.fixed["score"].replace("GTS", str(split.gts))
        assert np.array_equal(score_of(command, tmp_path), split.total())

    def test_case_is_mended(self, split: TinySplit, tmp_path: Path) -> None:
        (split.preds / split.names[0]).rename(split.preds / split.names[0].replace("frame", "Frame"))
        found = fix(split, tmp_path)
        assert any(kind.command is not None for kind in found.problems)
        assert found.fixed is not None
        assert found.fixed["done"] == {"renamed": 1}
        assert np.array_equal(score_of(found.fixed["score"], tmp_path), split.total())

    def test_a_base_name_of_two_drives_stays(self, split: TinySplit, tmp_path: Path) -> None:
        for side in (split.gts, split.preds):
            for folder in "ab":
                for number, path in enumerate(sorted((side / folder).iterdir())):
                    path.rename(path.with_name(f"{number}{SUFFIX}"))
        lost = split.preds / "a" / f"0{SUFFIX}"
        lost.rename(split.preds / f"0{SUFFIX}")
        found = fix(split, tmp_path)
        assert found.fixed is not None
        assert found.fixed["done"] == {}
        assert (tmp_path / "fixed" / f"0{SUFFIX}").is_file()


class TestDoubtsOfTheTask:
    """What the task finds with ground truth is carried out."""

    @pytest.fixture
    def doubted(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
        def say(mend: dict[str, str]) -> None:
            doubt = Doubt("it", "a mix-up", "figures", "mend it", mend=mend)
            monkeypatch.setattr(SemanticTask, "examine", lambda *_: [doubt])

        return say

    def test_an_encoding(
        self, split: TinySplit, tmp_path: Path, doubted: Callable[[dict[str, str]], None]
    ) -> None:
        rewrite(split.preds, SUBMISSION)
        doubted({"pred_encoding": "submission"})
        found = fix(split, tmp_path)
        assert found.command(found.doubts[0]) == (
            f"gpu-eval score {split.gts} {split.preds} -o RUN --pred-encoding submission"
        )
        assert found.fixed is not None
        assert np.array_equal(score_of(found.fixed["score"], tmp_path), split.total())

    def test_padding(
        self, split: TinySplit, tmp_path: Path, doubted: Callable[[dict[str, str]], None]
    ) -> None:
        rewrite(split.preds, lambda values: np.pad(values, ((2, 6), (0, 3)), constant_values=7))
        doubted({"pred_region": "67x48:2,0,40,64"})
        found = fix(split, tmp_path)
        assert found.command(found.doubts[0]) == (
            f"gpu-eval check {split.preds} --gts {split.gts} --fix {split.preds}-fixed"
        )
        assert found.fixed is not None
        assert found.fixed["done"] == {"was padded": 6}
        assert np.array_equal(score_of(found.fixed["score"], tmp_path), split.total())


class TestTarget:
    def test_a_folder_with_something_in_it_is_refused(self, split: TinySplit, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        (tmp_path / "there" / "x").write_text("mine")
        with pytest.raises(OptionError, match="something at the place"):
            gpu_eval.check(split.preds, fix=tmp_path / "there")
        with pytest.raises(OptionError, match="something at the place"):
            gpu_eval.check(split.preds, fix=tmp_path / "there" / "x")
        assert (tmp_path / "there" / "x").read_text() == "mine"

    def test_a_folder_within_the_predictions_is_refused(self, split: TinySplit) -> None:
        with pytest.raises(OptionError, match="lie in one another"):
            gpu_eval.check(split.preds, fix=split.preds / "fixed")

    def test_a_link_into_the_predictions_is_refused(self, split: TinySplit, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(split.preds)
        with pytest.raises(OptionError, match="lie in one another"):
            gpu_eval.check(split.preds, fix=tmp_path / "link" / "fixed")

    def test_an_empty_folder_is_taken(self, split: TinySplit, tmp_path: Path) -> None:
        (tmp_path / "fixed").mkdir()
        fix(split, tmp_path)

    def test_a_url_is_refused(self, split: TinySplit) -> None:
        with pytest.raises(OptionError, match="a folder on a disk"):
            gpu_eval.check(split.preds, fix="s3://bucket/fixed")
