"""Sets that store events: the frames of a conversion with any settings, the same bytes however they are made."""

import io
import itertools
import pickle
import tarfile
import warnings

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import make_events
from conversions import contents, run
from own_folders import put_image, put_recording

from spikebridge import cli
from spikebridge.pipeline.base.errors import SettingsError, ShardSetError
from spikebridge.pipeline.base.files import HashedFile
from spikebridge.pipeline.base.progress import no_progress
from spikebridge.pipeline.checks.samples import Layout, walk_hdf5, walk_tar
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.events.compact import CompactEvents
from spikebridge.pipeline.inspection.sets import summarize_shards
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.reformat import reformat
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.shards.framing import Framing
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import ConversionSettings
from spikebridge.pipeline.shards.writer import EXTENSION, write_shard

STORED = [(format_, codec) for format_ in ("webdataset", "hdf5") for codec in ("raw", "gzip")]
SETTINGS = {"dataset": "digits", "time_bins": 4, "size": 12, "samples_per_shard": 7}


def made(shard_set, stored=STORED[0], **more):
    return shard_set(**{"format": stored[0], "codec": stored[1], "samples_per_shard": 7, "store": "events", **more})


def all_frames(shards):
    return [shards.split(name).read_all() for name in shards.present]


@pytest.mark.parametrize("stored", STORED)
def test_an_event_set_gives_the_frames_of_a_frame_set(shard_set, stored):
    events, frames = ShardSet(made(shard_set, stored)), ShardSet(made(shard_set, stored, store=""))
    assert (events.store, frames.store) == ("events", "frames")
    assert events.manifest["schema"] == 2
    assert frames.manifest["schema"] == 1
    assert (events.sample_shape, events.dtype) == (frames.sample_shape, frames.dtype)
    for name, one, other in zip(events.present, all_frames(events), all_frames(frames), strict=True):
        assert np.array_equal(one, other)
        assert events.split(name).keys == frames.split(name).keys
        assert np.array_equal(events.split(name).labels, frames.split(name).labels)
    report = verify(events.path)
    assert report.ok, report.problems


@pytest.mark.parametrize(
    "asked",
    [
        {"time_bins": 7, "size": 20},
        {"time_bins": 2, "size": 5},
        {"reduction": "bilinear", "extent": "recording"},
        {"reduction": "event"},
        {"reduction": "frequency"},
        {"reduction": "voxel", "time_bins": 3},
        {"reduction": "surface", "tau_us": 30_000},
        {"reduction": "tore", "latest_events": 2},
        {"binning": "window", "window_us": 20_000},
        {"binning": "count"},
        {"time_window_us": (50_000, 200_000)},
        {"width": 18, "fit": "pad"},
    ],
    ids=lambda asked: "-".join(map(str, asked)),
)
def test_other_settings_give_the_frames_of_another_conversion(shard_set, asked):
    """`preprocess` with these settings and the same type writes the same numbers."""
    framed = ShardSet(made(shard_set)).with_frames(**asked)
    other = ShardSet(shard_set(samples_per_shard=7, **asked, dtype=framed.settings["dtype"]))
    assert framed.sample_shape == other.sample_shape
    assert framed.id == ShardSet(made(shard_set)).id
    for one, two in zip(all_frames(framed), all_frames(other), strict=True):
        assert one.dtype == two.dtype
        assert np.array_equal(one, two)
    assert {name: framed.settings[name] for name in asked} == {
        name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()
    }


def test_cells_that_may_fill_up_more_are_wider(shard_set):
    events = ShardSet(made(shard_set))
    types = [
        events.with_frames(**asked).dtype.name
        for asked in ({"time_bins": 5}, {"size": 13}, {"time_bins": 3}, {"size": 11}, {"reduction": "bilinear"})
    ]
    assert types == ["uint8", "uint8", "uint16", "uint16", "float16"]
    assert events.with_frames(time_bins=3, dtype="uint8").dtype == np.uint8


def test_frames_in_another_process(shard_set):
    framed = ShardSet(made(shard_set)).with_frames(time_bins=3)
    copy = pickle.loads(pickle.dumps(framed))
    split = pickle.loads(pickle.dumps(framed.split("train")))
    assert copy.sample_shape == (3, 2, 12, 12)
    assert np.array_equal(copy.split("train").read([1]), framed.split("train").read([1]))
    assert np.array_equal(split.read([1]), framed.split("train").read([1]))
    assert framed.with_frames(time_bins=4).sample_shape == (4, 2, 12, 12)
    assert framed.with_frames() is framed


