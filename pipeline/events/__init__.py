"""Events of one recording: columns, checks, filters, time bins, and frames made from them."""
