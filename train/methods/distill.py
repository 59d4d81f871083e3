"""Knowledge transfer with a teacher: an ANN trained on the static images, used in the first part of the run.

Or with a frozen network of somebody else's, `teacher` in the recipe: it is asked about every static image of the pool
once, before the run, which keeps its predictions.

Our own teacher has the layers of the network with neurons that do not spike, sees one frame, and is trained before the
run on the static pool alone (so under protocol `strict` it has seen no static image of a held-out recording), whose
images are shifted as event frames are by augmentation `crop`.

Until `distill_until` of the run, the loss holds the network's static and event predictions against the teacher's
softened ones for the static image of a draw.

Axes: T time, B batch, n images, P polarity, H, W, K classes.

Source: the idea is that of CKD (ICME 2025); its settings are not known, these are this project's.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from spikebridge.models import TransferNetwork, TransferOutput, backends
from spikebridge.train.data.augmentation import augment
from spikebridge.train.data.batches import Batch, TrainingBatches
from spikebridge.train.data.draws import pool_rows, random_words
from spikebridge.train.data.order import derived_seed
from spikebridge.train.errors import NetworkError
from spikebridge.train.losses import TransferLoss, distillation_loss
from spikebridge.train.methods import Inputs, method
from spikebridge.train.methods.kt import KnowledgeTransfer
from spikebridge.train.networks.adamw import AdamW
from spikebridge.train.networks.build import make_network
from spikebridge.train.networks.teacher import fit_probe, open_teacher
from spikebridge.train.runs.checkpoints import copy_weights

BATCH = 64
LEARNING_RATE = 1e-3

log = logging.getLogger(__name__)


@method
class Distill(KnowledgeTransfer):
    """`kt` plus the distance from the teacher's predictions."""

    terms = ("distillation",)
    capturable = True

    def attach(self, network: TransferNetwork, data: TrainingBatches) -> None:
        """Build the teacher, if it is our own; what it knows comes with `restore`."""
        self.classes = network.settings.num_classes
        if self.settings.teacher:
            return
        layers = {**network.config, "neuron": "ReLU", "time_steps": 1, "statistics": "per_step", "feature": "published"}
        self.teacher = make_network(layers, seed=derived_seed(self.settings.seed, "teacher")).requires_grad_(False)

    def prepare(self, data: TrainingBatches, device: torch.device, on_batch: Callable[[], None]) -> dict[str, Tensor]:
        """Return the weights of a teacher trained on the static pool of `data`, or another one's predictions.

        Raises:
            NetworkError, RunError: see `networks.teacher`.
        """
        if self.settings.teacher:
            return {"predictions": self._ask(data, device, on_batch)}
        teacher = self.teacher.to(device).requires_grad_(True)
        with backends.use("auto"):
            right = train_teacher(
                teacher, data, steps=self.settings.teacher_steps, seed=self.settings.seed, on_batch=on_batch
            )
        log.info("teacher: %d images, %.1f %% of the last ones right", data.pool_images, 100 * right)
        return copy_weights(teacher)

    def restore(self, prepared: Mapping[str, Tensor], device: torch.device) -> None:
        """Load the teacher's weights and freeze it, or take its predictions."""
        if self.settings.teacher:
            self.predictions = prepared["predictions"].to(device)  # [n,K]
            return
        self.teacher.load_state_dict(dict(prepared))
        self.teacher.to(device).requires_grad_(False).eval()

    def _ask(self, data: TrainingBatches, device: torch.device, on_batch: Callable[[], None]) -> Tensor:
        """Return the predictions of the network that the recipe names for the static pool, logits float32 [n,K]."""
        settings = self.settings
        teacher = open_teacher(settings.teacher, output=settings.teacher_output, trust=self.trust, device=device)
        mean, std = (torch.tensor(values) for values in (settings.teacher_mean, settings.teacher_std))
        outputs = teacher.outputs(data, mean=mean, std=std, device=device, on_batch=on_batch)
        labels = data.image_classes(torch.arange(len(outputs))).cpu()
        if settings.teacher_output == "features":
            outputs = fit_probe(outputs, labels, self.classes)
        elif outputs.shape[1] != self.classes:
            raise NetworkError(
                f"teacher {teacher.file}: gives {outputs.shape[1]} numbers, the shard set has {self.classes} classes; "
                'with teacher_output = "features" a linear probe makes predictions of them'
            )
        right = (outputs.argmax(1) == labels).double().mean()
        log.info("teacher: %s, %.1f %% of %d static images right", teacher.file, 100 * right, len(outputs))
        return outputs

    def teaches(self, step: int) -> bool:
        """Return whether the loss of a step contains the teacher."""
        return step < self.settings.distill_until * self.steps

    def phase(self, step: int) -> int:
        """Return 0 while the teacher teaches, then 1."""
        return int(not self.teaches(step))

    def inputs(self, batch: Batch, step: int) -> Inputs:
        """Return those of `kt`, and while it teaches the teacher's logits [B,K] for the images."""
        plain = super().inputs(batch, step)
        if not self.teaches(step):
            return plain
        if self.settings.teacher:
            assert batch.image_rows is not None
            return dataclasses.replace(plain, extra={"teacher": self.predictions[batch.image_rows]})
        assert batch.images is not None
        with torch.no_grad(), backends.use("auto"):  # the one asked for may know spiking neurons only
            targets = self.teacher(batch.images[None], None).static_logits  # [1,B,K]
        return dataclasses.replace(plain, extra={"teacher": targets[0]})

    def loss(self, out: TransferOutput, inputs: Inputs, coefficients: Tensor, heads: dict[str, Tensor]) -> TransferLoss:
        """Add the distance from the teacher to the loss of `kt`, while it teaches."""
        plain, settings = super().loss(out, inputs, coefficients, heads), self.settings
        if "teacher" not in inputs.extra:
            return dataclasses.replace(plain, extra={"distillation": torch.zeros_like(plain.total)})
        logits = {"static": out.static_logits, "event": out.event_logits}
        streams = list(logits) if settings.distill_on == "both" else [settings.distill_on]
        targets, temperature = inputs.extra["teacher"], settings.distill_temperature
        parts = [
            distillation_loss(student, targets, temperature=temperature)
            for name in streams
            if (student := logits[name]) is not None
        ]
        distance = torch.stack(parts).mean()
        return dataclasses.replace(
            plain, total=plain.total + settings.distill_weight * distance, extra={"distillation": distance}
        )


