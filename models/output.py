"""What a network returns.

Axes: B batch, S streams, T time, K classes, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor


@dataclass(frozen=True)
class TransferOutput:
    """Both heads of one pass; everything of a stream that was not given is None."""

    static_logits: Tensor | None
    """[T,B,K] of the static head."""
    event_logits: Tensor | None
    """[T,B,K] of the event head."""
    aligned: Tensor | None
    """[B,S,T,...] of the streams that were given, static first: what the alignment compares, laid out as its layer
    left it. The features below are made of it when they are asked for."""
    firing_rates: Mapping[str, Tensor] = field(default_factory=dict)
    """Spikes per neuron and step (0-d, detached) by layer name; empty unless `net.record_firing_rates`."""

    @property
    def static_features(self) -> Tensor | None:
        """Return [T,B,F], what the alignment compares."""
        return None if self.static_logits is None else self._features[0]

    @property
    def event_features(self) -> Tensor | None:
        """Return [T,B,F], what the alignment compares."""
        return None if self.event_logits is None else self._features[-1]

    @cached_property
    def _features(self) -> tuple[Tensor | None, ...]:
        """Return [T,B,F] of each stream that was given.

        They are taken apart at once: backward then writes the streams' gradients side by side, where a selection of
        each would fill a tensor of both with zeros and add them up.
        """
        if self.aligned is None:
            return (None,)
        return tuple(feature.transpose(0, 1).flatten(2) for feature in self.aligned.unbind(1))
