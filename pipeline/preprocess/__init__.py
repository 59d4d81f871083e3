"""From raw data to a shard set: plan, tasks, the processes that run them, and the last step."""
