"""With this folder on its path, a process takes the host executor for CuPy; see `tests.support.host_cupy`."""

import sys

from tests.support.host_cupy import HostCupy

sys.modules[__name__] = HostCupy()
