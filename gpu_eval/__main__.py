"""`python -m gpu_eval` is `gpu-eval`."""

from gpu_eval.cli.commands import main

main(prog_name="gpu-eval")
