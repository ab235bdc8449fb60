"""How the command line looks: tables, notes, errors and progress, through rich.

Only `cli` uses this station; it holds the printing that `cli` would otherwise be full of.
"""

from gpu_eval.terminal.comparison import show_board, show_comparisons
from gpu_eval.terminal.console import say, show_error, show_problems, show_table
from gpu_eval.terminal.instances import show_instance_notes, show_instance_run
from gpu_eval.terminal.machines import show_engines, show_views, show_workers
from gpu_eval.terminal.progress import ProgressLine
from gpu_eval.terminal.semantic import show_notes, show_run

__all__ = [
    "ProgressLine",
    "say",
    "show_board",
    "show_comparisons",
    "show_engines",
    "show_error",
    "show_instance_notes",
    "show_instance_run",
    "show_notes",
    "show_problems",
    "show_run",
    "show_table",
    "show_views",
    "show_workers",
]
