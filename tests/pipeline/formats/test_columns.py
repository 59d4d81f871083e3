"""Columns and structured arrays in .npy, .npz and HDF5 files: equal to what was written, and refused where they lie."""

import io
import zipfile

import h5py
import numpy as np
import pytest
from raw_sets.recordings import EVENTS, assert_equal, checked, reason, structured, write

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.formats.recording import read


@pytest.mark.parametrize("ending", [".h5", ".npy", ".npz"])
def test_columns_and_fields(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    write(path)
    assert_equal(read(path))
    if ending == ".h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("CD/events", data=structured(minus=True), compression="gzip")
    elif ending == ".npz":
        np.savez(path, structured(minus=True))
    else:
        np.save(path, structured(minus=True))
    assert_equal(read(path))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"t": EVENTS.t + 0.5}, "fractional"),
        ({"t": EVENTS.t - 10**6}, "negative_time"),
        ({"t": np.full(500, np.nan)}, "fractional"),
        ({"t": EVENTS.t.astype("S9")}, "fractional"),
        ({"t": np.full(500, 2**63, np.uint64)}, "out_of_range"),
        ({"x": EVENTS.x + 0.5}, "fractional"),
        ({"x": np.full(500, np.nan), "t": EVENTS.t / 1e6}, "fractional"),
        ({"y": np.full(500, np.inf), "t": EVENTS.t / 1e6}, "fractional"),
        ({"x": EVENTS.x.astype(np.int64) + 2**40}, "out_of_range"),
        ({"x": EVENTS.x - 400}, "out_of_range"),
        ({"y": np.append(EVENTS.y[1:], np.int32(-1))}, "out_of_range"),
        ({"t": EVENTS.t[::-1]}, "unsorted"),
        ({"t": EVENTS.t % 100_000}, "unsorted"),  # a clock that wraps
        ({name: np.empty(0) for name in "txyp"}, "empty"),
        ({"p": EVENTS.p + 2}, "polarity"),
        ({"p": np.arange(500) % 4}, "polarity"),
        ({"p": np.arange(500) % 3 - 1}, "polarity"),
        ({"y": EVENTS.y[1:]}, "shape"),
        ({"p": None}, "columns"),
    ],
)
def test_columns_that_cannot_be_trusted(tmp_path, change, expected):
    columns = {name: getattr(EVENTS, name) for name in "txyp"} | change
    kept = {name: column for name, column in columns.items() if column is not None}
    np.savez(tmp_path / "a.npz", **kept)
    assert reason(checked, tmp_path / "a.npz") == expected
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, column in kept.items():
            file[name] = column
    assert reason(checked, tmp_path / "a.h5") == expected


def npy_file(descr, shape, data=b"", fortran=False):
    """An `.npy` file with a header that numpy would not write."""
    header = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + data


LIES = {
    "more rows": npy_file("'<i8'", "(9,)", bytes(64)),
    "fewer rows": npy_file("'<i8'", "(7,)", bytes(64)),
    "another type": npy_file("'<i4'", "(8,)", bytes(64)),
    "negative": npy_file("'<i8'", "(-2, -4)", bytes(64)),
    "a truth": npy_file("'<i8'", "(True,)", bytes(8)),
    "no rows of many": npy_file("'<i8'", "(0, 9223372036854775808)"),
    "no rows of too many": npy_file("'<i8'", "(0, 4611686018427387904, 4)", fortran=True),
    "many axes": npy_file("'|u1'", (1,) * 65, bytes(1)),
    "arrays in an array": npy_file("('<i8', (3,))", "(2,)", bytes(48)),
    "objects in a field": npy_file("[('t', '<i8'), ('x', '|O')]", "(4,)", bytes(64)),
    "nothing in much": npy_file("'|V0'", "(1000000000000,)"),
    "a sum": npy_file("'<i8'", "(4 + 4,)", bytes(64)),
    "no tuple": npy_file("'<i8'", "8", bytes(64)),
}


@pytest.mark.parametrize("ending", [".npy", ".npz"])
@pytest.mark.parametrize("lie", LIES)
def test_headers_that_lie(tmp_path, lie, ending):
    """Refused, and in the same words at every run: no address of an object is in a message."""
    path = tmp_path / f"a{ending}"
    if ending == ".npy":
        path.write_bytes(LIES[lie])
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("t.npy", LIES[lie])
    pickled = lie == "objects in a field"
    said = r"Python objects \(a pickle\)" if pickled else r"no plain array can be read \((?!.*0x)"
    with pytest.raises(RecordingError, match=said) as caught:
        read(path)
    assert caught.value.reason == ("pickle" if pickled else "damaged")


def test_two_arrays_of_one_name(tmp_path):
    write(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("X.npy", archive.read("X.npy"))
    with pytest.raises(RecordingError, match="array X stands there twice"):
        read(tmp_path / "a.npz")


def linked(file):
    file["x"] = h5py.ExternalLink("other.h5", "x")


def virtual(file):
    layout = h5py.VirtualLayout((500,), "<i8")
    layout[:] = h5py.VirtualSource("other.h5", "x", (500,), "<i8")
    file.create_virtual_dataset("x", layout)


def external(file):
    file.create_dataset("x", shape=(500,), dtype="u1", external=[("other.h5", 0, 500)])


@pytest.mark.parametrize("elsewhere", [linked, virtual, external])
def test_columns_that_lie_in_another_file(tmp_path, elsewhere):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = EVENTS.x.astype("<i8")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in "typ":
            file[name] = getattr(EVENTS, name)
        elsewhere(file)
    with pytest.raises(RecordingError, match="x lies in another file"):
        read(tmp_path / "a.h5")


def test_arrays_never_run_code_or_fill_the_memory(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez(path, t=np.array([print], dtype=object), x=EVENTS.x, y=EVENTS.y, p=EVENTS.p)
    assert reason(read, path) == "pickle"
    np.save(tmp_path / "a.npy", np.array([print], dtype=object), allow_pickle=True)
    assert reason(read, tmp_path / "a.npy") == "pickle"
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<i8", "fortran_order": False, "shape": (2**50,)})
    (tmp_path / "a.npy").write_bytes(buffer.getvalue())
    assert reason(read, tmp_path / "a.npy") == "damaged"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("t.npy", "w") as member:
        for _ in range(64):
            member.write(bytes(2**20))
    monkeypatch.setattr(
        "spikebridge.pipeline.containers.npy.read_npz.__kwdefaults__", {"names": None, "max_bytes": 2**25}
    )
    assert reason(read, path) == "too_large"
    path.write_bytes(path.read_bytes()[:1000])
    assert reason(read, path) == "damaged"
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    assert reason(read, tmp_path / "a.h5") == "damaged"
    (tmp_path / "a.xyz").write_bytes(b"anything")
    assert reason(read, tmp_path / "a.xyz") == "format"
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "absent.h5")
