"""N-Caltech101 and Caltech101 in their true layout: joins, traps, labels, both protocols, one conversion."""

from dataclasses import replace

import numpy as np
import pytest
from raw_sets.ncaltech101 import CLASSES, write_raw

from spikebridge.pipeline.base.errors import LayoutError, RecordingError
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.formats import bin40
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.readers import get_reader
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import ConversionSettings

SETTINGS = ConversionSettings(dataset="ncaltech101", time_bins=3, size=8, extent="recording")


@pytest.fixture
def raw(tmp_path):
    return write_raw(tmp_path / "raw")


def listing_of(events_root, static_root=None):
    return get_reader("ncaltech101").list_pair(events_root, static_root or events_root)


def test_listing(raw):
    listing = listing_of(raw)
    assert listing.classes == ("BACKGROUND_Google", "Faces_easy", "accordion", "yin_yang")
    assert listing.sensor_size == (240, 180)
    assert listing.pairing == "exact"
    assert len(listing.recordings) == len(listing.images) == 20
    assert not [image for image in listing.images if "tmp" in image.name or "Faces/" in image.name]
    images = {image.name: image.label for image in listing.images}
    assert all(images[r.image] == r.label and r.subset is None for r in listing.recordings)
    assert [r.name for r in listing.recordings] == sorted(r.name for r in listing.recordings)
    assert "the 2 images of Faces are not used: N-Caltech101 has no recordings of them" in listing.notes
    assert any("4 classes found, 101 expected" in note for note in listing.notes)


@pytest.mark.parametrize(
    ("events", "static"),
    [("", ""), ("Caltech101", "101_ObjectCategories"), ("Caltech101", ""), ("", "101_ObjectCategories")],
)
def test_roots_above_and_below(raw, events, static):
    assert listing_of(raw / events, raw / static) == listing_of(raw)


def test_a_complete_copy_has_all_classes_and_no_note_about_them(tmp_path):
    names = [f"Z{i:03d}" for i in range(50)] + [f"a{i:03d}" for i in range(51)]
    raw = write_raw(tmp_path / "raw", dict.fromkeys(names, 1))
    listing = listing_of(raw)
    assert listing.classes == tuple(names)
    assert not any("expected" in note for note in listing.notes)


def test_a_missing_class_moves_the_labels_and_is_said(raw):
    for path in (raw / "Caltech101" / "Faces_easy").iterdir():
        path.unlink()
    listing = listing_of(raw)
    assert listing.classes == ("BACKGROUND_Google", "accordion", "yin_yang")
    assert {r.label for r in listing.recordings} == {0, 1, 2}
    assert any("no recordings in the folders Faces_easy" in note for note in listing.notes)
    assert any("no recordings of the image classes Faces, Faces_easy" in note for note in listing.notes)


def test_the_join_is_on_class_and_number_not_on_position(raw):
    (raw / "101_ObjectCategories" / "accordion" / "image_0002.jpg").unlink()
    conversion = prepare(SETTINGS, events_root=raw, static_root=raw)
    assert [line["name"] for line in conversion.rejects] == ["accordion/image_0002"]
    assert conversion.rejects[0]["reason"] == "no_static_image"
    partner = {r.name: r.image for r in conversion.used}
    assert partner["accordion/image_0003"] == "accordion/image_0003"


def test_events_begin_at_the_smallest_x_and_y(raw):
    listing = listing_of(raw)
    reader = get_reader("ncaltech101")
    for recording in listing.recordings[:3]:
        stored, _ = bin40.decode(recording.path.read_bytes(), source="x")
        events = reader.read_events(recording)
        assert (events.x.min(), events.y.min()) == (0, 0)
        np.testing.assert_array_equal(events.x, stored.x - stored.x.min())
        np.testing.assert_array_equal(events.y, stored.y - stored.y.min())
        np.testing.assert_array_equal(events.t, stored.t)


def test_overflow_markers_are_not_taken_for_events(raw):
    recording = listing_of(raw).recordings[0]
    plain = get_reader("ncaltech101").read_events(recording)
    data = recording.path.read_bytes()
    recording.path.write_bytes(data[:50] + bytes([0, 240, 0, 0, 0]) + data[50:])
    marked = get_reader("ncaltech101").read_events(recording)
    assert len(marked) == len(plain)
    np.testing.assert_array_equal(marked.t - plain.t, np.where(np.arange(len(plain)) < 10, 0, 2**13))


@pytest.mark.parametrize("filters", [{}, {"hot_pixels": 1e6}])
def test_overflow_markers_are_counted_and_said(raw, tmp_path, filters):
    for recording in listing_of(raw).recordings[:2]:
        data = recording.path.read_bytes()
        recording.path.write_bytes(data[:50] + 3 * bytes([0, 240, 0, 0, 0]) + data[50:])
    conversion = prepare(replace(SETTINGS, **filters), events_root=raw, static_root=raw)
    manifest = convert(conversion, tmp_path / "set").manifest
    assert manifest["events"]["overflow_markers"] == 6
    assert manifest["events"]["events"] == 20 * 300
    assert any(note.startswith("6 overflow markers") for note in manifest["notes"])
    assert "6 overflow markers" in (tmp_path / "set" / "README.md").read_text()
    assert verify(tmp_path / "set").ok


