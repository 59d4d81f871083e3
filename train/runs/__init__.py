"""The run folder: what it holds, checkpoints, and the state that they keep."""
