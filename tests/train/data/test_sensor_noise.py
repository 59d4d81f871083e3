"""Noise of simulated recordings: how much, where, and in which runs."""

import pytest
import torch
from fake_shards import FakeShardSet, tiny_recipe

from spikebridge.train.config.recipes import dump_recipe
from spikebridge.train.data.batches import TrainingBatches
from spikebridge.train.data.simulation import HOT_EVENTS, SensorNoise, make_simulator
from spikebridge.train.errors import RecipeError


def noise_of(noise, n=400, *, first=0, gain=1.0, seed=0, side=8):
    counts = torch.zeros(5, n, 2, side, side)
    return noise.add(counts, gain=gain, seed=seed, epoch=1, draws=torch.arange(first, first + n)) - counts


def test_background_activity_is_everywhere_and_as_much_as_is_drawn():
    added = noise_of(SensorNoise(6.0, 0.0))
    assert torch.equal(added, added.round())
    assert added.min() == 0
    of_a_pixel = added.sum((0, 2)).mean((1, 2))  # [n], events in a recording
    assert of_a_pixel.mean() == pytest.approx(6 / 3, rel=0.1), "the mean of a square in [0, 1) is a third"
    assert of_a_pixel.max() > 5
    assert (of_a_pixel < 1).float().mean() == pytest.approx((1 / 6) ** 0.5, abs=0.1), "little noise is frequent"
    each = added.sum(1)  # [T,P,h,w]
    assert each.std() < 0.1 * each.mean(), "in every bin and polarity, and at every pixel"


def test_hot_pixels_are_few_and_fire_throughout():
    added = noise_of(SensorNoise(0.0, 0.1), side=16)
    events = added.sum((0, 2)).flatten(1)  # [n,h * w]
    assert (events > 0).float().mean() == pytest.approx(0.1 / 3, rel=0.1)
    assert HOT_EVENTS * 0.9 < events.max() <= HOT_EVENTS + 10, "each count is rounded up, at most"
    hot = added.permute(1, 3, 4, 0, 2).flatten(0, 2)[events.flatten() > 20]  # [m,T,P]
    assert (hot > 0).all()
    coarse = noise_of(SensorNoise(0.0, 0.1), side=16, gain=4.0).sum((0, 2))
    assert float(coarse.sum() / events.sum()) == pytest.approx(1, rel=0.2), "four times as many pixels, a quarter each"
    assert (coarse > 0).float().mean() > 0.1


def test_noise_is_a_function_of_the_draw_alone():
    noise = SensorNoise(3.0, 0.05)
    assert torch.equal(noise_of(noise)[:, 7:9], noise_of(noise, 2, first=7))
    assert not torch.equal(noise_of(noise), noise_of(noise, seed=1))
    drawn = torch.zeros(5, 2, 2, 8, 8)
    epochs = [noise.add(drawn, gain=1.0, seed=0, epoch=e, draws=torch.arange(2)) for e in (0, 1)]
    assert not torch.equal(*epochs)


def test_a_run_has_the_noise_that_its_recipe_asks_for():
    found = {}
    for background in (0.0, 4.0):
        settings = tiny_recipe(method="simulate_only", simulated_background=background).train
        data = TrainingBatches(FakeShardSet("s"), settings, device=torch.device("cpu"), needs_static=True)
        data.manifest = {"settings": {"reduction": "sum"}}
        simulator = make_simulator(data, settings)
        images = torch.zeros(3, 1, 8, 8)
        found[background] = simulator.frames(images, epoch=0, draws=torch.arange(3)), simulator.noise
    assert found[0.0][1] is None
    assert found[4.0][0].sum() > found[0.0][0].sum()
    assert (found[4.0][0] >= found[0.0][0]).all(), "the camera's own events are as they were"


def test_recipes_without_noise_are_what_they_were():
    assert "simulated_background" not in dump_recipe(tiny_recipe())
    assert "simulated_hot_pixels = 0.03" in dump_recipe(tiny_recipe(simulated_hot_pixels=0.03))
    with pytest.raises(RecipeError, match=r"simulated_background: noise of a camera.*i2e"):
        tiny_recipe(method="simulate", simulation="i2e", simulated_background=1.0)
