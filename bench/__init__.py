"""Benchmarks of gpu-eval against its rivals; `python -m bench --help`. Needs `pip install '.[bench]'`."""
