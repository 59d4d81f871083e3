"""Many runs, and what runs have learned: comparison, ablation, loss landscape."""
