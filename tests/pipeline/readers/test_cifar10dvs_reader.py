"""CIFAR10-DVS in its three forms and CIFAR-10 in its three: true formats, orientation, traps, both protocols."""

import contextlib
import os
import pickle
import pickletools
import struct

import numpy as np
import pytest
from conftest import make_events
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_sets.cifar10dvs import HEADER, USED, images_of, mat_bytes, python2_pickle, tet6, write_events, write_static

from spikebridge.pipeline.base.errors import LayoutError, RecordingError
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.containers import cifar
from spikebridge.pipeline.events.arrays import Events, check_events
from spikebridge.pipeline.formats.aedat import aedat2
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.readers import get_reader
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import ConversionSettings


def record(address, t):
    return struct.pack(">II", address, t)


def plain(events):
    return [getattr(events, name).tolist() for name in "txyp"]


@pytest.fixture
def reader():
    return get_reader("cifar10dvs")


@pytest.fixture
def raw(tmp_path):
    write_events(tmp_path / "raw" / "events")
    write_static(tmp_path / "raw" / "static" / "cifar-10-batches-py", "python")
    return tmp_path / "raw"


def test_orientation_and_polarity_are_those_of_the_authors():
    data = HEADER + record(5 << 1 | 9 << 8 | 1, 10) + record(127 << 1 | 0 << 8 | 0, 12) + record(0x8000, 12)
    events, wrapped = aedat2.decode_dvs128(data, source="x")
    assert plain(events) == [[10, 12, 12], [122, 0, 127], [9, 0, 0], [0, 1, 1]]
    assert not wrapped


@given(st.integers(0, 40), st.integers(0, 2**31))
def test_round_trip(count, seed):
    events = make_events(seed, count=count, size=(128, 128))
    assert plain(aedat2.decode_dvs128(aedat2.encode(events, header=HEADER), source="x")[0]) == plain(events)


@pytest.mark.parametrize("address", [0x23000000, 0x23232323, 0x2320410A, 0x230D0A23, 0x23416263])
@pytest.mark.parametrize("t", [0, 35, 0x23232323, 0x0A0A0A0A])
@pytest.mark.parametrize(
    "header", [HEADER, b"#!AER-DAT2.0\r\n", b"#!AER-DAT2.0\n# a\n", HEADER + b"#End Of ASCII Header\r\n"]
)
def test_the_first_byte_of_data_may_be_a_hash(address, t, header):
    first = record(address, t)
    later = b"".join(record(i << 8, t + i) for i in range(1, 5))
    expected = aedat2.decode_dvs128(b"#!AER-DAT2.0\r\n#End Of ASCII Header\r\n" + first + later, source="x")[0]
    assert plain(aedat2.decode_dvs128(header + first + later, source="x")[0]) == plain(expected)
    assert expected.t[0] == t


def test_truncated_empty_and_other_versions():
    data = aedat2.encode(make_events(1, size=(128, 128)), header=HEADER)
    for cut in range(1, 8):
        with pytest.raises(RecordingError, match="multiple of 8") as error:
            aedat2.decode_dvs128(data[:-cut], source="x")
        assert error.value.reason == "truncated"
    for wrong in (b"", b"\0" * 80, b"#!AER-DAT1.0\r\n" + bytes(6), b"#!AER-DAT3.1\r\n" + bytes(8), b"<html>"):
        with pytest.raises(RecordingError):
            aedat2.decode_dvs128(wrong, source="x")
    assert len(aedat2.decode_dvs128(HEADER, source="x")[0]) == 0


def test_a_wrap_is_undone_once_and_other_steps_back_are_refused():
    times = [2**32 - 20, 2**32 - 5, 3, 9]
    events, wrapped = aedat2.decode_dvs128(HEADER + b"".join(record(0, t) for t in times), source="x")
    assert wrapped
    assert np.diff(events.t).tolist() == [15, 8, 6]
    for times in ([5, 9, 7], [2**32 - 5, 3, 2**32 - 5, 3]):
        events, wrapped = aedat2.decode_dvs128(HEADER + b"".join(record(0, t) for t in times), source="x")
        assert not wrapped
        with pytest.raises(RecordingError) as error:
            check_events(events, sensor_size=(128, 128), source="x")
        assert error.value.reason == "unsorted"


