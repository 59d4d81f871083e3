"""Shard sets in other libraries' manner."""
