"""The published figures (float64, 1e-9), on every backend."""

import pytest
from golden import CASES, check

LONG = (
    ("vgg_tet_only", "torch"),
    ("vgg_plain", "torch"),
    ("vgg_tet_only", "numba"),
    ("vgg_plain", "numba"),
    ("vgg_full", "numba"),
    ("resnet18_full", "torch"),
)

# VGG's cases differ in their loss, which knows no backend: one of them is enough for every day, and a backend for each
# network; test_against_oracle has every network on every backend.
RUNS = [
    pytest.param(name, backend, marks=pytest.mark.long if (name, backend) in LONG else ())
    for name in CASES
    for backend in ("torch", "numba")
]


@pytest.mark.parametrize(("name", "backend"), RUNS)
def test_published_figures(name, backend):
    check(name, backend)
