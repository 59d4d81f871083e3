"""The number of CPU threads, on which the order of sums, and so the last bit, depends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def same_threads(count: int) -> Iterator[None]:
    """Run with as many CPU threads as the training had: the order of sums, and so the last bit, depends on them."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
