"""Where the kernels of a suite run: the host in three schedules, and a device."""

from __future__ import annotations

import pytest

from tests.support.host_cuda.targets import TARGETS, Target, open_target


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    return open_target(request.param)
