import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikebridge.train.data import draws as device_order
from spikebridge.train.data import order

MODES = ("shuffle", "class_balanced", "windowed")
seeds = st.integers(0, 2**63 - 1)
label_lists = st.lists(st.integers(0, 5), min_size=1, max_size=80).map(lambda values: np.array(values, dtype=np.int64))


@given(label_lists, seeds, st.integers(0, 1000), st.integers(1, 4))
def test_every_sample_once(labels, seed, epoch, window):
    shards = np.arange(len(labels)) // 7
    for mode in ("shuffle", "windowed"):
        found = order.epoch_order(labels, seed=seed, epoch=epoch, mode=mode, shards=shards, window=window)
        assert sorted(found) == list(range(len(labels)))


@given(st.integers(1, 200), st.integers(1, 50), st.integers(1, 5))
def test_ranks_share_the_global_batches(n, batch_size, world):
    seen = []
    for batch in range(order.batch_count(n, batch_size)):
        whole = order.batch_draws(n, batch_size, batch)
        parts = [order.batch_draws(n, batch_size, batch, rank=rank, world=world) for rank in range(world)]
        assert sorted(np.concatenate(parts)) == list(whole)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        seen.extend(whole)
    assert seen == list(range(n))


@given(label_lists, seeds, st.integers(0, 50), st.data())
def test_draws_depend_on_their_position_only(labels, seed, epoch, data):
    """Whatever part of an epoch a worker or rank asks for, it gets the numbers of the whole."""
    draws = np.arange(len(labels))
    part = np.array(data.draw(st.lists(st.integers(0, len(labels) - 1), min_size=1)))
    offsets = np.arange(7) * 3
    for function in (
        order.replacement_uniforms,
        lambda *of: order.uniforms(of[0], "augmentation", *of[1:], 4),
        lambda *of: order.many_uniforms(of[0], "pixels", *of[1:], 7),
    ):
        np.testing.assert_array_equal(function(seed, epoch, draws)[part], function(seed, epoch, part))
    whole = order.static_partners(labels, offsets, seed=seed, epoch=epoch, draws=draws)
    some = order.static_partners(labels[part], offsets, seed=seed, epoch=epoch, draws=part)
    np.testing.assert_array_equal(whole[part], some)
    assert np.all(whole // 3 == labels)


def test_epochs_seeds_and_purposes_differ():
    draws = np.arange(1000)
    first = order.uniform(0, "a", 0, draws)
    for other in (
        order.uniform(1, "a", 0, draws),
        order.uniform(0, "b", 0, draws),
        order.uniform(0, "a", 1, draws),
        order.uniform(0, "a", 0, draws, lane=1),
        order.uniform(0, "a", 0, draws + 1000),
    ):
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.12
        assert not np.any(first == other)


def test_uniform_is_uniform():
    values = order.uniform(3, "test", 7, np.arange(100_000))
    assert 0 <= values.min() < values.max() < 1
    counts = np.histogram(values, 20, (0, 1))[0]
    assert np.sum((counts - 5000) ** 2 / 5000) < 45  # chi square with 19 degrees of freedom, p about .001
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.015


def test_numbers_are_fixed_for_ever():
    """A change here changes every run that can be continued."""
    assert order.derived_seed(0, "weights") == 5421806286578840949
    assert order.random_words(0, "order", 1, np.arange(2)).tolist() == [14867225547575900401, 15256801504138442800]
    labels = np.arange(8) % 2
    assert order.epoch_order(labels, seed=0, epoch=0).tolist() == [0, 5, 7, 1, 3, 2, 4, 6]


def test_class_balanced_draws_classes_alike():
    labels = np.repeat([0, 1, 4], [900, 90, 10])
    found = np.concatenate([order.epoch_order(labels, seed=1, epoch=e, mode="class_balanced") for e in range(10)])
    assert len(found) == 10_000
    shares = np.bincount(labels[found], minlength=5) / len(found)
    np.testing.assert_allclose(shares, [1 / 3, 1 / 3, 0, 0, 1 / 3], atol=0.02)


def test_windowed_keeps_a_window_in_memory():
    shards = np.arange(100) // 10
    found = order.epoch_order(np.zeros(100, dtype=np.int64), seed=0, epoch=0, mode="windowed", shards=shards, window=2)
    groups = [set(shards[found[i : i + 20]]) for i in range(0, 100, 20)]
    assert all(len(group) == 2 for group in groups)
    assert list(found) != sorted(found)
    with pytest.raises(ValueError, match="needs the shard"):
        order.epoch_order(np.zeros(3, dtype=np.int64), seed=0, epoch=0, mode="windowed")


def test_unknown_mode():
    with pytest.raises(ValueError, match="unknown sampling"):
        order.epoch_order(np.zeros(3, dtype=np.int64), seed=0, epoch=0, mode="random")


@given(label_lists, st.integers(1, 12), seeds)
def test_selection_is_nested_and_ignores_the_listing(labels, n, seed):
    keys = [f"train-{label}-{i}" for i, label in enumerate(labels)]
    small = order.select_recordings(keys, labels, n, seed=seed)
    large = order.select_recordings(keys, labels, n + 1, seed=seed)
    assert set(small) <= set(large)
    for label in set(labels.tolist()):
        assert np.sum(labels[small] == label) == min(n, np.sum(labels == label))
    back = order.select_recordings(keys[::-1], labels[::-1], n, seed=seed)
    assert {keys[i] for i in small} == {keys[::-1][i] for i in back}


def test_selection_of_all_and_of_none():
    labels = np.array([1, 0, 1])
    assert order.select_recordings(["a", "b", "c"], labels, 0, seed=0).tolist() == [0, 1, 2]
    assert len(order.select_recordings([], np.empty(0, dtype=np.int64), 3, seed=0)) == 0
    with pytest.raises(ValueError, match="2 keys, 3 labels"):
        order.select_recordings(["a", "b"], labels, 1, seed=0)


def test_too_few_recordings_are_reported(caplog):
    order.select_recordings(["a", "b", "c"], np.array([0, 0, 1]), 2, seed=0)
    assert "class 1 has 1 training recordings" in caplog.text


def test_empty_class_has_no_partner():
    with pytest.raises(ValueError, match=r"classes \[1\]"):
        order.static_partners(np.array([0, 1]), np.array([0, 2, 2]), seed=0, epoch=0, draws=np.arange(2))


def test_batches_outside_the_epoch():
    with pytest.raises(ValueError, match="batch 2 of 2"):
        order.batch_draws(10, 5, 2)


def test_many_uniforms_are_uniform_and_unrelated():
    numbers = order.many_uniforms(3, "pixels", 1, np.arange(50), 2001)
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
    draws = np.arange(9)
    table = order.uniforms(5, "a", 2, draws, 3)
    assert table.shape == (9, 3)
    np.testing.assert_array_equal(table[:, 2], order.uniform(5, "a", 2, draws, lane=2))
    assert order.uniforms(5, "a", 2, draws, 0).shape == (9, 0)


@settings(max_examples=60)
@given(label_lists, seeds, st.integers(0, 1000), st.integers(0, 2**40), st.integers(1, 4), st.sampled_from(MODES))
def test_the_device_draws_the_same_numbers_bit_for_bit(labels, seed, epoch, first, window, mode):
    draws = first + np.arange(len(labels))
    there, when = torch.from_numpy(draws), torch.tensor(epoch)
    for lane in (0, 3):
        words = order.random_words(seed, "any", epoch, draws, lane=lane).view(np.int64)
        np.testing.assert_array_equal(device_order.random_words(seed, "any", when, there, lane=lane), words)
    numbers = device_order.uniforms(seed, "augmentation", when, there, 4)
    np.testing.assert_array_equal(numbers, order.uniforms(seed, "augmentation", epoch, draws, 4))
    numbers = device_order.many_uniforms(seed, "pixels", when, there, 7)
    np.testing.assert_array_equal(numbers, order.many_uniforms(seed, "pixels", epoch, draws, 7))
    shards = np.arange(len(labels)) // 7
    sequence = order.epoch_order(labels, seed=seed, epoch=epoch, mode=mode, shards=shards, window=window)
    found = device_order.epoch_order(
        torch.from_numpy(labels), seed=seed, epoch=when, mode=mode, shards=torch.from_numpy(shards), window=window
    )
    np.testing.assert_array_equal(found, sequence)
    offsets = np.arange(7) * 3
    found = device_order.static_partners(
        torch.from_numpy(labels), torch.from_numpy(offsets), seed=seed, epoch=when, draws=there
    )
    expected = order.static_partners(labels, offsets, seed=seed, epoch=epoch, draws=draws)
    np.testing.assert_array_equal(found, expected)
    expected = order.pool_images(1000, seed=seed, epoch=epoch, draws=draws)
    np.testing.assert_array_equal(device_order.pool_images(1000, seed=seed, epoch=when, draws=there), expected)
