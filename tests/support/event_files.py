"""Writers of event files for the tests: AEDAT4 with iniVation's own library, all other formats byte by byte."""

import struct

import numpy as np

from spikebridge.pipeline.events.arrays import Events

EPOCH_US = 1_600_000_000_000_000
EVT2_HEADER = b"% date 2022-02-02 02:02:02\n% evt 2.0\n% geometry 640x480\n"
EVT21_HEADER = b"% evt 2.1\n% format EVT21;endianness=little;height=720;width=1280\n% end\n"
EVT3_HEADER = b"% format EVT3;height=720;width=1280\n% evt 3.0\n% end\n"


def later(events, offset_us):
    return Events(events.t + offset_us, events.x, events.y, events.p)


def join(parts):
    return Events(*(np.concatenate([getattr(part, name) for part in parts]) for name in "txyp"))


def write_aedat4(path, events, *, size=(346, 260), compression="LZ4", others=False, packet=2000):
    """Write events, and with `others` a frame, IMU and trigger stream between them."""
    import dv_processing as dv

    config = dv.io.MonoCameraWriter.Config("DAVIS346_test")
    config.compression = getattr(dv.CompressionType, compression)
    config.addEventStream(size)
    if others:
        config.addFrameStream(size)
        config.addImuStream()
        config.addTriggerStream()
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = dv.io.MonoCameraWriter(str(path), config)
    store = dv.EventStore()
    for t, x, y, p in zip(*(getattr(events, name).tolist() for name in "txyp"), strict=True):
        store.push_back(t, x, y, bool(p))
    if others:
        writer.writeFrame(dv.Frame(int(events.t[0]), np.zeros(size[::-1], np.uint8)))
    for start in range(0, len(events), packet):
        writer.writeEventPacket(store.slice(start, min(packet, len(events) - start)).toPacket())
    del writer  # closes the file


def evt2(events):
    """EVT 2.0: the upper 28 bits of the time when they change, then the event."""
    words, high = [], None
    for t, x, y, p in zip(*(getattr(events, name).tolist() for name in "txyp"), strict=True):
        if t >> 6 != high:
            high = t >> 6
            words.append(8 << 28 | high & 0xFFFFFFF)
        words.append(p << 28 | (t & 63) << 22 | x << 11 | y)
    return np.array(words, "<u4").tobytes()


def evt3(events):
    """EVT 3.0: time and row when they change, then single events; no vectors."""
    words, high, low, row = [], None, None, None
    for t, x, y, p in zip(*(getattr(events, name).tolist() for name in "txyp"), strict=True):
        if t >> 12 != high:
            high, low = t >> 12, None
            words.append(8 << 12 | high & 0xFFF)
        if t & 0xFFF != low:
            low = t & 0xFFF
            words.append(6 << 12 | low)
        if y != row:
            row = y
            words.append(row)
        words.append(2 << 12 | p << 11 | x)
    return np.array(words, "<u2").tobytes()


def evt21(events, *, legacy=False):
    """EVT 2.1: the words of EVT 2.0 above a mask of the 32 pixels from a multiple of 32 on."""
    words, high = [], None
    for t, x, y, p in zip(*(getattr(events, name).tolist() for name in "txyp"), strict=True):
        if t >> 6 != high:
            high = t >> 6
            words.append((8 << 28 | high & 0xFFFFFFF) << 32)
        words.append((p << 28 | (t & 63) << 22 | (x & ~31) << 11 | y) << 32 | 1 << (x & 31))
    array = np.array(words, np.uint64)
    if legacy:
        array = array >> np.uint64(32) | array << np.uint64(32)
    return array.astype("<u8").tobytes()


def davis_aedat2(events, *, size=(346, 260), header=b"#!AER-DAT2.0\r\n", others=False):
    """AEDAT 2.0 of a DAVIS in jAER's orientation; with `others` a frame's, an IMU's and a special word between."""
    address = (size[1] - 1 - events.y.astype(np.int64)) << 22 | (size[0] - 1 - events.x.astype(np.int64)) << 12
    records = np.column_stack([address | events.p.astype(np.int64) << 11, events.t])
    if others:
        middle = len(records) // 2
        between = [[1 << 31 | 5 << 12, 3], [1 << 31 | 1 << 10 | 7, 4], [1 << 31 | 3 << 10, 5], [1 << 10 | 3, 6]]
        records = np.vstack([records[:middle], between, records[middle:]])
    return header + records.astype(">u4").tobytes()


def aedat3_packet(kind, size, data, *, overflow=0, camera=0):
    number = len(data) // size
    return struct.pack("<hhiiiiii", kind, camera, size, 4, overflow, number, number, number) + data


def aedat3(events, *, packet=100, camera=b"DVS128", invalid=()):
    """AEDAT 3.1 with packets of polarity events; those of the rows `invalid` are marked so."""
    header = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 0: " + camera + b"\r\n#!END-HEADER\r\n"
    valid = np.ones(len(events), np.int64)
    valid[list(invalid)] = 0
    word = events.x.astype(np.int64) << 17 | events.y.astype(np.int64) << 2 | events.p.astype(np.int64) << 1 | valid
    records = np.column_stack([word, events.t & 0x7FFFFFFF]).astype("<u4")
    parts = []
    for overflow in np.unique(events.t >> 31):
        rows = records[events.t >> 31 == overflow]
        parts += [
            aedat3_packet(1, 8, rows[i : i + packet].tobytes(), overflow=int(overflow))
            for i in range(0, len(rows), packet)
        ]
    return header + b"".join(parts)


def dat(events, *, layout=2, version=2, kind=0x0C, size=None):
    """DAT of either layout, below a header that says a version (None: no line of it)."""
    lines = ["Data file containing CD events."]
    lines += [] if version is None else [f"Version {version}"]
    lines += [] if size is None else [f"Height {size[1]}", f"Width {size[0]}"]
    x, y, p = (getattr(events, name).astype(np.int64) for name in "xyp")
    word = x | y << 9 | p << 17 if layout == 1 else x | y << 14 | p << 28
    records = np.column_stack([events.t % 2**32, word]).astype("<u4")
    return "".join(f"% {line}\n" for line in lines).encode() + bytes([kind, 8]) + records.tobytes()


def event_stream(events, *, size=(346, 260), atis=False, exposures=0):
    """Event Stream 2 of a DVS, or of an ATIS with exposure measurements at its end."""
    data, last = bytearray(b"Event Stream\2\0\0" + struct.pack("<BHH", 1 + atis, *size)), 0
    step = 63 if atis else 127
    for t, x, y, p in zip(*(getattr(events, name).tolist() for name in "txyp"), strict=True):
        passed, last = t - last, t
        data += (b"\xfd" if atis else b"\xff") * (passed // step)
        rest = passed % step
        data += struct.pack("<BHH", rest << 2 | p << 1 if atis else rest << 1 | p, x, size[1] - 1 - y)
    data += struct.pack("<BHH", 1, 0, 0) * exposures
    return bytes(data)


def text_lines(events, *, order="txyp", seconds=True, between=" ", head=""):
    """Lines of numbers, times in seconds with six decimals or in microseconds."""
    columns = {name: map(str, getattr(events, name).tolist()) for name in "xyp"}
    columns["t"] = (f"{t // 10**6}.{t % 10**6:06d}" if seconds else str(t) for t in events.t.tolist())
    rows = zip(*(columns[name] for name in order), strict=True)
    return (head + "".join(between.join(row) + "\n" for row in rows)).encode()
