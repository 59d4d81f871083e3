import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikebridge.train.config.recipes import load_recipe
from spikebridge.train.config.settings import SLIDINGS
from spikebridge.train.schedules import learning_rate, replacement_probability, scheduled_coefficient

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "lr_schedules.json").read_text())
RATE_SETTINGS = ("lr", "schedule", "warmup_epochs", "warmup_lr", "lr_min", "milestones", "lr_decay")


@pytest.mark.parametrize("ending", ["", "-legacy"])
@pytest.mark.parametrize("title", sorted(GOLDEN))
def test_the_recipes_learning_rates_are_the_published_curves(title, ending):
    expected = GOLDEN[title]
    settings = load_recipe(title.split()[0] + ending).train
    values = {name: getattr(settings, name) for name in RATE_SETTINGS}
    rates = [learning_rate(epoch, settings.epochs, **values) for epoch in range(settings.epochs)]
    assert rates == pytest.approx(expected, rel=1e-12, abs=0)


def test_constant_and_no_warmup():
    assert learning_rate(0, 10, lr=0.1, schedule="constant") == 0.1
    assert learning_rate(0, 10, lr=0.1) == pytest.approx(0.1)


def test_learning_rate_refuses_nonsense():
    with pytest.raises(ValueError, match=r"outside 0\.\.9"):
        learning_rate(10, 10, lr=0.1)
    with pytest.raises(ValueError, match="unknown schedule"):
        learning_rate(0, 10, lr=0.1, schedule="cosin")


@given(st.integers(1, 500), st.floats(0.1, 8), st.floats(0.01, 1))
@pytest.mark.parametrize("sliding", [name for name in SLIDINGS if name != "off"])
def test_replacement_rises_from_zero_to_one(sliding, steps, power, switch):
    values = [replacement_probability(n, steps, sliding=sliding, power=power, switch=switch) for n in range(steps + 1)]
    assert values[0] == 0
    assert values[-1] == 1
    assert values == sorted(values)


def test_courses_of_replacement_at_a_quarter_and_the_middle():
    rates = {name: [replacement_probability(n, 8, sliding=name) for n in (2, 4)] for name in SLIDINGS}
    assert rates["linear"] == [0.25, 0.5]
    assert rates["cosine"] == pytest.approx([(1 - 0.5**0.5) / 2, 0.5])
    assert rates["step"] == [0, 1]
    assert replacement_probability(4, 8, sliding="step", switch=0.6) == 0
    assert rates["off"] == [0, 0]


def test_scheduled_coefficient_is_linear_over_the_epochs():
    assert [scheduled_coefficient(e, 5, start=1.0, end=-3.0) for e in range(5)] == [1, 0, -1, -2, -3]
    assert scheduled_coefficient(0, 1, start=2.0, end=5.0) == 2


def test_replacement_is_the_published_cube():
    assert replacement_probability(150, 300) == 0.125
    assert replacement_probability(299, 300, sliding="off") == 0
    with pytest.raises(ValueError, match="unknown sliding"):
        replacement_probability(0, 300, sliding="on")
    with pytest.raises(ValueError, match="at least one step"):
        replacement_probability(0, 0)
