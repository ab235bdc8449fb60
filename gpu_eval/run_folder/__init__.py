"""What lies on the disk: the tables of a run, shard by shard and of the whole."""
