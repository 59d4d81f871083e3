"""Time-step mixup: the static stream turns from static image to recording within every sequence, once.

Everything else is `kt`. The expected share of event frames follows the course that is the replacement probability of
`kt` (`sliding`, `sliding_power`), from which the probability p of a switch at each step follows. Two heads of one layer
see what the alignment compares of the mixed stream: one tells every frame's modality (cross entropy), one the share of
event frames in the sequence from the mean over time (squared error); both train along and are dropped afterwards.

Axes: T time, B batch, F features.

Source: TMKT, arXiv 2509.12959 and 2511.12150. Differs: its weights and schedule are not known. The weights here,
`modality_weight` and `ratio_weight`, are .1, which keeps both terms (.69 and at most .25 before training) well below
the classification losses; the course is the published one of sliding training.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikebridge.models import TransferNetwork, TransferOutput
from spikebridge.train.data.batches import Batch, TrainingBatches, static_stream
from spikebridge.train.losses import TransferLoss
from spikebridge.train.methods import Inputs, make_inputs, method
from spikebridge.train.methods.kt import KnowledgeTransfer
from spikebridge.train.networks.build import feature_count, seeded_weights
from spikebridge.train.schedules import switch_probability


def event_frames(numbers: Tensor, probability: float | Tensor, time_steps: int) -> Tensor:
    """Return which frames of a mixed sequence are event frames: bool [T,B], never back to static along T.

    Args:
        numbers: float64 [B], uniform in [0, 1); the lower, the later the switch.
        probability: of a switch at each step, 0 (static throughout) to 1 (events throughout).
        time_steps: T.
    """
    steps = torch.arange(1, time_steps + 1, dtype=numbers.dtype, device=numbers.device)
    return numbers >= (1 - probability) ** steps[:, None]  # the chance of no switch up to and including a step


@method
class TimeStepMixup(KnowledgeTransfer):
    """`kt` with mixed sequences and two heads."""

    terms = ("modality", "mix_ratio")
    capturable = True

    def attach(self, network: TransferNetwork, data: TrainingBatches) -> None:
        """Build both heads, on the features that the alignment compares."""
        features, self.time_steps = feature_count(network), network.settings.time_steps
        with seeded_weights(self.settings.seed, "tsm"):
            self.modules = {name: nn.Linear(features, 1, dtype=network.coefficients.dtype) for name in self.terms}

    def number(self, step: int) -> float:
        """Return the probability of a switch at each time step."""
        return switch_probability(self.replacement_probability(step), self.time_steps)

    def inputs(self, batch: Batch, step: int) -> Inputs:
        """Return mixed sequences and events."""
        still, T = static_stream(dataclasses.replace(batch, number=None), 0.0), len(batch.events)
        mixed = event_frames(batch.replacement, self.number(step) if batch.number is None else batch.number, T)  # [T,B]
        static = torch.where(mixed[..., None, None, None], batch.events, still)  # [T,B,P,H,W]
        return make_inputs(batch, step, static=static, event=batch.events, event_frames=mixed)

    def heads(self, out: TransferOutput, inputs: Inputs) -> dict[str, Tensor]:
        """Return the logits of "event frame" [T,B], and the share of event frames [B]."""
        features = out.static_features
        assert features is not None
        features = features.to(next(self.modules["modality"].parameters()).dtype)  # [T,B,F]
        return {
            "modality": self.modules["modality"](features).squeeze(-1),
            "mix_ratio": self.modules["mix_ratio"](features.mean(0)).squeeze(-1).sigmoid(),
        }

    def loss(self, out: TransferOutput, inputs: Inputs, coefficients: Tensor, heads: dict[str, Tensor]) -> TransferLoss:
        """Add the losses of both heads to that of `kt`."""
        plain, settings = super().loss(out, inputs, coefficients, heads), self.settings
        target = inputs.extra["event_frames"].to(heads["modality"].dtype)  # [T,B]
        modality = F.binary_cross_entropy_with_logits(heads["modality"], target)
        ratio = F.mse_loss(heads["mix_ratio"], target.mean(0))
        total = plain.total + settings.modality_weight * modality + settings.ratio_weight * ratio
        return dataclasses.replace(plain, total=total, extra={"modality": modality, "mix_ratio": ratio})
