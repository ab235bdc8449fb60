"""Runs unmodified CUDA kernels on the CPU, so that their logic is tested where there is no GPU.

A `.cu` text is compiled by g++ against `device.h`; `runtime.cpp` runs each CUDA thread as a fiber. Loaded
modules are called like `cupy.RawModule`, with NumPy arrays and NumPy scalars.

- `targets`: the places a kernel suite runs in: the host in three schedules, and a device.
- `build`: from `.cu` text to a loaded module, with a cache.
- `sanitized`: a function of a test file run under ASan + UBSan, or under TSan, in a process of its own.
"""
