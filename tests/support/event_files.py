"""Writers of event files for the tests: AEDAT4 with iniVation's own library, Prophesee's formats word by word."""

import numpy as np

from spikebridge.pipeline.events.arrays import Events

EPOCH_US = 1_600_000_000_000_000
EVT2_HEADER = b"% date 2022-02-02 02:02:02\n% evt 2.0\n% geometry 640x480\n"
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
