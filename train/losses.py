"""The transfer loss: classification of both streams and their alignment, all time steps at once.

Axes: T time, B batch, K classes, F features. Everything here is a pure function of tensors.

Source: He et al., "An Efficient Knowledge Transfer Strategy for Spiking Neural Networks from Static to Event
Domain", AAAI 2024. TET: Deng et al., "Temporal Efficient Training of Spiking Neural Network", ICLR 2022.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from spikebridge.models.output import TransferOutput

TET_LAMBDA = 1e-3  # share of the pull of every logit towards TET_TARGET
TET_TARGET = 0.5
CKA_EPS = 1e-7
SMALLEST_BATCH = {"biased": 3, "debiased": 4}
"""CKA estimators, and the batch below which each is constant or undefined."""
GRAM_PARTS = 8
"""Parts that a sum over all features is split in on a GPU, if their number can be divided by it."""
FUSED_ON = {"cuda"}
"""Kinds of device that compute the loss in fewer, larger operations; elsewhere runs keep their last bits."""


@dataclass(frozen=True)
class Mixture:
    """The second classes of samples whose labels are pairs, see `train.data.mixing`."""

    labels: Tensor
    """int64 [B], of what was mixed in."""
    shares: Tensor
    """float64 [B] in [0, 1], weight of the first class; the second has the rest."""


@dataclass(frozen=True)
class TransferLoss:
    """The loss and its parts; the parts are unweighted 0-d tensors."""

    total: Tensor
    """static + event + domain_coefficient * domain."""
    static: Tensor
    """Classification loss of the static stream; 0 without one."""
    event: Tensor
    """Classification loss of the event stream; 0 without one."""
    domain: Tensor
    """Alignment loss; 0 where alignment was skipped."""
    cka: Tensor
    """[T], detached; zeros where alignment was skipped."""
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """Further terms of a method by name, unweighted 0-d tensors; part of the total with weights of the method's own."""


