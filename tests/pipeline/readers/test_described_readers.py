"""Readers of data sets that lists or names describe: files in the true layouts give the right recordings and splits."""

import shutil
from collections import Counter

import numpy as np
import pytest
from raw_sets import described as raw_sets

from spikebridge.pipeline.base.errors import LayoutError, RecordingError, SettingsError
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.datasets.published import PUBLISHED, assign_published, list_text
from spikebridge.pipeline.events.packing import pack
from spikebridge.pipeline.inspection.sets import find_pair
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.readers import get_reader
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import ConversionSettings


@pytest.fixture
def raw(made_once):
    """A factory of raw folders, made once per run."""
    return lambda name: made_once(f"raw {name}", getattr(raw_sets, f"write_{name}"))


def listing_of(name, root, static=None):
    return get_reader(name).list_pair(root, static or root)


def plan(name, root, static=None, **settings):
    wanted = ConversionSettings(dataset=name, time_bins=2, size=8, **settings)
    return prepare(wanted, events_root=root, static_root=static or root)


def splits_of(conversion):
    """The splits of each group."""
    found = {}
    for recording in conversion.used:
        found.setdefault(recording.group, set()).add(conversion.split[recording.name])
    return found


def assert_reads(recording, name, expected):
    events = get_reader(name).read_events(recording)
    for column in "txyp":
        np.testing.assert_array_equal(getattr(events, column), getattr(expected, column))
    pack(events, sensor_size=get_reader(name).sensor_size, source="x")


def test_dvsgesture_is_cut_by_its_tables_and_split_by_its_lists(raw, tmp_path):
    root = raw("dvsgesture")
    conversion = plan("dvsgesture", root)
    assert conversion.listing.classes == ("hand_clapping", "other_gestures")
    assert Counter(r.subset for r in conversion.listing.recordings) == {"train": 18, "test": 6}
    assert {len(splits) for splits in splits_of(conversion).values()} == {1}
    assert splits_of(conversion)["user24"] == {"test"}
    done = convert(conversion, tmp_path / "set")
    assert not done.rejects
    assert verify(tmp_path / "set").ok
    expected = raw_sets.gesture_events(1, 0).t - raw_sets.GESTURE_START_US
    counts = [int(((start <= expected) & (expected < start + 15_000)).sum()) for _, start in raw_sets.ROWS]
    shards = ShardSet(tmp_path / "set")
    frames = {
        key: frames
        for s in shards.present
        for key, frames in zip(shards.split(s).keys, shards.split(s).read_all(), strict=True)
    }
    for start, count in zip((80_000_000, 80_020_000, 80_040_000), counts, strict=True):
        (found,) = (f for key, f in frames.items() if "user01_fluorescent" in key and key.endswith(str(start)))
        assert count - 1 <= found.sum() <= count  # the last event may fall behind the last whole bin
    assert not list((tmp_path / "set").glob("**/*.npz"))


def test_dvsgesture_without_lists_draws_subjects(raw, tmp_path):
    shutil.copytree(raw("dvsgesture"), tmp_path / "raw")
    for path in (tmp_path / "raw").rglob("trials*"):
        path.unlink()
    conversion = plan("dvsgesture", tmp_path / "raw")
    assert any("the official split is not known" in note for note in conversion.listing.notes)
    assert sorted(map(len, splits_of(conversion).values())) == [1] * 4
    (tmp_path / "raw" / "DvsGesture" / "user01_led_labels.csv").write_text("class,a,b\n12,1,2\n")
    with pytest.raises(LayoutError, match=r"user01_led_labels\.csv, line 2: class 12 from 1 to 2"):
        plan("dvsgesture", tmp_path / "raw")


def test_a_recording_that_is_there_twice_is_refused(raw, tmp_path):
    shutil.copytree(raw("dvsgesture"), tmp_path / "raw")
    (tmp_path / "raw" / "DvsGesture" / "copy").mkdir()
    shutil.copy(tmp_path / "raw" / "DvsGesture" / "user01_led.aedat", tmp_path / "raw" / "DvsGesture" / "copy")
    with pytest.raises(LayoutError, match=r"both hold user01_led_01_80000000; expected it once"):
        listing_of("dvsgesture", tmp_path / "raw")


def test_slanimals_counts_events(raw):
    found = listing_of("slanimals", raw("slanimals"))
    assert found.classes == ("sign_01", "sign_19")
    assert {r.interval for r in found.recordings} == {(0, 20), (20, 60)}
    assert len({r.group for r in found.recordings}) == 6
    assert {len(splits) for splits in splits_of(plan("slanimals", raw("slanimals"))).values()} == {1}