@pytest.mark.parametrize("ending", ["aedat", "6.mat", "4.mat", "aedat4"])
def test_all_forms_give_the_same_events(tmp_path, reader, ending):
    write_events(tmp_path / "events", ending)
    write_static(tmp_path / "static", "binary")
    listing = reader.list_pair(tmp_path / "events", tmp_path / "static")
    assert listing.classes == USED
    assert len(listing.recordings) == 18
    first = next(r for r in listing.recordings if r.label == 1 and r.stem == "2")
    events = reader.read_events(first)
    assert plain(events) == plain(make_events(102, size=(128, 128)))
    check_events(events, sensor_size=listing.sensor_size, source="x")


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (np.zeros((5, 3)), "damaged"),
        (np.zeros((0, 6)), "empty"),
        (tet6(make_events(1, count=9)) + np.array([0, 1, 0, 0, 0, 0]), "damaged"),
        (tet6(make_events(1, count=9)) + np.array([0.5, 0, 0, 0, 0, 0]), "fractional"),
        (tet6(make_events(1, count=9)) + np.array([0, 0, 0, 0, 0, 5]), "polarity"),
    ],
)
def test_bad_tables(tmp_path, reader, table, reason):
    write_events(tmp_path / "events", "6.mat")
    write_static(tmp_path / "static", "binary")
    recording = reader.list_pair(tmp_path / "events", tmp_path / "static").recordings[0]
    recording.path.write_bytes(mat_bytes(table))
    with pytest.raises(RecordingError) as error:
        reader.read_events(recording)
    assert error.value.reason == reason


@pytest.mark.parametrize("kind", ["python", "binary", "folders"])
def test_static_images(tmp_path, reader, kind):
    write_events(tmp_path / "events")
    write_static(tmp_path / "static", kind)
    listing = reader.list_pair(tmp_path, tmp_path)
    assert listing.pairing == "class"
    assert all(r.image is None and r.subset is None for r in listing.recordings)
    assert [i.subset for i in listing.images].count("train") == 15
    assert [i.subset for i in listing.images].count("test") == 3
    assert len({(i.label, i.stem) for i in listing.images}) == 18
    for image in listing.images:
        label = cifar.CLASSES.index(USED[image.label])
        number = 5 if image.subset == "test" else int(image.stem.split("-")[1][0]) if kind == "folders" else None
        if number is None:
            number = int(image.path.stem[-1]) - 1
        _, pixels = python2_pickle(number, [0] * 10)
        np.testing.assert_array_equal(reader.read_image(image), images_of(pixels)[(label - number) % 10])


def test_the_pickle_is_what_python_2_wrote(tmp_path):
    data, pixels = python2_pickle(0, [3, 1, 4])
    names = {arg for op, arg, _ in pickletools.genops(data) if op.name == "GLOBAL"}
    assert names == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}
    (tmp_path / "data_batch_1").write_bytes(data)
    batch = cifar.read(tmp_path / "data_batch_1")
    assert batch.labels.tolist() == [3, 1, 4]
    np.testing.assert_array_equal(batch.images, images_of(pixels))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", [str, str.encode])
def test_pickles_of_today_are_read_too(tmp_path, protocol, order, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)
    content = {
        kind("data"): np.asarray(pixels, order=order),
        kind("labels"): [1, 2, 3, 9],
        kind("filenames"): [b""] * 4,
    }
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content, protocol=protocol))
    np.testing.assert_array_equal(cifar.read(tmp_path / "test_batch").images, images_of(pixels))


