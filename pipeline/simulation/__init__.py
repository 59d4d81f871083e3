"""Simulated recordings: a model of an event camera, and the raw data sets written with it."""
