import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.schedules import learning_rate, replacement_probability

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "lr_schedules.json").read_text())
PUBLISHED = {
    "ncaltech101": {"lr": 5e-3 * 120 / 1024, "warmup_epochs": 5},
    "cepdvs": {"lr": 5e-3 * 120 / 1024, "warmup_epochs": 5},
    "nomniglot": {"lr": 1.2 * 16 / 1024, "warmup_epochs": 5, "schedule": "step", "milestones": (40,)},
}


@pytest.mark.parametrize("title", sorted(GOLDEN))
def test_learning_rate_equals_the_published_curves(title):
    wanted = GOLDEN[title]
    settings = PUBLISHED[title.split()[0]]
    found = [learning_rate(epoch, len(wanted), **settings) for epoch in range(len(wanted))]
    assert found == pytest.approx(wanted, rel=1e-12, abs=0)


def test_constant_and_no_warmup():
    assert learning_rate(0, 10, lr=0.1, schedule="constant") == 0.1
    assert learning_rate(0, 10, lr=0.1) == pytest.approx(0.1)


def test_learning_rate_refuses_nonsense():
    with pytest.raises(ValueError, match=r"outside 0\.\.9"):
        learning_rate(10, 10, lr=0.1)
    with pytest.raises(ValueError, match="unknown schedule"):
        learning_rate(0, 10, lr=0.1, schedule="cosin")


@given(st.integers(1, 500), st.floats(0.1, 8))
def test_replacement_rises_from_zero_to_at_most_one(steps, power):
    values = [replacement_probability(n, steps, power=power) for n in range(steps + 1)]
    assert values[0] == 0
    assert values[-1] == 1
    assert values == sorted(values)


def test_replacement_is_the_published_cube():
    assert replacement_probability(150, 300) == 0.125
    assert replacement_probability(299, 300, sliding="off") == 0
    with pytest.raises(ValueError, match="unknown sliding"):
        replacement_probability(0, 300, sliding="on")
    with pytest.raises(ValueError, match="at least one step"):
        replacement_probability(0, 0)
