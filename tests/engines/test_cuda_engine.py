"""The CUDA engine on the host executor, and on a device where there is one: the contract of all engines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gpu_eval.engines.cuda.engine import CudaEngine
from gpu_eval.engines.engine import Engine
from tests.engines import instance_bad_input, instance_contract, instance_golden, semantic_contract
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
