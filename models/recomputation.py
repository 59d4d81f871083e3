"""Tensors that backward computes again instead of keeping them.

Spikes in front of a convolution are as large as the input that the neurons keep anyway, and one launch makes them of it
again, to the bit.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

Maker = Callable[[], Tensor]
_offers: ContextVar[dict[int, tuple[weakref.ref[Tensor], Maker]] | None] = ContextVar("offers", default=None)


@contextmanager
def recompute_offered() -> Iterator[None]:
    """Keep for backward, of a tensor that is offered inside the block, only how to make it again."""
    offers: dict[int, tuple[weakref.ref[Tensor], Maker]] = {}

    def pack(x: Tensor) -> Any:
        tensor, make = offers.get(x.untyped_storage()._cdata, (None, None))
        # an address says something only as long as what was offered lives there
        if tensor is None or make is None or tensor() is None:
            return x
        return make, x.shape, x.stride(), x.storage_offset()

    def unpack(kept: Any) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        make, *where = kept
        again: Tensor = make().as_strided(*where)
        return again

    token = _offers.set(offers)
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            yield
    finally:
        _offers.reset(token)


def offer(x: Tensor, make: Maker) -> None:
    """Say how to make a tensor again, in memory of the same layout; outside of `recompute_offered` nobody listens."""
    if (offers := _offers.get()) is not None:
        offers[x.untyped_storage()._cdata] = weakref.ref(x), make
