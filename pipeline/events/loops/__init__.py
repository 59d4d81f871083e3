"""Loops over the events of a recording, compiled but for one; imported late, because numba takes 0.3 s."""
