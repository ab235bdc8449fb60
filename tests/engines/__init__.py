import pytest

_CONTRACTS = ("semantic_contract", "instance_contract", "instance_bad_input", "instance_golden")
pytest.register_assert_rewrite(*(f"tests.engines.{name}" for name in _CONTRACTS))
