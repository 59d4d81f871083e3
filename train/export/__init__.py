"""Trained networks for other tools, and exported networks opened again."""
