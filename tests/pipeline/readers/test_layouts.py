"""Raw data as strangers have it on their disks: the same listing, to the hash, however folders and litter lie."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from conftest import write_digits_raw, write_nmnist_raw
from raw_sets import cepdvs, cifar10dvs, esimagenet, ncaltech101, nomniglot, recordings

from spikebridge.pipeline.base.errors import LayoutError
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.datasets.layout import find_child, find_root, is_litter, list_entries
from spikebridge.pipeline.images.decode import EXTENSIONS
from spikebridge.pipeline.measurement.recordings import are_simulated, stated_sensor
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.readers import get_reader
from spikebridge.pipeline.readers.folders import find_sensor
from spikebridge.pipeline.shards.settings import ConversionSettings

RENAMED = {*EXTENSIONS, ".bin", ".aedat", ".aedat4", ".mat", ".csv", ".raw", ".h5", ".npy"}
"""Endings that some tool or other writes in capitals."""


def cifar10dvs_as_recorded(root):
    cifar10dvs.write_events(root / "events")
    cifar10dvs.write_static(root / "static" / "cifar-10-batches-py", "python")
    return root


def cifar10dvs_folders(root):
    cifar10dvs.write_events(root / "events", "6.mat")
    cifar10dvs.write_static(root / "static", "folders")
    return root


def together(write):
    """A data set whose two sides have one root."""

    def make(root):
        write(root / "both")
        return root

    return make


def folders(root):
    recordings.write_folders(root)
    (root / "events" / "sensor.txt").write_text("200 150\n")
    return root


DATASETS = {
    "digits": write_digits_raw,
    "nmnist": write_nmnist_raw,
    "ncaltech101": together(ncaltech101.write_raw),
    "cepdvs": together(cepdvs.write_raw),
    "nomniglot": nomniglot.write_raw,
    "cifar10dvs": cifar10dvs_as_recorded,
    "cifar10dvs folders": cifar10dvs_folders,
    "esimagenet": esimagenet.write_raw,
    "folders": folders,
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A factory of data sets in their layout of the table, each written once."""
    made = {}

    def make(name):
        if name not in made:
            made[name] = DATASETS[name](tmp_path_factory.mktemp("raw") / "raw")
        return made[name]

    return make


def listed(name, events, static):
    return get_reader(name.split()[0]).list_pair(events, static)


# What strangers do to the folders; each gives the two roots to pass on.


def as_it_is(raw):
    """The roots of events and images: two folders, or one for both."""
    return (raw / "both",) * 2 if (raw / "both").is_dir() else (raw / "events", raw / "static")


def folder_above(raw):
    return raw, raw


def two_above(raw):
    (raw.parent / "downloads" / "a set").mkdir(parents=True)
    raw.rename(raw.parent / "downloads" / "a set" / "raw")
    return (raw.parent / "downloads",) * 2


def in_folders_of_their_own_name(raw):
    """What `unzip` into a new folder leaves, at the top and at the first folders below."""
    for side in set(as_it_is(raw)):
        for path in [*(p for p in side.iterdir() if p.is_dir()), side]:
            path.rename(raw / "aside")
            path.mkdir()
            (raw / "aside").rename(path / path.name)
    return as_it_is(raw)


