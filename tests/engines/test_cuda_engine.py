"""The CUDA engine on the host executor, and on a device where there is one: the contract of all engines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gpu_eval.engines.cuda.engine import CudaEngine
from gpu_eval.engines.engine import Engine
from gpu_eval.engines.semantic import make_job
from gpu_eval.labels import load_labels
from tests.engines import instance_bad_input, instance_contract, instance_golden, semantic_contract
from tests.engines.semantic_contract import score
from tests.engines.test_colours import as_palette, grey, maps
from tests.support.host_cuda.targets import TARGETS, open_target
from tests.support.host_cupy import HostCupy, device_of


@pytest.fixture(scope="module", params=[TARGETS[0], TARGETS[-1]])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    open_target(request.param)  # skips where it does not exist
    if request.param == "device":
        made = CudaEngine()
    else:
        schedule = request.param.removeprefix("host-")
        made = CudaEngine(threads=2, device=device_of(HostCupy(schedule=schedule)))
    yield made
    made.close()


@pytest.fixture(scope="module")
def decoder() -> str:
    return "cuda"


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


def test_colours_are_left_to_the_cpu_engine(engine: Engine) -> None:
    space = load_labels("cityscapes")
    ids = maps(space, {space.names.index("pole")})
    for sides in (("colour", "train"), ("train", "colour")):
        files = [as_palette(space, ids) if side == "colour" else grey(ids) for side in sides]
        job = make_job(space, gt_encoding=sides[0], pred_encoding=sides[1])
        (result,) = score(engine, [(files[0], files[1])], job)
        assert result.decoder == "pillow"
        assert result.confusion is not None
        assert result.confusion.trace() == ids.size
