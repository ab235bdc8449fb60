"""With this folder on its path, a process takes the host executor for CuPy; see `tests.support.host_cupy`.

HOST_CUPY_FAILS is "NUMBER:FILE": the device fails at that launch and makes the file, unless it is there.
"""

import os
import sys
from pathlib import Path

from tests.support.host_cupy import HostCupy


def make() -> HostCupy:
    number, _, file = os.environ.get("HOST_CUPY_FAILS", "").partition(":")
    if not number or Path(file).exists():
        return HostCupy()
    return HostCupy(fails_at=int(number), on_failure=Path(file).touch)


sys.modules[__name__] = make()
