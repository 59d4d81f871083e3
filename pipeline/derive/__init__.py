"""Shard sets made of shard sets: several together, or a part of one."""
