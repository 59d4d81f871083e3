"""Valid files in forms that few programs write, and what downloads leave in place of files."""

import gzip
import io
import zipfile

import dv_processing as dv
import h5py
import numpy as np
import pytest
import scipy.io
from event_files import aedat3, aedat3_packet, dat, davis_aedat2, evt2, evt3, text_lines

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats import bin40
from spikebridge.pipeline.formats.aedat import aedat2
from spikebridge.pipeline.formats.recording import decode, sensor_size
from spikebridge.pipeline.formats.tables import columns
from spikebridge.pipeline.formats.tables.columns import TableOptions
from spikebridge.pipeline.readers.folders import stated_size


def some_events(count=200, size=(128, 128), seed=0):
    rng = np.random.default_rng(seed)
    x, y = (rng.integers(0, side, count).astype(np.int32) for side in size)
    return Events(
        np.sort(rng.integers(1, 300_000, count)).astype(np.int64), x, y, rng.integers(0, 2, count).astype(np.uint8)
    )


def same(found, events):
    return all(np.array_equal(a, b) for a, b in zip(found.columns, events.columns, strict=True))


def refusal(path, **options):
    with pytest.raises(RecordingError) as caught:
        decode(path, **options)
    return caught.value


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"../../.git/annex/objects/aa/bb/MD5E-s9--0.npz/MD5E-s9--0.npz", "git annex get"),
        (b"\xef\xbb\xbf <!DOCTYPE html><html>404</html>", "web page"),
    ],
)
@pytest.mark.parametrize("ending", [".npz", ".raw", ".bin", ".h5", ".csv"])
def test_what_is_in_place_of_a_file_is_named(tmp_path, data, said, ending):
    path = tmp_path / f"0{ending}"
    path.write_bytes(data)
    assert said in str(refusal(path))
    assert refusal(path).reason == "format"


def test_recordings_of_prophesee_are_known_under_another_ending(tmp_path):
    events = some_events()
    for name, data in (
        ("0.bin", b"% evt 3.0\n% geometry 128x128\n% end\n" + evt3(events)),
        ("1.bin", dat(events, size=(128, 128))),
    ):
        (tmp_path / name).write_bytes(data)
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(data))
        assert same(decode(tmp_path / name).events, events)
        assert same(decode(tmp_path / f"{name}.gz").events, events)
        size = decode(tmp_path / name).facts.sensor_size
        assert size == (128, 128)
        assert stated_size(tmp_path / name) == stated_size(tmp_path / f"{name}.gz") == size
    (tmp_path / "2.bin").write_bytes(bin40.encode(some_events()))
    assert stated_size(tmp_path / "2.bin") is None


@pytest.mark.parametrize("empty", [b"%\n", b"%\r\n"])
def test_lines_of_a_header_may_be_empty(tmp_path, empty):
    events = some_events()
    (tmp_path / "0.raw").write_bytes(b"% evt 2.0\n" + empty + b"% geometry 128x128\n" + evt2(events))
    assert same(decode(tmp_path / "0.raw").events, events)
    assert decode(tmp_path / "0.raw").facts.sensor_size == (128, 128)


def test_a_header_that_does_not_name_evt(tmp_path):
    events, lines = some_events(), b"%% Date 2019-03-01 10:00:00\n%% plugin_name hal_plugin_gen%s\n%% system_ID 21\n"
    (tmp_path / "3.raw").write_bytes(lines % b"31_fx3" + evt2(events))
    assert same(decode(tmp_path / "3.raw").events, events)
    assert "by the generation of the camera" in decode(tmp_path / "3.raw").facts.choices[0]
    (tmp_path / "4.raw").write_bytes(lines % b"4_fx3" + evt3(events))
    assert "`% evt 3.0`" in str(refusal(tmp_path / "4.raw"))


