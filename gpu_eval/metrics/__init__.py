"""Scores, and how sure they are, as pure functions of small integers."""
