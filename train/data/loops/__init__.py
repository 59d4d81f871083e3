"""Compiled loops; imported late, because numba takes 0.3 s, and it may be absent beside a GPU."""
