from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_shards import FakeShardSet, tiny_recipe

from spikebridge.train.data import frames
from spikebridge.train.data.batches import TrainingBatches, static_stream
from spikebridge.train.data.frames import Frames, choose_residence
from spikebridge.train.errors import MethodError, ShardMismatchError

CPU = torch.device("cpu")


def make(tmp_path, *, shards=None, needs_static=True, residence="auto", draw_from_pool=False, **settings):
    shards = shards or FakeShardSet(tmp_path)
    return TrainingBatches(
        shards,
        tiny_recipe(**settings).train,
        device=CPU,
        needs_static=needs_static,
        draw_from_pool=draw_from_pool,
        residence=residence,
    )


def test_shapes_types_and_partial_last_batch(tmp_path):
    data = make(tmp_path)
    assert data.steps_per_epoch == 3
    sizes = []
    for index in range(3):
        batch = data.batch(0, index)
        sizes.append(len(batch.labels))
        assert batch.events.shape == (4, sizes[-1], 2, 16, 16)
        assert batch.events.dtype == batch.images.dtype == torch.float32
        assert batch.images.shape == (sizes[-1], 2, 16, 16)
        assert 0 <= batch.images.min() <= batch.images.max() <= 1
        assert torch.equal(batch.images[:, 0], batch.images[:, 1])
    assert sizes == [10, 10, 4]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16"])
def test_events_are_the_stored_frames(tmp_path, dtype):
    shards = FakeShardSet(tmp_path, dtype=dtype)
    data = make(tmp_path, shards=shards, augmentation="none")
    events = torch.cat([data.batch(5, i).events for i in range(3)], dim=1)  # [T,n,P,H,W]
    stored = torch.from_numpy(shards.split("train").frames.astype(np.float32)).transpose(0, 1)
    assert torch.equal(events.sum((0, 2, 3, 4)).sort().values, stored.sum((0, 2, 3, 4)).sort().values)


def test_partners_have_the_class_of_the_event(tmp_path):
    data = make(tmp_path)
    batch = data.batch(0, 0)
    bright = batch.images[:, 0].mean(1).unfold(1, 3, 4).mean(2).argmax(1)  # [B], class of the brightest column
    assert torch.equal(bright, batch.labels)


def test_same_batch_from_disk_memory_and_another_order_of_asking(tmp_path):
    first, second = make(tmp_path, residence="host"), make(tmp_path, residence="disk")
    batches = {}
    for epoch, index in ((1, 2), (0, 0), (1, 0)):
        batches[epoch, index] = second.batch(epoch, index)
    for (epoch, index), b in batches.items():
        a = first.batch(epoch, index)
        for name in ("events", "images", "labels", "replacement", "dropout_seeds"):
            assert torch.equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16"])
