"""Writers of raw data sets as their authors publish them: random content in the true layout and format."""
