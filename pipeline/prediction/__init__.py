"""New recordings, made ready for a network that was trained on a shard set."""