def train_teacher(
    teacher: TransferNetwork, data: TrainingBatches, *, steps: int, seed: int, on_batch: Callable[[], None]
) -> float:
    """Train an ANN of one time step on static images; a function of weights, images and seed.

    Args:
        teacher: on the device of `data`; its static stream is trained.
        data: with a static pool.
        steps: of 64 images each, drawn uniformly, AdamW with a cosine from 1e-3 to 0.
        seed: root seed of the run.
        on_batch: called after every step.

    Returns:
        Share of images classified correctly before their update, over the last tenth of the steps.
    """
    optimizer = AdamW([p for p in teacher.parameters() if p.requires_grad], lr=LEARNING_RATE)
    teacher.train()
    right: list[Tensor] = []
    root, draws = derived_seed(seed, "teacher"), torch.arange(BATCH)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 + math.cos(math.pi * step / steps)) / 2
        rows = pool_rows(data.pool_images, seed=root, epoch=step, draws=draws)
        images = data.images(rows)  # [B,P,H,W]
        images = augment("crop", images[:, None], seed=root, epoch=step, draws=draws)[:, 0]
        target = data.image_classes(rows).to(images.device)
        seeds = random_words(seed, "teacher_dropout", step, draws).to(images.device)
        logits = teacher(images[None], None, dropout_seeds=seeds).static_logits[0]
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(logits, target).backward()
        optimizer.step()
        if step >= steps - max(1, steps // 10):
            right.append((logits.detach().argmax(1) == target).double().mean())
        on_batch()
    return float(torch.stack(right).mean())
