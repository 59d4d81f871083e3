"""Shards to batches: order, partners, augmentation, mixing, simulation while training."""