def test_static_images_come_in_the_size_of_the_frames(shard_set):
    events = ShardSet(made(shard_set))
    assert events.static_pool().images.shape[2:] == (12, 12)
    assert events.with_frames(size=24).static_pool().images.shape[2:] == (24, 24)
    with pytest.raises(ShardSetError, match="static images were fitted to 12x12"):
        events.with_frames(width=24).static_pool()


def test_what_cannot_be_chosen_at_reading(shard_set):
    events, frames = ShardSet(made(shard_set)), ShardSet(shard_set())
    with pytest.raises(SettingsError, match="encoding: fixed when the set was made"):
        events.with_frames(encoding="rgb")
    with pytest.raises(SettingsError, match="window_us: binning window needs"):
        events.with_frames(binning="window")
    with pytest.raises(ShardSetError, match=r"stores frames, made with time_bins 4.*--store events"):
        frames.with_frames(time_bins=3)
    with pytest.raises(ShardSetError, match=r"stores frames.*--store events"):
        next(frames.split("train").read_events([0]))
    part = ShardSet(shard_set(store="events", time_window_us=(0, 200_000)))
    with pytest.raises(ShardSetError, match="the events of"):
        part.with_frames(time_window_us=(0, 300_000))
    short = events.with_frames(time_bins=1000, binning="count")
    with pytest.raises(ShardSetError, match=r"24 of 24|are too short for 1000 time bins"):
        short.split("train")


def test_the_events_themselves(shard_set):
    """As recorded: those of the raw files, in their order."""
    from spikebridge.pipeline.formats import bin40

    events = ShardSet(made(shard_set))
    raw = sorted((events.path.parent / "raw" / "events").rglob("*.bin"))
    recorded = {tuple(bin40.decode(path.read_bytes(), source=path.name)[0].t.tolist()) for path in raw}
    found = [one.packed.unpack() for one in events.split("train").read_events(range(len(events.split("train"))))]
    assert len(found) > 9
    assert {tuple(one.t.tolist()) for one in found} < recorded


@pytest.mark.parametrize("there", STORED)
def test_convert(shard_set, tmp_path, there):
    """From a set with events to every other, the very bytes of a conversion of the raw data; from frames to none."""
    here, number = STORED[3 - STORED.index(there)], STORED.index(there)
    store, others = (("events", ("frames", "both")), ("both", ("frames", "events")))[number % 2]
    source = made(shard_set, here, store=store)
    for other in (None, *others):
        out = tmp_path / f"{other}"
        reformat(source, out, format_=there[0], codec=there[1], store=other)
        wanted = {None: store, "frames": ""}.get(other, other)
        assert contents(out) == contents(made(shard_set, there, store=wanted)), other
    for store in ("events", "both"):
        with pytest.raises(SettingsError, match=r"events cannot be made of those.*--store events"):
            reformat(tmp_path / "frames", tmp_path / "back", store=store)


