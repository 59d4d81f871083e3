"""Tables of events as data sets and tools write them: which columns and unit are found, what options decide."""

import h5py
import numpy as np
import pytest
import scipy.io
from conftest import make_events
from event_files import later
from raw_sets.recordings import assert_equal, reason, structured

from spikebridge.pipeline.base.errors import RecordingError, SettingsError
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.recording import decode, read, sensor_size
from spikebridge.pipeline.formats.tables.columns import TableOptions, fitting_orders
from spikebridge.pipeline.formats.tables.survey import Numbers

EVENTS = make_events(5, count=500, size=(300, 200))
SINCE_1970 = later(EVENTS, 1_506_119_776_000_000)
SIGNS = 2 * EVENTS.p.astype(np.int64) - 1


def table(order, events=EVENTS, *, seconds=False, signs=False):
    """[N,4] in an order of columns."""
    columns = {name: getattr(events, name).astype(np.float64) for name in "txyp"}
    columns["t"] = events.t / 1e6 if seconds else columns["t"]
    columns["p"] = 2 * columns["p"] - 1 if signs else columns["p"]
    return np.column_stack([columns[name] for name in order])


def dsec(file):
    for name, kind in (("x", "u2"), ("y", "u2"), ("p", "u1"), ("t", "u4")):
        file.create_dataset(f"events/{name}", data=getattr(EVENTS, name).astype(kind), chunks=True, compression="gzip")
    file["t_offset"] = np.int64(SINCE_1970.t[0] - EVENTS.t[0])
    file["ms_to_idx"] = np.arange(300, dtype=np.uint64)


def mvsec(file):
    file["davis/left/events"] = table("xytp", SINCE_1970, seconds=True, signs=True)
    file["davis/left/imu"] = np.zeros((20, 6))
    file["davis/left/pose"] = np.random.default_rng(0).normal(size=(40, 4))


def m3ed(file):
    for name in "xypt":
        file[f"prophesee/left/{name}"] = getattr(EVENTS, name)
    file["prophesee/left/calib/resolution"] = np.array([1280, 720])
    file["ovc/left/data"] = np.zeros((3, 8, 8, 1), np.uint8)


def v2e(file):
    file["events"] = table("txyp").astype(np.uint32)


def e2vid(file):
    file.attrs["sensor_resolution"] = (200, 300)
    for name in "xyp":
        file[f"events/{name}s"] = getattr(EVENTS, name)
    file["events/ts"] = EVENTS.t / 1e6


def metavision(file):
    file.attrs["geometry"] = "1280x720"
    file.create_dataset("CD/events", data=structured(EVENTS))
    file["EXT_TRIGGER/events"] = np.zeros(7, [("p", "i2"), ("t", "i8"), ("id", "i2")])


def evlib(file):
    for name, column in (("xs", EVENTS.x), ("ys", EVENTS.y), ("ts", EVENTS.t / 1e6), ("ps", SIGNS)):
        file[f"raw_events/event_{name}"] = column


@pytest.mark.parametrize(
    ("layout", "expected", "size"),
    [
        (dsec, SINCE_1970, None),
        (mvsec, SINCE_1970, None),
        (m3ed, EVENTS, (1280, 720)),
        (v2e, EVENTS, None),
        (e2vid, EVENTS, (300, 200)),
        (metavision, EVENTS, (1280, 720)),
        (evlib, EVENTS, None),
    ],
)
def test_hdf5_as_data_sets_have_it(tmp_path, layout, expected, size):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        layout(file)
    found = decode(path)
    assert_equal(found.events, expected)
    assert found.facts.sensor_size == size
    assert found.facts.doubts == ()
    if layout is metavision:
        assert found.facts.passed_over == {"triggers": 7}
    if layout in (e2vid, metavision):
        assert sensor_size(path) == size


def test_several_groups_are_named_and_an_option_decides(tmp_path):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file["davis/left/events"] = table("xytp", seconds=True)
        file["davis/right/events"] = table("xytp", later(EVENTS, 5), seconds=True)
    with pytest.raises(RecordingError, match=r"2 places.*davis/left/events, davis/right/events.*--group") as caught:
        read(path)
    assert caught.value.reason == "columns"
    assert_equal(read(path, TableOptions(group="davis/right/events")), later(EVENTS, 5))
    with pytest.raises(RecordingError, match="no group imu with columns; there are: davis/left/events"):
        read(path, TableOptions(group="imu"))


