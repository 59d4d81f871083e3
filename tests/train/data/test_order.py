"""Which recordings a run trains on, and which draws of an epoch a batch takes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikebridge.train.data import order

seeds = st.integers(0, 2**63 - 1)
label_lists = st.lists(st.integers(0, 5), min_size=1, max_size=80).map(lambda values: np.array(values, dtype=np.int64))


@given(st.integers(1, 200), st.integers(1, 50), st.integers(1, 5))
def test_ranks_share_the_global_batches(n, batch_size, world):
    taken = []
    for batch in range(order.batch_count(n, batch_size)):
        whole = order.batch_draws(n, batch_size, batch)
        parts = [order.batch_draws(n, batch_size, batch, rank=rank, world=world) for rank in range(world)]
        assert sorted(np.concatenate(parts)) == list(whole)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        taken.extend(whole)
    assert taken == list(range(n))


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


def test_batches_outside_the_epoch():
    with pytest.raises(ValueError, match="batch 2 of 2"):
        order.batch_draws(10, 5, 2)
