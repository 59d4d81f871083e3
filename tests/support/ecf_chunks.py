"""Events as Prophesee's ECF packs them, in each of its ways."""

import numpy as np

WAYS = ("all together", "columns with polarities", "each alone")


def runs(values):
    """(value, length) of equal values in a row."""
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    lengths = np.diff([*starts, len(values)])
    return zip(values[starts].tolist(), lengths.tolist(), strict=True)


def fours(values, bits):
    """Four values in three numbers: each from the top, the next one's lowest bits below."""
    part, width = bits // 3, bits // 6
    values = [*values, *[0] * (-len(values) % 4)]
    data = b""
    for a, b, c, d in zip(*(values[i::4] for i in range(4)), strict=True):
        low = (1 << part) - 1
        words = (
            a << part | b & low,
            b >> part << 2 * part | c & ((1 << 2 * part) - 1),
            c >> 2 * part << 3 * part | d,
        )
        data += b"".join(word.to_bytes(width, "little") for word in words)
    return data


def encode(events, way):
    """One chunk."""
    kind = WAYS.index(way)
    head = len(events) << 2 | (2, 1, 0)[kind]
    first = int(events.t[0]) if len(events) else 0
    data, time = head.to_bytes(4, "little") + first.to_bytes(8, "little"), first
    for t, length in runs(events.t):
        step, time = t - time, t
        if step >= 15:
            while step:
                data += bytes([0xF0 | step & 15])
                step >>= 4
        data += bytes([step << 4 | min(length, 15)]) + (length.to_bytes(2, "little") if length >= 15 else b"")
    x, y, p = (column.tolist() for column in events.columns[1:])
    if kind == 0:
        return data + fours([r << 12 | c << 1 | s for c, r, s in zip(x, y, p, strict=True)], 24)
    for row, length in runs(events.y):
        data += (row << 5 | min(length, 31)).to_bytes(2, "little")
        data += length.to_bytes(2, "little") if length >= 31 else b""
    if kind == 1:
        return data + fours([c << 1 | s for c, s in zip(x, p, strict=True)], 12)
    i = 0
    while i < len(x):
        column, mask = x[i], 0
        i += 1
        for bit in range(5):
            if i < len(x) and x[i] == column + bit + 1:
                mask |= 1 << (4 - bit)
                i += 1
        data += (column << 5 | mask).to_bytes(2, "little")
    for sign, length in runs(events.p):
        data += bytes([sign << 7 | min(length, 127)]) + (length.to_bytes(2, "little") if length >= 127 else b"")
    return data
