"""Verbs of the command line about raw data and shard sets, one file each."""
