"""The Triton kernel makes the frames of the CPU's loops of stored events: in Triton's interpreter, or on CUDA."""

import dataclasses
import importlib.util

import numpy as np
import pytest
import torch
from conftest import make_events

from spikebridge.models import backends
from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.events.compact import CompactEvents, compact
from spikebridge.pipeline.events.packing import pack
from spikebridge.pipeline.shards.framing import Framing
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import ConversionSettings
from spikebridge.train.data.frames import Frames

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed: pip install '.[triton]'", allow_module_level=True)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
if DEVICE.type == "cpu":
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")  # read when a kernel is defined
        importlib.import_module("spikebridge.train.data.binning_triton")
binning_triton = importlib.import_module("spikebridge.train.data.binning_triton")

SIZE = (300, 280)


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    if DEVICE.type == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(binning_triton, "BLOCK", 64)


def recordings():
    """Of 1 to 200 events: small and large steps in time, places of 16 bits and of more, many events of one cell."""
    made = []
    for seed, count, duration, size in (
        (0, 200, 900, (34, 34)),
        (1, 130, 10**7, SIZE),
        (2, 1, 5, SIZE),
        (3, 64, 10**10, SIZE),
    ):
        events = make_events(seed, count=count, duration_us=duration, size=size)
        made.append(dataclasses.replace(events, t=events.t + 700))
    crowd = make_events(4, count=180, size=SIZE)
    crowd.x[:], crowd.y[:] = 17, 200
    return [*made, dataclasses.replace(crowd, p=crowd.p * 0)]


SETTINGS = {
    "bins": {"time_bins": 2, "size": 9},
    "rest": {"time_bins": 3, "size": 6, "reduction": "event"},
    "windows": {"time_bins": 4, "size": 7, "width": 12, "binning": "window", "window_us": 300, "dtype": "uint16"},
    "count": {"time_bins": 3, "size": 8, "binning": "count", "events_per_bin": 50, "extent": "recording"},
    "pad": {"time_bins": 2, "size": 10, "width": 5, "fit": "pad", "binning": "window", "window_us": 10**6},
    "span": {"time_bins": 2, "size": 4},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_frames(name):
    settings = ConversionSettings(dataset="digits", **SETTINGS[name])
    framing = Framing(settings, settings, None, 2 * 10**10 if name == "span" else None)
    assert binning_triton.can_bin(framing)
    data = [compact(pack(events, sensor_size=SIZE, source="a"), sensor_size=SIZE) for events in recordings()]
    if name in {"bins", "rest"}:
        data = [each for each in data if framing.counting(each) is not None]
        assert len(data) == 4  # one event has no duration
    wanted = np.empty((len(data), *framing.shape), framing.dtype)
    for out, each in zip(wanted, data, strict=True):
        framing.frames_into(out, each, source="a")
    split = type("Split", (), {"framing": framing, "read_compact": lambda self, positions: iter(data)})()
    found = binning_triton.bin_recordings(split, np.arange(len(data)), DEVICE)
    assert found.dtype == {"uint8": torch.uint8, "uint16": torch.uint16}[wanted.dtype.name]
    np.testing.assert_array_equal(found.cpu().numpy(), wanted)
    assert wanted.max() > (0 if name == "rest" else 1)


def test_counts_saturate():
    settings = ConversionSettings(dataset="digits", time_bins=1, size=2)
    framing = Framing(settings, settings, None, None)
    events = make_events(1, count=600)
    events.x[:], events.y[:] = 3, 3
    data = compact(pack(events, sensor_size=SIZE, source="a"), sensor_size=SIZE)
    split = type("Split", (), {"framing": framing, "read_compact": lambda self, positions: iter([data])})()
    assert binning_triton.bin_recordings(split, np.zeros(1), DEVICE).max() == 255


@pytest.mark.parametrize("residence", ["device", "disk"])
def test_frames_of_a_split(shard_set, residence, monkeypatch):
    """Kept or made for every batch, uint8 and uint16; the loops of the CPU have no part in them."""
    whole = ShardSet(shard_set(store="events"))
    for shards in (whole, whole.with_frames(time_bins=2)):
        split, positions = shards.split("test"), np.arange(3)
        expected = Frames(split, positions, sample_shape=shards.sample_shape, residence="host").take(torch.arange(3))
        with backends.use("triton"), monkeypatch.context() as patch:
            patch.setattr(Framing, "count_into", None)
            frames = Frames(split, positions, sample_shape=shards.sample_shape, residence=residence, device=DEVICE)
            found = frames.take(torch.arange(3))
        assert found.dtype == expected.dtype
        assert torch.equal(found.cpu(), expected)


def test_what_the_cpu_does(shard_set):
    """Other representations, crops, and whatever has to be refused."""
    shards = ShardSet(shard_set(store="events"))
    framing = shards.framing
    assert not binning_triton.can_bin(dataclasses.replace(framing, crop=(0, 0, 5, 5)))
    assert not binning_triton.can_bin(shards.with_frames(reduction="voxel").framing)
    assert not binning_triton.can_bin(shards.with_frames(fit="crop", width=9).framing)
    assert not binning_triton.can_bin(shards.with_frames(time_window_us=(0, 9)).framing)
    split = shards.split("test")
    (good,) = (data.copy() for data in split.read_compact([0]))
    steps = CompactEvents.parse(good).step
    steps[1] = np.iinfo(steps.dtype).max  # a long step more than there are
    split.read_compact = lambda positions: iter([good])
    assert binning_triton.bin_recordings(split, np.zeros(1), DEVICE) is None
    split.read_compact = lambda positions: iter([good[:50]])
    assert binning_triton.bin_recordings(split, np.zeros(1), DEVICE) is None
    with pytest.raises(ShardSetError, match="too short"):
        shards.with_frames(time_bins=1000, binning="count").split("test")