@pytest.mark.parametrize("sampling", ["shuffle", "class_balanced", "windowed"])
@pytest.mark.parametrize("partners", ["class", "shuffled", "any"])
def test_the_device_makes_the_same_batch_from_what_it_holds(tmp_path, dtype, sampling, partners):
    made = {}
    for residence in ("host", "device"):
        shards = FakeShardSet(tmp_path, dtype=dtype)
        shards.split("train").frames[0, 0, 0, 0, 0] = 60_000 if dtype == "uint16" else 200
        data = make(
            tmp_path,
            shards=shards,
            residence=residence,
            draw_from_pool=partners == "any",
            sampling=sampling,
            sampling_window=1,
            augmentation="crop_flip_rotate+drop_events",
            partners="class" if partners == "any" else partners,
        )
        assert data.on_device == (residence == "device")
        made[residence] = [data.batch(epoch, index, rank=epoch, world=2) for epoch in (1, 0) for index in (2, 0)]
    for ours, theirs in zip(*made.values(), strict=True):
        for name in ("events", "images", "image_labels", "labels", "replacement", "dropout_seeds"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
        assert torch.equal(ours.epoch, theirs.epoch)
        assert torch.equal(ours.draws, theirs.draws)


def test_ranks_make_up_the_batch(tmp_path):
    data = make(tmp_path)
    whole = data.batch(2, 0)
    parts = [data.batch(2, 0, rank=rank, world=2) for rank in range(2)]
    assert torch.equal(whole.events[:, 1::2], parts[1].events)
    assert torch.equal(whole.images[0::2], parts[0].images)


def test_few_recordings_leave_the_pool_alone(tmp_path):
    data = make(tmp_path, events_per_class=2)
    assert len(data) == 6
    assert data.pool_images == 15
    assert data.steps_per_epoch == 1


def test_resident_frames_are_read_once(tmp_path):
    shards = FakeShardSet(tmp_path)
    data = make(tmp_path, shards=shards)
    for epoch in range(3):
        data.batch(epoch, 0)
    assert shards.split("train").reads == 1
    with pytest.raises(ValueError, match="unknown residence"):
        make(tmp_path, residence="cloud")


def test_static_stream_replaces_whole_samples(tmp_path):
    batch = make(tmp_path).batch(0, 0)
    still = static_stream(batch, 0.0)
    assert still.shape == batch.events.shape
    assert torch.equal(still[0], still[3])
    assert still.stride(0) == 0  # a view, not T copies
    probability = float(batch.replacement.median())
    mixed = static_stream(batch, probability)
    replaced = batch.replacement <= probability
    assert 0 < replaced.sum() < len(replaced)
    assert torch.equal(mixed[:, replaced], batch.events[:, replaced])
    assert torch.equal(mixed[:, ~replaced], still[:, ~replaced])
    assert static_stream(batch, 1.0) is batch.events


def test_no_static_images_for_a_method_without(tmp_path):
    data = make(tmp_path, shards=FakeShardSet(tmp_path, pool=[0, 0, 0]), needs_static=False)
    batch = data.batch(0, 0)
    assert batch.images is None
    with pytest.raises(MethodError, match="no static images"):
        static_stream(batch, 0.5)


def test_refusals_name_the_reason(tmp_path):
    with pytest.raises(MethodError, match=r"classes b, c; method kt"):
        make(tmp_path, shards=FakeShardSet(tmp_path, pool=[5, 0, 0]))
    with pytest.raises(MethodError, match=r"3 channels \(encoding rgb\).*takes 2"):
        make(tmp_path, shards=FakeShardSet(tmp_path, channels=3, encoding="rgb"))
    with pytest.raises(MethodError, match="training split is empty"):
        make(tmp_path, shards=FakeShardSet(tmp_path, train=0))
    wrong = FakeShardSet(tmp_path)
    wrong._pool.images = wrong._pool.images[..., :12]
    with pytest.raises(ShardMismatchError, match="static images"):
        make(tmp_path, shards=wrong)


def test_windowed_sampling_uses_the_shards(tmp_path):
    data = make(tmp_path, sampling="windowed", sampling_window=1, augmentation="none")
    data.begin_epoch(0)
    positions = data._sequence.numpy()
    assert len(set(positions[:5] // 5)) == 1
    assert sorted(positions) == list(range(24))


def test_frames_in_order(tmp_path):
    split = FakeShardSet(tmp_path).split("test")
    frames = Frames(split, np.arange(12), sample_shape=(4, 2, 16, 16), residence="disk")
    parts = list(frames.batches(5, CPU))
    assert [len(labels) for _, labels in parts] == [5, 5, 2]
    assert torch.cat([labels for _, labels in parts]).tolist() == split.labels.tolist()


def test_the_static_pool_counts_for_what_fits_on_the_device(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=4000))
    cuda = torch.device("cuda")
    assert choose_residence("auto", 600, cuda, pool_bytes=400) == "device"
    assert choose_residence("auto", 600, cuda, pool_bytes=401) == "host"
    assert choose_residence("device", 600, cuda, pool_bytes=401) == "device"
    assert choose_residence("auto", 600, CPU, pool_bytes=2**60) == "host"
    asked = []
    monkeypatch.setattr(frames, "choose_residence", lambda *given, pool_bytes: asked.append(pool_bytes) or "host")
    make(tmp_path)
    make(tmp_path, method="event_only", needs_static=False)
    assert asked == [15 * 16 * 16, 0]
