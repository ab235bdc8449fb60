"""Predictions examined before they are scored or uploaded, and a corrected copy of them."""
