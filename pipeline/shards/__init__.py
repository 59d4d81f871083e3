"""The shard set on disk: settings, manifest, containers, index, static images; written and read here."""
