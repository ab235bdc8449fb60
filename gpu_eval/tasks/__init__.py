"""What is scored: the work on a shard, one file a task."""