def test_a_table_that_counts_more_events_than_there_are(raw, tmp_path):
    shutil.copytree(raw("slanimals"), tmp_path / "raw")
    (tmp_path / "raw" / "tags" / "user1_imse.csv").write_text("class,start,end\n1,0,20\n2,20,61\n3,70,80\n")
    done = convert(plan("slanimals", tmp_path / "raw"), tmp_path / "set", max_bad=2)
    assert Counter(line["reason"] for line in done.rejects) == {"truncated": 1, "empty": 1}


def test_ncars_in_both_layouts(raw):
    root = raw("ncars")
    found = listing_of("ncars", root)
    assert found.classes == ("background", "cars")
    assert Counter(r.subset for r in found.recordings) == {"train": 6, "test": 6}
    assert found.pairing == "class"
    assert len(found.images) == 2
    for recording in found.recordings:
        seed = 10 * (recording.label == 0) + int(recording.stem[4:10])
        assert_reads(recording, "ncars", raw_sets.small(seed, size=(120, 100)))


def test_asldvs_splits_people(raw):
    root = raw("asldvs")
    conversion = plan("asldvs", root)
    assert conversion.listing.classes == ("a", "b", "y")
    assert sorted(len(splits) for splits in splits_of(conversion).values()) == [1] * 5
    assert Counter(conversion.split.values()) == {"train": 18, "test": 6, "validation": 6}
    assert_reads(conversion.listing.recordings[0], "asldvs", raw_sets.small(1))
    legacy = plan("asldvs", root, protocol="legacy")
    assert {r.stem[-4:] for r in legacy.used if legacy.split[r.name] == "test"} == {"0009", "0010"}
    assert any("which no source confirms" in text for text in get_reader("asldvs").describe().values())


def test_rows_beyond_the_sensor_are_refused(raw, tmp_path):
    raw_sets.write_vectors(tmp_path / "a" / "a_0001.mat", raw_sets.small(1), height=300)
    (recording,) = listing_of("asldvs", tmp_path).recordings
    with pytest.raises(RecordingError, match="on a sensor of 240x180"):
        get_reader("asldvs").read_events(recording)


def test_ucf101dvs_pairs_by_video_and_splits_by_source(raw):
    root = raw("ucf101dvs")
    for number, tested in ((0, {1, 2}), (1, {1, 2}), (2, {8}), (3, set())):
        conversion = plan("ucf101dvs", root, **({"published": f"ucf101dvs-{number}"} if number else {}))
        found = {int(r.stem[-6:-4]) for r in conversion.used if conversion.split[r.name] == "test"}
        assert found == tested
        assert {len(splits) for splits in splits_of(conversion).values()} == {1}
    assert conversion.listing.pairing == "exact"
    recording = next(r for r in conversion.used if "g08_c02" in r.name and r.label == 1)
    assert recording.image == "HandstandPushups/v_HandStandPushups_g08_c02"
    image = next(i for i in conversion.listing.images if i.name == recording.image)
    assert image.path.name == "00001.jpg"  # the middle frame
    assert_reads(recording, "ucf101dvs", raw_sets.small(182))


def test_frames_of_a_tested_source_video_stay_out_of_the_pool(raw, tmp_path):
    root = raw("ucf101dvs")
    (tmp_path / "raw").mkdir()
    shutil.copytree(root, tmp_path / "raw", dirs_exist_ok=True)
    for path in (tmp_path / "raw").rglob("v_Archery_g01_c02.mat"):
        path.unlink()
    done = convert(plan("ucf101dvs", tmp_path / "raw", published="ucf101dvs-1"), tmp_path / "set")
    static = ShardSet(tmp_path / "set").static_images()
    roles = dict(zip(static.keys, static.roles, strict=True))
    assert roles["static-0-v_Archery_g01_c02"] == "test"
    assert roles["static-0-v_Archery_g25_c02"] in ("pool", "validation")
    assert not done.rejects


def test_hmdb51dvs_takes_the_official_lists(raw, tmp_path):
    root = raw("hmdb51dvs")
    conversion = plan("hmdb51dvs", root)
    assert Counter(r.subset for r in conversion.listing.recordings) == {"train": 4, "test": 2, "unused": 2}
    assert {group for group in splits_of(conversion)} == {f"April_09_{i}" for i in (0, 1, 3)}
    assert conversion.listing.pairing == "exact"
    shutil.copytree(root, tmp_path / "raw")
    shutil.rmtree(tmp_path / "raw" / "HMDB_DVS" / "testTrainMulti")
    drawn = plan("hmdb51dvs", tmp_path / "raw")
    assert {len(splits) for splits in splits_of(drawn).values()} == {1}
    assert set(drawn.split.values()) == {"train", "validation", "test"}


