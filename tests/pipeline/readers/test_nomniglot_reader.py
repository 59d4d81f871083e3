"""N-Omniglot: files in the true layout become the right samples, and no file is decoded twice."""

import threading
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from conversions import contents
from raw_sets.nomniglot import drawer_events, write_raw

from spikebridge.pipeline.base.errors import LayoutError, PipelineError, RecordingError
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.datasets.pairs import Recording
from spikebridge.pipeline.events.framing import to_frames
from spikebridge.pipeline.events.packing import pack
from spikebridge.pipeline.formats.aedat import aedat4
from spikebridge.pipeline.preprocess import tasks as convert_tasks
from spikebridge.pipeline.preprocess.decoded_files import ConvertedRecording, cached_frames
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.readers import get_reader, nomniglot
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import ConversionSettings

WANTED = ConversionSettings(
    dataset="nomniglot", time_bins=4, size=28, reduction="frequency", samples_per_shard=7, seed=3
)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("nomniglot"))


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files as they are decoded."""
    names = []
    whole = aedat4.read

    def read(path):
        names.append(path.name)
        return whole(path)

    monkeypatch.setattr(aedat4, "read", read)
    return names


def run(raw, out, settings=WANTED, **options):
    return convert(prepare(settings, events_root=raw, static_root=raw), out, **options)


def test_listing_joins_on_numbers_whatever_the_spelling(raw):
    listing = get_reader("nomniglot").list_pair(raw, raw / "static")
    assert listing.classes == ("Alphabet of the Magi/character01", "Zulu/character02", "Angelic/character01")
    assert len(listing.recordings) == len(listing.images) == 60
    assert {r.image for r in listing.recordings} == {i.name for i in listing.images}
    assert Counter(r.subset for r in listing.recordings) == {"train": 45, "test": 15}
    labels = {i.name: (i.label, i.subset) for i in listing.images}
    assert all(labels[r.image] == (r.label, r.subset) for r in listing.recordings)
    one = listing.recordings[0]
    assert one.name == "dvs_background/Alphabet of the Magi/character01/0001_01"
    assert listing.notes == ()


def test_events_of_one_drawer_are_those_of_its_window(raw):
    reader = get_reader("nomniglot")
    listing = reader.list_pair(raw, raw)
    for recording in (listing.recordings[0], listing.recordings[-1]):
        number, drawer = recording.stem.split("_")
        events, expected = reader.read_events(recording), drawer_events(number, int(drawer))
        assert len(events) == 60
        np.testing.assert_array_equal(events.t - events.t[0], expected.t - expected.t[0])
        np.testing.assert_array_equal(events.x, expected.x)
    by_name = dict(reader.read_file(listing.recordings[0]))
    assert len(by_name) == 20
    image = reader.read_image(listing.images[0])
    assert set(np.unique(image)) == {0, 255}  # as in the file: ink 0, paper 255


@pytest.mark.parametrize("format_", ["webdataset", "hdf5"])
def test_conversion_decodes_each_file_once(raw, tmp_path, decoded, format_):
    done = run(raw, tmp_path / "set", replace(WANTED, format=format_))
    assert sorted(decoded) == ["0001.aedat4", "0964.aedat4", "0965.aedat4"]
    assert not done.rejects
    assert done.manifest["splits"]["test"]["samples"] == 15
    assert done.manifest["splits"]["train"]["samples"] + done.manifest["splits"]["validation"]["samples"] == 45
    assert not (tmp_path / "set" / ".work").exists()
    found = verify(tmp_path / "set")
    assert found.ok, found.problems
    shards = ShardSet(tmp_path / "set")
    assert shards.dtype == np.float16
    assert sum(len(shards.event_shards(split)) for split in ("train", "validation", "test")) == 6 + 1 + 3


def test_frames_are_those_of_the_recording_alone(raw, tmp_path):
    run(raw, tmp_path / "set")
    import tarfile

    events = drawer_events("0965", 20)
    expected = to_frames(
        pack(events, sensor_size=(346, 260), source="x"),
        time_bins=4,
        size=28,
        reduction="frequency",
        dtype="float16",
        canvas=(346, 260),
        crop=(54, 4, 304, 254),
        source="x",
    )
    for shard in ShardSet(tmp_path / "set").event_shards("test"):
        with tarfile.open(shard) as tar:
            if "test-2-0965_20.frames.npy" in tar.getnames():
                found = tar.extractfile("test-2-0965_20.frames.npy").read()
    assert found.endswith(expected.frames.tobytes())


def test_same_bytes_with_two_workers_and_after_an_interruption(raw, tmp_path, decoded, monkeypatch):
    run(raw, tmp_path / "one")
    run(raw, tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    decoded.clear()
    whole, written = convert_tasks.write_shard, []

    def stop_at_the_third(path, *arguments, **options):
        written.append(path)
        if len(written) == 3:
            raise KeyboardInterrupt
        return whole(path, *arguments, **options)

    monkeypatch.setattr(convert_tasks, "write_shard", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(raw, tmp_path / "three")
    monkeypatch.setattr(convert_tasks, "write_shard", whole)
    run(raw, tmp_path / "three")
    assert contents(tmp_path / "one") == contents(tmp_path / "three")
    assert len(decoded) == 3  # what was decoded before the interruption is not decoded again


def test_two_tasks_that_need_one_file_decode_it_once(tmp_path):
    (tmp_path / "raw").write_bytes(b"")
    made = []
    facts = dict.fromkeys(("events", "dropped_events", "saturated_cells", "clipped_events", "outside_events"), 1)
    facts |= {"duration_us": 5, "events_sha256": "0" * 64}

    def make():
        made.append(1)
        yield "a", ConvertedRecording(np.ones((1, 2, 2, 2), np.uint8), facts, np.arange(9, dtype=np.uint8))
        yield "b", RecordingError("b: no events", reason="empty")

    results = []
    together = threading.Barrier(8)

    def ask(name):
        together.wait()
        recording = Recording(name, str(tmp_path / "raw"), 0, None, name, None)
        try:
            found = cached_frames(tmp_path, recording, "0" * 64, make)
            assert found.events.tolist() == list(range(9))
            results.append(found.frames.sum())
        except RecordingError as error:
            results.append(error.reason)

    threads = [threading.Thread(target=ask, args=(name,)) for name in "aaabbbcc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert Counter(results) == {8: 3, "empty": 3, "missing": 2}


def test_a_damaged_file_rejects_its_recordings_only(tmp_path, decoded):
    raw = write_raw(tmp_path / "raw")
    path = next(raw.rglob("0964.aedat4"))
    path.write_bytes(path.read_bytes()[:-2000])
    done = run(raw, tmp_path / "set", max_bad=20)
    assert Counter(line["reason"] for line in done.rejects) == {"truncated": 20}
    assert all("0964.aedat4" in line["message"] for line in done.rejects)
    assert sorted(decoded) == ["0001.aedat4", "0964.aedat4", "0965.aedat4"]
    assert verify(tmp_path / "set").ok


def test_an_empty_window_rejects_one_recording(tmp_path):
    raw = write_raw(tmp_path / "raw")
    path = next(raw.rglob("0964.csv"))
    lines = path.read_text().splitlines()
    index, start, _ = lines[1].split(",")
    lines[1] = f"{index},{int(start) - 2},{int(start) - 1}"
    path.write_text("\n".join(lines))
    done = run(raw, tmp_path / "set", max_bad=1)
    assert [(line["reason"], line["name"][-7:]) for line in done.rejects] == [("empty", "0964_01")]


@pytest.mark.parametrize(
    "table",
    [
        "",
        "index,start,end\n",
        "index,start,end\n0,1.5,2\n",
        "index,start,end\n0,5,5\n",
        "i,s,e\n0,5,9\n1,8,12\n",
        "a\nb\n",
    ],
)
def test_a_bad_table_is_named(tmp_path, table):
    path = tmp_path / "0001.csv"
    path.write_text(table)
    with pytest.raises(RecordingError, match=r"0001\.csv") as error:
        nomniglot.read_windows(path)
    assert error.value.reason == "damaged_table"


@pytest.mark.parametrize(("table", "reason"), [(None, "no_table"), ("index,start,end\n0,1.5,2\n", "damaged_table")])
def test_a_bad_table_rejects_the_recordings_of_its_file_only(tmp_path, decoded, table, reason):
    raw = write_raw(tmp_path / "raw")
    path = next(raw.rglob("0964.csv"))
    path.unlink() if table is None else path.write_text(table)
    listing = get_reader("nomniglot").list_pair(raw, raw)
    assert len(listing.recordings) == 60
    assert [note for note in listing.notes if "0964: its csv file is missing or damaged" in note]
    with pytest.raises(PipelineError, match=r"20 recordings or images cannot be used, 19 are allowed"):
        run(raw, tmp_path / "set", max_bad=19)
    done = run(raw, tmp_path / "set", max_bad=20)
    assert Counter(line["reason"] for line in done.rejects) == {reason: 20}
    assert all("0964.csv" in line["message"] for line in done.rejects)
    assert sorted(decoded) == ["0001.aedat4", "0965.aedat4"]
    assert verify(tmp_path / "set").ok


def test_layout_errors(raw, tmp_path):
    reader = get_reader("nomniglot")
    with pytest.raises(LayoutError, match="dvs_background"):
        reader.list_pair(tmp_path, raw)
    copy = tmp_path / "events" / "dvs_background" / "A" / "character01"
    copy.mkdir(parents=True)
    (copy / "0001.aedat4").write_bytes(b"")
    assert "0001: its csv file is missing" in " ".join(reader.list_pair(tmp_path, raw).notes)
    (copy / "0001.csv").write_text("index,start,end\n0,1,2\n1,2,3\n")
    assert "2 of 20 recordings" in " ".join(reader.list_pair(tmp_path, raw).notes)
    (copy / "one.aedat4").write_bytes(b"")
    with pytest.raises(LayoutError, match=r"one\.aedat4 does not belong here"):
        reader.list_pair(tmp_path, raw)


def test_another_table_is_other_raw_data(tmp_path):
    raw = write_raw(tmp_path / "raw")
    before = get_reader("nomniglot").list_pair(raw, raw).sha256()
    path = next(raw.rglob("0964.csv"))
    lines = path.read_text().splitlines()
    index, start, end = lines[1].split(",")
    lines[1] = f"{index},{int(start) + 1},{end}"
    path.write_text("\n".join(lines))
    assert get_reader("nomniglot").list_pair(raw, raw).sha256() != before


def test_what_a_file_holds_besides_events_is_counted_once(raw, tmp_path):
    (path,) = (raw / "events").rglob("0001.aedat4")
    inside = aedat4.read(path).passed_over
    assert inside
    notes = run(raw, tmp_path / "set").manifest["notes"]
    assert f"passed over: {', '.join(f'{count:,} {what}' for what, count in inside)}" in notes
