"""The published figures (float64, 1e-9), on every backend."""

import pytest
from golden import CASES, check

LONG = (("vgg_tet_only", "torch"), ("vgg_plain", "torch"))

# VGG's cases differ in their loss, which knows no backend: one of them is enough on torch, for every day.
RUNS = [
    pytest.param(name, backend, marks=pytest.mark.long if (name, backend) in LONG else ())
    for name in CASES
    for backend in ("torch", "numba")
]


@pytest.mark.parametrize(("name", "backend"), RUNS)
def test_published_figures(name, backend):
    check(name, backend)
