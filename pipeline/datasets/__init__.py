"""What all data-set pairs share: listings joined by name, layouts of folders, and splits."""