def test_caltech256dvs_pairs_by_stem(raw):
    root = raw("caltech256dvs")
    found = listing_of("caltech256dvs", root, root / "256_ObjectCategories")
    assert found.classes == ("001.ak47", "257.clutter")
    assert found.pairing == "exact"
    assert all(r.image == r.name for r in found.recordings)
    alone = listing_of("caltech256dvs", root / "events", root / "events")
    assert alone.pairing == "class"
    assert alone.images == ()
    assert any("no static images" in note for note in alone.notes)


def test_dailydvs200_leaves_out_people_of_two_lists(raw):
    conversion = plan("dailydvs200", raw("dailydvs200"))
    assert conversion.listing.classes == ("action_000", "action_001")
    assert splits_of(conversion) == {
        "person1": {"train"}, "person2": {"train"}, "person3": {"validation"}, "person4": {"test"}, "person5": {"test"}
    }  # fmt: skip
    assert len(conversion.used) == 9
    assert any("1 recordings are not used: others of their groups (person4)" in n for n in conversion.listing.notes)
    legacy = plan("dailydvs200", raw("dailydvs200"), protocol="legacy")
    assert len(legacy.used) == 10
    assert "1 lie in more than one split" in legacy.listing.notes[-1]


def test_nimagenet_is_read_inside_its_zips(raw, tmp_path):
    root = raw("nimagenet")
    conversion = plan("nimagenet", root / "events", root / "imagenet")
    found = conversion.listing
    assert found.classes == raw_sets.WNIDS
    assert Counter(r.subset for r in found.recordings) == {"train": 8, "test": 2, "unused": 2}
    images = {image.name: image.subset for image in found.images}
    assert all(images[r.image] == ("train" if r.subset == "train" else "test") for r in found.recordings)
    assert any("2 of mode_1" in note for note in found.notes)
    for recording, seed in ((found.recordings[-1], 101), (found.recordings[0], 200), (found.recordings[3], 1)):
        events, expected = get_reader("nimagenet").read_events(recording), raw_sets.small(seed, size=(640, 480))
        for column in "txyp":
            np.testing.assert_array_equal(getattr(events, column), getattr(expected, column))
    again = plan("nimagenet", root / "events", root / "imagenet", published="nimagenet-mode-1")
    assert {r.name.split("/")[0] for r in again.used if again.split[r.name] == "test"} == {"mode_1"}
    done = convert(again, tmp_path / "set")
    assert not done.rejects
    assert verify(tmp_path / "set").ok
    roles = done.manifest["static"]["roles"]
    assert (roles["test"], roles["pool"] + roles["validation"]) == (2, 8)

    unpacked = tmp_path / "unpacked"
    for path in (root / "events").glob("*.zip"):
        shutil.unpack_archive(path, unpacked)
    shutil.move(unpacked / "N_Imagenet" / "extracted_val", unpacked)
    same = listing_of("mininimagenet", unpacked, root / "imagenet")
    assert [(r.name, r.label, r.subset) for r in same.recordings] == [
        (r.name, r.label, r.subset) for r in found.recordings
    ]
    assert len(get_reader("mininimagenet").read_events(same.recordings[0])) == 60


def test_a_damaged_member_of_a_zip_is_rejected_by_name(raw, tmp_path):
    root = raw("nimagenet")
    shutil.copytree(root / "events", tmp_path / "events")
    found = listing_of("nimagenet", tmp_path / "events", root / "imagenet")
    reader, recording = get_reader("nimagenet"), found.recordings[0]
    data = bytearray(recording.path.read_bytes())
    data[recording.detail[0] + 90] ^= 1
    recording.path.write_bytes(data)
    with pytest.raises(RecordingError, match=r"n01440764/ILSVRC2012_val_00000001\.npz: damaged in extra\.zip"):
        reader.read_events(recording)
    recording.path.write_bytes(data[:50])
    with pytest.raises(RecordingError, match="damaged in"):
        reader.read_events(recording)
    with pytest.raises(LayoutError, match="no whole zip file"):
        listing_of("nimagenet", tmp_path / "events", root / "imagenet")


