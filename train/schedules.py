"""Learning rate per epoch and replacement probability per step, as pure functions of the counters."""

from __future__ import annotations

import math
from collections.abc import Sequence


def learning_rate(
    epoch: int,
    epochs: int,
    *,
    lr: float,
    schedule: str = "cosine",
    warmup_epochs: int = 0,
    warmup_lr: float = 1e-6,
    lr_min: float = 1e-5,
    milestones: Sequence[int] = (),
    lr_decay: float = 0.1,
) -> float:
    """Return the learning rate of one epoch.

    Warm-up rises linearly from `warmup_lr` at epoch 0 and would reach `lr` at epoch `warmup_epochs`. What follows
    counts epochs from the start of the run, not from the end of the warm-up.

    Args:
        epoch: 0-based.
        epochs: length of the run; where the cosine would reach its floor.
        lr: peak rate, as the optimiser gets it.
        schedule: `cosine` (from `lr` to `lr_min`), `step` (times `lr_decay` at each milestone) or `constant`.
        warmup_epochs: 0 switches the warm-up off.
        warmup_lr: rate of epoch 0 when there is a warm-up.
        lr_min: floor of the cosine.
        milestones: 0-based epochs from which a further `lr_decay` holds.
        lr_decay: factor per milestone.

    Raises:
        ValueError: epoch outside 0..epochs-1, or an unknown schedule.

    Source: He et al., AAAI 2024, published recipes (timm's cosine and step schedulers, `warmup_prefix` off).
    """
    if not 0 <= epoch < epochs:
        raise ValueError(f"epoch {epoch} is outside 0..{epochs - 1}")
    if epoch < warmup_epochs:
        return warmup_lr + epoch * (lr - warmup_lr) / warmup_epochs
    if schedule == "cosine":
        return lr_min + 0.5 * (lr - lr_min) * (1 + math.cos(math.pi * epoch / epochs))
    if schedule == "step":
        return lr * lr_decay ** sum(epoch >= milestone for milestone in milestones)
    if schedule == "constant":
        return lr
    raise ValueError(f"unknown schedule {schedule!r}: expected cosine, step or constant")


def replacement_probability(
    step: int, steps: int, *, sliding: str = "power", power: float = 3.0, switch: float = 0.5
) -> float:
    """Return the probability with which a static sequence gives way to the event sequence of its sample.

    Args:
        step: 0-based, over the whole run.
        steps: steps of the whole run, epochs * ceil(samples / batch).
        sliding: with r = step / steps, `power`: r ** power; `linear`: r; `cosine`: (1 - cos(pi r)) / 2; `step`: 0,
            and 1 from r = `switch` on; `off`: 0 throughout.
        power: exponent, above 0; the published one is 3.
        switch: share of the run, 0 to 1; `step` only.

    Returns:
        A number in [0, 1]; 0 at step 0 (but for `step` with a switch of 0), never decreasing.

    Raises:
        ValueError: steps below 1, a negative step, or an unknown kind.

    Source: He et al., AAAI 2024, sliding training; what its code calls "without sliding" is `step` at .5.
    Differs: that code counts epochs for it, from the one after the middle on.
    """
    if steps < 1 or step < 0:
        raise ValueError(f"step {step} of {steps}: expected a step from 0 on and at least one step in all")
    share = min(1.0, step / steps)
    if sliding == "off":
        return 0.0
    if sliding == "power":
        return share**power
    if sliding == "linear":
        return share
    if sliding == "cosine":
        return (1 - math.cos(math.pi * share)) / 2
    if sliding == "step":
        return float(share >= switch)
    raise ValueError(f"unknown sliding {sliding!r}: expected power, linear, cosine, step or off")


def event_share(probability: float, time_steps: int) -> float:
    """Return the expected share of event frames where, with a probability per step, events begin and stay.

    Args:
        probability: p in [0, 1] that a step is the first event frame if none was before.
        time_steps: T.

    Source: time-step mixup (TMKT, arXiv 2509.12959): r = 1 - (1 - p) (1 - (1 - p)^T) / (p T).
    """
    stay, remaining = 1 - probability, 0.0
    for _ in range(time_steps):  # (1-p) + (1-p)^2 + ... is the expected number of static frames, exact near p = 0 too
        remaining = stay * (1 + remaining)
    return 1 - remaining / time_steps


def switch_probability(share: float, time_steps: int) -> float:
    """Return the p whose `event_share` is `share`, by bisection to the last bit; 0 for 0 and 1 for 1.

    Raises:
        ValueError: a share outside [0, 1], or no time step.
    """
    if not 0 <= share <= 1 or time_steps < 1:
        raise ValueError(f"share {share} of {time_steps} time steps: expected 0 to 1 and at least one step")
    low, high = 0.0, 1.0
    if share in (low, high):
        return share
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if event_share(middle, time_steps) < share else (low, middle)
    return high


def pretraining_steps(steps: int, share: float) -> int:
    """Return the steps before the fine-tuning: `share` of all, rounded; from two steps on there is one of either."""
    return min(max(round(share * steps), 1), max(steps - 1, 1))


def scheduled_coefficient(epoch: int, epochs: int, *, start: float, end: float) -> float:
    """Return the coefficient of one epoch, linear from `start` in the first to `end` in the last.

    Args:
        epoch: 0-based.
        epochs: length of the run; a run of one epoch has `start`.
        start: any number; its sigmoid is the weight.
        end: the same.
    """
    return start + (end - start) * (epoch / (epochs - 1) if epochs > 1 else 0.0)
