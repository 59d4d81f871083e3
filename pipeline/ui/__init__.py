"""Terminal output, shell completion, and the look of HTML pages, plots and images."""
