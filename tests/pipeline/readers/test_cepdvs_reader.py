"""CEP-DVS in its true layout: MAT files good and bad, the join on i, labels of pathFile.csv, both protocols."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import scipy.io
from conftest import make_events
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_sets.cepdvs import COUNT, USED, columns, mat_bytes, write_raw

from spikebridge.pipeline.base.errors import LayoutError, RecordingError
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.containers import mat
from spikebridge.pipeline.formats.tables import mat_events
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.readers import get_reader
from spikebridge.pipeline.readers.cepdvs import CLASSES, SENSOR_SIZE
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import ConversionSettings


@pytest.fixture
def raw(tmp_path):
    return write_raw(tmp_path / "raw")


@pytest.fixture
def reader():
    return get_reader("cepdvs")


def test_the_join_is_on_the_number_not_on_text_order(raw, reader):
    listing = reader.list_pair(raw, raw)
    assert listing.classes == USED
    assert listing.sensor_size == (346, 260)
    images = {image.name: image for image in listing.images}
    for recording in listing.recordings:
        i = int(recording.stem)
        assert listing.classes[recording.label] == USED[i * 7 % 3]
        assert images[recording.image].label == recording.label
        assert images[recording.image].path.stem == recording.path.stem
    assert any("3 classes found, 20 expected" in note for note in listing.notes)
    assert any("DAVIS346" in note for note in listing.notes)


def test_with_all_classes_the_labels_are_the_published_ones(raw, reader):
    rows = [f"a b c d {CLASSES[(19 - i) % 20]}" for i in range(COUNT)]
    (raw / "pathFile.csv").write_bytes(("\ufeffheader\r\n" + "\r\n".join(rows) + "\r\n").encode())
    listing = reader.list_pair(raw, raw)
    assert listing.classes == CLASSES
    assert {int(r.stem): r.label for r in listing.recordings} == {i: (19 - i) % 20 for i in range(COUNT)}


@pytest.mark.parametrize("i", [0, 1])
def test_events(raw, reader, i):
    recording = next(r for r in reader.list_pair(raw, raw).recordings if r.stem == str(i))
    events, stored = reader.read_events(recording), make_events(i, size=SENSOR_SIZE)
    for name in "txyp":
        found, expected = getattr(events, name), getattr(stored, name)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64, np.uint64, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, -1), (-1, 1)])
def test_any_numeric_type_and_orientation(dtype, shape):
    values = {name: np.array([0, 1, 1, 3], dtype).reshape(shape) for name in ("t", "x", "y")}
    p = np.array([1, 0, 1, 0], dtype).reshape(shape)
    read = mat.read(mat_bytes({**values, "p": p}), ("t", "x", "y", "p"), source="x")
    events = mat_events.from_vectors(*(read[name] for name in "txyp"), source="x")
    assert events.t.tolist() == events.x.tolist() == [0, 1, 1, 3]
    assert events.p.tolist() == [1, 0, 1, 0]


ts = columns(0)["ts"]
BAD = {
    "fractional": {"ts": ts / 1e6},
    "not finite": {"ts": np.where(ts == ts.max(), np.nan, ts)},
    "negative_time": {"ts": ts - 10**6},
    "unsorted": {"ts": ts[::-1]},
    "polarity": {"p": np.full(300, 2)},
    "polarity mixed": {"p": np.arange(300) % 3 - 1},
    "out_of_range": {"x": np.full(300, 346)},
    "out_of_range below": {"x": np.full(300, -1)},
    "out_of_range far": {"y": np.full(300, 2**32 + 5)},
    "damaged lengths": {"x": np.zeros(299)},
    "damaged missing": {"ts": None},
    "damaged table": {"x": np.zeros((100, 3))},
    "not_numeric cell": {"x": np.array([[1, "a"]], object)},
    "not_numeric struct": {"x": {"a": 1}},
    "not_numeric text": {"x": "abc"},
    "not_numeric complex": {"x": np.zeros(300) + 1j},
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_variables_are_rejected_with_a_reason(raw, reader, kind):
    recording = reader.list_pair(raw, raw).recordings[0]
    variables = {name: value for name, value in columns(0, **BAD[kind]).items() if value is not None}
    recording.path.write_bytes(mat_bytes(variables))
    with pytest.raises(RecordingError, match=recording.name) as error:
        reader.read_packed(recording, sensor_size=SENSOR_SIZE)
    assert error.value.reason == {"not finite": "fractional"}.get(kind, kind.split()[0])


def test_beyond_the_assumed_sensor_says_what_is_assumed(raw, reader):
    recording = reader.list_pair(raw, raw).recordings[0]
    recording.path.write_bytes(mat_bytes(columns(0, y=np.full(300, 479))))
    with pytest.raises(RecordingError, match="DAVIS346 of 346x260 pixels, which no source confirms"):
        reader.read_events(recording)


def test_empty_columns_are_no_events():
    events = mat_events.from_vectors(*(np.empty((0, 0)),) * 4, source="x")
    assert len(events) == 0


def test_other_variables_are_never_decoded():
    data = mat_bytes({**columns(1), "extra": {"a": {"b": np.array([1, "b"], object)}}})
    assert set(mat.read(data, ("x", "p"), source="x")) == {"x", "p"}


def element(kind, data, order, *, small=False):
    code = "<" if order == "little" else ">"
    if small:
        return struct.pack(f"{code}I", len(data) << 16 | kind) + data.ljust(4, b"\0")
    return struct.pack(f"{code}II", kind, len(data)) + data + bytes(-len(data) % 8)


def file_of(name, values, order, *, kind=6, stored=9):
    """A file with one variable, as the format describes it."""
    code = "<" if order == "little" else ">"
    parts = element(6, struct.pack(f"{code}II", kind, 0), order)
    if kind != 17:
        parts += element(5, struct.pack(f"{code}{values.ndim}i", *values.shape), order)
    parts += element(1, name.encode(), order, small=len(name) <= 4)
    parts += element(stored, values.astype(values.dtype.newbyteorder(code)).tobytes(order="F"), order)
    version = struct.pack(f"{code}H", 0x100) + (b"IM" if order == "little" else b"MI")
    return b"MATLAB 5.0".ljust(124) + version + element(14, parts, order)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("name", ["x", "out1", "longer_name"])
def test_both_byte_orders(order, name):
    values = np.arange(12.0).reshape(3, 4) - 0.5
    data = file_of(name, values, order)
    found = mat.read(data, (name,), source="x")[name]
    np.testing.assert_array_equal(found, values)
    assert found.dtype.isnative
    if order == "little":
        np.testing.assert_array_equal(scipy.io.loadmat(io.BytesIO(data))[name], values)


@pytest.mark.parametrize(("kind", "what"), [(3, "object"), (5, "sparse"), (16, "function"), (17, "opaque"), (99, "99")])
def test_objects_are_refused_by_their_class(kind, what):
    data = file_of("x", np.arange(4.0)[None], "little", kind=kind)
    with pytest.raises(RecordingError, match=f"variable x is of the class {what}") as error:
        mat.read(data, ("x",), source="x")
    assert error.value.reason == "not_numeric"


def test_a_variable_that_stands_there_twice_is_refused():
    data, again = mat_bytes(columns(1)), mat_bytes(columns(2))
    with pytest.raises(RecordingError) as error:
        mat.read(data + again[128:], ("x",), source="x")
    assert error.value.reason == "damaged"


@pytest.mark.parametrize("compressed", [True, False])
def test_every_cut_is_noticed(compressed):
    data = mat_bytes(columns(1), compressed=compressed)
    whole = mat.read(data, ("x", "y", "ts", "p"), source="x")
    for length in [*range(0, 200), *range(200, len(data), 97), len(data) - 1]:
        with pytest.raises(RecordingError):
            mat.read(data[:length], ("x", "y", "ts", "p"), source="x")
    assert set(whole) == {"x", "y", "ts", "p"}


def test_a_flipped_bit_in_compressed_data_is_noticed():
    data = mat_bytes(columns(1))
    for position in range(140, len(data), 53):
        damaged = bytearray(data)
        damaged[position] ^= 16
        with pytest.raises(RecordingError) as error:
            mat.read(bytes(damaged), ("x", "y", "ts", "p"), source="x")
        assert error.value.reason in {"damaged", "too_large"}


@settings(max_examples=250, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), min_size=1, max_size=8), st.booleans())
def test_damage_of_any_kind_raises_nothing_but_recording_errors(changes, compressed):
    data = bytearray(mat_bytes(columns(1), compressed=compressed))
    for position, value in changes:
        data[position % len(data)] = value
    try:
        read = mat.read(bytes(data), ("x", "y", "ts", "p"), source="x", max_bytes=2**20)
        mat_events.from_vectors(read["ts"], read["x"], read["y"], read["p"], source="x")
    except RecordingError:
        pass


def test_a_compression_bomb_is_stopped():
    header = mat_bytes({"x": 1})[:128]
    compress = zlib.compressobj(9)
    zeros = b"".join(compress.compress(bytes(2**20)) for _ in range(64)) + compress.flush()  # unpacks to 64 MiB
    data = header + struct.pack("<II", 15, len(zeros)) + zeros
    tracemalloc.start()
    with pytest.raises(RecordingError, match="unpacks to more than 1048576 bytes") as error:
        mat.read(data, ("x",), source="x", max_bytes=2**20)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    assert error.value.reason == "too_large"


def test_sizes_that_lie_are_noticed():
    plain = bytearray(mat_bytes({"x": np.arange(50.0)}, compressed=False))
    sizes = plain.index(struct.pack("<II", 1, 50))
    plain[sizes : sizes + 8] = struct.pack("<II", 2**31 - 1, 2**31 - 1)
    with pytest.raises(RecordingError):
        mat.read(bytes(plain), ("x",), source="x")
    none = file_of("x", np.empty((0, 5, 5, 5)), "little")
    most = none.replace(struct.pack("<3i", 5, 5, 5), struct.pack("<3i", *[2**31 - 1] * 3))
    assert mat.read(none, ("x",), source="x")["x"].shape == (0, 5, 5, 5)
    with pytest.raises(RecordingError, match="variable x: array is too big"):
        mat.read(most, ("x",), source="x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes"),
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + bytes(200), "save -v7"),
        (b"<html>not found</html>" * 20, "expected a header"),
    ],
)
def test_other_files_are_named(data, message):
    with pytest.raises(RecordingError, match=message):
        mat.read(data, ("x",), source="7.mat")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda raw: (raw / "pathFile.csv").write_text("header\n"), "no rows"),
        (lambda raw: (raw / "pathFile.csv").write_text("header\na b c d fishes\n"), "'fishes' as its fifth word"),
        (lambda raw: (raw / "pathFile.csv").write_text("header\na b c d fish\n"), "23 recordings lie beyond"),
        (lambda raw: (raw / "data/MAT/img/x.mat").write_bytes(b""), "does not belong here"),
        (lambda raw: (raw / "data/MAT/img/007.mat").write_bytes(b""), "have one number"),
        (lambda raw: (raw / "data/img/3.jpg").write_bytes(b""), "have one number"),
        (lambda raw: (raw / "pathFile.csv").unlink(), r"expected pathFile\.csv"),
    ],
)
def test_wrong_layouts(raw, reader, spoil, message):
    spoil(raw)
    with pytest.raises(LayoutError, match=message):
        reader.list_pair(raw, raw)


def test_legacy_slices_blocks_of_the_text_order_and_mixes_partners_up(tmp_path, reader):
    raw = write_raw(tmp_path / "raw", count=30)
    published = reader.apply_published_split(reader.list_pair(raw, raw), seed=5)
    assert published == reader.apply_published_split(reader.list_pair(raw, raw), seed=6)
    order = sorted(published.recordings, key=lambda r: f"{r.stem}.mat")
    assert [r.subset for r in order] == ["train"] * 15 + ["test"] * 6 + ["unused"] * 9
    images = {int(image.stem): image for image in published.images}
    assert [images[i].label for i in range(15)] == [r.label for r in order[:15]]
    assert [images[i].subset for i in range(30)] == ["train"] * 15 + ["test"] * 15
    settings_ = ConversionSettings(dataset="cepdvs", protocol="legacy", limit=20)
    conversion = prepare(settings_, events_root=raw, static_root=raw)
    assert sorted(conversion.split.values()) == ["test"] * 6 + ["train"] * 14
    assert {r.subset for r in conversion.used} == {"train", "test"}


def test_damaged_recordings_are_counted_and_the_rest_converts(raw, tmp_path, reader):
    damaged = raw / "data/MAT/img/4.mat"
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 255  # the checksum of the last variable
    damaged.write_bytes(data)
    settings_ = ConversionSettings(dataset="cepdvs", time_bins=3, size=8, samples_per_shard=10)
    conversion = prepare(settings_, events_root=raw, static_root=raw)
    outcome = convert(conversion, tmp_path / "set", max_bad=1)
    assert [(line["name"], line["reason"]) for line in outcome.rejects] == [("data/MAT/img/4", "damaged")]
    found = verify(tmp_path / "set")
    assert found.ok, found.problems
    assert found.samples == COUNT - 1
    assert ShardSet(tmp_path / "set").classes == USED
    assert outcome.manifest["pairing"]["kind"] == "exact"


def test_legacy_conversion_has_a_mixed_up_pool(raw, tmp_path):
    (raw / "data/img/9.png").unlink()  # of a recording that the published split leaves out
    settings_ = ConversionSettings(dataset="cepdvs", protocol="legacy", time_bins=3, size=8)
    outcome = convert(prepare(settings_, events_root=raw, static_root=raw), tmp_path / "set")
    assert {name: split["samples"] for name, split in outcome.manifest["splits"].items()} == {
        "train": 12,
        "validation": 0,
        "test": 5,
    }
    assert outcome.manifest["static"]["roles"] == {"pool": 12, "validation": 0, "test": 11, "duplicate": 0}
    assert any("mixed up as published" in note for note in outcome.manifest["notes"])
    assert verify(tmp_path / "set").ok