class Call:
    """Unpickles by calling something."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize(
    "call",
    [
        Call(os.system, "touch owned"),
        Call(eval, "open('owned', 'w')"),
        Call(getattr, "x", "join"),
        Call(np.load, "owned"),
        Call(np.array, [1]),
        Call(np.dtype, "O"),
        Call(bytes, 10**12),
    ],
)
def test_malicious_pickles_are_refused(tmp_path, monkeypatch, call, protocol):
    monkeypatch.chdir(tmp_path)
    content = {b"data": np.zeros((1, 3072), np.uint8), b"labels": [0], b"extra": call}
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(LayoutError, match="cannot be read as a batch"):
        cifar.read(tmp_path / "data_batch_1")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cnumpy.core.multiarray\n_reconstruct\n}S'__code__'\nNsb.",  # changes what is called
        b"cnumpy\nndarray\n}b.",
        b"(cnumpy\ndtype\nS'u1'\no}b.",
        b"cbuiltins\nexec\n(S'1'\ntR.",
        b"\x80\x02cnumpy\nndarray\n)\x81}b.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a byte array of 2**63 - 1
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # a memo of 2**31 entries
        b"(" * 100_000 + b"t" * 100_000 + b".",
        b"",
        b".",
    ],
)
def test_hostile_programs_are_refused(tmp_path, program):
    (tmp_path / "data_batch_1").write_bytes(program)
    with pytest.raises(LayoutError):
        cifar.read(tmp_path / "data_batch_1")


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (b"\x96" + (4_000_000_000).to_bytes(8, "little") + b".", "expected 4000000000 bytes"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "place 2147483647"),
        (b"}p2000000000\n.", "place 2000000000"),
    ],
    ids=["long object", "far in the memo", "far in the memo, as text"],
)
def test_pickles_of_a_few_bytes_that_ask_for_gigabytes(tmp_path, program, said):
    (tmp_path / "data_batch_1").write_bytes(program)
    with pytest.raises(LayoutError, match=said):
        cifar.read(tmp_path / "data_batch_1")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_pickles_raise_nothing_but_layout_errors(tmp_path_factory, changes):
    path = tmp_path_factory.mktemp("batch") / "data_batch_1"
    data = bytearray(python2_pickle(0, [1])[0])
    for position, value in changes:
        data[position] = value
    path.write_bytes(data)
    with contextlib.suppress(LayoutError):
        cifar.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}, "1 labels"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"fine_labels": [0]}, "labels"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, "expected 0 to 9"),
        ({b"data": np.zeros((1, 3072), np.float32), b"labels": [0]}, "expected bytes"),
        ([1, 2], "holds a list"),
    ],
)
def test_batches_of_something_else(tmp_path, content, message):
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(LayoutError, match=message):
        cifar.read(tmp_path / "data_batch_1")


def test_binary_batches_of_another_length(tmp_path):
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(3074))
    with pytest.raises(LayoutError, match="multiple of 3073"):
        cifar.read(tmp_path / "data_batch_1.bin")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cat/notes.dat", "names like cifar10_cat_12.aedat"),
        ("cat/cifar10_dog_77.aedat", "names like cifar10_cat_12.aedat"),
        ("cat/2.mat", "have one number"),
        ("zebra/cifar10_zebra_0.aedat", "is no class"),
    ],
)
def test_wrong_layouts(raw, reader, name, message):
    (raw / "events" / name).parent.mkdir(exist_ok=True)
    (raw / "events" / name).write_bytes(b"")
    with pytest.raises(LayoutError, match=message):
        reader.list_pair(raw, raw)


def test_archives_and_hidden_files_beside_the_classes_are_passed_over(raw, reader):
    before = reader.list_pair(raw, raw)
    (raw / "events" / "airplane.zip").write_bytes(b"")
    (raw / "events" / "download").mkdir()
    (raw / "events" / "cat" / ".DS_Store").write_bytes(b"")
    assert reader.list_pair(raw, raw) == before


def test_legacy_is_nine_to_one_and_has_the_test_images_in_the_pool(raw):
    conversion = prepare(ConversionSettings(dataset="cifar10dvs", protocol="legacy"), events_root=raw, static_root=raw)
    for label in range(3):
        splits = [conversion.split[r.name] for r in conversion.used if r.label == label]
        assert sorted(splits) == ["test"] + ["train"] * 5
    assert {image.subset for image in conversion.listing.images} == {"train"}


@pytest.mark.parametrize("protocol", ["strict", "legacy"])
def test_conversion(raw, tmp_path, protocol):
    wanted = ConversionSettings(dataset="cifar10dvs", protocol=protocol, time_bins=3, size=8, encoding="rgb")
    outcome = convert(prepare(wanted, events_root=raw, static_root=raw), tmp_path / "set")
    assert not outcome.rejects
    found = verify(tmp_path / "set")
    assert found.ok, found.problems
    assert any("class only" in note for note in found.notes)
    assert outcome.manifest["pairing"]["kind"] == "class"
    assert ShardSet(tmp_path / "set").classes == USED
    pool = 15 if protocol == "strict" else 18
    assert outcome.manifest["static"]["roles"]["pool"] == pool
    assert sum(split["samples"] for split in outcome.manifest["splits"].values()) == 18


def test_a_broken_recording_is_a_reject(raw, tmp_path):
    path = raw / "events" / "cat" / "cifar10_cat_3.aedat"
    path.write_bytes(path.read_bytes()[:-3])
    wanted = ConversionSettings(dataset="cifar10dvs", time_bins=3, size=8)
    outcome = convert(prepare(wanted, events_root=raw, static_root=raw), tmp_path / "set", max_bad=1)
    assert [(line["name"], line["reason"]) for line in outcome.rejects] == [("cat/cifar10_cat_3", "truncated")]


def test_events_type():
    events, _ = aedat2.decode_dvs128(HEADER + record(3, 4), source="x")
    assert isinstance(events, Events)
    assert [getattr(events, name).dtype for name in "txyp"] == [np.int64, np.int32, np.int32, np.uint8]
