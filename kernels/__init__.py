"""CUDA sources, read with `importlib.resources.files("gpu_eval.kernels")`."""
