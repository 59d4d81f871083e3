"""Plots of a report, drawn by matplotlib."""
