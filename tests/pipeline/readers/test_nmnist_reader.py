"""N-MNIST and MNIST: pairs by index, idx files of every spelling, and the real recordings where they are at hand."""

import csv
import gzip
import tracemalloc

import numpy as np
import pytest
from conftest import ROOT, write_nmnist_raw

from spikebridge.pipeline.base.errors import LayoutError
from spikebridge.pipeline.containers import idx
from spikebridge.pipeline.readers import get_reader

REAL = ROOT.parent / "shared" / "realdata" / "nmnist20"


def listing(raw):
    return get_reader("nmnist").list_pair(raw / "events", raw / "static")


def test_pairs_are_by_index_within_the_subset(nmnist_raw):
    found = listing(nmnist_raw)
    assert found.pairing == "exact"
    images = {image.name: image for image in found.images}
    for recording in found.recordings:
        image = images[recording.image]
        assert (image.subset, image.label) == (recording.subset, recording.label)
        assert image.row == int(recording.stem) - 1
    reader = get_reader("nmnist")
    pixels = idx.read(nmnist_raw / "static" / "train-images-idx3-ubyte")
    np.testing.assert_array_equal(reader.read_image(images["Train/00004"])[..., 1], pixels[3])


@pytest.mark.parametrize("name", ["train-images.idx3-ubyte", "train-images-idx3-ubyte.gz"])
def test_other_spellings_of_the_idx_files(nmnist_raw, name):
    plain = nmnist_raw / "static" / "train-images-idx3-ubyte"
    data = plain.read_bytes()
    plain.unlink()
    (nmnist_raw / "static" / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert len(listing(nmnist_raw).images) == 18


def test_a_recording_moved_to_another_subset_is_noticed(nmnist_raw):
    source = nmnist_raw / "events" / "Test" / "0" / "00001.bin"
    source.rename(nmnist_raw / "events" / "Train" / "0" / "00002.bin")
    with pytest.raises(LayoutError, match="MNIST image Train/00002 is a 1"):
        listing(nmnist_raw)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda path: path.write_bytes(b""), "begins with nothing"),
        (lambda path: path.write_bytes(b"<html>not found</html>"), "idx file of unsigned bytes"),
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), "its header"),
        (lambda path: path.write_bytes(b"\x1f\x8b" + path.read_bytes()), "damaged gzip"),
        (lambda path: path.write_bytes(b"\0\0\x08\4" + bytes(4) + b"\xff" * 12), "array is too big"),
    ],
)
def test_damaged_idx_files_are_named(nmnist_raw, spoil, expected):
    spoil(nmnist_raw / "static" / "train-images-idx3-ubyte")
    with pytest.raises(LayoutError, match=expected):
        listing(nmnist_raw)


def test_a_digit_that_is_no_digit(nmnist_raw):
    (nmnist_raw / "events" / "Train" / "10").mkdir()
    with pytest.raises(LayoutError, match="10 is not a digit's folder"):
        listing(nmnist_raw)


def test_only_training_files(tmp_path):
    import shutil

    raw = write_nmnist_raw(tmp_path)
    shutil.rmtree(raw / "events" / "Test")
    for path in (raw / "static").glob("t10k*"):
        path.unlink()
    found = listing(raw)
    assert {recording.subset for recording in found.recordings} == {"train"}
    assert "no folder Test: no test recordings" in found.notes


@pytest.mark.skipif(not REAL.is_dir(), reason="the real recordings are not part of the project")
def test_real_recordings():
    reader = get_reader("nmnist")
    with open(REAL / "expected.csv", newline="") as file:
        rows = list(csv.DictReader(file))

    recordings, notes = get_reader("nmnist").list_recordings(REAL)
    assert notes == ["no folder Test: no test recordings"]
    by_file = {f"{recording.name}.bin": recording for recording in recordings}
    for row in rows:
        recording = by_file[row["file"]]
        events = reader.read_events(recording)
        assert recording.image == f"Train/{int(row['mnist_index_0based']) + 1:05d}"
        assert recording.label == int(row["label"])
        found = (len(events), events.t[0], events.t[-1], events.x.sum(), events.y.sum(), events.p.sum())
        expected = ("events", "t_min_us", "t_max_us", "x_sum", "y_sum", "on_events")
        assert [int(value) for value in found] == [int(row[name]) for name in expected]


@pytest.mark.parametrize("declared", [18, 10**10])
def test_idx_files_are_unpacked_no_further_than_their_header_says(tmp_path, declared):
    path = tmp_path / "images.gz"
    head = b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in (declared // 9, 3, 3))
    path.write_bytes(gzip.compress(head + bytes(2**24)))
    tracemalloc.start()
    with pytest.raises(LayoutError, match=r"more bytes behind its header|far more than"):
        idx.read(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
