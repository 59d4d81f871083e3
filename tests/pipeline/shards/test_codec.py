"""Packed samples come back into memory that is there already, exactly, in parts, and never beyond."""

import tracemalloc
import zlib

import numpy as np
import pytest

from spikebridge.pipeline.shards import codec
from spikebridge.pipeline.shards.codec import deflate, gzip, unpack_into


@pytest.mark.parametrize("pack", [gzip, deflate])
@pytest.mark.parametrize("part", [1, 7, 99, 100, 101, 2**24])
@pytest.mark.parametrize("header", [b"", b"header"])
def test_what_was_packed_fills_its_place(monkeypatch, pack, part, header):
    monkeypatch.setattr(codec, "PART_BYTES", max(part, len(header)))
    numbers = np.random.default_rng(0).integers(0, 3, 94, dtype=np.uint8).tobytes()
    target = bytearray(len(numbers))
    unpack_into(pack(header + numbers), memoryview(target), header=header)
    assert bytes(target) == numbers
    for size in (len(numbers) - 1, len(numbers) + 1, 0):
        with pytest.raises(ValueError, match="does not hold"):
            unpack_into(pack(header + numbers), memoryview(bytearray(size)), header=header)
    packed = pack(header + numbers)
    for bad in (packed[:-1], packed + b"x", packed[: len(packed) // 2], b"", b"text", bytes(20)):
        with pytest.raises(ValueError, match=r"."):
            unpack_into(bad, memoryview(bytearray(len(numbers))), header=header)
    with pytest.raises(ValueError, match="does not hold"):
        unpack_into(pack(b"Header" + numbers), memoryview(bytearray(len(numbers))), header=b"header")


def test_a_large_sample_takes_little_memory_besides_its_own():
    size = 2**26
    data, target = zlib.compress(bytes(size), 1), memoryview(bytearray(size))
    tracemalloc.start()
    unpack_into(data, target, header=b"")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * codec.PART_BYTES < size / 2
