"""How sure an answer is, learnt from simulated answers."""

from __future__ import annotations

import numpy as np
import pytest

from spikebridge.train.matching.confidence import _rising, absent_share, clear_from, covering


def test_confidence_rises_with_clearness_and_is_never_certain():
    random = np.random.default_rng(0)
    seen, once = random.uniform(0, 1, 2000), np.ones(2000)
    right = random.uniform(0, 1, 2000) < seen
    found = _rising(seen, right, once, np.array([-1.0, 0.1, 0.5, 0.9, 2.0]))
    assert np.all(np.diff(found) >= 0)
    assert found[1:4] == pytest.approx([0.1, 0.5, 0.9], abs=0.1)
    assert 0 < found[0] < found[-1] < 1
    assert 0.9 < _rising(seen, np.ones(2000, bool), once, seen).min() < 1
    counted = _rising(seen, right, np.where(right, 1.0, 0.25), np.array([0.5]))
    assert counted == pytest.approx([0.8], abs=0.1), "of four wrong answers one counts"


@pytest.mark.parametrize("absent", [0, 0.3, 0.9])
def test_how_many_recordings_show_no_image_is_estimated(absent):
    random = np.random.default_rng(1)

    def signs(count, share):
        without = np.arange(count) < share * count
        first, farther = (
            random.normal(np.where(without, 2.0, 0.5), 0.4),
            random.exponential(np.where(without, 0.05, 0.7)),
        )
        return np.stack([farther, first, np.ones(count)], 1)

    there_and_not = np.concatenate([signs(500, 0), signs(500, 1)])
    found = absent_share(there_and_not, np.repeat([False, True], 500), signs(300, absent))
    assert found == pytest.approx(max(absent, 0.01), abs=0.04)
    few = absent_share(there_and_not, np.repeat([False, True], 500), signs(2, 0))
    assert 0.1 < few < 0.2, "two recordings say little"


def test_so_many_times_as_far_covers_19_of_20():
    assert covering(np.linspace(1, 2, 1000, dtype=np.float32)) == pytest.approx(1.95, abs=0.01)
    assert covering(np.array([1.0, 1.3, 1.1], np.float32)) == pytest.approx(1.3), "of few, all"
    assert covering(np.empty(0, np.float32)) == 1


@pytest.mark.parametrize("absent", [0, 0.3, 0.9])
def test_of_clear_recordings_one_of_twenty_shows_no_image(absent):
    random = np.random.default_rng(3)

    def ratio(count, *, there):
        return np.exp(random.exponential(0.7 if there else 0.05, count))

    strangers = ratio(round(4000 * absent), there=False)
    found = np.concatenate([ratio(4000 - len(strangers), there=True), strangers])
    least = clear_from(found, ratio(2000, there=True), ratio(2000, there=False))
    assert np.mean(found >= least) > 0.5 * (1 - absent)
    assert np.mean(strangers >= least) * len(strangers) / np.sum(found >= least) < 0.08 if absent else least < 1.1


def test_none_of_recordings_of_no_image_is_clear():
    random = np.random.default_rng(4)
    there, absent, found = (np.exp(random.exponential(size, 600)) for size in (0.7, 0.05, 0.05))
    assert np.sum(found >= clear_from(found, there, absent)) < 5
