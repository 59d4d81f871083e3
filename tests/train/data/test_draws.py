"""The random draws: what they promise of themselves, and that they equal their numpy oracle bit for bit."""

import numpy as np
import numpy_draws as oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikebridge.train.data import draws as random
from spikebridge.train.data.order import derived_seed

MODES = ("shuffle", "class_balanced", "windowed")
seeds = st.integers(0, 2**63 - 1)
label_lists = st.lists(st.integers(0, 5), min_size=1, max_size=80).map(torch.tensor)


@given(label_lists, seeds, st.integers(0, 1000), st.integers(1, 4))
def test_every_sample_once(labels, seed, epoch, window):
    shards = torch.arange(len(labels)) // 7
    for mode in ("shuffle", "windowed"):
        sequence = random.epoch_order(labels, seed=seed, epoch=epoch, mode=mode, shards=shards, window=window)
        assert sorted(sequence.tolist()) == list(range(len(labels)))


@given(label_lists, seeds, st.integers(0, 50), st.data())
def test_draws_depend_on_their_position_only(labels, seed, epoch, data):
    """Whatever part of an epoch a rank asks for, it gets the numbers of the whole."""
    draws = torch.arange(len(labels))
    part = torch.tensor(data.draw(st.lists(st.integers(0, len(labels) - 1), min_size=1)))
    offsets = torch.arange(7) * 3
    for function in (
        lambda draws: random.uniform(seed, "replacement", epoch, draws),
        lambda draws: random.uniforms(seed, "augmentation", epoch, draws, 4),
        lambda draws: random.many_uniforms(seed, "pixels", epoch, draws, 7),
    ):
        assert torch.equal(function(draws)[part], function(part))
    whole = random.static_partners(labels, offsets, seed=seed, epoch=epoch, draws=draws)
    some = random.static_partners(labels[part], offsets, seed=seed, epoch=epoch, draws=part)
    assert torch.equal(whole[part], some)
    assert torch.equal(whole // 3, labels)


def test_epochs_seeds_and_purposes_differ():
    draws = torch.arange(1000)
    first = random.uniform(0, "a", 0, draws).numpy()
    for other in (
        random.uniform(1, "a", 0, draws),
        random.uniform(0, "b", 0, draws),
        random.uniform(0, "a", 1, draws),
        random.uniform(0, "a", 0, draws, lane=1),
        random.uniform(0, "a", 0, draws + 1000),
    ):
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.12
        assert not np.any(first == other.numpy())


def test_uniform_is_uniform():
    values = random.uniform(3, "test", 7, torch.arange(100_000)).numpy()
    assert 0 <= values.min() < values.max() < 1
    counts = np.histogram(values, 20, (0, 1))[0]
    assert np.sum((counts - 5000) ** 2 / 5000) < 45  # chi square with 19 degrees of freedom, p about .001
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.015


def test_many_uniforms_are_uniform_and_unrelated():
    numbers = random.many_uniforms(3, "pixels", 1, torch.arange(50), 2001).numpy()
    assert numbers.shape == (50, 2001)
    assert numbers.dtype == np.float32
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.005
    assert abs(numbers.std() - 12**-0.5) < 0.005
    assert np.abs(np.corrcoef(numbers) - np.eye(50)).max() < 0.12
    assert np.abs(np.corrcoef(numbers[:, :40].T) - np.eye(40)).max() < 0.75
    assert len(np.unique(numbers)) > 0.99 * numbers.size


def test_uniforms_are_the_lanes_side_by_side():
    draws = torch.arange(9)
    table = random.uniforms(5, "a", 2, draws, 3)
    assert table.shape == (9, 3)
    assert torch.equal(table[:, 2], random.uniform(5, "a", 2, draws, lane=2))
    assert random.uniforms(5, "a", 2, draws, 0).shape == (9, 0)


def test_numbers_are_fixed_for_ever():
    """A change here changes every run that can be continued."""
    assert derived_seed(0, "weights") == 5421806286578840949
    words = random.random_words(0, "order", 1, torch.arange(2)).numpy().view(np.uint64)
    assert words.tolist() == [14867225547575900401, 15256801504138442800]
    labels = torch.arange(8) % 2
    assert random.epoch_order(labels, seed=0, epoch=0).tolist() == [0, 5, 7, 1, 3, 2, 4, 6]


def test_class_balanced_draws_classes_alike():
    labels = torch.tensor([0, 1, 4]).repeat_interleave(torch.tensor([900, 90, 10]))
    sequence = torch.cat([random.epoch_order(labels, seed=1, epoch=e, mode="class_balanced") for e in range(10)])
    assert len(sequence) == 10_000
    shares = torch.bincount(labels[sequence], minlength=5) / len(sequence)
    np.testing.assert_allclose(shares, [1 / 3, 1 / 3, 0, 0, 1 / 3], atol=0.02)


def test_windowed_keeps_a_window_in_memory():
    shards, labels = torch.arange(100) // 10, torch.zeros(100, dtype=torch.int64)
    sequence = random.epoch_order(labels, seed=0, epoch=0, mode="windowed", shards=shards, window=2)
    groups = [set(shards[part].tolist()) for part in sequence.split(20)]
    assert all(len(group) == 2 for group in groups)
    assert sequence.tolist() != sorted(sequence.tolist())
    with pytest.raises(ValueError, match="needs the shard"):
        random.epoch_order(labels, seed=0, epoch=0, mode="windowed")


def test_unknown_mode():
    with pytest.raises(ValueError, match="unknown sampling"):
        random.epoch_order(torch.zeros(3, dtype=torch.int64), seed=0, epoch=0, mode="random")


@settings(max_examples=60)
@given(label_lists, seeds, st.integers(0, 1000), st.integers(0, 2**40), st.integers(1, 4), st.sampled_from(MODES))
def test_the_draws_equal_the_oracle_bit_for_bit(labels, seed, epoch, first, window, mode):
    """With the epoch as a number, and as the tensor that a recorded step has."""
    draws, shards, offsets = first + torch.arange(len(labels)), torch.arange(len(labels)) // 7, torch.arange(7) * 3
    where = {"seed": seed, "draws": draws.numpy(), "epoch": epoch}
    classes = torch.unique(labels)
    assert np.array_equal(
        random.shuffle_classes(classes, seed=seed), oracle.shuffle_classes(classes.numpy(), seed=seed)
    )
    for when in (epoch, torch.tensor(epoch)):
        for lane in (0, 3):
            words = random.random_words(seed, "any", when, draws, lane=lane)
            expected = oracle.random_words(seed, "any", epoch, draws.numpy(), lane=lane)
            np.testing.assert_array_equal(words.numpy().view(np.uint64), expected)
        for name, count in (("uniforms", 4), ("many_uniforms", 7)):
            numbers = getattr(random, name)(seed, "any", when, draws, count)
            expected = getattr(oracle, name)(seed, "any", epoch, draws.numpy(), count)
            np.testing.assert_array_equal(numbers, expected, strict=True)
        how = {"seed": seed, "mode": mode, "window": window}
        sequence = random.epoch_order(labels, epoch=when, shards=shards, **how)
        expected = oracle.epoch_order(labels.numpy(), epoch=epoch, shards=shards.numpy(), **how)
        np.testing.assert_array_equal(sequence, expected)
        rows = random.static_partners(labels, offsets, seed=seed, epoch=when, draws=draws)
        np.testing.assert_array_equal(rows, oracle.static_partners(labels.numpy(), offsets.numpy(), **where))
        rows = random.pool_rows(1000, seed=seed, epoch=when, draws=draws)
        np.testing.assert_array_equal(rows, oracle.pool_rows(1000, **where))
        samples = first + len(labels)
        partners = random.mixing_partners(samples, 7, seed=seed, epoch=when, draws=draws)
        np.testing.assert_array_equal(partners, oracle.mixing_partners(samples, 7, **where))