def test_a_line_that_a_person_added_to_a_header(tmp_path):
    """With another line ending than the program's: eight bytes of it were taken for an event."""
    events = some_events(size=(240, 180))
    for line in (b"# AEChip: DAVIS240C\n", b"# by me 12345678\n# AEChip: DAVIS240C\n", b"# AEChip:   DAVIS240C\n"):
        header = b"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n" + line
        (tmp_path / "0.aedat").write_bytes(davis_aedat2(events, size=(240, 180), header=header))
        assert same(decode(tmp_path / "0.aedat").events, events)


def test_the_dvs128_under_its_older_name_and_two_of_them(tmp_path):
    events = some_events()
    for name, known in ((b"Tmpdiff128", True), (b"DVS128StereoPair", False), (b"Tmpdiff128AndCochleaAERb", False)):
        header = b"#!AER-DAT2.0\r\n# AEChip: ch.unizh.ini.caviar.chip.retina." + name + b"\r\n"
        (tmp_path / "0.aedat").write_bytes(aedat2.encode(events, header=header))
        if known:
            assert same(decode(tmp_path / "0.aedat").events, events)
            assert decode(tmp_path / "0.aedat").facts.sensor_size == (128, 128)
        else:
            assert "addresses are not known" in str(refusal(tmp_path / "0.aedat"))


def test_an_aedat_without_a_header_is_not_called_damaged(tmp_path):
    (tmp_path / "0.aedat").write_bytes(bytes.fromhex("26ef00000000") * 20)
    assert refusal(tmp_path / "0.aedat").reason == "format"
    assert "AEDAT 1.0" in str(refusal(tmp_path / "0.aedat"))


def test_the_camera_of_an_aedat3_is_that_of_its_events(tmp_path):
    events = some_events()
    old, new = b"#Source 0: DVS128\r\n", b"#Source 7: DAVIS346\r\n#Source 0: DVS128\r\n"
    imu = aedat3_packet(3, 36, bytes(72), camera=7)
    end = b"#!END-HEADER\r\n"
    path = tmp_path / "0.aedat"
    path.write_bytes(aedat3(events).replace(old, new).replace(end, end + imu))
    assert sensor_size(path) == decode(path).facts.sensor_size == (128, 128)
    path.write_bytes(aedat3(events).replace(old, b"#Source 0: Visualizer\r\n#-Source 1: DAVIS240C\r\n"))
    assert sensor_size(path) == decode(path).facts.sensor_size == (240, 180)
    assert decode(path).facts.format == "AEDAT 3.1, DAVIS240C"