def packed(file, name, number):
    """A data set of 8 numbers in one chunk that has passed a filter by its number, which nothing here unpacks."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((8,))
    plan.set_filter(number, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((8,))
    made = h5py.h5d.create(file.id, name.encode(), h5py.h5t.STD_I64LE, space, plan)
    made.write_direct_chunk((0,), b"as that filter packs it")


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (32001, "blosc, which is not installed. Install it: pip install hdf5plugin"),
        (32015, r"Zstandard, which is not installed. Install it.*spikebridge\[formats\]"),
        (36559, "ECF, which is not installed.*HDF5_PLUGIN_PATH"),
        (31999, "number 31999"),
    ],
)
def test_a_missing_filter_is_named_with_its_package(tmp_path, monkeypatch, number, advice):
    monkeypatch.setattr("spikebridge.pipeline.formats.tables.hdf5_files._load_filters", lambda: None)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name in "txyp":
            packed(file, name, number)
    with pytest.raises(RecordingError, match=advice) as caught:
        read(path)
    assert caught.value.reason == "filter"


@pytest.mark.parametrize("order", ["txyp", "xytp", "xypt"])
@pytest.mark.parametrize("ending", [".npy", ".npz", ".h5", ".mat"])
@pytest.mark.parametrize(("seconds", "signs", "turned"), [(True, True, False), (False, False, True)])
def test_tables_of_four_columns(tmp_path, order, ending, seconds, signs, turned):
    path = tmp_path / f"a{ending}"
    array = table(order, seconds=seconds, signs=signs)
    array = array.T if turned else array
    if ending == ".npy":
        np.save(path, array)
    elif ending == ".npz":
        np.savez(path, data=array, note=np.arange(3))
    elif ending == ".h5":
        with h5py.File(path, "w") as file:
            file["deep/down/here"] = array
    else:
        scipy.io.savemat(path, {"recording": array, "note": "text"})
    found = decode(path)
    assert_equal(found.events, EVENTS)
    assert f"columns {','.join(order)} by their content" in found.facts.choices


def test_a_table_whose_order_no_content_tells_needs_an_option(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, table("ptyx"))
    with pytest.raises(RecordingError, match=r"4 columns without names.*--columns x,y,t,p"):
        read(path)
    assert_equal(read(path, TableOptions(columns=tuple("ptyx"))), EVENTS)
    np.save(path, np.zeros((1, 4)))
    assert reason(read, path) == "columns"
    with pytest.raises(SettingsError, match="expected t, x, y and p in the order of the file"):
        TableOptions(columns=("t", "x"))


def test_a_bar_that_moves_does_not_pass_for_time():
    """Its x is in order, too; the widest column, which is no coordinate, is the time."""
    t = np.arange(0, 300_000, 300)
    for order in ("txyp", "xytp", "xypt"):
        moving = Events(t, (t // 5000).astype(np.int32), np.full(len(t), 7, np.int32), (t % 2).astype(np.uint8))
        assert fitting_orders([Numbers.of(c) for c in table(order, moving).T], TableOptions()) == [",".join(order)]


def test_names_of_columns_by_option(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, stamp=EVENTS.t, c=EVENTS.x, r=EVENTS.y, sign=SIGNS)
    with pytest.raises(RecordingError, match="no column t, x, y, p among stamp, c, r, sign"):
        read(path)
    assert_equal(read(path, TableOptions(columns=("stamp", "c", "r", "sign"))), EVENTS)
    with pytest.raises(RecordingError, match="no columns stamp, c, r, pol among"):
        read(path, TableOptions(columns=("stamp", "c", "r", "pol")))


def test_npz_with_fields_beside_other_arrays(tmp_path):
    """N-ImageNet: `event_data`; a group below a prefix; arrays of objects that nobody needs."""
    path = tmp_path / "a.npz"
    np.savez(path, event_data=structured(EVENTS, minus=True), label=np.array(3), meta=np.array([{}], dtype=object))
    assert_equal(read(path), EVENTS)
    names = {"x_pos": "x", "y_pos": "y", "timestamp": "t", "polarity": "p"}
    np.savez(path, **{f"events/{name}": getattr(EVENTS, column) for name, column in names.items()})
    assert_equal(read(path), EVENTS)
    np.savez(path, meta=np.array([{}], dtype=object))
    assert reason(read, path) == "pickle"


@pytest.mark.parametrize(("unit", "factor"), [("s", 1e-6), ("ms", 1e-3), ("us", 1), ("ns", 1000)])
def test_the_unit_of_time_by_option_or_by_name(tmp_path, unit, factor):
    path = tmp_path / "a.npz"
    t = EVENTS.t * factor
    np.savez(path, t=t, x=EVENTS.x, y=EVENTS.y, p=EVENTS.p)
    found = decode(path, TableOptions(time_unit=unit))
    assert_equal(found.events, EVENTS)
    assert found.facts.doubts == ()
    np.savez(path, **{f"t_{unit}": t}, x=EVENTS.x, y=EVENTS.y, p=EVENTS.p)
    assert_equal(read(path), EVENTS)
    with pytest.raises(SettingsError, match="expected one of s, ms, us, ns"):
        TableOptions(time_unit="h")


@pytest.mark.parametrize("orientation", ["row", "column"])
@pytest.mark.parametrize("from_one", [True, False])
def test_the_structure_of_the_atis_tools(tmp_path, orientation, from_one):
    path = tmp_path / "a.mat"
    events = Events(EVENTS.t, EVENTS.x.copy(), EVENTS.y.copy(), EVENTS.p)
    events.x[0], events.y[1] = 0, 0
    columns = {"x": events.x + from_one, "y": events.y + from_one, "ts": events.t, "p": events.p + from_one}
    oriented = {n: c[:, None] if orientation == "column" else c[None] for n, c in columns.items()}
    scipy.io.savemat(path, {"TD": oriented, "other": {"x": 1}}, do_compression=from_one)
    found = decode(path)
    assert_equal(found.events, events)
    assert ("pixels of TD count from 1" in found.facts.choices) is from_one
    assert ("polarity 1 is OFF, 2 is ON" in found.facts.choices) is from_one


def test_matlab_7_3_is_hdf5(tmp_path):
    path = tmp_path / "a.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, column in (("ts", EVENTS.t), ("x", EVENTS.x), ("y", EVENTS.y), ("pol", EVENTS.p)):
            file[name] = column[None].astype(np.float64)
    data = path.read_bytes()
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(128, b" ") + data[128:])
    assert_equal(read(path), EVENTS)


def test_polarities_that_are_neither_are_refused_with_what_to_do(tmp_path):
    path = tmp_path / "a.npz"
    for p in (np.arange(500) % 4, np.arange(500) % 3 - 1, np.full(500, 3)):
        np.savez(path, t=EVENTS.t, x=EVENTS.x, y=EVENTS.y, p=p)
        with pytest.raises(RecordingError, match=r"Write them as 0 \(OFF\) and 1 \(ON\)") as caught:
            read(path)
        assert caught.value.reason == "polarity"
