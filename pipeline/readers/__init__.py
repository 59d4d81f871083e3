"""One reader per data-set pair, in a file of its own; every module here registers itself with `pipeline.pairs`."""
