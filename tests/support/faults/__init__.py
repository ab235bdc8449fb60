"""What goes on the PYTHONPATH of processes that shall have accidents: see `sitecustomize` and `disk`."""

from pathlib import Path

FAULTS = str(Path(__file__).parent)
