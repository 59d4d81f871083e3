"""CIFAR10-DVS in its three forms and CIFAR-10 in its three."""

import io
import struct

import numpy as np
import scipy.io
from conftest import make_events
from event_files import write_aedat4
from PIL import Image

from spikebridge.pipeline.containers import cifar
from spikebridge.pipeline.formats.aedat import aedat2

HEADER = (
    b"#!AER-DAT2.0\r\n"
    b"# This is a raw AE data file - do not edit\r\n"
    b"# Data format is int32 address, int32 timestamp (8 bytes total), repeated for each event\r\n"
    b"# Timestamps tick is 1 us\r\n"
    b"# created Thu Jan 01 08:00:00 CST 2015\r\n"
)
USED = ("airplane", "cat", "truck")
PER_CLASS = 6


def tet6(events):
    """TET's matrix: t, 0, -1, x, y, +-1, all of it double."""
    n = len(events)
    parts = (events.t, np.zeros(n), -np.ones(n), events.x, events.y, events.p.astype(int) * 2 - 1)
    return np.column_stack(parts).astype(float)


def mat_bytes(table):
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"out1": table}, do_compression=True)
    return buffer.getvalue()


def encoded(events, ending):
    if ending == "aedat":
        return aedat2.encode(events, header=HEADER)
    table = tet6(events)
    return mat_bytes(table if ending == "6.mat" else table[:, [0, 3, 4, 5]])


def python2_pickle(seed, labels):
    """A batch in the bytes that Python 2 and the numpy of 2009 wrote: protocol 2, text as byte strings."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8)

    def text(value):
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value

    def number(value):
        return b"J" + struct.pack("<i", value)

    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"\x87R"
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R"
    dtype += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    shape = number(len(labels)) + number(3072) + b"\x86"
    array += b"(" + number(1) + shape + dtype + b"\x89" + text(pixels.tobytes()) + b"tb"
    named = b"(" + text(b"data") + array
    named += text(b"labels") + b"](" + b"".join(map(number, labels)) + b"e"
    named += text(b"batch_label") + text(b"training batch 1 of 5")
    named += text(b"filenames") + b"](" + b"".join(text(b"x_s_%06d.png" % i) for i in range(len(labels))) + b"e"
    return b"\x80\x02}" + named + b"u.", pixels


def images_of(pixels):
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def write_static(root, kind):
    """Five training batches of ten images and a test batch, as pickles, binary files, or folders."""
    root.mkdir(parents=True)
    for b, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        labels = [(b + i) % 10 for i in range(10)]
        data, pixels = python2_pickle(b, labels)
        if kind == "python":
            (root / name).write_bytes(data)
        elif kind == "binary":
            rows = np.concatenate([np.array(labels, np.uint8)[:, None], pixels], 1)
            (root / f"{name}.bin").write_bytes(rows.tobytes())
        else:
            for i, label in enumerate(labels):
                folder = root / ("test" if name == "test_batch" else "train") / cifar.CLASSES[label]
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(images_of(pixels)[i]).save(folder / f"{b}{i:03d}.png")
    (root / "batches.meta").write_bytes(b"never read")
    return root


def write_events(root, ending="aedat"):
    for c, name in enumerate(USED):
        (root / name).mkdir(parents=True)
        for i in range(PER_CLASS):
            events = make_events(100 * c + i, size=(128, 128))
            stem = str(i) if ending.endswith("mat") else f"cifar10_{name}_{i}"  # TET's files are called 0.mat
            path = root / name / f"{stem}.{ending.split('.')[-1]}"
            if ending == "aedat4":
                write_aedat4(path, events, size=(128, 128))
            else:
                path.write_bytes(encoded(events, ending))
    return root
