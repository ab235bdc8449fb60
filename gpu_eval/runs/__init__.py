"""The drive of a run: from options to a finished folder, whoever scores its shards."""
