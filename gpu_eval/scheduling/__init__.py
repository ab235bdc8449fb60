"""Scheduling: a split is cut into shards, each scored by one task and committed as one Parquet part."""
