"""The CPU engine, with one thread and with several: the contract of all engines, and what is its own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from gpu_eval.engines.cpu import instance
from gpu_eval.engines.cpu.arrays import count_arrays
from gpu_eval.engines.cpu.engine import CpuEngine
from gpu_eval.engines.engine import Engine
from gpu_eval.synthetic import street_gt, street_prediction
from tests.engines import instance_bad_input, instance_contract, instance_golden, semantic_contract
from tests.engines.instance_contract import VALUES, assert_counts, blobs, count
from tests.engines.semantic_contract import NATIVE, pillow_png, score
from tests.support.memory import MemorySource
from tests.support.png_builder import build_png


@pytest.fixture(scope="module", params=["cpu", "cpu-threads"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    made = CpuEngine(threads=1 if request.param == "cpu" else 3)
    yield made
    made.close()


@pytest.fixture(scope="module")
def decoder() -> str:
    return "simd"


class TestSemanticParity(semantic_contract.SemanticParity):
    pass


class TestSemanticBadInput(semantic_contract.SemanticBadInput):
    pass


class TestSemanticGolden(semantic_contract.SemanticGolden):
    pass


class TestInstanceParity(instance_contract.InstanceParity):
    pass


class TestInstanceBadInput(instance_bad_input.InstanceBadInput):
    pass


class TestInstanceGolden(instance_golden.InstanceGolden):
    pass


def test_raw_maps_in_memory_count_like_files(engine: Engine) -> None:
    gt = street_gt(4, 135, 241)
    pred = street_prediction(gt, 4)
    joint = count_arrays(gt, pred, NATIVE)
    (result,) = score(engine, [(pillow_png(gt), pillow_png(pred))], NATIVE)
    assert np.array_equal(joint[:27, :27], result.confusion)
    assert not joint[27].any()


def test_raw_maps_in_memory_may_skip_and_may_be_empty() -> None:
    base = np.random.default_rng(2).integers(0, 30, (40, 130), np.uint8)
    gt, pred = base[:, ::2], base[:, 1::2]
    straight = count_arrays(np.ascontiguousarray(gt), np.ascontiguousarray(pred), NATIVE)
    assert np.array_equal(count_arrays(gt, pred, NATIVE), straight)
    assert straight.sum() == gt.size
    assert not count_arrays(gt[:0], pred[:0], NATIVE).any()


def test_masks_are_read_in_turns_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    gt = blobs(rng, 20, 30, VALUES)
    masks = [blobs(rng, 20, 30, [0, 255]) for _ in range(20)]
    files: list[bytes] = [build_png(mask) for mask in masks]
    largest = max(len(file) for file in files)
    monkeypatch.setattr(instance, "TURN_BYTES", 3 * largest)
    turns = []
    read_into = MemorySource.read_into

    def counting(self, entries, buffer):
        turns.append(sum(entry.size for entry in entries))
        return read_into(self, entries, buffer)

    monkeypatch.setattr(MemorySource, "read_into", counting)
    with_turns = CpuEngine(threads=1)
    assert_counts(count(with_turns, pillow_png(gt), files), gt, masks)
    with_turns.close()
    assert len(turns) > 5
    assert max(turns) <= 3 * largest
