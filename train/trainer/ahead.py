"""Batches that are read while the device computes: one thread makes the next of the epoch, on a stream of its own.

What is kept in memory or on the disk is read, decoded and copied there, from pinned memory. The batches are the same.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch

from spikebridge.train.data.batches import Batch, TrainingBatches


class BatchesAhead:
    """Batches of one process in the order of an epoch.

    Args:
        data: makes them; nobody else asks it for batches meanwhile.
        device: where they go.
        rank: of the process.
        world: processes.
    """

    def __init__(self, data: TrainingBatches, device: torch.device, *, rank: int = 0, world: int = 1) -> None:
        self._data, self._device, self._share = data, device, {"rank": rank, "world": world}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches-ahead")
        self._next: tuple[tuple[int, int], Future[tuple[Batch, torch.cuda.Event | None]]] | None = None
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def batch(self, epoch: int, index: int) -> Batch:
        """Return batch `index` of an epoch (both 0-based), and begin the one behind it."""
        found, self._next = self._next, None
        made = None if found is None else found[1].result()  # waits, whichever it is: one batch is made at a time
        if found is None or made is None or found[0] != (epoch, index):
            made = self._make(epoch, index)
        batch, ready = made
        if ready is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(ready)
            for tensor in batch.tensors():
                if tensor.device.type == "cuda":
                    tensor.record_stream(current)
        if index + 1 < self._data.steps_per_epoch:
            self._next = (epoch, index + 1), self._thread.submit(self._make, epoch, index + 1)
        return batch

    def _make(self, epoch: int, index: int) -> tuple[Batch, torch.cuda.Event | None]:
        if self._stream is None:
            return self._data.batch(epoch, index, **self._share), None
        with torch.cuda.stream(self._stream):
            batch = self._data.batch(epoch, index, **self._share)
            ready = torch.cuda.Event()
            ready.record(self._stream)
        return batch, ready
