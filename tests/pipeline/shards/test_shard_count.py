"""How many shards a split has, and that the stock reader can share them among workers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import FEWEST_SAMPLES, USUAL_SHARDS, ConversionSettings


def settings(**more):
    return ConversionSettings(dataset="digits", **more)


@given(st.integers(0, 20_000), st.integers(1, 3000), st.integers(0, 40))
def test_every_sample_is_in_one_shard(samples, size, least):
    cut = settings(samples_per_shard=size, min_shards=least).cut_into_shards(samples)
    assert [row for start, stop in cut for row in range(start, stop)] == list(range(samples))
    assert all(0 < stop - start <= size for start, stop in cut)
    assert len(cut) >= min(least, samples)
    assert least or len(cut) >= USUAL_SHARDS or samples < USUAL_SHARDS * FEWEST_SAMPLES


def test_the_rule():
    usual = settings()
    assert usual.cut_into_shards(1295) == [(0, 1000), (1000, 1295)]  # of the built-in set, whose ID is promised
    assert len(usual.cut_into_shards(1999)) == 2
    assert {stop - start for start, stop in usual.cut_into_shards(2000)} == {250}
    assert len(usual.cut_into_shards(7001)) == 8
    assert usual.cut_into_shards(54_000)[-1] == (53_000, 54_000)
    assert len(settings(min_shards=1).cut_into_shards(2000)) == 2
    assert len(settings(min_shards=8).cut_into_shards(5)) == 5
    assert settings(min_shards=8).as_dict()["min_shards"] == 8
    assert "min_shards" not in usual.as_dict()


@pytest.mark.long
def test_the_stock_reader_shares_them_among_workers(shard_set):
    torch, webdataset = pytest.importorskip("torch"), pytest.importorskip("webdataset")
    shards = ShardSet(shard_set(min_shards=2))

    def labels(names):
        data = webdataset.WebDataset(names, shardshuffle=False).decode().to_tuple("cls")
        return sorted(int(one[0]) for one in torch.utils.data.DataLoader(data, batch_size=None, num_workers=2))

    names = [str(path) for path in shards.event_shards("train")]
    assert len(names) == 2
    assert labels(names) == sorted(shards.split("train").labels.tolist())
    with pytest.raises(ValueError, match="fewer"):
        labels(names[:1])
