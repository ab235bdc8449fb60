"""The command line: commands and their options, and how runs look on a terminal."""

from gpu_eval.cli.commands import main

__all__ = ["main"]
