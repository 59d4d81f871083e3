"""The verbs of the command line that need no raw data: runs, studies of many runs, and the shelves of TOML files."""
