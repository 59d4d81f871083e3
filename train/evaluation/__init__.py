"""Scores of networks: accuracy, loss, firing rates, cost, recalibrated statistics."""
