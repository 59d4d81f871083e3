"""Stored events to frames on a GPU: the packed events of a batch travel, one launch counts them.

Axes: B recordings, T time bins, P polarity, H, W pixels. The frames are those of `pipeline.shards.framing`, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikebridge.pipeline.base.fitting import FITS, fit_box
from spikebridge.pipeline.events.compact import HEAD_BYTES, CompactEvents
from spikebridge.pipeline.shards.framing import Counting, Framing
from spikebridge.pipeline.shards.reader import Split
from spikebridge.train.data import kernels_triton as kernels

BLOCK = 1024
"""Events that a program takes at once."""
ALIGNMENT = 8
"""Bytes at a multiple of which a recording begins, as its long steps ask for."""


class About(NamedTuple):
    """What the kernel has to know of a recording; places are in bytes from the first of the batch."""

    events: int
    long_steps: int
    step_bytes: int
    long_at: int
    place_at: int
    step_at: int
    high_at: int
    """Where bits of places above the 16th begin; as `polarity_at` where there are none."""
    polarity_at: int
    x_bits: int
    y_bits: int
    start: int
    """This and the following three: see `pipeline.shards.framing.Counting`."""
    length: int
    of_time: int
    rest: int
    left: int
    """This and the following: what the frame shows, in pixels."""
    top: int
    right: int
    bottom: int


def can_bin(framing: Framing) -> bool:
    """Return whether the kernel makes such frames: counts or ones, of all that the sensor shows.

    A crop may hold no event of a recording, which is refused, and the host would have to wait for that.
    """
    return framing.countable and not framing.may_show_none


def bin_recordings(split: Split, positions: NDArray[np.integer], device: torch.device) -> Tensor | None:
    """Return frames [B,T,P,H,W] of recordings, uint8 or uint16, on a device, made there of their stored events.

    None where a recording cannot be framed so, or the bytes are not those of one: `Split.read` says what is wrong.

    Args:
        split: whose frames `can_bin`.
        positions: of the recordings.
        device: where frames are made; with the CPU, Triton's interpreter makes them.

    Raises:
        ShardSetError: a shard is missing or cut, or a checksum is wrong.
    """
    framing = split.framing
    assert framing is not None
    stored: list[NDArray[np.uint8]] = []
    about, at = [], 0
    for data in split.read_compact(positions):
        try:
            how = framing.counting(data)
            good = how is not None and _has_its_long_steps(data)
        except ValueError:
            good = False
        if not good:
            return None
        assert how is not None
        about.append(_describe(how, framing, at))
        room = np.zeros(-(-len(data) // ALIGNMENT) * ALIGNMENT, np.uint8)
        room[: len(data)] = data
        stored.append(room)
        at += len(room)
    packed = torch.from_numpy(np.concatenate([np.empty(0, np.uint8), *stored]))
    return count_packed(packed, about, framing, device)


def count_packed(packed: Tensor, about: Sequence[About], framing: Framing, device: torch.device) -> Tensor:
    """Return frames [B,T,P,H,W] of packed events uint8 [bytes] on a device, counted there and saturated."""
    packed, rows = (_to_device(x, device) for x in (packed, torch.tensor(about, dtype=torch.int64)))
    shape, limit = framing.shape, 1 if framing.settings.reduction == "event" else 256**framing.dtype.itemsize - 1
    counts = torch.zeros(len(about), *shape, dtype=torch.int32, device=device)
    if about:
        views = packed, packed.view(torch.int16), packed.view(torch.int64)
        kernels.count_events[(len(about),)](
            *(*views, rows, counts, *shape[2:]), T=shape[0], ABOUT=len(About._fields), BLOCK=BLOCK
        )
    return counts.clamp_(max=limit).to(torch.uint8 if framing.dtype.itemsize == 1 else torch.uint16)


def _to_device(x: Tensor, device: torch.device) -> Tensor:
    """Copy to a device; to a GPU from pinned memory, so that the host does not wait."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x


def _has_its_long_steps(data: NDArray[np.uint8]) -> bool:
    """Return whether there are as many long steps as the steps ask for, which the loops on a CPU compare."""
    columns = CompactEvents.parse(data)
    return np.count_nonzero(columns.step == np.iinfo(columns.step.dtype).max) == len(columns.long)


def _describe(how: Counting, framing: Framing, at: int) -> About:
    """Return what the kernel has to know of a recording whose bytes begin at `at`."""
    head, settings = how.head, framing.settings
    places = [at + place for place in (HEAD_BYTES, *head.parts)]
    box = fit_box(how.box, settings.frame[::-1], settings.fit or FITS[0])
    timing = [how.start, how.length, int(how.of_time), int(how.rest)]
    return About._make([head.events, head.long, head.step_bytes, *places, *head.bits, *timing, *box])
