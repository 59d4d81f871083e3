"""The published figures (float64, 1e-9), on every backend."""

import pytest
from golden import CASES, check

# A case of the large networks takes 10 s: every day has the SCNN's, and test_against_oracle has all on each backend.
RUNS = [
    pytest.param(name, backend, marks=() if name.startswith("scnn") else pytest.mark.long)
    for name in CASES
    for backend in ("torch", "numba")
]


@pytest.mark.parametrize(("name", "backend"), RUNS)
def test_published_figures(name, backend):
    check(name, backend)
