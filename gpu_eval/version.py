"""The version of the package, which is part of a run's fingerprint."""

from importlib.metadata import version

__version__ = version("gpu-eval")
