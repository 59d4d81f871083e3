"""Augmentation of events before they are binned: what each does, by draws that any machine repeats."""

import numpy as np
import pytest
import torch
from conftest import make_events
from hypothesis import given, settings
from hypothesis import strategies as st

from spikebridge.pipeline.events.packing import pack
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.config import settings as train_settings
from spikebridge.train.config.recipes import override, recipe_from
from spikebridge.train.data.batches import TrainingBatches
from spikebridge.train.data.event_augmentation import EVENT_AUGMENTATIONS, HOT_PIXELS, augment_events
from spikebridge.train.errors import MethodError, ShardMismatchError

SENSOR = (40, 30)
NAMES = sorted(set(EVENT_AUGMENTATIONS) - {"none"})
RECIPE = {
    "shards": {"dataset": "digits", "time_bins": 4, "size": 12, "reduction": "sum", "extent": "canvas", "encoding": "v",
               "protocol": "strict"},
    "train": {"method": "event_only", "model": "nmnist_snn", "width": 0.1, "epochs": 1, "batch_size": 12, "lr": 1e-3},
}  # fmt: skip


def recording(seed=0, count=400):
    return pack(make_events(seed, count=count, size=SENSOR), sensor_size=SENSOR, source="x")


def augmented(names, events, word):
    found = augment_events(names, events, sensor=SENSOR, word=word)
    return None if found is None else found.unpack()


def test_recipes_know_them():
    assert set(train_settings.EVENT_AUGMENTATIONS) == set(EVENT_AUGMENTATIONS)


@pytest.mark.parametrize("name", NAMES)
def test_each_changes_events_by_its_draw_alone(name):
    events = recording()
    results = [augment_events(name, events, sensor=SENSOR, word=word) for word in range(12)]
    again = augment_events(name, events, sensor=SENSOR, word=3)
    assert np.array_equal(again.words, results[3].words)
    assert any(not np.array_equal(one.words, events.words) for one in results)
    assert len({one.words.tobytes() for one in results}) > 1
    assert augment_events("none", events, sensor=SENSOR, word=0).words.tolist() == events.words.tolist()


@settings(max_examples=60)
@given(st.integers(0, 2**64 - 1), st.integers(1, 60), st.lists(st.sampled_from(NAMES), min_size=1, max_size=4))
def test_events_stay_on_the_sensor_in_order_and_within_their_time(word, count, names):
    events = recording(word % 97, count)
    found = augment_events("+".join(names), events, sensor=SENSOR, word=word)
    if found is None:
        return
    columns = found.unpack()
    assert (np.diff(columns.t) >= 0).all()
    assert columns.t[0] >= events.start_us
    assert columns.t[-1] <= events.start_us + events.duration_us
    assert found.duration_us == events.duration_us
    assert ((columns.x >= 0) & (columns.x < SENSOR[0]) & (columns.y >= 0) & (columns.y < SENSOR[1])).all()
    if not {"noise", "hot_pixels"} & set(names):
        assert len(found) <= len(events)


def test_what_each_does():
    events = recording(1, 4000)
    was = augmented("none", events, 0)
    words = range(40)
    kept = [len(augmented("drop_events", events, word)) / 4000 for word in words]
    assert 0.47 <= min(kept) < 0.6
    assert 0.9 < max(kept) <= 1
    gaps = [np.diff(augmented("drop_time", events, word).t, prepend=0, append=300_000).max() for word in words]
    assert 100_000 < max(gaps) < 155_000
    flips = [augmented("polarity_flip", events, word).p for word in words]
    assert {tuple(p == was.p) for p in flips} == {(True,) * 4000, (False,) * 4000}
    mirrored = [augmented("flip", events, word) for word in words]
    assert {np.array_equal(np.sort(one.x), np.sort(39 - was.x)) for one in mirrored} == {True, False}
    early = [int(np.median(augmented("time_shift", events, word).t)) for word in words]
    assert max(early) - min(early) > 20_000
    quick = [np.ptp(augmented("time_stretch", events, word).t) for word in words]
    assert min(quick) < 270_000
    moved = augmented("jitter", events, 5)
    assert len(moved) > 3500
    shifted = [augmented("shift", events, word) for word in words]
    assert {int(one.x.min()) for one in shifted} == {0, 1, 2, 3}
    small = min((augmented("scale", events, word) for word in words), key=lambda one: np.ptp(one.x))
    assert len(small) == 4000
    assert np.ptp(small.x) < 36
    busy = max((augmented("noise", events, word) for word in words), key=len)
    assert 4200 < len(busy) <= 4000 + 0.3 * 1200 + 1  # 0.3 s of 1 Hz at 1200 pixels
    hot = max((augmented("hot_pixels", events, word) for word in words), key=len)
    counts = np.bincount(hot.y * 40 + hot.x, minlength=1200) - np.bincount(was.y * 40 + was.x, minlength=1200)
    assert 0 < np.count_nonzero(counts) <= max(1, 1200 * HOT_PIXELS + 1)


def test_a_rotation_is_one_about_the_centre():
    events = recording(1, 4000)
    was, words = events.unpack(), range(20)
    radius = np.hypot(was.x - 19.5, was.y - 14.5)
    for word in words:
        now = augmented("rotate", events, word)
        inner = np.sort(radius[radius < 13])
        turned = np.sort(np.hypot(now.x - 19.5, now.y - 14.5))[: len(inner)]
        assert np.abs(turned - inner).max() < 1.5


def batches(shards, names, **more):
    settings_ = override(recipe_from(RECIPE), event_augmentation=names).train
    return TrainingBatches(shards, settings_, device=torch.device("cpu"), needs_static=False, **more)


def test_batches_of_augmented_events(shard_set):
    events = ShardSet(shard_set(store="events"))
    plain, same, other = (batches(events, names).batch(1, 0).events for names in ("none", "none", "drop_events+shift"))
    assert torch.equal(plain, same)
    assert plain.shape == other.shape
    assert not torch.equal(plain, other)
    again = batches(events, "drop_events+shift")
    assert torch.equal(again.batch(1, 0).events, other)
    assert not torch.equal(again.batch(2, 0).events, other)
    parts = [again.batch(1, 0, rank=rank, world=2).events for rank in (0, 1)]
    assert torch.equal(torch.cat(parts, 1).sort(1).values, other.sort(1).values)
    framed = batches(events.with_frames(reduction="voxel", time_bins=3, extent="recording"), "rotate+jitter")
    assert framed.batch(1, 0).events.shape[0] == 3


def test_a_recording_without_events_enough_for_its_bins_stays_as_it_was(shard_set, monkeypatch):
    events = ShardSet(shard_set(store="events"))
    plain = batches(events, "none").batch(0, 0).events
    monkeypatch.setitem(EVENT_AUGMENTATIONS, "drop_events", lambda moved, _: moved.keep(moved.t < 0))
    assert torch.equal(batches(events, "drop_events").batch(0, 0).events, plain)
    few = events.with_frames(binning="count", time_bins=4)
    monkeypatch.setitem(EVENT_AUGMENTATIONS, "drop_events", lambda moved, _: moved.keep(np.arange(len(moved.t)) < 3))
    assert torch.equal(batches(few, "drop_events").batch(0, 0).events, batches(few, "none").batch(0, 0).events)


def test_frames_have_no_events_to_augment(shard_set):
    with pytest.raises(ShardMismatchError, match="--store events"):
        batches(ShardSet(shard_set()), "rotate")
    with pytest.raises(MethodError, match="expected residence disk"):
        batches(ShardSet(shard_set(store="events")), "rotate", residence="host")
