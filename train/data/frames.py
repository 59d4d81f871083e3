"""Event frames of a split, kept on the device, in memory, or on the disk.

On CUDA, frames that are counts of stored events are made on the device, of the packed events; see `binning_triton`.

Axes: n samples, T time, B batch, P polarity, H height, W width. Stored frames are [n,T,P,H,W].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from spikebridge.models import backends
from spikebridge.pipeline.shards.framing import Change
from spikebridge.pipeline.shards.reader import Split
from spikebridge.train.data import order

RESIDENT_BYTES = 2 * 2**30
"""Frames of a split up to this size are kept in memory when residence is `auto`."""

DEVICE_SHARE = 0.25
"""Share of a GPU's memory up to which a split and the static pool are kept there when residence is `auto`."""

RESIDENCES = ("auto", "device", "host", "disk")
CHUNK = 1024
"""Samples that are copied to the device at once."""


def choose_residence(residence: str, stored_bytes: int, device: torch.device, *, pool_bytes: int = 0) -> str:
    """Return where frames are kept: as `residence` says, or for `auto` the device, memory or disk, by size.

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
    """Event frames of some recordings of one split: on the device, in memory, or read from disk at every use.

    Args:
        split: a split of a shard set.
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
        split: Split,
        positions: order.Ints,
        *,
        sample_shape: tuple[int, ...],
        residence: str = "auto",
        device: torch.device | None = None,
        pool_bytes: int = 0,
    ) -> None:
        self.labels: order.Ints = self._labels_of(split, positions)
        self._split = split
        self._positions = positions
        self._resident: StoredRows | None = None
        device = self._device = device or torch.device("cpu")
        # Two bytes a cell is the widest stored type.
        stored_bytes = 2 * len(positions) * int(np.prod(sample_shape))
        self.residence = choose_residence(residence, stored_bytes, device, pool_bytes=pool_bytes)
        if len(positions) and self.residence == "device":
            self._resident = StoredRows.read(self._read, positions, device)
        elif len(positions) and self.residence == "host":
            self._resident = StoredRows(as_tensor(split.read(positions)))

    def __len__(self) -> int:
        return len(self._positions)

    def _labels_of(self, split: Split, positions: order.Ints) -> order.Ints:
        return np.asarray(split.labels, dtype=np.int64)[positions]

    def _read(self, positions: order.Ints) -> np.ndarray | Tensor:
        """Read frames [n,T,P,H,W] as stored; on the device where they are made there."""
        if not self._split.as_stored and backends.computes_by_triton(self._device):
            from spikebridge.train.data.binning_triton import bin_recordings, can_bin

            assert self._split.framing is not None
            if can_bin(self._split.framing):
                frames = bin_recordings(self._split, positions, self._device)
                if frames is not None:
                    return frames
        return self._split.read(positions)

    def take(self, indices: Tensor, changes: Sequence[Change] | None = None) -> Tensor:
        """Return frames [B,T,P,H,W] as stored, where they are kept or made.

        Args:
            indices: int64 [B], within the recordings of these frames; the host waits for them unless they lie where the
                frames do.
            changes: for each of them what is done to its events before they are binned; residence `disk` only.
        """
        if self._resident is not None:
            return self._resident.take(indices.to(self._resident.device))
        positions = self._positions[indices.cpu().numpy()]
        return as_tensor(self._read(positions) if changes is None else self._split.read(positions, changes=changes))

    def batches(self, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all recordings in order, unaugmented: events float32 [T,B,P,H,W] and labels int64 [B]."""
        labels = torch.from_numpy(self.labels)
        for indices in torch.arange(len(self)).split(batch_size):
            yield time_first(self.take(indices).to(device)), labels[indices].to(device)


class UnlabelledFrames(Frames):
    """Event frames of recordings whose labels are not read: each is -1, the class of none."""

    def _labels_of(self, split: Split, positions: order.Ints) -> order.Ints:
        return np.full(len(positions), -1, dtype=np.int64)


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Copy to a device; to a GPU from pinned memory, so that neither host nor device waits for the copy."""
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


class StoredRows:
    """Rows of stored numbers in memory, on any device.

    Args:
        rows: [n,...].
        unsigned: the rows are int16 that stand for uint16, which torch barely computes with.
    """

    def __init__(self, rows: Tensor, *, unsigned: bool = False) -> None:
        self.rows, self._unsigned = rows, unsigned
        self.device = rows.device

    @classmethod
    def read(
        cls, read: Callable[[order.Ints], np.ndarray | Tensor], positions: order.Ints, device: torch.device
    ) -> StoredRows:
        """Copy what `read` returns for positions to the device, as stored; `CHUNK` rows at a time."""
        rows: Tensor | None = None
        for start in range(0, len(positions), CHUNK):
            part = read(positions[start : start + CHUNK])
            unsigned = part.dtype in (np.uint16, torch.uint16)
            if isinstance(part, Tensor):
                content = part.view(torch.int16) if unsigned else part
            else:
                content = torch.from_numpy(np.array(part.view(np.int16) if unsigned else part))
            if rows is None:
                rows = torch.empty((len(positions), *content.shape[1:]), dtype=content.dtype, device=device)
            rows[start : start + len(content)] = content
        assert rows is not None
        return cls(rows, unsigned=unsigned)

    def take(self, indices: Tensor) -> Tensor:
        """Return rows by number; uint16 becomes float32 (exact)."""
        rows = self.rows[indices]
        return _widen(rows) if self._unsigned else rows


def _widen(rows: Tensor) -> Tensor:
    """Return float32 numbers of int16 ones that stand for uint16."""
    return (rows.int() & 0xFFFF).float()


def as_tensor(array: np.ndarray | Tensor) -> Tensor:
    """Return a tensor over the array's memory; uint16, which torch barely computes with, becomes float32 (exact)."""
    if isinstance(array, Tensor):
        return _widen(array.view(torch.int16)) if array.dtype == torch.uint16 else array
    if array.dtype == np.uint16:
        array = array.astype(np.float32)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def time_first(frames: Tensor) -> Tensor:
    """Convert frames [B,T,P,H,W] to float32 [T,B,P,H,W]."""
    return frames.float().transpose(0, 1)  # [T,B,P,H,W]
