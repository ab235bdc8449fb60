import pytest

pytest.register_assert_rewrite("tests.kernels.inflate_streams")
