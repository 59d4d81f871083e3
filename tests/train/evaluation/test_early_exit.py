"""Accuracy after each time step, and the exit: how its threshold is chosen, and what it does to recordings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fake_shards import FakeShardSet, tiny_recipe

from spikebridge.train.evaluation.early_exit import (
    EarlyExit,
    OverTime,
    averaged,
    choose_exit,
    energy_over_time,
    step_ms,
)
from spikebridge.train.evaluation.energy import Cost, counting
from spikebridge.train.evaluation.score import score, split_frames
from spikebridge.train.networks.build import make_network, network_arguments
from spikebridge.train.report.robustness import early_exit_words, over_time_rows


def test_what_is_said_after_each_step_ends_with_the_score():
    shards = FakeShardSet("shards")
    network = make_network(network_arguments(tiny_recipe(width=0.05).train, shards), seed=0)
    frames = split_frames(shards, "test", residence="disk")
    made = score(network, frames, batch_size=5, device=torch.device("cpu"), over_time=True)
    assert made.over_time.accuracies.shape == (4,)
    assert made.over_time.accuracies[-1] == made.accuracy
    sure = torch.from_numpy(made.logits).softmax(1).amax(1).numpy()
    assert np.array_equal(made.over_time.confidence[:, -1], sure)
    logits = torch.randn(4, 3, 5)
    assert torch.allclose(averaged(logits)[1], logits[:2].mean(0))
    assert score(network, frames, batch_size=5, device=torch.device("cpu")).over_time is None


def planted(n=200):
    """Sure and right from the first step on, from the third, or never sure and wrong: 60, 30, 10 %."""
    kind = np.repeat([0, 1, 2], [6 * n // 10, 3 * n // 10, n // 10])
    right = np.stack([kind == 0, kind == 0, kind <= 1, kind <= 1], 1)
    sure = np.where(right, 0.9, 0.4) + 0.01 * np.random.default_rng(0).random(right.shape)
    order = np.random.default_rng(1).permutation(n)
    return OverTime(right[order], sure[order].astype(np.float32))


def test_the_exit_answers_where_it_is_sure_and_abstains_where_it_never_is():
    seen = planted()
    rule = choose_exit(seen, 0.0)
    assert rule.thresholds[0] == pytest.approx(0.4, abs=0.02), "whole recordings are 90 % right: that much may be wrong"
    none_wrong = EarlyExit(0.0, (0.8,))
    found = none_wrong.figures(seen, energy_nj=np.array([1.0, 2.0, 3.0, 4.0]))
    assert found == {
        "answered": pytest.approx(0.9),
        "accuracy": 1.0,
        "mean_step": pytest.approx(0.6 * 1 + 0.3 * 3 + 0.1 * 4),
        "energy_saved": pytest.approx(1 - (0.6 * 1 + 0.3 * 3 + 0.1 * 4) / 4),
    }
    figures = rule.figures(seen)
    assert figures["accuracy"] >= seen.accuracies[-1]
    assert figures["energy_saved"] is None
    later = choose_exit(seen, -5.0)  # answers that are better than whole recordings take longer, or are fewer
    assert later.figures(seen)["mean_step"] > figures["mean_step"]
    assert later.figures(seen)["accuracy"] >= seen.accuracies[-1] + 0.05


def test_recordings_are_scored_by_a_threshold_of_the_other_half():
    seen = planted()
    even_only = seen.confidence.copy()
    even_only[::2] *= 0.5  # the halves differ: each gets what suits the other
    halves = choose_exit(OverTime(seen.right, even_only), 0.0, halves=True)
    assert halves.thresholds[0] > 1.5 * halves.thresholds[1]
    wrong = OverTime(np.array([[False, True]] * 4), np.array([[0.9, 0.5]] * 4, np.float32))
    never = choose_exit(OverTime(~wrong.right & False, wrong.confidence), -1.0)
    assert never.thresholds == (None,)
    assert never.figures(wrong) == {"answered": 0.0, "accuracy": None, "mean_step": 2.0, "energy_saved": None}


def test_energy_is_spent_step_by_step():
    shards = FakeShardSet("shards")
    network = make_network(network_arguments(tiny_recipe(width=0.05).train, shards), seed=0).eval()
    events = torch.from_numpy(shards.split("test").frames[:6]).float().transpose(0, 1)
    with torch.no_grad(), counting(network) as layers:
        network(None, events)
    spent = energy_over_time(network, events)
    assert spent[-1] == pytest.approx(Cost(4, layers, 6).energy_nj)
    assert np.all(np.diff(spent) > 0)
    silent = events.clone()
    silent[2:] = 50  # what follows costs nothing of what was before
    assert energy_over_time(network, silent)[:2] == pytest.approx(spent[:2])


def test_steps_have_a_duration_where_bins_have_one():
    assert step_ms(FakeShardSet("s"), "test") == pytest.approx(50.0), "four bins of 200 ms"
    assert step_ms(FakeShardSet("s", binning="window", window_us=7_000), "test") == 7.0
    assert step_ms(FakeShardSet("s", binning="count"), "test") is None
    found = {
        "over_time": [{"step": 1, "ms": None, "accuracy": 0.5}, {"step": 2, "ms": None, "accuracy": 0.75}],
        "early_exit": {"points": 0.5, "thresholds": [None], "answered": 0.0, "accuracy": None, "mean_step": 2.0,
                       "mean_ms": None, "energy_saved": None},
    }  # fmt: skip
    assert over_time_rows(found) == [("time steps", "accuracy"), ("1", "50.0 %"), ("2", "75.0 %")]
    assert "a probability of none" in early_exit_words(found)
