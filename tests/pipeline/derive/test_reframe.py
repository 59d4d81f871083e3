"""A set with other frames, made of stored events: the event shards of a conversion of the raw data, byte by byte."""

import numpy as np
import pytest
from click.testing import CliRunner

from spikebridge import cli
from spikebridge.pipeline.base.errors import SettingsError, ShardSetError
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.derive.reframe import reframe
from spikebridge.pipeline.shards.framing import Framing
from spikebridge.pipeline.shards.reader import ShardSet


def shards_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name.startswith("events-")}


@pytest.mark.parametrize(
    ("source", "store", "asked"),
    [
        ("events", "both", {"time_window_us": (50_000, 200_000), "reduction": "event"}),
        ("both", "events", {"binning": "window", "window_us": 20_000, "time_bins": 2}),
        ("both", "frames", {"extent": "recording", "time_bins": 2, "dtype": "uint16"}),
    ],
    ids=["a-window", "windows", "extent"],
)
def test_the_event_shards_of_a_conversion(shard_set, tmp_path, source, store, asked):
    there = {"format": "hdf5", "samples_per_shard": 7} if source == "both" else {"samples_per_shard": 7}
    made = shard_set(**there, store=source)
    manifest = reframe(made, tmp_path / "set", asked, store=store).manifest
    wanted = ShardSet(shard_set(**there, store=store if store != "frames" else "", **asked))
    assert shards_of(tmp_path / "set") == shards_of(wanted.path)
    same = ("settings", "settings_sha256", "sample", "splits", "events", "static", "schema", "stored")
    for name in same:
        assert manifest.get(name) == wanted.manifest.get(name), name
    images = [(folder / "static.h5").read_bytes() for folder in (tmp_path / "set", wanted.path)]
    shown = f"static images show the canvas, as in set {ShardSet(made).id[:12]}"
    assert (images[0] == images[1]) == ("extent" not in asked) == (shown not in manifest["notes"])
    (step,) = manifest["made_from"]
    assert (step["verb"], step["sets"][0]["id"]) == ("convert", ShardSet(made).id)
    assert set(asked) <= set(step["selection"]) | {"dtype"}
    report = verify(tmp_path / "set")
    assert report.ok, report.problems
    assert reframe(made, tmp_path / "set", asked, store=store).up_to_date


def test_another_size(shard_set, tmp_path):
    """Frames as of a conversion; images resized from the set's, as a training on the set itself would have them."""
    source, wanted = ShardSet(shard_set(store="events")), ShardSet(shard_set(size=20, time_bins=2))
    options = ["--store", "frames", "--size", "20", "--time-bins", "2", "--out", str(tmp_path / "set")]
    done = CliRunner().invoke(cli.main, ["convert", str(source.path), *options], catch_exceptions=False)
    assert "frames     [2x2x20x20] uint8, sum" in done.output
    assert shards_of(tmp_path / "set") == shards_of(wanted.path)
    framed = ShardSet(tmp_path / "set")
    training = source.with_frames(size=20, time_bins=2, dtype="uint8")
    np.testing.assert_array_equal(framed.static_pool().images, training.static_pool().images)
    assert f"static images were resized from 12x12 pixels, those of set {source.id[:12]}" in framed.manifest["notes"]
    assert verify(framed.path).ok
    assert "convert" in (framed.path / "README.md").read_text()


def test_the_type_is_that_of_a_conversion(shard_set, tmp_path, monkeypatch):
    """The wide one where the narrow one would clip more than 1 % of the events, which a type that is asked for may."""
    source = shard_set(store="events")
    kept = Framing.frame

    def clipping(framing, data, *, source):
        used, framed = kept(framing, data, source=source)
        full, saturated, clipped = (framed.frames, 0, 0) if framing.settings.dtype == "uint16" else lossy(framed.frames)
        return used, type(framed)(full, framed.dropped_events, saturated, clipped, framed.outside_events)

    def lossy(frames):
        return frames.clip(max=2), int((frames > 2).sum()), int(frames.sum()) - int(frames.clip(max=2).sum())

    monkeypatch.setattr(Framing, "frame", clipping)
    wide = reframe(source, tmp_path / "wide", {"time_bins": 1, "size": 6}).manifest
    assert wide["sample"]["dtype"] == "<u2"
    told = reframe(source, tmp_path / "told", {"time_bins": 1, "size": 6, "dtype": "uint8"}).manifest
    assert told["events"]["saturated_cells"] > 0
    assert any("of the events are clipped by uint8" in note for note in told["notes"])


def test_what_cannot_be(shard_set, tmp_path):
    out = tmp_path / "set"
    with pytest.raises(ShardSetError, match=r"stores frames, made with time_bins 4, and the events are gone"):
        reframe(shard_set(), out, {"time_bins": 3})
    events = shard_set(store="events")
    with pytest.raises(ShardSetError, match=r"too short for 1000 time bins.*preprocess the raw data"):
        reframe(events, out, {"time_bins": 1000, "binning": "count"})
    with pytest.raises(SettingsError, match=r"filtered over whole recordings.*--time-window"):
        reframe(shard_set(store="events", refractory_us=50), out, {"time_window_us": (0, 100_000)})
    with pytest.raises(ShardSetError, match="static images were fitted to 12x12"):
        reframe(events, out, {"width": 24})
    with pytest.raises(SettingsError, match="encoding: fixed when the set was made"):
        reframe(events, out, {"encoding": "rgb"})
    assert reframe(shard_set(), out, {"time_bins": 4}).manifest["self_sha256"] == ShardSet(shard_set()).id
