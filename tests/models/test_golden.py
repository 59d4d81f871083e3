"""The published figures (float64, 1e-9), on every backend."""

import pytest
from golden import CASES, check

LONG = (
    ("vgg_tet_only", "torch"),
    ("vgg_plain", "torch"),
    ("vgg_tet_only", "numba"),
    ("vgg_plain", "numba"),
    ("vgg_full", "numba"),
    ("vgg_full", "torch"),
    ("resnet18_full", "torch"),
)

# A case of the VGG takes 12 s: every day has those of the smaller networks, and test_against_oracle has all on each
# backend.
RUNS = [
    pytest.param(name, backend, marks=pytest.mark.long if (name, backend) in LONG else ())
    for name in CASES
    for backend in ("torch", "numba")
]


@pytest.mark.parametrize(("name", "backend"), RUNS)
def test_published_figures(name, backend):
    check(name, backend)
