"""Sections about one run, one file each."""