def test_grey_photographs_have_three_equal_channels(raw):
    listing = listing_of(raw)
    grey = next(image for image in listing.images if image.name == "accordion/image_0002")
    rgb = get_reader("ncaltech101").read_image(grey)
    assert rgb.shape[2] == 3
    assert (rgb == rgb[..., :1]).all()


def test_truncated_recording(raw):
    recording = listing_of(raw).recordings[0]
    recording.path.write_bytes(recording.path.read_bytes()[:-1])
    with pytest.raises(RecordingError, match="BACKGROUND_Google/image_0001") as error:
        get_reader("ncaltech101").read_events(recording)
    assert error.value.reason == "truncated"


@pytest.mark.parametrize(
    ("name", "message"),
    [("notes.dat", "does not belong here"), ("image_1.bin", "have one number"), ("image_x.bin", "0012")],
)
def test_what_does_not_belong_there_is_named(raw, name, message):
    (raw / "Caltech101" / "accordion" / name).write_bytes(b"12345")
    with pytest.raises(LayoutError, match=message):
        listing_of(raw)


def test_hidden_files_are_passed_over(raw):
    before = listing_of(raw)
    (raw / "Caltech101" / ".DS_Store").write_bytes(b"")
    (raw / "Caltech101" / "accordion" / "._image_0001.bin").write_bytes(b"")
    assert listing_of(raw) == before


def test_wrong_folder(tmp_path):
    (tmp_path / "raw" / "other").mkdir(parents=True)
    with pytest.raises(LayoutError, match="expected Caltech101/<class>"):
        listing_of(tmp_path / "raw")


def test_legacy_takes_nine_tenths_of_each_class_and_leaks_as_published(raw):
    settings = ConversionSettings(dataset="ncaltech101", protocol="legacy", seed=3)
    conversion = prepare(settings, events_root=raw, static_root=raw)
    for label, count in enumerate(CLASSES.values()):
        splits = [conversion.split[r.name] for r in conversion.used if r.label == label]
        assert (splits.count("train"), splits.count("test")) == (round(0.9 * count), count - round(0.9 * count))
    assert round(0.9 * 5) == 4  # half to even
    pool = [image.name for image in conversion.listing.images if image.subset == "train" and image.label == 0]
    assert pool == [f"BACKGROUND_Google/image_{i:04d}" for i in range(1, 7)]  # round(.9 * 6) and one more
    assert any("seeded order" in note for note in conversion.listing.notes)
    other = prepare(ConversionSettings(dataset="ncaltech101", protocol="legacy"), events_root=raw, static_root=raw)
    assert other.split != conversion.split
    assert next(conversion.report()) == "found 20 of 8,709 unsplit recordings"


def test_the_published_counts_are_met():
    from spikebridge.pipeline.datasets.pairs import Recording
    from spikebridge.pipeline.datasets.splits import split_by_first_share

    counts = (
        "467 435 200 798 55 800 42 42 47 54 46 33 128 98 43 85 91 50 43 123 47 59 62 107 47 69 73 70 50 51 57 67 52 65 "
        "68 75 64 53 64 85 67 67 45 34 34 51 99 100 42 54 88 80 31 64 86 114 61 81 78 41 66 43 40 87 32 76 55 35 39 47 "
        "38 45 53 34 57 82 59 49 40 63 39 84 57 35 64 45 86 59 64 35 85 49 86 75 239 37 59 34 56 39 60"
    )
    recordings = [
        Recording(f"{label}/{i}", "", label, None, str(i), None)
        for label, count in enumerate(map(int, counts.split()))
        for i in range(count)
    ]
    assert len(recordings) == get_reader("ncaltech101").card.expected["unsplit"] == 8709
    subsets = [r.subset for r in split_by_first_share(recordings, 0.9, seed=0)]
    assert (subsets.count("train"), subsets.count("test")) == (7839, 870)


@pytest.mark.parametrize("protocol", ["strict", "legacy"])
def test_conversion(raw, tmp_path, protocol):
    settings = ConversionSettings(
        dataset="ncaltech101", protocol=protocol, time_bins=3, size=8, extent="recording", samples_per_shard=8
    )
    conversion = prepare(settings, events_root=raw, static_root=raw)
    outcome = convert(conversion, tmp_path / "set")
    assert not outcome.rejects
    found = verify(tmp_path / "set")
    assert found.ok, found.problems
    shards = ShardSet(tmp_path / "set")
    assert shards.classes == ("BACKGROUND_Google", "Faces_easy", "accordion", "yin_yang")
    counts = {name: split["samples"] for name, split in outcome.manifest["splits"].items()}
    assert sum(counts.values()) == 20
    assert (counts["validation"] > 0) == (protocol == "strict")
    assert any("as published" in note for note in outcome.manifest["notes"])
    if protocol == "strict":
        assert outcome.manifest["static"]["roles"]["pool"] == counts["train"]
    else:
        assert any("legacy" in note for note in found.notes)
