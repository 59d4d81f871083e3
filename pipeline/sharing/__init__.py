"""Published shard sets: where they lie, how they get there, and how they are read from there."""
