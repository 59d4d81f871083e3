"""Columns that are too long for the memory are read in blocks of rows, and give what loading them whole gives."""

import io
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest
from conftest import make_events
from event_files import dat, later, text_lines, write_aedat4
from raw_sets.recordings import assert_equal, reason, structured

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.filters import Filters
from spikebridge.pipeline.events.packing import pack_chunks
from spikebridge.pipeline.formats.aedat import aedat4
from spikebridge.pipeline.formats.recording import decode, stream
from spikebridge.pipeline.formats.tables import columns
from spikebridge.pipeline.formats.tables.columns import TableOptions

EVENTS = make_events(5, count=500, size=(300, 200))
SECONDS = np.column_stack([EVENTS.x, EVENTS.y, later(EVENTS, 10**12).t / 1e6, 2.0 * EVENTS.p - 1])
WHOLE = np.column_stack([EVENTS.t, EVENTS.x, EVENTS.y, EVENTS.p])
ONE_TWO = {"t": EVENTS.t, "x": EVENTS.x, "y": EVENTS.y, "p": EVENTS.p + 1}


def grouped(file):
    """Chunks of another length in each column, a row vector as MATLAB writes it, and what lies beside."""
    for name, size in (("x", 40), ("y", 33), ("p", 64)):
        file.create_dataset(f"events/{name}", data=getattr(EVENTS, name), chunks=(size,), compression="gzip")
    file["events/t"] = EVENTS.t.astype("u4")[None]
    file["t_offset"] = np.int64(10**15)


def compound(file):
    file.attrs["geometry"] = "300x200"
    file.create_dataset("CD/events", data=structured(EVENTS), chunks=(70,))
    file["EXT_TRIGGER/events"] = np.zeros(7, [("p", "i2"), ("t", "i8"), ("id", "i2")])


FILES = {
    "columns.npz": lambda path: np.savez(path, frames=np.zeros((3, 4, 5)), **ONE_TWO),
    "packed.npz": lambda path: np.savez_compressed(path, **{f"a/{name}": column for name, column in ONE_TWO.items()}),
    "fields.npz": lambda path: np.savez(path, event_data=structured(EVENTS), labels=np.arange(9)),
    "across.npz": lambda path: np.savez_compressed(path, events=SECONDS.T),
    "fields.npy": lambda path: np.save(path, structured(EVENTS)),
    "rows.npy": lambda path: np.save(path, SECONDS),
    "fortran.npy": lambda path: np.save(path, np.asfortranarray(SECONDS)),
    "turned.npy": lambda path: np.save(path, np.ascontiguousarray(WHOLE.T)),
    "grouped.h5": grouped,
    "fields.h5": compound,
    "rows.h5": lambda file: file.create_dataset("events", data=SECONDS, chunks=(60, 3)),
    "turned.h5": lambda file: file.create_dataset("davis/events", data=WHOLE.T),
    "names.csv": lambda path: path.write_bytes(text_lines(EVENTS, order="xypt", between=",", head="x,y,p,ts\n")),
    "rpg.txt": lambda path: path.write_bytes(text_lines(EVENTS, head="300 200\n").rstrip()),
    "celex.csv": lambda path: path.write_text(
        "\n".join(f"{y},{x},80,{s},{t}" for t, x, y, p in WHOLE.tolist() for s in (0, 2 * p - 1))
    ),
}


def write(path):
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            FILES[path.name](file)
    else:
        FILES[path.name](path)
    return path


@pytest.fixture
def in_blocks(monkeypatch):
    """A function that has all columns read in blocks of so many rows."""

    def of(rows):
        monkeypatch.setattr(columns, "AT_ONCE_BYTES", 0)
        for module in ("numpy_files", "hdf5_files"):
            monkeypatch.setattr(f"spikebridge.pipeline.formats.tables.{module}.BLOCK_ROWS", rows)
        monkeypatch.setattr("spikebridge.pipeline.formats.tables.text.BLOCK_BYTES", 16 * rows)

    return of


@pytest.mark.parametrize("name", FILES)
def test_blocks_of_any_size_are_the_whole(name, tmp_path, in_blocks):
    path = write(tmp_path / name)
    whole = decode(path)
    assert_equal(whole.events, later(EVENTS, int(whole.events.t[0] - EVENTS.t[0])))
    for rows in (11, 300):
        in_blocks(rows)
        parts = stream(path)
        assert sum(1 for _ in parts.passes()) > 1
        found = parts.decoded()
        assert_equal(found.events, whole.events)
        assert found.facts == whole.facts
        assert found.events.t.dtype == whole.events.t.dtype


