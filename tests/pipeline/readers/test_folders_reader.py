"""Class folders as people have them: subsets above the classes, a folder each, tables, groups, near names."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conversions import contents
from event_files import dat, text_lines
from PIL import Image
from shard_files import sign

from spikebridge.pipeline.base.errors import LayoutError, SettingsError
from spikebridge.pipeline.checks.diff import difference
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.datasets.tables import FolderOptions
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.reformat import reformat
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.readers import get_reader
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import ConversionSettings
from spikebridge.pipeline.shards.writer import index_path

WANTED = ConversionSettings(dataset="folders", time_bins=2, size=8, samples_per_shard=5)


def make_events(seed, start=0):
    """Forty events in 4 ms."""
    rng = np.random.default_rng(seed)
    x, y, p = (rng.integers(0, high, 40) for high in (24, 16, 2))
    return Events(start + 100 * np.arange(40), x.astype(np.int32), y.astype(np.int32), p.astype(np.uint8))


def write(root, below, seed, *, form=".npz"):
    path = root / "events" / f"{below}{form}"
    path.parent.mkdir(parents=True, exist_ok=True)
    events = make_events(seed)
    match form:
        case ".npz":
            np.savez(path, **{name: getattr(events, name) for name in "txyp"})
        case ".csv":
            path.write_bytes(text_lines(events, order="xypt", seconds=False, between=","))
        case ".dat":
            path.write_bytes(dat(events))


def photo(root, below, seed):
    path = root / "static" / f"{below}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng([9, seed]).integers(0, 256, (16, 24), dtype=np.uint8)).save(path)


def sensor(root):
    (root / "events" / "sensor.txt").write_text("24 16\n")
    return root


def listing(root, **options):
    return get_reader("folders", folders=FolderOptions(**options)).list_pair(root / "events", root / "static")


def plain(root, *, events=("cat", "dog"), static=("cat", "dog"), count=6):
    for i in range(count):
        for c, name in enumerate(events):
            write(root, f"{name}/{i:04d}", 10 * c + i)
        for c, name in enumerate(static):
            photo(root, f"{name}/{i:04d}", 10 * c + i)
    return sensor(root)


@pytest.mark.parametrize("static_too", [False, True])
@pytest.mark.parametrize("above", [False, True])
def test_folders_above_the_classes_are_the_official_subsets(tmp_path, static_too, above):
    names = {"Train": 4, "val": 2, "test": 3}
    for c, label in enumerate(("cat", "dog")):
        number = 0
        for folder, count in names.items():
            for i in range(count):
                number = i if static_too else number + 1  # numbers begin anew in each folder, or run on
                write(tmp_path, f"{folder}/{label}/{number}", 100 * c + 10 * len(folder) + i)
                photo(tmp_path, f"{folder}/{label}/{number}" if static_too else f"{label}/{number}", number + 50 * c)
    sensor(tmp_path)
    reader = get_reader("folders")
    found = reader.list_pair(*((tmp_path,) * 2 if above else (tmp_path / "events", tmp_path / "static")))
    assert found.classes == ("cat", "dog")
    assert found.pairing == "exact"
    assert {r.name.split("/")[0]: r.subset for r in found.recordings} == {
        "Train": "train", "val": "validation", "test": "test"
    }  # fmt: skip
    assert all(r.image.endswith(f"{'cat' if r.label == 0 else 'dog'}/{r.stem}") for r in found.recordings)
    conversion = prepare(WANTED, events_root=tmp_path / "events", static_root=tmp_path / "static")
    assert {r.subset: conversion.split[r.name] for r in found.recordings} == {
        "train": "train", "validation": "validation", "test": "test"
    }  # fmt: skip


def test_val_is_tested_where_there_is_no_test(tmp_path):
    for i in range(4):
        write(tmp_path, f"{'train' if i < 3 else 'val'}/cat/{i}", i)
        photo(tmp_path, f"cat/{i}", i)
    found = listing(sensor(tmp_path))
    assert [r.subset for r in found.recordings] == ["train"] * 3 + ["test"]
    assert "no folder test" in found.notes[0]


def test_one_name_in_two_subsets_is_no_pair(tmp_path):
    for folder in ("train", "test"):
        write(tmp_path, f"{folder}/cat/0", len(folder))
    photo(tmp_path, "cat/0", 0)
    with pytest.raises(LayoutError, match=r"cat/0 .* are not of one subset \(test, train\).*--pairing class"):
        listing(sensor(tmp_path))
    assert listing(tmp_path, pairing="class").pairing == "class"


def test_a_folder_for_each_recording_and_any_mixture_of_formats(tmp_path):
    for i, form in enumerate((".npz", ".csv", ".dat") * 2):
        below = f"cat/{i:04d}"
        write(tmp_path, f"{below}/events" if i < 3 else below, i, form=form)
        photo(tmp_path, f"{below}/picture" if i == 0 else below, i)
    found = listing(sensor(tmp_path))
    assert [r.name for r in found.recordings] == [f"cat/{i:04d}" for i in range(6)]
    assert [r.image for r in found.recordings] == [r.name for r in found.recordings]
    for i, recording in enumerate(found.recordings):
        events = get_reader("folders").read_events(recording)
        np.testing.assert_array_equal(events.x, make_events(i).x)
    assert get_reader("folders").list_pair(tmp_path, tmp_path).sha256() == found.sha256()


def test_numbers_that_agree_by_chance(tmp_path):
    plain(tmp_path, count=3)
    write(tmp_path, "cat/0007", 7)
    assert listing(tmp_path).pairing == "exact"
    conversion = prepare(WANTED, events_root=tmp_path, static_root=tmp_path)
    assert any("--pairing class" in line for line in conversion.report())
    found = listing(tmp_path, pairing="class")
    assert {r.image for r in found.recordings} == {None}
    other = plain(tmp_path / "other", count=2)
    for path in sorted((other / "static").rglob("*.png")):
        path.rename(path.with_name(f"photo{path.name}"))
    assert listing(other).pairing == "class"
    with pytest.raises(LayoutError, match="--pairing exact, but no recording has the name of an image"):
        listing(other, pairing="exact")
    with pytest.raises(SettingsError, match="go with data set folders only"):
        prepare(replace(WANTED, dataset="digits", pairing="class"), events_root=other, static_root=other)


def test_near_names_of_classes_are_named_and_joined_on_request_alone(tmp_path):
    plain(tmp_path, events=("cat", "hot_dog"), static=("Cat", "hot dog"))
    with pytest.raises(LayoutError, match=r"Cat for cat, hot dog for hot_dog: .*--class-map FILE\.csv"):
        listing(tmp_path)
    table = tmp_path / "classes.csv"
    table.write_text("static,event\nCat,cat\nhot dog,hot_dog\n")
    found = listing(tmp_path, class_map=table)
    assert found.pairing == "exact"
    assert {(r.name, r.image) for r in found.recordings} >= {("cat/0000", "Cat/0000"), ("hot_dog/0001", "hot dog/0001")}
    for bad, message in (
        ("Cat,cow", "line 2: no class 'cow' of recordings"),
        ("cat,cat", "line 2: no class 'cat' of static"),
        ("Cat,cat\nCat,hot_dog", "stands there twice"),
    ):
        table.write_text(f"static,event\n{bad}\n")
        with pytest.raises(SettingsError, match=message):
            listing(tmp_path, class_map=table)
    photo(tmp_path, "cat/0000", 1)  # now one name agrees: the other is named in a note
    notes = listing(tmp_path).notes
    assert any("hot dog for hot_dog" in note for note in notes)


@pytest.fixture(scope="module")
def subjects(made_once):
    """Four subjects, three recordings each of two classes."""

    def make(root):
        for s in range(4):
            for c, label in enumerate(("cat", "dog")):
                for i in range(3):
                    write(root, f"{label}/subject{s}_{i}", 100 * s + 10 * c + i)
                    photo(root, f"{label}/subject{s}_{i}", 100 * s + 10 * c + i)
        convert(prepare(GROUPED, events_root=sensor(root), static_root=root), root / "set")

    return made_once("folders of subjects", make)


GROUPED = replace(WANTED, group_by=r"subject(\d+)")


def test_no_split_parts_a_group_and_verify_proves_it(subjects, tmp_path):
    shards = ShardSet(subjects / "set")
    splits = {name: set(shards.split(name).groups) for name in shards.present}
    assert sorted(len(groups) for groups in splits.values()) == [1, 1, 2]
    assert set.union(*splits.values()) == {"0", "1", "2", "3"}
    assert any(note.startswith("4 groups of recordings") for note in shards.manifest["notes"])
    assert verify(subjects / "set").problems == []
    for format_ in ("hdf5", "webdataset"):
        reformat(subjects / "set" if format_ == "hdf5" else tmp_path / "hdf5", tmp_path / format_, format_=format_)
    assert verify(tmp_path / "hdf5").ok
    assert contents(tmp_path / "webdataset") == contents(subjects / "set")

    copy = tmp_path / "webdataset"  # a subject is planted in another split, and everything signed
    shard = shards.event_shards("test")[0].name
    tar, path = (copy / shard).read_bytes(), index_path(copy / shard)
    index = np.load(path).copy()
    was, now = index["group"][0], np.array(min(splits["train"]), "S1")
    assert tar.count(b'"group": "%s"' % was) == len(index)
    (copy / shard).write_bytes(tar.replace(b'"group": "%s"' % was, b'"group": "%s"' % now.item()))
    index["group"] = now
    np.save(path, index)
    sign(copy)
    assert verify(copy).problems == [f"leak: group {now.item().decode()} has recordings in train and test"]
    assert difference(shards, ShardSet(copy)).parts["test"].reasons == {"group": len(index)}
    index["group"] = was  # the index alone
    np.save(path, index)
    sign(copy)
    assert "another group" in verify(copy).problems[0]


def test_a_list_of_splits_that_parts_a_group_is_refused(subjects, tmp_path):
    found = listing(subjects, group_by=GROUPED.group_by)
    rows = [f"{r.name},{('train', 'test')[i % 2]}" for i, r in enumerate(found.recordings)]
    table = tmp_path / "splits.csv"
    table.write_text("\n".join(["recording,split", *rows]) + "\n")
    roots = {"events_root": subjects / "events", "static_root": subjects}
    with pytest.raises(SettingsError, match=r"4 group\(s\) lie in more than one split; the first is 0, in test and tr"):
        prepare(GROUPED, **roots, splits=table)
    legacy = prepare(replace(GROUPED, protocol="legacy"), **roots, splits=table)
    assert "4 groups of recordings (by --group-by" in legacy.listing.notes[-1]
    assert legacy.listing.notes[-1].endswith("4 lie in more than one split")


def test_group_by_must_fit(subjects):
    with pytest.raises(SettingsError, match="matches nothing in the recording cat/subject0_0"):
        listing(subjects, group_by="person")
    with pytest.raises(LayoutError, match=r"all 24 recordings are of one group \(subject\), which no split may part"):
        prepare(replace(WANTED, group_by="subject"), events_root=subjects / "events", static_root=subjects)
    with pytest.raises(SettingsError, match="no regular expression"):
        listing(subjects, group_by="(")


def labelled(root, rows, header="file,start,end,label,group,split"):
    for s in range(4):
        write(root, f"day{s}/session", s)
    for label in ("wave", "clap"):
        photo(root, f"{label}/{label}", len(label))
    table = sensor(root) / "labels.csv"
    table.write_text("\n".join([header, *rows]) + "\n")
    return table


def test_a_table_of_labels_cuts_the_recordings(tmp_path):
    rows = [
        f"day{s}/session{'.npz' if s else ''},{c * 2000},{c * 2000 + 1000},{label},,"
        for s in range(4)
        for c, label in enumerate(("wave", "clap"))
    ]
    table = labelled(tmp_path, rows)
    roots = {"events_root": tmp_path / "events", "static_root": tmp_path, "labels": table}
    done = convert(prepare(WANTED, **roots), tmp_path / "set")
    assert done.rejects == ()
    assert verify(tmp_path / "set").ok
    shards = ShardSet(tmp_path / "set")
    assert shards.classes == ("clap", "wave")
    groups = {name: set(shards.split(name).groups) for name in shards.present}
    assert sum(map(len, groups.values())) == 4  # both parts of a file are in one split
    assert shards.manifest["events"]["events"] == 4 * 20
    assert shards.manifest["settings"]["labels_sha256"]
    assert contents(tmp_path / "set") == contents_of_two_workers(tmp_path, roots)


def contents_of_two_workers(root, roots):
    convert(prepare(WANTED, **roots), root / "again", workers=2)
    return contents(root / "again")


@pytest.mark.parametrize("between", [",", ";", "\t"])
def test_dialects_of_a_table_of_labels(tmp_path, between):
    table = labelled(tmp_path, [])
    rows = [["File", " Label", "Group", "Subject"], *([f"day{i}/session", "wave ", "a", "b"] for i in range(3))]
    table.write_text("".join(f"{between.join(row)}\r\n" for row in rows), "utf-8-sig")
    found = listing(tmp_path, labels=table)
    assert (found.classes, {r.group for r in found.recordings}) == (("wave",), {"a"})
    assert found.notes[0].startswith("columns of the table of labels that are not used: subject; ")
    table.write_text("name;label\na;b\n")
    with pytest.raises(SettingsError, match="found name, label, expected a header with the columns file and label"):
        listing(tmp_path, labels=table)


def test_folders_beside_the_official_subsets(tmp_path):
    """They may hold anything but recordings and images; else it is said what stands in the way."""
    for subset in ("train", "test"):
        for c, name in enumerate(("cat", "dog")):
            for i in range(2):
                write(tmp_path, f"{subset}/{name}/{i}", 100 * c + i + 10 * (subset == "test"))
    photo(tmp_path, "cat/0", 1)
    (tmp_path / "events" / "scripts").mkdir()
    (tmp_path / "events" / "scripts" / "convert.py").write_text("# nothing")
    assert {r.subset for r in listing(sensor(tmp_path), pairing="class").recordings} == {"train", "test"}
    write(tmp_path, "extra/cat/0", 5)
    with pytest.raises(LayoutError, match="official subset with class folders, but extra lie beside it"):
        listing(tmp_path)


def test_of_several_files_in_the_folder_of_a_recording_the_one_called_events_counts(tmp_path):
    for c, name in enumerate(("cat", "dog")):
        for i in range(2):
            write(tmp_path, f"{name}/{i}/events", 10 * c + i, form=".csv")
            (tmp_path / "events" / name / str(i) / "imu.txt").write_text("0 1 2 3 4 5 6\n")
    photo(tmp_path, "cat/0", 1)
    found = listing(sensor(tmp_path), pairing="class")
    assert [r.name for r in found.recordings] == ["cat/0", "cat/1", "dog/0", "dog/1"]
    assert found.notes == ("left out beside files called events, in the folders of recordings: 4 imu.txt",)


def test_class_folders_without_recordings_and_images_of_several_pictures_are_named(tmp_path):
    plain(tmp_path, count=2)
    (tmp_path / "events" / "bird").mkdir()
    pages = [Image.new("L", (4, 4), shade) for shade in (0, 99)]
    pages[0].save(tmp_path / "static" / "cat" / "two.gif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "static" / "cat" / "three.png", save_all=True, append_images=pages)
    pages[0].save(tmp_path / "static" / "cat" / "one.gif")
    assert listing(tmp_path).notes == (
        "no recordings in the folders bird",
        "pictures beyond the first are left out of 2 static images (three.png, two.gif): "
        "save each as a file of its own",
    )


def test_groups_and_splits_of_a_table_of_labels(tmp_path):
    rows = ["day0/session,wave,a,train", "day1/session,clap,a,train", "day2/session,wave,b,test"]
    table = labelled(tmp_path, rows, "file,label,group,split")
    found = listing(tmp_path, labels=table)
    assert [(r.name, r.group, r.subset) for r in found.recordings] == [
        ("day0/session", "a", "train"), ("day1/session", "a", "train"), ("day2/session", "b", "test")
    ]  # fmt: skip
    assert "1 recordings have no row" in found.notes[0]
    for bad, message in (
        ("day9/session,wave,,", "line 2: no recording 'day9/session'"),
        ("day0/session,,,", "no file or no label"),
        ("day0/session,wave,,some", "split 'some'"),
        ("day0/session,wave,a,\nday0/session,wave,b,", "rows of 2 groups"),
        ("day0/session,wave,,\nday0/session,clap,,", "two rows of one interval"),
    ):
        table.write_text(f"file,label,group,split\n{bad}\n")
        with pytest.raises(SettingsError, match=message):
            listing(tmp_path, labels=table)
    table.write_text("file,start,end,label\nday0/session,1.5,3,wave\n")
    with pytest.raises(SettingsError, match="expected whole microseconds"):
        listing(tmp_path, labels=table)
    table.write_text("name,label\na,b\n")
    with pytest.raises(SettingsError, match="columns file and label"):
        listing(tmp_path, labels=table)


def test_an_interval_without_events_is_rejected_by_name(tmp_path):
    table = labelled(tmp_path, ["day0/session,0,1000,wave,,", "day0/session,9000,9900,clap,,", "day1/session,,,clap,,"])
    conversion = prepare(WANTED, events_root=tmp_path / "events", static_root=tmp_path, labels=table)
    done = convert(conversion, tmp_path / "set", max_bad=1)
    assert [line["reason"] for line in done.rejects] == ["empty"]
    assert "no events from 9,000 to 9,900 us; the 40 of its file reach from 0 to 3,900 us" in done.rejects[0]["message"]
    lines = [json.loads(line) for line in (tmp_path / "set" / "rejects.jsonl").read_text().splitlines()]
    assert lines[0]["name"] == "day0/session@9000-9900"


def test_several_recordings_in_a_folder_below_a_class_are_refused(tmp_path):
    plain(tmp_path, count=2)
    write(tmp_path, "cat/old/0000", 5)
    assert "cat/old" in {r.name for r in listing(tmp_path, pairing="class").recordings}
    write(tmp_path, "cat/old/0001", 6)
    with pytest.raises(LayoutError, match=r"cat/old: 2 recordings \(0000\.npz, 0001\.npz\).*--labels"):
        listing(tmp_path)
    for name in ("cat", "dog"):
        for i in range(2):
            write(tmp_path / "nested", f"{name}/day/{i}", i)
            photo(tmp_path / "nested", f"{name}/{i}", i)
    with pytest.raises(LayoutError, match="cat/day: 2 recordings"):
        listing(tmp_path / "nested")


def test_classes_that_are_nearly_the_same_are_named(tmp_path):
    plain(tmp_path, events=("cat", "Cat", "dog"), static=("cat", "Cat", "dog"), count=1)
    assert "two classes here: Cat and cat" in listing(tmp_path).notes[0]


def test_parts_of_a_file_are_never_of_two_groups(tmp_path):
    rows = ["day0\\session.npz,0,1000,wave", "./day0/session.npz,1000,2000,clap", "day1/session,,,wave"]
    table = labelled(tmp_path, rows, "file,start,end,label")
    found = listing(tmp_path, labels=table, group_by=r"day\d")
    assert [r.group for r in found.recordings] == ["day0", "day0", "day1"]
    with pytest.raises(SettingsError, match=r"parts of one file and would be of two groups \(0, 1000\)"):
        listing(tmp_path, labels=table, group_by=r"@(\d+)|day1")
    table.write_text("file,label,group\nday0/session,wave,anna\n")
    with pytest.raises(SettingsError, match="expected one of them"):
        listing(tmp_path, labels=table, group_by="day")