class _Grams(torch.autograd.Function):
    """x_n x_n^T [N,B,B] of x [B,N,F] in one product; its gradient is another, not the two that autograd makes of one.

    Both read and write x where it lies. A product of few rows and a long sum leaves most of a GPU idle, so the sum is
    split in parts.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        B, N, F = x.shape
        parts = math.gcd(F, GRAM_PARTS)
        split = x.view(B, N * parts, F // parts).transpose(0, 1)
        return (split @ split.mT).view(N, parts, B, B).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        found = torch.empty_like(x)
        torch.bmm(grad + grad.mT, x.transpose(0, 1), out=found.transpose(0, 1))
        return found


def _centred(gram: Tensor) -> Tensor:
    """Centre the rows and columns of Gram matrices [T,B,B]."""
    return gram - gram.mean(-1, keepdim=True) - gram.mean(-2, keepdim=True) + gram.mean((-2, -1), keepdim=True)


def _u_centred(gram: Tensor) -> Tensor:
    """Centre Gram matrices [T,B,B] without their diagonals, which become 0; B of at least 4."""
    n = gram.shape[-1]
    diagonal = torch.eye(n, dtype=torch.bool, device=gram.device)
    gram = gram.masked_fill(diagonal, 0)
    rows, columns = gram.sum(-1, keepdim=True), gram.sum(-2, keepdim=True)
    centred = gram - (rows + columns) / (n - 2) + rows.sum(-2, keepdim=True) / ((n - 1) * (n - 2))
    return centred.masked_fill(diagonal, 0)


def linear_cka(x: Tensor, y: Tensor, *, estimator: str = "biased") -> Tensor:
    """Compute the linear centred kernel alignment of two sets of features at every time step.

    Half-precision features are compared in float32. Features without variance give 0, with gradient 0.

    Args:
        x: [T,B,F].
        y: [T,B,F'].
        estimator: "biased" (published; near 1 for any two wide sets, whatever they hold) or "debiased" (near 0 for
            independent ones, and then of either sign).

    Returns:
        [T].

    Raises:
        ValueError: unknown estimator, or fewer samples than it needs.

    Source: Kornblith et al., ICML 2019; debiased: the unbiased HSIC of Song et al., JMLR 2012, in its U-centred form.
    """
    if estimator not in SMALLEST_BATCH:
        raise ValueError(f"cka is {estimator!r}; expected one of {', '.join(SMALLEST_BATCH)}.")
    if x.shape[1] < SMALLEST_BATCH[estimator]:
        raise ValueError(f"{estimator} CKA of {x.shape[1]} samples; it needs {SMALLEST_BATCH[estimator]}.")
    if x.dtype in (torch.float16, torch.bfloat16):
        x, y = x.float(), y.float()
    centre = _centred if estimator == "biased" else _u_centred
    with torch.autocast(x.device.type, enabled=False):
        return _alignment(centre(x @ x.mT), centre(y @ y.mT))  # of [T,B,B]


def _cka_of_streams(aligned: Tensor, *, estimator: str) -> Tensor:
    """Compute `linear_cka` of both streams' features [B,2,T,F] or [B,2,T,C,H,W], whose order does not matter."""
    B, S, T = aligned.shape[:3]
    if aligned.dtype in (torch.float16, torch.bfloat16):
        aligned = aligned.float()
    if aligned.ndim == 6:
        aligned = aligned.permute(0, 1, 2, 4, 5, 3)  # as it lies in memory
    centre = _centred if estimator == "biased" else _u_centred
    with torch.autocast(aligned.device.type, enabled=False):
        grams: Tensor = _Grams.apply(aligned.reshape(B, S * T, -1))
        return _alignment(*centre(grams).view(S, T, B, B).unbind())


def _alignment(k: Tensor, m: Tensor) -> Tensor:
    """Alignment [T] of centred Gram matrices [T,B,B]."""
    # vector_norm has gradient 0 at 0, where a written-out square root has none
    norms = torch.linalg.vector_norm(k, dim=(-2, -1)) * torch.linalg.vector_norm(m, dim=(-2, -1))
    return (k * m).sum((-2, -1)) / (norms + CKA_EPS)


def distillation_loss(logits: Tensor, targets: Tensor, *, temperature: float) -> Tensor:
    """Compute the distance of a student's time-averaged predictions from a teacher's, 0-d, at least 0.

    Args:
        logits: of the student [T,B,K].
        targets: logits of the teacher [B,K]; no gradient flows into them.
        temperature: both are divided by it; the loss is multiplied by its square, so that gradients keep their size.

    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015.
    """
    student = F.log_softmax(logits.mean(0) / temperature, dim=1)  # [B,K]
    teacher = F.log_softmax(targets.detach() / temperature, dim=1)
    return temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def cross_entropies(logits: Tensor, labels: Tensor, mixture: Mixture | None = None) -> Tensor:
    """Compute the cross entropy of every sample [B] from logits [B,K]; a pair of classes weighs by shares."""
    own = F.cross_entropy(logits, labels, reduction="none")
    if mixture is None:
        return own
    shares = mixture.shares.to(own.dtype)
    return shares * own + (1 - shares) * F.cross_entropy(logits, mixture.labels, reduction="none")


def classification_loss(
    logits: Tensor, labels: Tensor, *, tet: bool, weights: Tensor | None = None, mixture: Mixture | None = None
) -> Tensor:
    """Compute the loss of one stream, 0-d.

    Args:
        logits: [T,B,K].
        labels: [B] int64.
        tet: temporal efficient training: cross entropy at every step plus a slight pull of all logits to 0.5. If not
            set, the cross entropy of the time-averaged logits.
        weights: [T], of the steps' terms; None for 1. Only TET has terms of steps.
        mixture: second classes of the samples; None where every sample has one class.
    """
    if not tet:
        averaged = logits.mean(0)
        return (
            F.cross_entropy(averaged, labels) if mixture is None else cross_entropies(averaged, labels, mixture).mean()
        )
    terms = _tet_terms(logits, labels, mixture)
    return (terms if weights is None else weights * terms).mean()


def _tet_terms(logits: Tensor, labels: Tensor, mixture: Mixture | None = None) -> Tensor:
    """Compute the TET loss of every step, [T]; arguments as in `classification_loss`."""
    T, B, _ = logits.shape
    repeated = None if mixture is None else Mixture(mixture.labels.repeat(T), mixture.shares.repeat(T))
    crossed = cross_entropies(logits.flatten(0, 1), labels.repeat(T), repeated).view(T, B).mean(1)  # [T]
    pulled = (logits - TET_TARGET).square().mean((1, 2))  # [T]
    return (1 - TET_LAMBDA) * crossed + TET_LAMBDA * pulled


def step_weights(coefficients: Tensor, *, mode: str = "published") -> tuple[Tensor, Tensor]:
    """Compute the weights [T] of the alignment and of the event stream's TET terms, from the coefficients [T].

    With s = sigmoid(coefficients):

    - `published`: s and 1 - s. The training can lower its loss by raising s, and with s near 1 it no longer classifies
      events; with s near 0 it no longer aligns.
    - `bounded`: (1 + s) / 2 and 1 - s / 2, so that either keeps at least half of its weight.
    - `normalized`: T s / sum(s) and T (1 - s) / sum(1 - s), both with mean 1: coefficients move weight between steps
      and never take any from a term as a whole.

    Raises:
        ValueError: unknown mode.

    Source: `published` is He et al., AAAI 2024; the others are this project's.
    """
    share = coefficients.sigmoid()
    if mode == "published":
        return share, 1 - share
    if mode == "bounded":
        return (1 + share) / 2, 1 - share / 2
    if mode == "normalized":
        # from logarithms: neither a sum of tiny shares nor 1 - s loses its digits
        ups, downs = F.logsigmoid(coefficients), F.logsigmoid(-coefficients)
        return ups.softmax(0) * len(ups), downs.softmax(0) * len(downs)
    raise ValueError(f"step_weights is {mode!r}; expected published, bounded or normalized.")


def domain_loss(cka: Tensor, *, weights: Tensor | None = None, estimator: str = "biased") -> Tensor:
    """Compute the mean distance of the streams over time, 0-d, from cka [T] and weights [T] (None for 1).

    Differs: the published `1 - |CKA|` is kept for the biased estimator, which is never negative. The debiased one is:
    there the distance is 1 - CKA, because the absolute value would push dissimilar features further apart.
    """
    distance = 1 - (cka.abs() if estimator == "biased" else cka)
    return (distance if weights is None else weights * distance).mean()


def _given(features: Tensor | None) -> Tensor:
    assert features is not None
    return features


def transfer_loss(
    out: TransferOutput,
    labels: Tensor,
    coefficients: Tensor,
    *,
    domain_coefficient: float = 0.5,
    tet: bool = True,
    regularization: bool = True,
    weights: str = "published",
    cka: str = "biased",
    smallest_aligned_batch: int = 0,
    mixture: Mixture | None = None,
) -> TransferLoss:
    """Compute the loss of one batch, with its parts.

    Regularisation weights the alignment and the event stream's TET terms step by step, see `step_weights`. With one
    stream alone the total is its classification loss with weights 1.

    Alignment is skipped, with domain 0 and cka zeros, without a second stream and for a batch too small: below 3
    samples (biased; the value is constant there), 4 (debiased; undefined below), or `smallest_aligned_batch`.

    Args:
        out: logits [T,B,K] and features [T,B,F] of both streams; None for a stream that is absent.
        labels: [B] int64, the same for both streams.
        coefficients: [T], the network's learnable scalars.
        domain_coefficient: weight of the alignment; at 0 it is computed for the record alone.
        tet: per-step classification loss, see `classification_loss`.
        regularization: whether `coefficients` weight the steps.
        weights: how they do, see `step_weights`.
        cka: "biased" (published) or "debiased".
        smallest_aligned_batch: skip alignment below this many samples, where that is more than the above.
        mixture: second classes of the samples; with one stream alone.

    Raises:
        ValueError: no stream at all, an unknown estimator, or a mixture with two streams.
    """
    if cka not in SMALLEST_BATCH:
        raise ValueError(f"cka is {cka!r}; expected one of {', '.join(SMALLEST_BATCH)}.")
    zero = coefficients.new_zeros(())
    skipped = coefficients.new_zeros(coefficients.shape)
    if out.static_logits is None or out.event_logits is None:
        logits = out.event_logits if out.static_logits is None else out.static_logits
        if logits is None:
            raise ValueError("Both streams are None; the loss needs one at least.")
        alone = classification_loss(logits, labels, tet=tet, mixture=mixture)
        static, event = (zero, alone) if out.static_logits is None else (alone, zero)
        return TransferLoss(total=alone, static=static, event=event, domain=zero, cka=skipped)

    if mixture is not None:
        raise ValueError("Mixed samples with two streams: a sample of two classes has no static partner to align.")
    fused = out.static_logits.device.type in FUSED_ON
    aligning, classifying = step_weights(coefficients, mode=weights) if regularization else (None, None)  # [T]
    if tet and fused:
        terms = _tet_terms(torch.cat([out.static_logits, out.event_logits]), labels).chunk(2)  # two of [T]
        static, event = terms[0].mean(), (terms[1] if classifying is None else classifying * terms[1]).mean()
    else:
        static = classification_loss(out.static_logits, labels, tet=tet)
        event = classification_loss(out.event_logits, labels, tet=tet, weights=classifying)
    # Features may come from more samples than the labels: those of all processes.
    samples = len(_given(out.aligned)) if fused else _given(out.event_features).shape[1]
    if samples < max(SMALLEST_BATCH[cka], smallest_aligned_batch):
        return TransferLoss(total=static + event, static=static, event=event, domain=zero, cka=skipped)

    with torch.set_grad_enabled(torch.is_grad_enabled() and domain_coefficient != 0):
        if fused:
            aligned = _cka_of_streams(_given(out.aligned), estimator=cka)  # [T]
        else:
            aligned = linear_cka(_given(out.static_features), _given(out.event_features), estimator=cka)
        domain = domain_loss(aligned, weights=aligning, estimator=cka)
    return TransferLoss(
        total=static + event + domain_coefficient * domain,
        static=static,
        event=event,
        domain=domain,
        cka=aligned.detach(),
    )
