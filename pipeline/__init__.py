"""From raw recordings and images to shard sets: numpy and numba, no torch."""
