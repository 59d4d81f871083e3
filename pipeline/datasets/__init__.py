"""Listings of data-set pairs joined by name, layouts of folders, and splits."""
