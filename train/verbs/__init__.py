"""Verbs of the command line about recipes, runs and studies, one file each."""
