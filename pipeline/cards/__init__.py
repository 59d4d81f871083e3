"""What a shard set says of itself to people and to search engines, rendered from its manifest."""
