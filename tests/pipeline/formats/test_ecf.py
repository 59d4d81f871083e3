"""Prophesee's ECF in HDF5, decoded without its plugin: every way of packing, as the published codec packs."""

import h5py
import numpy as np
import pytest
from conftest import make_events
from ecf_chunks import WAYS, encode
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_sets.recordings import assert_equal, reason

from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.recording import decode, read
from spikebridge.pipeline.formats.tables import ecf, ecf_kernel

FIELDS = np.dtype({"names": ["x", "y", "p", "t"], "formats": ["<u2", "<u2", "<i2", "<i8"], "itemsize": 16})


def write(path, chunks, *, size, count, masks=()):
    """A file as the Metavision SDK writes it: CD/events in chunks of `size`, and the size of the sensor."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((size,))
    plan.set_filter(ecf.NUMBER, h5py.h5z.FLAG_OPTIONAL, ())
    with h5py.File(path, "w") as file:
        file.attrs["geometry"] = "640x480"
        group = file.create_group("CD")
        kind, space = h5py.h5t.py_create(FIELDS, logical=True), h5py.h5s.create_simple((count,))
        made = h5py.h5d.create(group.id, b"events", kind, space, plan)
        for number, data in enumerate(chunks):
            made.write_direct_chunk((number * size,), data, masks[number] if masks else 0)


def rows_of_a_camera(seed):
    """Events of which many share time and row, as of an object that moves: for runs of every length."""
    rng = np.random.default_rng(seed)
    parts, t = [], 1000
    for length in (1, 14, 15, 16, 31, 40, 130, 300, 2, 5):
        t += int(rng.integers(0, 5000))
        x = np.sort(rng.choice(640, length, replace=False)).astype(np.int32)
        sign = np.full(length, rng.integers(0, 2), np.uint8)
        parts.append(Events(np.full(length, t), x, np.full(length, rng.integers(0, 480), np.int32), sign))
    return Events(*(np.concatenate(columns) for columns in zip(*(part.columns for part in parts), strict=True)))


@pytest.mark.parametrize("way", WAYS)
def test_a_file_of_chunks(tmp_path, way):
    events = rows_of_a_camera(3)
    size = 100
    chunks = [events.part(slice(start, start + size)) for start in range(0, len(events), size)]
    padded = Events(*(np.concatenate([c, np.zeros(size - len(c), c.dtype)]) for c in chunks[-1].columns))
    padded.t[len(chunks[-1]) :] = chunks[-1].t[-1]  # a chunk is packed whole
    write(
        tmp_path / "a.hdf5", [*(encode(c, way) for c in chunks[:-1]), encode(padded, way)], size=size, count=len(events)
    )
    found = decode(tmp_path / "a.hdf5")
    assert_equal(found.events, events)
    assert found.facts.sensor_size == (640, 480)
    assert found.facts.choices == ("events in CD/events",)


def test_a_chunk_that_was_left_as_it_was(tmp_path):
    events = make_events(1, count=64, size=(640, 480))
    plain = np.zeros(64, FIELDS)
    for name in "txyp":
        plain[name] = getattr(events, name)
    write(tmp_path / "a.h5", [plain.tobytes()], size=64, count=64, masks=(1,))
    assert_equal(read(tmp_path / "a.h5"), events)
    write(tmp_path / "b.h5", [plain.tobytes()[:-1]], size=64, count=64, masks=(1,))
    assert reason(read, tmp_path / "b.h5") == "damaged"


def test_damage_is_refused(tmp_path):
    events = rows_of_a_camera(5).part(slice(100))
    for way in WAYS:
        data = encode(events, way)
        for bad in (data[:-1], data[: len(data) // 2], data[:5], b"", (101 << 2).to_bytes(4, "little") + data[4:]):
            write(tmp_path / "a.h5", [bad or b"\0"], size=100, count=100)
            assert reason(read, tmp_path / "a.h5") == "damaged"


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(WAYS), st.integers(0, 10**6), st.integers(0, 500), st.integers(0, 255), st.binary(max_size=30))
def test_any_bytes_give_an_error_or_events(way, seed, at, byte, more):
    data = bytearray(encode(make_events(seed, count=40, size=(640, 480), duration_us=2_000), way) + more)
    data[at % len(data)] = byte
    room = Events.room(64)
    found = ecf_kernel.decode(np.frombuffer(bytes(data), np.uint8), *room.columns)
    assert found == ecf_kernel.BAD or 0 <= found <= 64
