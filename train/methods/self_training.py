"""Labelled recordings, simulated ones, and recordings without labels, which the network labels itself.

The rest of the training split, whose labels are not read, is shown twice: as it is, to the network in evaluation mode,
whose most likely class becomes its pseudo-label where it is likely enough; and augmented, to learn this label. Before
`self_training_from` of the run the network learns to label from labelled and simulated recordings alone.

Axes: T time, B samples of a batch, N samples shown to the network, U unlabelled ones among them, P polarity, H, W, K
classes.

Source: Sohn et al., "FixMatch: simplifying semi-supervised learning with consistency and confidence", NeurIPS 2020.

Differs: the weaker view is not augmented at all; their network labels from the first step on.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from spikebridge.models import TransferNetwork, TransferOutput
from spikebridge.train.data.augmentation import augment
from spikebridge.train.data.batches import Batch, TrainingBatches
from spikebridge.train.data.draws import random_words, uniform
from spikebridge.train.data.frames import time_first
from spikebridge.train.errors import MethodError
from spikebridge.train.losses import TransferLoss, cross_entropies
from spikebridge.train.methods import Inputs, method
from spikebridge.train.methods.simulate import Simulate


@method
class SelfTraining(Simulate):
    """`simulate`, and `unlabelled_per_recording` unlabelled recordings with each labelled one.

    Its losses are `pseudo`, of the unlabelled recordings, and `accepted`, which is none: the share of them whose
    pseudo-label counts.
    """

    terms: tuple[str, ...] = ("simulated", "pseudo", "accepted")
    capturable = True
    unlabelled = "others"
    network: TransferNetwork

    def attach(self, network: TransferNetwork, data: TrainingBatches) -> None:
        """Keep the network, which makes the pseudo-labels.

        Raises:
            MethodError: no unlabelled recordings, or frames that cannot be simulated.
        """
        super().attach(network, data)
        if not data.unlabelled_recordings:
            raise MethodError(
                f"method {self.settings.method} learns from unlabelled training recordings, and all {len(data)} are "
                "labelled; set events_per_class or events_share, or use label_free"
            )
        self.network = network

    def phase(self, step: int) -> int:
        """Return 0 while labelled and simulated recordings are learned from alone, then 1."""
        return int(step >= self.settings.self_training_from * self.steps)

    def supervised_inputs(self, batch: Batch, step: int) -> Inputs:
        """Return the recordings whose labels are known."""
        return super().inputs(batch, step)

    def supervised_loss(self, out: TransferOutput, inputs: Inputs, coefficients: Tensor) -> TransferLoss:
        """Compute the loss of the recordings whose labels are known."""
        return super().loss(out, inputs, coefficients, {})

    def inputs(self, batch: Batch, step: int) -> Inputs:
        """Return recordings with known labels, then unlabelled ones with pseudo-labels."""
        known = self.supervised_inputs(batch, step)
        if not self.phase(step):
            return known
        frames, draws = self._draw_unlabelled(batch)
        confidence, pseudo = self._label(time_first(frames))
        augmented = augment(
            self.settings.unlabelled_augmentation, frames, seed=batch.seed, epoch=batch.epoch, draws=draws
        )
        seeds = random_words(batch.seed, "unlabelled dropout", batch.epoch, draws)
        assert known.event is not None
        return replace(
            known,
            event=torch.cat([known.event, time_first(augmented)], 1),
            labels=torch.cat([known.labels, pseudo]),
            dropout_seeds=torch.cat([known.dropout_seeds, seeds.to(pseudo.device)]),
            extra={"accepted": confidence >= self.settings.pseudo_label_threshold},
            mixture=None,
        )

    def _draw_unlabelled(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Draw recordings for every sample of a batch; return stored frames [U,T,P,H,W] and draws int64 [U]."""
        each = self.settings.unlabelled_per_recording
        draws = (batch.draws[:, None] * each + torch.arange(each, device=batch.draws.device)).flatten()
        numbers = uniform(batch.seed, "unlabelled", batch.epoch, draws)
        return self.data.unlabelled_frames((numbers * self.data.unlabelled_recordings).long()), draws

    @torch.no_grad()
    def _label(self, events: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probability [U] and the class int64 [U] of the most likely class of events [T,U,P,H,W]."""
        was_training = self.network.training
        self.network.eval()
        logits = self.network(None, events).event_logits.float().mean(0)  # [U,K]
        self.network.train(was_training)
        return logits.softmax(1).max(1)

    def loss(self, out: TransferOutput, inputs: Inputs, coefficients: Tensor, heads: dict[str, Tensor]) -> TransferLoss:
        """Add the weighted loss of accepted pseudo-labels, a mean over all unlabelled recordings."""
        accepted = inputs.extra.get("accepted")
        if accepted is None:
            known = self.supervised_loss(out, inputs, coefficients)
            pseudo = share = torch.zeros_like(known.total)
        else:
            assert out.event_logits is not None
            T, N, _ = out.event_logits.shape
            first = N - len(accepted)
            known_out = replace(out, event_logits=out.event_logits[:, :first], aligned=None)
            known_inputs = replace(inputs, labels=inputs.labels[:first], mixture=inputs.batch.mixture)
            known = self.supervised_loss(known_out, known_inputs, coefficients)
            logits, labels = out.event_logits[:, first:].flatten(0, 1), inputs.labels[first:].repeat(T)  # [T * U,K]
            pseudo = (cross_entropies(logits, labels).view(T, -1).mean(0) * accepted).mean()
            share = accepted.to(pseudo.dtype).mean()
        return replace(
            known,
            total=known.total + self.settings.unlabelled_weight * pseudo,
            extra={**known.extra, "pseudo": pseudo.detach(), "accepted": share},
        )
