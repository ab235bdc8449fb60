"""The CPU engine: libdeflate, Numba kernels, threads."""
