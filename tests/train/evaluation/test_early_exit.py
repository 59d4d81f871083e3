"""Accuracy after each time step, and the exit: how its threshold is chosen, and what it does to recordings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fake_shards import FakeShardSet, tiny_recipe

from spikebridge.train.evaluation.early_exit import (
    EXIT_CONFIDENCE,
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
from spikebridge.train.report.robustness import corrupted_rows, early_exit_words, over_time_rows
from spikebridge.train.statistics import most_failures


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
    found = EarlyExit(5.0, (0.8,), 100).figures(planted(), energy_nj=np.array([1.0, 2.0, 3.0, 4.0]))
    assert found == {
        "answered": pytest.approx(0.9),
        "accuracy": 1.0,
        "lost": 0.0,
        "mean_step": pytest.approx(0.6 * 1 + 0.3 * 3 + 0.1 * 4),
        "energy_saved": pytest.approx(1 - (0.6 * 1 + 0.3 * 3 + 0.1 * 4) / 4),
    }
    hasty = EarlyExit(5.0, (0.0,), 100).figures(planted())
    assert (hasty["answered"], hasty["accuracy"], hasty["lost"]) == (1.0, pytest.approx(0.6), pytest.approx(0.3))
    assert hasty["energy_saved"] is None


def lost_from(seen, least):
    """Return which recordings some threshold of at least so much loses, one by one, as plainly as it can be said."""
    lost = []
    for right, confidence in zip(seen.right, seen.confidence, strict=True):
        steps = {int(np.argmax(confidence >= one)) for one in confidence[confidence >= least]}
        lost.append(bool(right[-1]) and not all(right[step] for step in steps))
    return sum(lost)


def test_the_lowest_threshold_is_taken_from_which_on_few_enough_are_lost():
    random = np.random.default_rng(3)
    seen = OverTime(random.random((300, 5)) < 0.8, random.random((300, 5)).astype(np.float32))
    (threshold,) = choose_exit(seen, 5.0).thresholds
    permitted = most_failures(300, 0.05, EXIT_CONFIDENCE)
    assert 0 < permitted < 15, "fewer than 5 % of 300: that many could be chance"
    assert lost_from(seen, threshold) == permitted
    assert lost_from(seen, np.nextafter(np.float32(threshold), np.float32(0))) == permitted + 1
    assert choose_exit(planted(), 40.0).thresholds == (0.0,), "three tenths are lost at once, and may be"


def test_the_promise_holds_for_few_recordings_or_is_not_made():
    """Of 9,000 recordings every 90 choose a threshold; all see whether it loses more than 5 points."""
    random = np.random.default_rng(5)
    sure = np.sort(random.random((9000, 4)), 1).astype(np.float32)
    seen = OverTime(random.random((9000, 4)) < 0.3 + 0.7 * sure, sure)
    broken = 0
    for part in range(100):
        rule = choose_exit(seen.part(part, 100), 5.0)
        broken += rule.figures(seen)["lost"] > 0.05
    assert 0 < broken <= 15, "a tenth of the choices may be unlucky"
    assert choose_exit(seen.part(0, 100), 0.5).thresholds == (None,), "90 recordings say nothing about half a point"
    rule = choose_exit(seen.part(0, 100), 0.5, halves=True)
    assert (rule.chosen_on, rule.needed, EarlyExit(0.0, (None,), 90).needed) == (45, 460, None)
    never = rule.figures(seen)
    assert (never["answered"], never["accuracy"], never["lost"], never["mean_step"]) == (0.0, None, 0.0, 4.0)


def test_recordings_are_scored_by_a_threshold_of_the_other_half():
    seen = planted()
    seen.right[:, 0] = False  # whoever ends at the first step is lost
    even_only = seen.confidence.copy()
    even_only[::2] *= 0.5  # the halves differ: each gets what suits the other
    halves = choose_exit(OverTime(seen.right, even_only), 5.0, halves=True)
    assert halves.thresholds[0] > 1.5 * halves.thresholds[1]
    certain = OverTime(np.array([[False, True]] * 100), np.ones((100, 2), np.float32))
    assert choose_exit(certain, 5.0).thresholds == (None,), "wrong with a probability of 1: no threshold is higher"


@pytest.mark.parametrize(
    ("points", "thresholds", "chosen_on", "words"),
    [
        (0.0, (None,), 143, "no early exit: no number of validation recordings"),
        (0.5, (None, None), 71, "71 validation recordings (those of a half choose for the other) are too few"),
        (5.0, (0.9, None), 71, "of 90.00 % for every second recording and none for the others"),
        (2.0, (0.875,), 143, "at most 2 points of accuracy, with 90% confidence: a recording ends when"),
    ],
)
def test_sentences_say_what_is_promised(points, thresholds, chosen_on, words):
    rule = EarlyExit(points, thresholds, chosen_on)
    found = {"early_exit": {**rule.described(), **rule.figures(planted()), "mean_ms": 12.5}, "over_time": [{}] * 4}
    assert words in early_exit_words(found)


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
                       "mean_ms": None, "energy_saved": None},  # of before promises
    }  # fmt: skip
    assert over_time_rows(found) == [("time steps", "accuracy"), ("1", "50.0 %"), ("2", "75.0 %")]
    assert "a probability of none, chosen on the validation split. 0.0 %" in early_exit_words(found)
    exited = {"answered": 0.0, "accuracy": None, "mean_step": 2.0}
    found["corrupted"] = [{"name": "flicker", "level": 0.5, "accuracy": 0.5, "loss": 1.0, "early_exit": exited}]
    assert corrupted_rows(found)[1] == ("flicker", "0.5", "50.0 %", "1.000"), "without an exit it answers nothing"
    found["early_exit"]["thresholds"] = [0.9]
    assert corrupted_rows(found)[1][-3:] == ("0.0 %", "–", "2.00")
