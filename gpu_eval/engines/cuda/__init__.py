"""The CUDA engine: batches of files through the raw kernels of one device."""
