"""Event frames of a split, kept on the device, in memory, or on the disk.

Axes: n samples, T time, B batch, P polarity, H height, W width. Stored frames are [n,T,P,H,W].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikebridge.train.data import order

RESIDENT_BYTES = 2 * 2**30
"""Frames of a split up to this size are kept in memory when residence is `auto`."""

DEVICE_SHARE = 0.25
"""Share of a GPU's memory up to which a split and the static pool are kept there when residence is `auto`."""

RESIDENCES = ("auto", "device", "host", "disk")
READ_AT_ONCE = 1024
"""Samples on their way to the device."""


def choose_residence(residence: str, stored_bytes: int, device: torch.device, *, pool_bytes: int = 0) -> str:
    """Return where frames are kept: what `residence` says, or for `auto` the device, memory or disk, by size.

    Args:
        residence: one of `RESIDENCES`.
        stored_bytes: of the frames.
        device: of the network.
        pool_bytes: of the static pool, which goes to the device with the frames and stays where it is without.

    Raises:
        ValueError: an unknown residence.
    """
    if residence not in RESIDENCES:
        raise ValueError(f"unknown residence {residence!r}: expected one of {', '.join(RESIDENCES)}")
    if residence != "auto":
        return residence
    if device.type == "cuda":
        room = DEVICE_SHARE * torch.cuda.get_device_properties(device).total_memory
        if stored_bytes + pool_bytes <= room:
            return "device"
    return "host" if stored_bytes <= RESIDENT_BYTES else "disk"


class Frames:
    """Event frames of chosen recordings of one split: on the device, in memory, or read from disk at every turn.

    Args:
        split: a split of a shard set (`read`, `labels`).
        positions: int64 [n] within the split.
        sample_shape: (T,P,H,W).
        residence: `device`, `host`, `disk`, or `auto`, see `choose_residence`.
        device: where `device` is.
        pool_bytes: of the static pool that goes with them, see `choose_residence`.

    Raises:
        ValueError: an unknown residence.
    """

    def __init__(
        self,
        split: Any,
        positions: order.Ints,
        *,
        sample_shape: tuple[int, ...],
        residence: str = "auto",
        device: torch.device | None = None,
        pool_bytes: int = 0,
    ) -> None:
        self.labels: order.Ints = np.asarray(split.labels, dtype=np.int64)[positions]
        self._split = split
        self._positions = positions
        self._resident: Stored | None = None
        device = device or torch.device("cpu")
        # Two bytes a cell is the widest stored type.
        stored_bytes = 2 * len(positions) * int(np.prod(sample_shape))
        self.residence = choose_residence(residence, stored_bytes, device, pool_bytes=pool_bytes)
        if len(positions) and self.residence == "device":
            self._resident = Stored.read(split, positions, device)
        elif len(positions) and self.residence == "host":
            self._resident = Stored(as_tensor(split.read(positions)))

    def __len__(self) -> int:
        return len(self._positions)

    def take(self, indices: order.Ints) -> Tensor:
        """Frames [len(indices),T,P,H,W] as stored, where they are kept; indices count within the chosen recordings."""
        if self._resident is not None:
            return self._resident.take(torch.from_numpy(indices).to(self._resident.device))
        return as_tensor(self._split.read(self._positions[indices]))

    def take_resident(self, indices: Tensor) -> Tensor:
        """The same with indices on the device, where residence is `device`."""
        assert self._resident is not None
        return self._resident.take(indices)

    def batches(self, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """All recordings in order, unaugmented: events float32 [T,B,P,H,W] and labels int64 [B]."""
        for start in range(0, len(self), batch_size):
            indices = np.arange(start, min(start + batch_size, len(self)), dtype=np.int64)
            yield time_first(self.take(indices).to(device)), torch.from_numpy(self.labels[indices]).to(device)


class Stored:
    """Rows of stored numbers in memory, on whichever device.

    Args:
        rows: [n,...].
        unsigned: the rows are int16 that stand for uint16, which torch barely computes with.
    """

    def __init__(self, rows: Tensor, *, unsigned: bool = False) -> None:
        self.rows, self._unsigned = rows, unsigned
        self.device = rows.device

    @classmethod
    def read(cls, split: Any, positions: order.Ints, device: torch.device) -> Stored:
        """Rows `positions` of a split on the device, a few at a time, in the type that they are stored in."""
        return cls.gather(split.read, positions, device)

    @classmethod
    def gather(cls, read: Callable[[order.Ints], np.ndarray], positions: order.Ints, device: torch.device) -> Stored:
        """Return what `read` gives for positions, on the device; no more than `READ_AT_ONCE` of it pass the host."""
        rows: Tensor | None = None
        for start in range(0, len(positions), READ_AT_ONCE):
            part: np.ndarray = read(positions[start : start + READ_AT_ONCE])
            unsigned = part.dtype == np.uint16
            content = torch.from_numpy(np.array(part.view(np.int16) if unsigned else part))
            if rows is None:
                rows = torch.empty((len(positions), *content.shape[1:]), dtype=content.dtype, device=device)
            rows[start : start + len(content)] = content
        assert rows is not None
        return cls(rows, unsigned=unsigned)

    def take(self, indices: Tensor) -> Tensor:
        """Rows by number; uint16 becomes float32 (exact)."""
        found = self.rows[indices]
        return (found.int() & 0xFFFF).float() if self._unsigned else found


def as_tensor(array: np.ndarray) -> Tensor:
    """A tensor over the array's memory; uint16, which torch barely computes with, becomes float32 (exact)."""
    if array.dtype == np.uint16:
        array = array.astype(np.float32)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def time_first(frames: Tensor) -> Tensor:
    """Frames [B,T,P,H,W] as float32 [T,B,P,H,W]."""
    return frames.float().transpose(0, 1)  # [T,B,P,H,W]
