"""Recordings in every format that is read by its ending: equal to what was written, and refused where damaged."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from conftest import ROOT, make_events
from event_files import EPOCH_US, EVT2_HEADER, EVT3_HEADER, evt2, evt3, later, write_aedat4
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from raw_sets.recordings import EVENTS, assert_equal, checked, reason, write, write_folders

from spikebridge.pipeline.base.errors import LayoutError, RecordingError
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.formats.aedat import aedat4
from spikebridge.pipeline.formats.recording import FORMATS, read, sensor_size
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.shards.settings import ConversionSettings


def test_a_file_without_a_byte_is_said_to_be_empty(tmp_path):
    for name in (f"a{ending}" for ending in FORMATS):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(RecordingError, match=f"{name}: 0 bytes; .* Copy the file again") as caught:
            read(tmp_path / name)
        assert caught.value.reason == "empty"


@pytest.mark.parametrize("compression", ["LZ4", "ZSTD", "NONE"])
def test_aedat4_with_frames_and_more_inside(tmp_path, compression):
    path = tmp_path / "a.aedat4"
    write_aedat4(path, later(EVENTS, EPOCH_US), compression=compression, others=True)
    assert_equal(read(path), later(EVENTS, EPOCH_US))
    assert sensor_size(path) == (346, 260)


def test_damaged_aedat4_is_an_error_and_never_the_end_of_the_process(tmp_path):
    path, bad = tmp_path / "a.aedat4", tmp_path / "bad.aedat4"
    write_aedat4(path, later(make_events(1, count=60), EPOCH_US), packet=20)
    data = path.read_bytes()
    bad.write_bytes(b"")
    assert reason(read, bad) == "empty"
    first = 18 + int.from_bytes(data[14:18], "little")
    table = aedat4._table_position(data[18:first], path)
    borders = [first]
    while borders[-1] < table:
        borders.append(borders[-1] + 8 + int.from_bytes(data[borders[-1] + 4 : borders[-1] + 8], "little"))
    assert len(borders) == 4  # three packets
    for cut in (16, 40, first - 1, table - 1, *borders[:-1]):  # at a border the decoder sees nothing
        bad.write_bytes(data[:cut])
        assert reason(read, bad) == "truncated"
    rng = np.random.default_rng(0)
    for number in range(300):
        flipped = bytearray(data)
        for place in rng.integers(0, first if number % 2 else len(data), 3):
            flipped[place] ^= 1 << rng.integers(0, 8)
        bad.write_bytes(flipped)
        for look in (read, sensor_size):
            with contextlib.suppress(RecordingError):
                look(bad)


def test_a_panic_of_the_decoder_is_damage(tmp_path, monkeypatch):
    """Seen with damaged headers: an exception that is no `Exception`, in either place where a file is opened."""

    class Panic(BaseException):
        pass

    def panics(path):
        raise Panic("range start index 32796 out of range")

    write_aedat4(tmp_path / "a.aedat4", later(make_events(1, count=60), EPOCH_US))
    monkeypatch.setattr("aedat.Decoder", panics)
    for look in (read, sensor_size):
        with pytest.raises(RecordingError, match="range start index"):
            look(tmp_path / "a.aedat4")


@pytest.mark.parametrize("geometry", ["99999x99999", "0x0", "640x0"])
def test_a_sensor_of_no_camera_is_not_believed(tmp_path, geometry):
    """A canvas of 10**10 pixels from a header of a line would fill the memory."""
    raw = write_folders(tmp_path)
    for path in raw.glob("events/*/*"):
        if path.suffix == ".raw":
            path.write_bytes(EVT2_HEADER.replace(b"640x480", geometry.encode()) + evt2(make_events(1)))
        else:
            path.unlink()
    assert prepare(ConversionSettings(dataset="folders"), events_root=raw, static_root=raw).sensor_size is None


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from([100_000, 40_000_000]))
def test_evt2_and_evt3_round_trip_also_where_time_wraps(seed, duration):
    events = make_events(seed, count=200, size=(1280, 720), duration_us=duration)
    for header, encode in ((EVT2_HEADER, evt2), (EVT3_HEADER, evt3)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.raw"
            path.write_bytes(header + encode(events))
            assert_equal(read(path), events)


def test_the_first_word_may_look_like_a_line_of_the_header(tmp_path):
    path = tmp_path / "a.raw"
    for high in (0x25, 0x2025, 0x412025):
        events = later(make_events(2, count=20, duration_us=60), high << 6)
        path.write_bytes(EVT2_HEADER + evt2(events))
        assert_equal(read(path), events)


def test_evt2_equals_expelliarmus(tmp_path):
    expelliarmus = pytest.importorskip("expelliarmus")
    path = tmp_path / "a.raw"
    path.write_bytes(EVT2_HEADER + evt2(EVENTS))
    theirs = expelliarmus.Wizard(encoding="evt2").read(path)
    ours = read(path)
    for name in "txyp":
        np.testing.assert_array_equal(getattr(ours, name), theirs[name])


def test_evt3_vectors_triggers_and_events_before_the_first_time(tmp_path):
    path = tmp_path / "a.raw"
    words = [0x2005, 0x0007, 0x8001, 0x6002, 0xA000, 0x3864, 0x4801, 0x5081, 0xE000, 0x7000, 0xF000, 0x8002, 0x2003]
    path.write_bytes(EVT3_HEADER + np.array(words, "<u2").tobytes())
    found = read(path)
    assert found.t.tolist() == [4098, 4098, 4098, 4098, 8192]
    assert found.x.tolist() == [100, 111, 112, 119, 3]
    assert found.y.tolist() == [7] * 5
    assert found.p.tolist() == [1, 1, 1, 1, 0]
    assert sensor_size(path) == (1280, 720)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (EVT2_HEADER[:-4], "format"),
        (evt3(EVENTS), "format"),
        (b"% evt 2.2\n% end\n", "format"),
        (EVT2_HEADER + evt2(EVENTS)[:-1], "truncated"),
        (EVT3_HEADER + evt3(EVENTS)[:-1], "truncated"),
        (EVT2_HEADER + b"\xff\xff\xff\x3f", "damaged"),  # words, and no event among them
        (EVT3_HEADER + b"\xff\x9f", "damaged"),
    ],
)
def test_damaged_raw(tmp_path, data, expected):
    path = tmp_path / "a.raw"
    path.write_bytes(data if expected != "format" or b"2.0" not in data else b"% date x\n")
    assert reason(read, path) == expected


@pytest.mark.parametrize("ending", FORMATS)
def test_a_web_page_in_the_place_of_a_recording(tmp_path, ending):
    """A download of status 200: refused whatever its length."""
    path = tmp_path / f"a{ending}"
    for length in range(100, 140):
        path.write_bytes(b"<!DOCTYPE html><html><head><title>Please log in</title></head>".ljust(length, b"."))
        with pytest.raises(RecordingError):
            checked(path)


def test_matlab_vectors_and_tables(tmp_path):
    vectors = {name: getattr(EVENTS, name) for name in "xyp"}
    scipy.io.savemat(tmp_path / "a.mat", {**vectors, "Timestamps": EVENTS.t.astype(float), "z": "text"})
    assert_equal(read(tmp_path / "a.mat"))
    assert sensor_size(tmp_path / "a.mat") is None
    table = np.column_stack([EVENTS.t, EVENTS.x, EVENTS.y, 2 * EVENTS.p.astype(int) - 1]).astype(float)
    scipy.io.savemat(tmp_path / "b.mat", {"out1": table}, do_compression=True)
    assert_equal(read(tmp_path / "b.mat"))
    scipy.io.savemat(tmp_path / "c.mat", {"x": EVENTS.x, "y": EVENTS.y, "t": EVENTS.t})
    with pytest.raises(RecordingError, match=r"c\.mat: no column p among t, x, y; expected t, x, y and p") as caught:
        read(tmp_path / "c.mat")
    assert caught.value.reason == "columns"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"#!AER-DAT1.0\r\n", r"AEDAT 1\.0; expected 2\.0.*Convert it to AEDAT 4"),
        (b"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.cochlea.CochleaAMS1c\r\n", "CochleaAMS1c, whose addresses"),
    ],
)
def test_aedat_of_another_version_or_camera(tmp_path, header, expected):
    path = tmp_path / "a.aedat"
    path.write_bytes(header + bytes(16))
    with pytest.raises(RecordingError, match=expected) as caught:
        read(path)
    assert caught.value.reason == "format"
    path.write_bytes(b"#!AER-DAT2.0\r\n# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\r\n" + bytes(16))
    assert len(read(path)) == 2


def test_class_folders_of_every_format_convert(tmp_path):
    raw = write_folders(tmp_path / "raw")
    wanted = ConversionSettings(dataset="folders", time_bins=3, size=10, dtype="uint16")
    with pytest.raises(LayoutError, match="recordings of several sensors: "):
        prepare(wanted, events_root=raw, static_root=raw)
    (raw / "events" / "sensor.txt").write_text("200 150\n")
    conversion = prepare(wanted, events_root=raw, static_root=raw)
    assert conversion.listing.pairing == "exact"
    assert conversion.listing.sensor_size == (200, 150)
    assert conversion.listing.notes == ()
    done = convert(conversion, tmp_path / "set")
    assert not done.rejects
    assert sum(split["samples"] for split in done.manifest["splits"].values()) == 2 * len(FORMATS)
    assert verify(tmp_path / "set").ok
    (raw / "events" / "sensor.txt").write_text("large")
    with pytest.raises(LayoutError, match="346 260"):
        prepare(wanted, events_root=raw, static_root=raw)
    (raw / "events" / "sensor.txt").unlink()
    shutil.copy(raw / "events" / "cat" / "r0.bin", raw / "events" / "cat" / "r1.bin")
    with pytest.raises(LayoutError, match="have one stem"):
        prepare(wanted, events_root=raw, static_root=raw)


@pytest.mark.parametrize(("one", "other"), [("a b", "a_b"), ("Night", "night")])
def test_names_that_give_one_key_are_named(tmp_path, one, other):
    for number, stem in enumerate((one, other)):
        for side, ending in (("events", ".npz"), ("static", ".png")):
            (tmp_path / side / "cat").mkdir(parents=True, exist_ok=True)
            path = tmp_path / side / "cat" / f"{stem}{ending}"
            if side == "events":
                write(path, make_events(number))
            else:
                Image.fromarray(np.full((9, 9), number, np.uint8)).save(path)
    conversion = prepare(ConversionSettings(dataset="folders"), events_root=tmp_path, static_root=tmp_path)
    with pytest.raises(LayoutError, match=rf"cat/({one}|{other}) and cat/({one}|{other}) both give the key"):
        convert(conversion, tmp_path / "set")
    assert not (tmp_path / "set" / "manifest.json").exists()


def test_names_that_are_no_utf_8(tmp_path):
    """As archives of other systems leave them: listed, converted and verified like any other."""
    events, static = (tmp_path / side / os.fsdecode(b"cr\xe8me") for side in ("events", "static"))
    spare = static.with_name(os.fsdecode(b"th\xe9"))  # a class without recordings: the card says so
    for folder in (events, static, spare):
        folder.mkdir(parents=True)
    for number in range(4):
        name = os.fsdecode(b"caf\xe9%d" % number)
        write(tmp_path / "a.npz", make_events(number))
        (tmp_path / "a.npz").rename(events / f"{name}.npz")
        Image.fromarray(np.full((9, 9), number, np.uint8)).save(tmp_path / "a.png")
        shutil.copy(tmp_path / "a.png", spare / f"{name}.png")
        (tmp_path / "a.png").rename(static / f"{name}.png")
    (events / f"{name}.npz").write_bytes(b"")
    wanted = ConversionSettings(dataset="folders", time_bins=3, size=8)
    done = convert(prepare(wanted, events_root=tmp_path, static_root=tmp_path), tmp_path / "set", max_bad=1)
    assert done.manifest["classes"] == ["cr\\udce8me"]
    assert [line["name"] for line in done.rejects] == [f"{events.name}/{name}"]
    found = verify(tmp_path / "set")
    assert (found.problems, found.samples) == ([], 3)


def test_folders_without_pairs_convert_by_class(tmp_path):
    raw = write_folders(tmp_path / "raw")
    for path in sorted(raw.glob("static/*/*")):
        path.rename(path.with_stem(f"photo{path.stem}"))
    wanted = ConversionSettings(dataset="folders", time_bins=3, size=10, dtype="uint16", mixed_sensors="scale")
    done = convert(prepare(wanted, events_root=raw, static_root=raw), tmp_path / "set")
    assert not done.rejects
    assert done.manifest["pairing"]["kind"] == "class"
    found = verify(tmp_path / "set")
    assert found.ok, found.problems
    assert any("class only" in note for note in found.notes)


def test_formats_are_imported_when_they_are_needed():
    code = "import sys, spikebridge.pipeline.formats.recording; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"aedat", "h5py", "numba", "expelliarmus", "tonic"}