DAMAGE = {
    "an odd polarity": ({**ONE_TWO, "p": np.where(np.arange(500) == 400, 0, EVENTS.p + 1)}, "polarity"),
    "signs beside zeros": ({**ONE_TWO, "p": np.where(np.arange(500) < 250, EVENTS.p, 2 * EVENTS.p - 1)}, "polarity"),
    "another polarity": ({**ONE_TWO, "p": np.where(np.arange(500) == 400, 7, EVENTS.p)}, "polarity"),
    "a column that is shorter": ({**ONE_TWO, "y": EVENTS.y[:448]}, "shape"),
    "a column of several": ({**ONE_TWO, "y": np.zeros((500, 2, 2))}, "shape"),
    "fractions of a pixel": ({**ONE_TWO, "x": EVENTS.x + np.where(np.arange(500) == 400, 0.5, 0)}, "fractional"),
    "times below 0": ({**ONE_TWO, "t": EVENTS.t - 10**6}, "negative_time"),
    "no numbers": ({**ONE_TWO, "t": np.where(np.arange(500) == 400, np.nan, EVENTS.t / 1e6)}, "fractional"),
    "fractions that are no seconds": ({**ONE_TWO, "t": EVENTS.t + 0.25}, "fractional"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_refused_is_refused_in_blocks(what, tmp_path, in_blocks):
    """No block alone shows what is wrong with the polarities of the first two."""
    content, expected = DAMAGE[what]
    np.savez(tmp_path / "a.npz", **content)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, column in content.items():
            file[name] = column
    for path in (tmp_path / "a.npz", tmp_path / "a.h5"):
        assert reason(decode, path) == expected
    in_blocks(64)
    for path in (tmp_path / "a.npz", tmp_path / "a.h5"):
        assert reason(decode, path) == expected


def test_a_line_that_is_wrong_is_named_in_blocks(tmp_path, in_blocks):
    lines = text_lines(EVENTS).split(b"\n")
    lines[300] = b"0.1 2"
    (tmp_path / "a.txt").write_bytes(b"\n".join(lines))
    (tmp_path / "b.txt").write_bytes(text_lines(EVENTS)[:-6])
    in_blocks(16)
    with pytest.raises(RecordingError, match=r"line 301 is '0.1 2'; .*Mend or remove"):
        decode(tmp_path / "a.txt")
    assert reason(decode, tmp_path / "b.txt") == "truncated"


def test_an_archive_that_is_damaged_is_refused_in_blocks(tmp_path, in_blocks):
    in_blocks(64)
    np.savez(tmp_path / "a.npz", **ONE_TWO)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[data.index(EVENTS.t[200:].astype("<i8").tobytes()[:64])] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(RecordingError, match="Bad CRC-32"):
        decode(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", t=np.array([print], object), x=EVENTS.x, y=EVENTS.y, p=EVENTS.p)
    assert reason(decode, tmp_path / "b.npz") == "pickle"
    (tmp_path / "c.npy").write_bytes(b"\x93NUMPY\1\0" + (40).to_bytes(2, "little") + b" " * 40)
    assert reason(decode, tmp_path / "c.npy") == "damaged"
    buffer = io.BytesIO()
    np.save(buffer, SECONDS)
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("a.npy", buffer.getvalue()[:-8])
    assert reason(decode, tmp_path / "d.npz") == "damaged"


def test_options_count_in_blocks(tmp_path, in_blocks):
    in_blocks(64)
    np.save(tmp_path / "a.npy", np.column_stack([EVENTS.p, EVENTS.t, EVENTS.y, EVENTS.x]))
    assert_equal(decode(tmp_path / "a.npy", TableOptions(columns=tuple("ptyx"))).events, EVENTS)
    np.savez(tmp_path / "a.npz", t_ns=EVENTS.t * 1000, x=EVENTS.x, y=EVENTS.y, p=EVENTS.p)
    assert_equal(decode(tmp_path / "a.npz").events, EVENTS)


def milliseconds(file):
    """As DSEC has it: times from 0 on, and the first event of every millisecond."""
    t = EVENTS.t - EVENTS.t[0]
    for name, column in (("t", t.astype("u4")), ("x", EVENTS.x), ("y", EVENTS.y), ("p", EVENTS.p)):
        file.create_dataset(f"events/{name}", data=column, chunks=(60,), compression="lzf")
    file["ms_to_idx"] = np.searchsorted(t, 1000 * np.arange(t[-1] // 1000 + 1)).astype("u8")
    file["t_offset"] = np.int64(10**15)


TIMED = {
    "dsec.h5": (milliseconds, {}),
    "table.h5": (lambda file: file.create_dataset("e", data=WHOLE), {"columns": tuple("txyp"), "time_unit": "us"}),
    "named.npz": (lambda path: np.savez(path, t_us=EVENTS.t, x=EVENTS.x, y=EVENTS.y, p=EVENTS.p + 1), {}),
    "fields.npy": (lambda path: np.save(path, structured(EVENTS)), {"time_unit": "us"}),
    "turned.npy": (lambda path: np.save(path, SECONDS.T), {"columns": tuple("xytp"), "time_unit": "s"}),
    "a.dat": (lambda path: path.write_bytes(dat(EVENTS)), {}),
    "a.aedat4": (lambda path: write_aedat4(path, EVENTS, size=(300, 200), others=True, packet=40), {}),
}


def timed(name, folder):
    write, options = TIMED[name]
    if name.endswith(".h5"):
        with h5py.File(folder / name, "w") as file:
            write(file)
    else:
        write(folder / name)
    return stream(folder / name, TableOptions(**options))


@pytest.mark.parametrize("name", TIMED)
def test_a_time_window_is_found_without_reading_the_rest(name, tmp_path, in_blocks, monkeypatch):
    """The events of the window, the counts and the hash are those of reading all and leaving out the others."""
    in_blocks(64)
    monkeypatch.setattr("spikebridge.pipeline.formats.seek.SEEKS_FROM", 100)
    monkeypatch.setattr("spikebridge.pipeline.formats.seek.PROBES", 6)
    found = timed(name, tmp_path)
    whole = pack_chunks(found.annotated, sensor_size=(300, 200), source="x")
    times = (EVENTS.t - EVENTS.t[0]).tolist()
    for window in ((0, 50_000), (100_000, 160_000), (times[7], times[8]), (times[-1], 10**9), (times[-2] + 1, 10**15)):
        part = found.window(window)
        packed = pack_chunks(part.annotated, sensor_size=(300, 200), source="x")
        left, taken = Filters(window).apply(packed, source="x")
        expected, out = Filters(window).apply(whole, source="x")
        assert (left.sha256(), left.start_us, taken) == (expected.sha256(), expected.start_us, out)
        assert (packed.doubts, packed.passed_over) == (whole.doubts, whole.passed_over)
        assert len(packed) + packed.not_read == len(whole)
        assert len(packed) <= 1 + len(left) + (120 if name == "a.aedat4" else 0)  # which has packets
    beyond = pack_chunks(found.window((10**9, 10**10)).annotated, sensor_size=(300, 200), source="x")
    with pytest.raises(RecordingError, match=r"no event of 500 is left after filtering \(time_window 500\)"):
        Filters((10**9, 10**10)).apply(beyond, source="x")


def test_a_window_is_not_looked_for_where_it_may_lie_elsewhere(tmp_path, in_blocks, monkeypatch):
    """Short recordings, a unit of time that all rows decide, times that fall, rows that lie packed one by one."""
    in_blocks(64)
    assert timed("a.dat", tmp_path).window((0, 10**6)) is None  # short
    monkeypatch.setattr("spikebridge.pipeline.formats.seek.SEEKS_FROM", 100)
    np.savez(tmp_path / "a.npz", **ONE_TWO)
    assert stream(tmp_path / "a.npz").window((0, 10**6)) is None
    assert stream(tmp_path / "a.npz", TableOptions(time_unit="us")).window((0, 10**6))
    np.savez_compressed(tmp_path / "a.npz", **ONE_TWO)
    assert stream(tmp_path / "a.npz", TableOptions(time_unit="us")).window((0, 10**6)) is None
    np.savez(tmp_path / "a.npz", **{**ONE_TWO, "t": np.roll(EVENTS.t, 250)})
    assert stream(tmp_path / "a.npz", TableOptions(time_unit="us")).window((0, 10**6)) is None
    (tmp_path / "a.dat").write_bytes(dat(later(EVENTS, 2**32 - 150_000)))  # the clock wraps
    assert stream(tmp_path / "a.dat").window((0, 10**6)) is None
    (tmp_path / "a.dat").write_bytes(dat(EVENTS, version=1))  # all events tell the layout
    assert stream(tmp_path / "a.dat").window((0, 10**6)) is None


def test_a_header_that_lies_is_found_out_within_the_window(tmp_path, monkeypatch):
    monkeypatch.setattr("spikebridge.pipeline.formats.seek.SEEKS_FROM", 100)
    small = make_events(4, count=300, size=(120, 100))
    (tmp_path / "a.dat").write_bytes(dat(small, layout=1, version=2))
    part = stream(tmp_path / "a.dat").window((100_000, 200_000))
    packed = pack_chunks(part.annotated, sensor_size=(304, 240), source="x")
    assert (len(packed), packed.not_read) == (300, 0)


@pytest.mark.parametrize("place", ["time", "count", "position"])
def test_a_table_of_packets_that_lies_is_found_out(place, tmp_path, monkeypatch):
    """The packets count: where the table says something else, all of them are read."""
    monkeypatch.setattr("spikebridge.pipeline.formats.seek.SEEKS_FROM", 100)
    path = tmp_path / "a.aedat4"
    write_aedat4(path, EVENTS, size=(300, 200), packet=40)
    good = aedat4.read_table

    def wrong(*given):
        entries = good(*given)
        changed = {"time": {"first_us": entries[5].first_us + 1}, "count": {"items": 39}}.get(place)
        return [*entries[:5], entries[5]._replace(**changed), *entries[6:]] if changed else None

    monkeypatch.setattr(aedat4, "read_table", wrong)
    middle = tuple(int(t - EVENTS.t[0]) for t in EVENTS.t[[210, 230]])
    part = stream(path).window(middle)
    if place == "position":
        assert part is None
        return
    packed = pack_chunks(part.annotated, sensor_size=(300, 200), source="x")
    assert (len(packed), packed.not_read) == (500, 0)


def test_a_table_of_packets_that_is_damaged_says_nothing(tmp_path):
    """Any byte of it may be another: entries of these packets, or none, and never another error."""
    path = tmp_path / "a.aedat4"
    write_aedat4(path, EVENTS, size=(300, 200), packet=40)
    packets, position, _ = aedat4._walk(path)
    data = path.read_bytes()
    assert sum(entry.items for entry in aedat4.read_table(path, position, packets)) == 500
    assert aedat4.read_table(path, position, packets[1:]) is None
    assert aedat4.read_table(path, position - 8, packets) is None
    rng = np.random.default_rng(0)
    for _ in range(150):
        bad = bytearray(data)
        bad[int(rng.integers(position, len(data)))] ^= int(rng.integers(1, 256))
        path.write_bytes(bad[: int(rng.integers(position, len(data) + 1)) if rng.random() < 0.2 else None])
        entries = aedat4.read_table(path, position, packets)
        assert entries is None or len(entries) == len(packets)


LIMITED = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from memory import peak_bytes
from spikebridge.pipeline.events.framing import to_frames
from spikebridge.pipeline.events.packing import pack_chunks
from spikebridge.pipeline.formats import recording
before = peak_bytes()
stream = recording.stream(Path(sys.argv[1]))
events = pack_chunks(stream.annotated, sensor_size=(640, 480), source="x", likely=stream.likely, most=2**16)
to_frames(events, time_bins=10, size=48, reduction="sum", dtype="uint16", canvas=(640, 480), source="x")
print(len(events), peak_bytes() - before)
"""


@pytest.mark.long
@pytest.mark.parametrize("ending", [".npy", ".npz", ".h5", ".csv", ".csv.gz"])
def test_columns_of_millions_take_the_memory_of_a_block(ending, tmp_path):
    import gzip

    from conftest import ROOT

    count = 8_000_000 if ending == ".npy" else 5_000_000
    events = make_events(0, count=count, size=(640, 480), duration_us=count)
    path = tmp_path / f"a{ending}"
    if ending == ".npy":
        np.save(path, structured(events))
    elif ending == ".npz":
        np.savez(path, t=events.t, x=events.x, y=events.y, p=events.p)
    elif ending == ".h5":
        with h5py.File(path, "w") as file:
            for name in "txyp":
                file.create_dataset(name, data=getattr(events, name), chunks=(2**15,), compression="lzf")
    else:
        data = text_lines(events, seconds=False)
        path.write_bytes(gzip.compress(data, 1) if ending.endswith("gz") else data)
    folders = [str(ROOT / "src"), str(ROOT / "tests" / "support")]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), *folders], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found, grown = map(int, done.stdout.split())
    assert found == count
    assert grown < 256 * 2**20  # numba alone takes half of it; 5 million rows of .npy at once took 356
