"""What a finished run can do: scores, comparison, ranking."""
