"""Runs: a shard's work and the drive of a whole run, where engines meet the report."""
