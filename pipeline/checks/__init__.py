"""Proofs about shard sets: whole, as the index says, free of leaks, and how two of them differ."""
