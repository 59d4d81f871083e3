"""A few crossings of verbs and faults in this process every day; `make chaos` takes random ones in processes."""

import pytest
from crossings import INLINE, Crossing, Ground
from program import Inline

CASES = [
    ("verify", "flipped"),
    ("diff", "flipped"),
    ("convert", "full disk"),
    ("pull-http", "lying"),
    ("pull-http", "failing"),
    ("push", "full disk"),
    ("inspect", "homeless"),
]


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    work = tmp_path_factory.mktemp("crossings")
    ground = Ground(work / "ground", Inline())
    ground.prepare(work, sorted({name for name, _ in CASES}))
    return ground


@pytest.mark.parametrize(("name", "fault"), CASES)
def test_nothing_is_silent_or_different(ground, tmp_path, name, fault):
    assert fault in INLINE
    crossing = Crossing(ground, tmp_path, 0, name, fault, seed=0)
    assert crossing.run() == [], crossing.notes