@pytest.mark.parametrize(
    "name", ["dvsgesture", "slanimals", "ncars", "asldvs", "ucf101dvs", "hmdb51dvs", "caltech256dvs", "dailydvs200"]
)
def test_other_folders_are_refused_by_layout(name, tmp_path):
    (tmp_path / "some").mkdir()
    with pytest.raises(LayoutError, match="expected"):
        listing_of(name, tmp_path)
    assert "expected" in get_reader(name).describe()


@pytest.mark.parametrize("name", ["cifar10dvs-90-10", "cifar10dvs-90-10-names"])
def test_published_lists_have_the_hash_that_is_written_down(name):
    from spikebridge.pipeline.containers import cifar
    from spikebridge.pipeline.datasets.pairs import Listing, Recording

    recordings = tuple(
        Recording(f"{c}/cifar10_{c}_{i}", "", label, None, str(i), None)
        for label, c in enumerate(cifar.CLASSES)
        for i in range(1000)
    )
    listing = Listing(cifar.CLASSES, recordings, (), (128, 128))
    split, found = assign_published(name, listing, dataset="cifar10dvs", seed=0)
    assert Counter(split.values()) == {"train": 9000, "test": 1000}
    assert list_text(split).startswith("recording,split\nairplane/cifar10_airplane_0,train\n")
    assert found == PUBLISHED[name].sha256
    tested = {n.rpartition("_")[2] for n, part in split.items() if part == "test" and n.startswith("cat/")}
    assert "999" in tested
    assert ("99" in tested) == name.endswith("names")


@pytest.mark.parametrize(
    "name", ["dvsgesture", "slanimals", "ncars", "asldvs", "ucf101dvs", "hmdb51dvs", "caltech256dvs", "dailydvs200"]
)
def test_no_other_reader_takes_the_folder(raw, name):
    root = raw(name)
    reader, _ = find_pair(root, root)
    assert reader.name == name


def test_folders_of_mat_files_and_zips_are_no_data_set_that_is_known(tmp_path):
    for label in ("a", "walk"):
        raw_sets.write_vectors(tmp_path / "events" / label / "one.mat", raw_sets.small(1))
        raw_sets.picture(tmp_path / "static" / label / "one.png", 1)
    (tmp_path / "events" / "rest.zip").write_bytes(b"no zip")
    reader, _ = find_pair(tmp_path, tmp_path)
    assert reader.name == "folders"


def test_a_part_of_a_file_is_inspected_alone(raw):
    reader, listing = get_reader("dvsgesture"), listing_of("dvsgesture", raw("dvsgesture"))
    recording = listing.recordings[0]
    start, stop = recording.interval
    events = reader.read_recording(recording, sensor_size=(128, 128)).unpack()
    assert 0 < len(events) < 60
    assert start <= events.t[0] <= events.t[-1] < stop


def test_published_splits_say_what_is_wrong(raw):
    root = raw("ucf101dvs")
    for name, message in (
        ("ucf101dvs-4", "no published split of that name; of ucf101dvs there are ucf101dvs-1, .* did you mean"),
        ("dvsgesture-trials", "is a split of dvsgesture, not of ucf101dvs"),
    ):
        with pytest.raises(SettingsError, match=message):
            plan("ucf101dvs", root, published=name)
    with pytest.raises(SettingsError, match=r"cannot be shipped\. .* > list\.csv, then --splits list\.csv"):
        assign_published("ncaltech101-est", None, dataset="ncaltech101", seed=0)


def test_dvsgesture_trials_by_rule(raw):
    conversion = plan("dvsgesture", raw("dvsgesture"), published="dvsgesture-trials")
    assert splits_of(conversion)["user24"] == {"test"}
    assert conversion.settings.splits_sha256
    assert conversion.fingerprint["settings"]["published"] == "dvsgesture-trials"


def test_the_command_takes_names_of_splits(raw, tmp_path):
    from click.testing import CliRunner

    from spikebridge.cli import main

    root = raw("ucf101dvs")
    told = CliRunner().invoke(main, ["datasets", "ucf101dvs"]).output
    assert "--splits ucf101dvs-2: " in told
    assert "source videos; no split parts one" in told
    command = ["preprocess", "--dataset", "ucf101dvs", "--events", root, "--static", root, "--size", "8"]
    planned = CliRunner().invoke(main, [*map(str, command), "--splits", "ucf101dvs-2", "--dry-run", "--json"])
    assert '"test": 4' in planned.output, planned.output
    wrong = CliRunner().invoke(main, [*map(str, command), "--splits", str(tmp_path / "none.csv"), "--dry-run"])
    assert wrong.exit_code == 2
    assert "no such file, and no published split of that name" in wrong.output
