"""Recordings in every format that is read by its ending, and class folders of them."""

import gzip

import h5py
import numpy as np
import pytest
import scipy.io
from conftest import make_events
from event_files import EPOCH_US, EVT3_HEADER, dat, event_stream, evt3, later, text_lines, write_aedat4
from PIL import Image

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.packing import pack
from spikebridge.pipeline.formats import bin40
from spikebridge.pipeline.formats.aedat import aedat2
from spikebridge.pipeline.formats.recording import FORMATS, read

EVENTS = make_events(5, count=500, size=(300, 200))
FIELDS = np.dtype([("x", "<i2"), ("y", "<u2"), ("t", "<u8"), ("p", "i1")])


def assert_equal(found, expected=EVENTS):
    for name in "txyp":
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert getattr(found, name).dtype == getattr(EVENTS, name).dtype


def structured(events=EVENTS, minus=False):
    array = np.zeros(len(events), FIELDS)
    for name in "txyp":
        array[name] = getattr(events, name)
    if minus:
        array["p"] = 2 * array["p"] - 1
    return array


def write(path, events=EVENTS):
    """Write events in the format of the path's ending."""
    columns = {"ts": events.t, "X": events.x, "y": events.y, "polarity": events.p.astype(bool)}
    if path.suffix == ".gz":
        write(path.with_suffix(""), events)
        path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))
        return path.with_suffix("").unlink()
    match path.suffix:
        case ".bin" | ".bs2":
            path.write_bytes(bin40.encode(events))
        case ".aedat":
            path.write_bytes(aedat2.encode(events))
        case ".mat":
            scipy.io.savemat(path, {**columns, "polarity": 2.0 * events.p - 1, "note": "text"})
        case ".aedat4":
            write_aedat4(path, later(events, EPOCH_US))
        case ".raw":
            path.write_bytes(EVT3_HEADER + evt3(events))
        case ".dat":
            path.write_bytes(dat(events))
        case ".es":
            path.write_bytes(event_stream(events))
        case ".csv":
            path.write_bytes(text_lines(events, order="xypt", seconds=False, between=","))
        case ".txt":
            path.write_bytes(text_lines(events))
        case ".h5" | ".hdf5":
            with h5py.File(path, "w") as file:
                for name, column in columns.items():
                    file.create_dataset(f"events/{name}", data=column)
        case ".npy":
            np.save(path, structured(events))
        case ".npz":
            np.savez_compressed(path, **columns)
    return None


def reason(call, *arguments):
    with pytest.raises(RecordingError) as caught:
        call(*arguments)
    return caught.value.reason


def checked(path):
    """Events with the checks that every recording passes behind the reader."""
    return pack(read(path), sensor_size=(1280, 720), source=path.name)


def write_folders(root):
    """Two classes, each with a recording in every format."""
    for label, name in enumerate(("cat", "dog")):
        (root / "events" / name).mkdir(parents=True)
        (root / "static" / name).mkdir(parents=True)
        for number, ending in enumerate(FORMATS):
            size = (128, 128) if ending == ".aedat" else (200, 150)
            events = make_events(100 * label + number, count=200, size=size)
            write(root / "events" / name / f"r{number}{ending}", events)
            pixels = np.random.default_rng([label, number]).integers(0, 256, (9, 9), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "static" / name / f"r{number}.png")
    return root