@pytest.mark.parametrize("stored", STORED[::3])
def test_a_set_of_both_reads_its_frames_and_makes_others(shard_set, stored, monkeypatch):
    both, events, frames = (ShardSet(made(shard_set, stored, store=store)) for store in ("both", "events", ""))
    assert "stored beside their events" in "\n".join(summarize_shards(both, progress=no_progress).about)
    assert (both.store, both.arrays, both.manifest["schema"]) == ("both", ("frames", "events"), 2)
    report = verify(both.path)
    assert report.ok, report.problems
    fewer = both.with_frames(time_bins=3)
    assert np.array_equal(fewer.split("train").read_all(), events.with_frames(time_bins=3).split("train").read_all())
    assert fewer.with_frames(time_bins=4, dtype="uint8").as_stored
    for one, other in zip(
        both.split("test").read_events([1, 0]), events.split("test").read_events([1, 0]), strict=True
    ):
        assert np.array_equal(one.packed.words, other.packed.words)
    turned = both.split("train").read([0], changes=[lambda packed, sensor: None])
    assert np.array_equal(turned, frames.split("train").read([0]))
    assert both.split("train").static_keys([2]) == frames.split("train").static_keys([2])
    monkeypatch.setattr(Framing, "count_into", None)  # no frames are made of events from here on
    monkeypatch.setattr(Framing, "frames_into", None)
    for one, other in zip(all_frames(ShardSet(both.path)), all_frames(frames), strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(fewer.with_frames(time_bins=4).split("test").read([0]), frames.split("test").read([0]))


def test_an_empty_split_of_both(tmp_path):
    for format_ in ("webdataset", "hdf5"):
        path = tmp_path / f"events-test-00000{EXTENSION[format_]}"
        layout = Layout((2, 2, 3, 3), np.dtype("u1"), "raw", "both")
        index = write_shard(path, [], shape=layout.shape, dtype=layout.dtype, key_bytes=4, store="both").index
        with HashedFile(path) as file:
            walk = (
                walk_tar(file, index, layout, name="a") if format_ == "webdataset" else walk_hdf5(path, index, layout)
            )
            assert list(walk) == []


def test_the_verbs(digits_raw, tmp_path):
    options = ["--time-bins", "4", "--size", "12", "--store", "events", "--workers", "1", "--format", "hdf5"]
    sources = ["--dataset", "digits", "--events", str(digits_raw), "--static", str(digits_raw)]
    out = str(tmp_path / "set")
    done = CliRunner().invoke(cli.main, ["preprocess", *sources, *options, "--out", out], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    shown = CliRunner().invoke(cli.main, ["inspect", out], catch_exceptions=False)
    assert "events" in shown.output
    again = CliRunner().invoke(
        cli.main, ["convert", out, "--store", "frames", "--out", str(tmp_path / "frames")], catch_exceptions=False
    )
    assert "stored as  hdf5, raw" in again.output
    hashes = {
        CliRunner().invoke(cli.main, ["preprocess", "--dataset", "digits", "--settings-hash", *more]).output
        for more in ([], ["--store", "frames"], ["--store", "events"])
    }
    assert len(hashes) == 2


def test_any_number_of_workers_writes_the_same_bytes(digits_raw, tmp_path):
    settings = ConversionSettings(**SETTINGS, store="both")
    for workers in (1, 2):
        run(digits_raw, tmp_path / str(workers), settings, workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_recordings_that_share_a_file(tmp_path, monkeypatch):
    """Cut out of a longer one: each has its own events; the same bytes where the longer one is not kept in memory."""
    for label, count in itertools.product((0, 1), range(3)):
        put_recording(
            tmp_path / "raw" / "train" / str(label) / f"r{count}.npz",
            make_events(10 * label + count, size=(30, 20)),
            size=(30, 20),
        )
        put_image(tmp_path / "static" / str(label) / f"i{count}.png", count)
    for store in ("", "events"):
        settings = ConversionSettings(dataset="folders", time_bins=4, size=12, cut_us=100_000, store=store)
        convert(
            prepare(settings, events_root=tmp_path / "raw", static_root=tmp_path / "static"), tmp_path / f"set-{store}"
        )
    frames, events = ShardSet(tmp_path / "set-"), ShardSet(tmp_path / "set-events")
    for one, other in zip(all_frames(frames), all_frames(events), strict=True):
        assert np.array_equal(one, other)
    assert len(frames.split("train")) > 5
    assert verify(events.path).ok
    for module in ("readers.folders", "events.compact"):
        monkeypatch.setattr(f"spikebridge.pipeline.{module}.KEPT_EVENTS", 64)
    monkeypatch.setattr("spikebridge.pipeline.events.compact.PIECE", 32)
    convert(prepare(settings, events_root=tmp_path / "raw", static_root=tmp_path / "static"), tmp_path / "again")
    assert contents(tmp_path / "again") == contents(events.path)
    whole = ConversionSettings(dataset="folders", time_bins=4, size=12, store="events", dtype="uint8")
    for kept in (64, 2**24):
        monkeypatch.setattr("spikebridge.pipeline.readers.folders.KEPT_EVENTS", kept)
        convert(prepare(whole, events_root=tmp_path / "raw", static_root=tmp_path / "static"), tmp_path / f"set-{kept}")
    assert contents(tmp_path / "set-64") == contents(tmp_path / f"set-{2**24}")
    assert verify(tmp_path / "set-64").ok


def test_stock_readers_open_them(shard_set):
    """webdataset and tarfile give the bytes, h5py the same; ten lines of numpy the events."""
    tarred, hdf5 = (ShardSet(made(shard_set, (format_, "raw"))) for format_ in ("webdataset", "hdf5"))
    wanted = [one.packed.words for one in tarred.split("test").read_events(range(3))]
    (shard,) = tarred.event_shards("test")[:1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset

        read = [s["events.npy"] for s in list(webdataset.WebDataset(str(shard), shardshuffle=False).decode())]
    for data, words in zip(read, wanted, strict=False):
        assert np.array_equal(CompactEvents.parse(data).packed.words, words)
    with tarfile.open(shard) as archive:
        first = np.load(io.BytesIO(archive.extractfile(f"{tarred.split('test').keys[0]}.events.npy").read()))
    assert np.array_equal(first, read[0])
    with h5py.File(hdf5.event_shards("test")[0]) as file:
        start = file["start"][()]
        for i, words in enumerate(wanted):
            assert np.array_equal(CompactEvents.parse(file["events"][start[i] : start[i + 1]]).packed.words, words)
