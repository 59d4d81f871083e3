"""The compiled loop of `pipeline.containers.lz4`.

It copies 8 bytes at a time where it may, with loads and stores at any address, which processors have and numba lacks.

Source: the LZ4 block format description, and the frame format description, version 1.6.4.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

_4, _8, _15, _0XFFFF = (np.uint64(number) for number in (4, 8, 15, 0xFFFF))
MARGIN = 32
"""Bytes at the end of the output that no content reaches."""

MOST_READ, MOST_WRITTEN = 16, 31
"""Bytes that a short sequence reads, and writes with what is written over by the next."""


def _load(_context: Any, data: Any, _at: Any) -> Any:
    """Return the 8 bytes of `data` from a position on; nothing is checked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        address = builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(64).as_pointer())
        return builder.load(address, align=1)

    return types.uint64(data, types.int64), generate


def _store(_context: Any, data: Any, _at: Any, _value: Any) -> Any:
    """Write 8 bytes into `data` from a position on; nothing is checked."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        address = builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(64).as_pointer())
        builder.store(arguments[2], address, align=1)
        return context.get_dummy_value()

    return types.void(data, types.int64, types.uint64), generate


load: Any = intrinsic(_load)
store: Any = intrinsic(_store)


@njit(cache=True, nogil=True)
def unpack(blocks: NDArray[np.uint8], out: NDArray[np.uint8]) -> np.int64:
    """Unpack the blocks of a frame, up to its end mark, into `out`; returns the bytes written, -1 where damaged."""
    bad = np.int64(-1)
    i = np.int64(0)
    at = np.int64(0)
    while True:
        if i + 4 > blocks.size:
            return bad
        word = np.int64(blocks[i]) | np.int64(blocks[i + 1]) << 8 | np.int64(blocks[i + 2]) << 16
        word |= np.int64(blocks[i + 3]) << 24
        i += 4
        if word == 0:
            return at if i == blocks.size else bad
        size = word & 0x7FFFFFFF
        if i + size > blocks.size or size == 0:
            return bad
        if word >> 31:  # stored as it is
            if at + size > out.size - MARGIN:
                return bad
            out[at : at + size] = blocks[i : i + size]
            at += size
        else:
            at = _unpack_block(blocks, i, i + size, out, at)
            if at < 0:
                return bad
        i += size


@njit(cache=True, nogil=True)
def _unpack_block(  # noqa: PLR0911  (one compiled loop)
    data: NDArray[np.uint8], i: Any, end: np.int64, out: NDArray[np.uint8], at: Any
) -> Any:
    """Unpack one block, `data[i:end]`, into `out` behind the `at` bytes that are there; returns the bytes then.

    Most sequences are short, and far from the ends: those are copied with almost no branch, twice as fast.
    """
    bad = np.int64(-1)
    room = out.size - MARGIN
    while i < end:
        while i + MOST_READ <= end and at + MOST_WRITTEN <= room:
            head = load(data, i)
            literals, length = np.int64(head >> _4 & _15), np.int64(head & _15)
            if literals > 7 or length == 15:
                break
            place = at + literals
            offset = np.int64(load(data, i + 1 + literals) & _0XFFFF)
            origin = place - offset
            if offset < 8 or origin < 0:
                break
            store(out, at, head >> _8)
            store(out, place, load(out, origin))
            if length > 4:  # seldom, and loading what was just stored is slow
                store(out, place + 8, load(out, origin + 8))
                store(out, place + 16, load(out, origin + 16))
            i += literals + 3
            at = place + length + 4
        token = np.int64(data[i])
        i += 1
        literals = token >> 4
        if literals == 15:
            byte = np.int64(255)
            while byte == 255:
                if i >= end:
                    return bad
                byte = np.int64(data[i])
                i += 1
                literals += byte
        if i + literals > end or at + literals > room:
            return bad
        if literals <= 16 and i + 16 <= data.size:
            store(out, at, load(data, i))
            store(out, at + 8, load(data, i + 8))
        else:
            for k in range(literals):
                out[at + k] = data[i + k]
        i += literals
        at += literals
        if i == end:
            return at
        if i + 2 > end:
            return bad
        offset = np.int64(data[i]) | np.int64(data[i + 1]) << 8
        i += 2
        if offset == 0 or offset > at:
            return bad
        length = token & 15
        if length == 15:
            byte = np.int64(255)
            while byte == 255:
                if i >= end:
                    return bad
                byte = np.int64(data[i])
                i += 1
                length += byte
        length += 4
        if at + length > room:
            return bad
        if offset >= 8:
            copied: Any = np.int64(0)
            while copied < length:
                store(out, at + copied, load(out, at - offset + copied))
                copied += 8
        else:  # what is copied is still being written
            for j in range(length):
                out[at + j] = out[at - offset + j]
        at += length
    return bad
