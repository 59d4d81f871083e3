"""What a network returns.

Axes: T time, B batch, K classes, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class TransferOutput:
    """Both heads of one pass; everything of a stream that was not given is None."""

    static_logits: Tensor | None
    """[T,B,K] of the static head."""
    event_logits: Tensor | None
    """[T,B,K] of the event head."""
    static_features: Tensor | None
    """[T,B,F], what the alignment compares."""
    event_features: Tensor | None
    """[T,B,F], what the alignment compares."""
    firing_rates: Mapping[str, Tensor] = field(default_factory=dict)
    """Spikes per neuron and step (0-d, detached) by layer name; empty unless `net.record_firing_rates`."""
