"""ES-ImageNet: samples in the true format become the published tensors; damaged and hostile files are refused."""

import zipfile

import numpy as np
import pytest
from raw_sets.esimagenet import FOLDERS, write_raw, write_sample

from spikebridge.pipeline.base.errors import LayoutError, RecordingError
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.events.framing import to_frames
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.readers import get_reader
from spikebridge.pipeline.shards.settings import ConversionSettings


@pytest.fixture
def raw(tmp_path):
    return write_raw(tmp_path / "raw")


def published(arrays, height, width):
    """The published tensor [T,P,H,W], with our order of the polarities."""
    frames = np.zeros((8, 2, 256, 256), np.uint8)
    for polarity, name in enumerate(("neg", "pos")):
        rows, columns, steps = arrays[name].astype(int).T
        frames[steps - 1, polarity, rows + (254 - height) // 2, columns + (254 - width) // 2] = 1
    return frames[:, :, 16:240, 16:240]


@pytest.mark.parametrize("reduction", ["sum", "event"])
@pytest.mark.parametrize("steps", [range(1, 9), range(3, 6)])
def test_full_size_frames_equal_the_published_tensor(tmp_path, reduction, steps):
    root = write_raw(tmp_path / "raw", train=1, val=1)
    path = root / "events" / "train" / "class3" / "n01491361_3.npz"
    arrays = write_sample(path, 1, 251, 203)
    arrays = {name: cells[np.isin(cells[:, 2], steps)] for name, cells in arrays.items()}
    np.savez_compressed(path, **arrays)
    reader = get_reader("esimagenet")
    listing = reader.list_pair(root, root)
    recording = next(r for r in listing.recordings if r.path == path)
    framed = to_frames(
        reader.read_packed(recording, sensor_size=listing.sensor_size),
        time_bins=8,
        size=224,
        reduction=reduction,
        dtype="uint8",
        canvas=listing.sensor_size,
        crop=reader.crop,
        span_us=reader.span_us,
        source="x",
    )
    np.testing.assert_array_equal(framed.frames, published(arrays, *recording.detail))


def test_listing(raw):
    listing = get_reader("esimagenet").list_pair(raw, raw)
    assert listing.classes == tuple(FOLDERS.values())
    assert len(listing.recordings) == len(listing.images) == 18
    by_stem = {image.name: (image.label, image.subset) for image in listing.images}
    assert all(by_stem[r.image] == (r.label, r.subset) for r in listing.recordings)
    assert listing.notes == ()


def test_flat_validation_folders_and_samples_without_image(raw):
    for path in sorted((raw / "static" / "val").glob("*/*")):
        path.rename(raw / "static" / "val" / path.name)
    (raw / "static" / "train" / "n09999999").mkdir()
    next((raw / "static" / "train").rglob("*.JPEG")).rename(raw / "static" / "train" / "n09999999" / "x.JPEG")
    next((raw / "events" / "train").rglob("*.npz")).unlink()
    np.savez(raw / "events" / "train" / "class0" / "stray.npz", pos=np.zeros((0, 3)), neg=np.zeros((0, 3)))
    listing = get_reader("esimagenet").list_pair(raw, raw)
    assert sum(image.subset == "test" for image in listing.images) == 6
    assert len(listing.notes) == 3
    assert "1 of 12 samples of trainlabel.txt" in listing.notes[0]


def test_converts_and_verifies(raw, tmp_path):
    wanted = ConversionSettings(dataset="esimagenet", time_bins=8, size=32, reduction="event", samples_per_shard=5)
    done = convert(prepare(wanted, events_root=raw, static_root=raw), tmp_path / "set")
    assert not done.rejects
    assert done.manifest["splits"]["test"]["per_class"] == [2, 2, 2]
    assert done.manifest["static"]["roles"]["test"] == 6
    assert done.manifest["simulated"]
    assert verify(tmp_path / "set").ok


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"pos": None}, "columns"),
        ({"pos": np.zeros((4, 2), int)}, "shape"),
        ({"pos": np.array([[1, 1, 0]])}, "out_of_range"),
        ({"pos": np.array([[1, 1, 9]])}, "out_of_range"),
        ({"pos": np.array([[1e12, 1, 1]])}, "out_of_range"),
        ({"pos": np.array([[1.5, 1, 1]])}, "fractional"),
        ({"pos": np.array([[np.nan, 1, 1]])}, "fractional"),
        ({"pos": np.array([print], dtype=object)}, "pickle"),
    ],
)
def test_bad_samples(raw, change, expected):
    reader = get_reader("esimagenet")
    recording = reader.list_pair(raw, raw).recordings[0]
    arrays = {"pos": np.array([[1, 1, 1]]), "neg": np.array([[1, 1, 1]])} | change
    np.savez(recording.path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(RecordingError, match=recording.path.stem) as caught:
        reader.read_events(recording)
    assert caught.value.reason == expected


def test_bombs_and_cuts(raw):
    reader = get_reader("esimagenet")
    recording = reader.list_pair(raw, raw).recordings[0]
    data = recording.path.read_bytes()
    for cut in (0, 10, len(data) // 2, len(data) - 1):
        recording.path.write_bytes(data[:cut])
        with pytest.raises(RecordingError):
            reader.read_events(recording)
    with zipfile.ZipFile(recording.path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("pos.npy", "w") as member:
        for _ in range(100):
            member.write(bytes(2**20))
    with pytest.raises(RecordingError) as caught:
        reader.read_events(recording)
    assert caught.value.reason == "too_large"


def test_empty_polarity_and_empty_sample(raw):
    reader = get_reader("esimagenet")
    recording = reader.list_pair(raw, raw).recordings[0]
    np.savez(recording.path, pos=np.array([[5, 6, 7]]), neg=np.zeros((0, 3)))
    assert reader.read_events(recording).t.tolist() == [6000]
    np.savez(recording.path, pos=np.zeros((0, 3)), neg=np.zeros(0))
    assert len(reader.read_events(recording)) == 0


@pytest.mark.parametrize(
    "line",
    [
        "a.npz 1 2",
        "a.npz one 2 3",
        "../../a.npz 1 2 3",
        "/etc/a.npz 1 2 3",
        "a.npz -1 2 3",
        "a.npz 1 99999999999999999999 3",
    ],
)
def test_bad_label_lines_are_named(raw, line):
    with open(raw / "events" / "vallabel.txt", "a") as file:
        file.write(line + "\n")
    with pytest.raises(LayoutError, match=r"vallabel\.txt, line 7"):
        get_reader("esimagenet").list_pair(raw, raw)


def test_photographs_of_two_classes_in_one_folder(raw):
    first, second = (raw / "static" / "train" / FOLDERS[label] for label in (0, 3))
    path = next(iter(sorted(first.iterdir())))
    path.rename(second / path.name)
    with pytest.raises(LayoutError, match="lie together"):
        get_reader("esimagenet").list_pair(raw, raw)