def npy_bytes(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def row_by_row(events, order, between=b" "):
    """Lines of whole numbers, in which a column may stand twice."""
    rows = np.stack([getattr(events, name) for name in order], 1).tolist()
    return b"".join(between.join(b"%d" % number for number in row) + b"\n" for row in rows)


def test_numbers_in_quotes_and_names_with_units(tmp_path):
    events, path = some_events(), tmp_path / "0.csv"
    lines = text_lines(events, between='","', seconds=False).replace(b"\n", b'"\n"')[:-1]
    path.write_bytes(b'"t","x","y","p",\n"' + lines)
    assert same(decode(path).events, events)
    names = b"Time [us],Row (px),Column (px),Polarity,frame,\n"
    path.write_bytes(names + row_by_row(events, "tyxpp", between=b","))
    assert same(decode(path).events, events)
    assert decode(path).facts.choices[-1] == "left out: frame"
    path.write_bytes(b"# time (s), x [px], y [px], pol\n" + text_lines(events, between=","))
    assert same(decode(path).events, events)
    assert "times in s" in decode(path).facts.choices


@pytest.mark.parametrize(
    ("content", "reason", "said"),
    [
        ("t;x;y;p\n0,001;1;2;1\n", "format", "comma as decimal point"),
        ("0,001\t1\t2\t1\n", "format", "comma as decimal point"),
        ('"0,001","1","2","1"\n', "format", "comma as decimal point"),
        ("t,x,y,p\n0,1,2,ON\n", "format", "'0,1,2,ON' below a line of names"),
        ("t,x,y,p\r0,1,2,1\r", "format", "carriage return alone"),
        ("t,x,y,p\r\n", "empty", "no events below"),
        ("t x y p\n1 0 5 6 1\n2 9 5 6 0\n", "columns", "--columns -,t,x,y,p"),
    ],
)
def test_texts_that_cannot_be_read_say_why(tmp_path, content, reason, said):
    (tmp_path / "0.csv").write_bytes(content.encode())
    error = refusal(tmp_path / "0.csv")
    assert error.reason == reason
    assert said in str(error)


def test_the_option_that_a_message_names_cures_it(tmp_path):
    events, path = some_events(), tmp_path / "0.csv"
    path.write_bytes(b"t x y p\n" + row_by_row(events, "ptxyp"))
    assert "--columns -,t,x,y,p" in str(refusal(path))
    assert same(decode(path, TableOptions(("-", "t", "x", "y", "p"))).events, events)
    path = tmp_path / "0.npy"
    path.write_bytes(npy_bytes(np.stack([events.t, events.x, events.y, events.p, events.p], 1)))
    assert "(- for one to leave out)" in str(refusal(path))
    assert same(decode(path, TableOptions(("t", "x", "y", "p", "-"))).events, events)


def test_a_wide_table_is_read_in_blocks_too(tmp_path, monkeypatch):
    events, path = some_events(), tmp_path / "0.npy"
    monkeypatch.setattr(columns, "AT_ONCE_BYTES", 100)
    for order in ("C", "F"):
        path.write_bytes(npy_bytes(np.asarray(np.stack([events.p, *events.columns], 1), order=order)))
        assert same(decode(path, TableOptions(("-", "t", "x", "y", "p"))).events, events)


def test_utf_16_is_named(tmp_path):
    (tmp_path / "0.csv").write_text("t,x,y,p\n0,1,2,1\n", "utf-16")
    assert "UTF-16" in str(refusal(tmp_path / "0.csv"))


@pytest.mark.parametrize(("name", "shape"), [("0.npy", (0, 4)), ("0.npz", (0, 4)), ("0.h5", (0, 4))])
def test_a_table_without_rows_is_empty(tmp_path, name, shape):
    path, table = tmp_path / name, np.empty(shape)
    if name.endswith(".h5"):
        with h5py.File(path, "w") as file:
            file["events"] = table
    else:
        path.write_bytes(npy_bytes(table)) if name.endswith(".npy") else np.savez(path, events=table)
    assert refusal(path).reason == "empty"


def test_columns_without_rows_in_hdf5_and_matlab(tmp_path):
    with h5py.File(tmp_path / "0.h5", "w") as file:
        for name in "txyp":
            file[f"events/{name}"] = h5py.Empty("i4")
    scipy.io.savemat(tmp_path / "0.mat", {name: np.empty((0, 0)) for name in "txyp"})
    for name in ("0.h5", "0.mat"):
        assert len(decode(tmp_path / name).events) == 0


def test_what_lies_beside_the_events_is_named(tmp_path):
    events = some_events()
    named = {name: getattr(events, name) for name in "txyp"}
    np.savez(tmp_path / "0.npz", **named, label=np.array(1), meta=np.array([{}], object))
    with zipfile.ZipFile(tmp_path / "0.npz", "a") as archive:
        archive.writestr("readme.txt", "made by me")
    assert same(decode(tmp_path / "0.npz").events, events)
    assert decode(tmp_path / "0.npz").facts.choices == ("left out: label, meta, readme.txt",)
    with h5py.File(tmp_path / "0.h5", "w") as file:
        for name, column in named.items():
            file[f"davis/events/{name}"] = column
        file["frames"], file["davis/t_offset"] = np.zeros(3), np.int64(0)
    assert decode(tmp_path / "0.h5").facts.choices[-2:] == ("left out: frames", "t_offset of 0 us added")
    nested = {"aedat": {"data": {"polarity": {**named, "numEvents": 200}}, "info": {"source": 1}}}
    scipy.io.savemat(tmp_path / "0.mat", nested)
    assert same(decode(tmp_path / "0.mat").events, events)
    assert decode(tmp_path / "0.mat").facts.choices[-1] == "left out: numEvents, aedat.info, aedat.info.source"


def test_archives_and_matrices_that_are_no_recordings(tmp_path):
    with zipfile.ZipFile(tmp_path / "0.npz", "w") as archive:
        archive.writestr("0.csv", "t,x,y,p\n")
    assert "a zip archive without arrays; it holds 0.csv" in str(refusal(tmp_path / "0.npz"))
    scipy.io.savemat(tmp_path / "0.mat", {"t": np.arange(3.0)}, format="4")
    assert "MATLAB 4" in str(refusal(tmp_path / "0.mat"))
    (tmp_path / "1.mat").write_bytes(b"# Created by Octave 8.4.0\n# name: t\n" + b" " * 128)
    assert "Octave's text" in str(refusal(tmp_path / "1.mat"))
    assert {refusal(tmp_path / name).reason for name in ("0.npz", "0.mat", "1.mat")} == {"format"}


def test_times_that_are_halves_or_dates(tmp_path):
    events = some_events()
    named = {name: getattr(events, name) for name in "xyp"}
    np.savez(tmp_path / "0.npz", t=(events.t / 1e6).astype(np.float16), **named)
    assert "16-bit fractions of s" in decode(tmp_path / "0.npz").facts.doubts[0]
    np.savez(tmp_path / "1.npz", t=events.t.astype("m8[us]"), **named)
    assert ".astype('int64')" in str(refusal(tmp_path / "1.npz"))


def test_a_resolution_that_is_written_the_other_way_round_or_too_small(tmp_path):
    events, path = some_events(size=(64, 48)), tmp_path / "0.h5"
    events.x[0], events.y[0] = 63, 47
    for stated, size in (((48, 64), (64, 48)), ((64, 48), (64, 48)), ((32, 32), None)):
        with h5py.File(path, "w") as file:
            for name in "txyp":
                file[f"events/{name}"] = getattr(events, name)
            file.attrs["sensor_resolution"] = stated
        facts = decode(path).facts
        assert facts.sensor_size == size
        assert sensor_size(path) == (size or stated)
        assert any("as width and height" in said for said in facts.choices) == (stated == (64, 48))
        assert any("not believed" in said for said in facts.doubts) == (size is None)


def test_bytes_that_are_no_records_are_not_called_unsorted(tmp_path):
    (tmp_path / "0.bin").write_bytes(np.random.default_rng(0).normal(size=500).astype("f4").tobytes())
    assert refusal(tmp_path / "0.bin").reason == "format"
    assert "no records of 40 bits" in str(refusal(tmp_path / "0.bin"))


def test_an_aedat4_without_events_says_what_it_holds(tmp_path):
    config = dv.io.MonoCameraWriter.Config("DAVIS346_test")
    config.addFrameStream((4, 4))
    writer = dv.io.MonoCameraWriter(str(tmp_path / "0.aedat4"), config)
    del writer  # closes the file
    assert "0 streams of events; expected 1. Of other kinds: frame." in str(refusal(tmp_path / "0.aedat4"))


@pytest.mark.parametrize("place", ["TD", "td", "data.TD"])
@pytest.mark.parametrize("first", [0, 1])
def test_the_structure_td_counts_from_one_wherever_it_lies(tmp_path, place, first):
    events, structure = some_events(), {}
    events.x[0], events.y[1] = 0, 0
    named = {"x": events.x + first, "y": events.y + first, "ts": events.t, "p": events.p + 1}
    for name in reversed(place.split(".")):
        structure = {name: structure or named}
    scipy.io.savemat(tmp_path / "5.mat", structure)
    with h5py.File(tmp_path / "7.mat", "w", userblock_size=512) as file:  # as MATLAB 7.3 writes it
        for name, column in named.items():
            file[f"{place.replace('.', '/')}/{name}"] = column[None].astype(float)
    for name in ("5.mat", "7.mat"):
        assert same(decode(tmp_path / name).events, events)
        assert ("pixels of TD count from 1" in decode(tmp_path / name).facts.choices) == (first == 1)
