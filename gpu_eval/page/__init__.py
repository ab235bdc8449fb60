"""Runs for eyes: the HTML report, its charts, and what a notebook shows."""