def with_litter(raw):
    """What macOS, Windows, a NAS, browsers, archives and people leave in every folder."""
    for folder in [raw, *(p for p in raw.rglob("*") if p.is_dir())]:
        files = [p for p in folder.iterdir() if p.is_file()]
        for path in files[:2]:
            (folder / f"._{path.name}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
            (folder / "__MACOSX").mkdir(exist_ok=True)
            (folder / "__MACOSX" / path.name).write_bytes(b"\0\5\x16\7")
        for name in (
            ".DS_Store",
            "Thumbs.db",
            "desktop.ini",
            "README.txt",
            "LICENSE.md",
            "set.zip",
            "x.part",
            "Icon\r",
        ):
            (folder / name).write_bytes(b"of no data set")
        (folder / ".git").mkdir()
        (folder / "@eaDir").mkdir()
    return as_it_is(raw)


def with_linked_folders(raw):
    """Every folder that holds files lies on another disk."""
    elsewhere = raw.parent / "elsewhere"
    elsewhere.mkdir()
    deepest = [p for p in raw.rglob("*") if p.is_dir() and any(q.is_file() for q in p.iterdir())]
    for number, folder in enumerate(sorted(deepest, key=lambda p: -len(p.parts))):
        folder.rename(elsewhere / str(number))
        folder.symlink_to(elsewhere / str(number))
    return as_it_is(raw)


def with_linked_files(raw):
    elsewhere = raw.parent / "elsewhere"
    elsewhere.mkdir()
    for number, path in enumerate(sorted(p for p in raw.rglob("*") if p.is_file())):
        path.rename(elsewhere / str(number))
        path.symlink_to(elsewhere / str(number))
    return as_it_is(raw)


def with_empty_folders(raw):
    for folder in set(as_it_is(raw)):
        (folder / "a folder of nothing").mkdir()
    return as_it_is(raw)


def with_capital_endings(raw):
    for path in [p for p in raw.rglob("*") if p.is_file() and p.suffix in RENAMED and p.name != "pathFile.csv"]:
        path.rename(path.with_suffix(path.suffix.upper()))
    return as_it_is(raw)


def read_only(raw):
    for path in [raw, *raw.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return as_it_is(raw)


WAYS = [
    as_it_is,
    folder_above,
    two_above,
    in_folders_of_their_own_name,
    with_litter,
    with_linked_folders,
    with_linked_files,
    with_empty_folders,
    with_capital_endings,
    read_only,
]


def copied(raw, to):
    shutil.copytree(raw, to, symlinks=True)
    return to


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("way", WAYS)
def test_the_same_listing_however_the_folders_lie(originals, tmp_path, name, way):
    raw = originals(name)
    true = listed(name, *as_it_is(raw))
    events, static = way(copied(raw, tmp_path / "raw"))
    found = listed(name, events, static)
    assert [r.name for r in found.recordings] == [r.name for r in true.recordings]
    assert [i.name for i in found.images] == [i.name for i in true.images]
    assert found.sha256() == true.sha256()
    reader = get_reader(name.split()[0])
    assert len(reader.read_events(found.recordings[-1])) == len(reader.read_events(true.recordings[-1]))
    assert (reader.read_image(found.images[-1]) == reader.read_image(true.images[-1])).all()


@pytest.mark.parametrize("name", DATASETS)
def test_the_order_in_which_the_disk_lists_files_does_not_matter(originals, monkeypatch, name):
    raw = originals(name)
    true = listed(name, *as_it_is(raw))
    for turn in range(3):
        whole = Path.iterdir
        shuffled = lambda path, turn=turn, whole=whole: iter(  # noqa: E731
            sorted(whole(path), key=lambda p: hashlib.sha256(f"{turn}{p.name}".encode()).digest())
        )
        with monkeypatch.context() as patch:
            patch.setattr(Path, "iterdir", shuffled)
            patch.setattr(Path, "glob", None)  # would have an order of its own
            found = listed(name, *as_it_is(raw))
        assert found == true


@pytest.mark.parametrize("name", DATASETS)
def test_it_converts_at_once(originals, tmp_path, name):
    """From the folder that holds everything, litter included, without a setting but the size."""
    raw = copied(originals(name), tmp_path / "raw")
    with_litter(raw)
    wanted = ConversionSettings(dataset=name.split()[0], size=12, time_bins=4)
    done = convert(prepare(wanted, events_root=raw, static_root=raw), tmp_path / "set")
    assert not done.rejects
    assert sum(split["samples"] for split in done.manifest["splits"].values()) > 0
    assert verify(tmp_path / "set").ok


@pytest.mark.parametrize(
    "mirror",
    [
        "MNIST/raw/{name}",
        "mnist/{name}",
        "{name}/{name}",
        "archive/{dotted}/{dotted}",
        "{dotted}",
        "raw/{name}.gz",
    ],
)
def test_idx_files_as_mirrors_have_them(tmp_path, mirror):
    """torchvision's folders, those of well-known mirrors, and the two spellings."""
    raw = write_nmnist_raw(tmp_path / "raw", compressed=mirror.endswith(".gz"))
    true = listed("nmnist", raw / "events", raw / "static").sha256()
    for path in list((raw / "static").iterdir()):
        name = path.name.removesuffix(".gz")
        new = tmp_path / "moved" / mirror.format(name=name, dotted=name.replace("-idx", ".idx"))
        new.parent.mkdir(parents=True, exist_ok=True)
        path.rename(new)
    assert listed("nmnist", raw / "events", tmp_path / "moved").sha256() == true


def test_two_folders_of_the_layout_are_both_named(tmp_path):
    for name in ("one", "two"):
        write_nmnist_raw(tmp_path / "raw" / name)
    with pytest.raises(LayoutError, match=r"one/events and .*two/events both have the layout.*--events"):
        listed("nmnist", tmp_path / "raw", tmp_path / "raw" / "one" / "static")


def test_folders_that_lead_to_themselves_end(tmp_path):
    (tmp_path / "raw" / "a").mkdir(parents=True)
    (tmp_path / "raw" / "a" / "again").symlink_to(tmp_path / "raw")
    with pytest.raises(LayoutError, match="holds a; expected x"):
        find_root(tmp_path / "raw", below=(), holds=lambda folder: False, what="events", layout="x")


def test_a_whole_disk_is_not_searched(tmp_path, monkeypatch):
    monkeypatch.setattr("spikebridge.pipeline.datasets.layout.MOST_FOLDERS", 10)
    for number in range(11):
        (tmp_path / str(number)).mkdir()
    seen = []
    with pytest.raises(LayoutError):
        find_root(tmp_path, below=(), holds=lambda folder: bool(seen.append(folder)), what="events", layout="x")
    assert seen == [tmp_path]


def test_simulated_recordings_stay_simulated_from_any_folder_above(tmp_path):
    raw = recordings.write_folders(tmp_path / "above" / "raw")
    settings = {"sensor_width_px": 200, "sensor_height_px": 150, "shown_fraction": 0.8}
    wanted = ConversionSettings(dataset="folders", time_bins=3, size=10, mixed_sensors="scale")
    for folder in (raw / "events", raw, raw.parent, raw.parent.parent):
        assert not prepare(wanted, events_root=folder, static_root=raw).simulated
    (raw / "simulated.json").write_text(json.dumps({"settings": settings}))
    for folder in (raw / "events", raw, raw.parent, raw.parent.parent):
        assert prepare(wanted, events_root=folder, static_root=raw).simulated


def test_recordings_of_another_simulator_can_be_marked(tmp_path):
    """Then they are called simulated, and nothing is known of their camera but what `sensor.txt` says."""
    raw = recordings.write_folders(tmp_path / "raw")
    (raw / "events" / "simulated.json").write_text('{"settings": null}')
    wanted = ConversionSettings(dataset="folders", time_bins=3, size=10, mixed_sensors="scale")
    assert prepare(wanted, events_root=raw / "events", static_root=raw).simulated
    assert find_sensor(raw / "events") == (None, None)
    (raw / "events" / "sensor.txt").write_text("64 48\n")
    assert find_sensor(raw / "events") == ((64, 48), None)
    assert are_simulated([raw / "events"])
    file = next((raw / "events").rglob("*.npz"))
    assert stated_sensor([file]) == ((64, 48), "stated by sensor.txt")


@pytest.mark.parametrize("note", ["{}", "[", "[]", '{"settings": {"sensor_width_px": "9"}}', "[" * 10**5])
def test_a_damaged_note_of_the_simulator_is_named(tmp_path, note):
    raw = recordings.write_folders(tmp_path)
    (raw / "events" / "simulated.json").write_text(note)
    with pytest.raises(LayoutError, match=r"simulated\.json: .* not what `spikebridge simulate` wrote"):
        listed("folders", raw / "events", raw / "static")


def test_names_in_other_case_and_litter(tmp_path):
    for name in ("Data", "data", "data/MAT"):
        (tmp_path / name).mkdir()
    assert find_child(tmp_path, "data", "mat") == tmp_path / "data" / "MAT"
    assert find_child(tmp_path, "DATA") in (tmp_path / "Data", tmp_path / "data")
    assert find_child(tmp_path, "none") is None
    (tmp_path / "a.zip").mkdir()  # a folder of that name may hold data
    (tmp_path / "b.zip").write_bytes(b"")
    assert [path.name for path in list_entries(tmp_path)] == ["Data", "a.zip", "data"]
    assert is_litter(Path("x/.hidden"))
    assert not is_litter(Path("x/00001.bin"))
