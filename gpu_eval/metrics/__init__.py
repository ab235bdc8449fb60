"""Scores as pure functions of confusion matrices."""
