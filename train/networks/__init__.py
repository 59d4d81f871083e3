"""Networks for a shard set: built, loaded, initialised, and the precision they compute in."""
