"""BatchNorm step by step: the statistics of every (stream, time step) in one call.

Axes: B batch, S streams, T time, C channels, H, W. `streams` says which the S are: 0 static, 1 event.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikebridge.models.errors import InputShapeError, ModelError
from spikebridge.models.synchronized import Partners, SynchronizedNorm

STATISTICS = ("per_step", "pooled", "domain")
STREAMS = 2
STATIC, EVENT = range(STREAMS)


class StepNorm(nn.Module):
    """BatchNorm2d over sequences of two streams.

    Running statistics (momentum 0.1, unbiased variance) move once per step for the static stream in order, then
    once per step for the event stream, in closed form.

    Set `partners`, and the statistics in training are those of the batches of several processes.

    Args:
        channels: C.
        statistics: "per_step" (published): statistics over (B,H,W) of one time step. "pooled": over (T,B,H,W) of one
            stream, which moves once per stream. "domain": per step, with running statistics [2,C], a row per stream.
    """

    eps = 1e-5
    momentum = 0.1

    def __init__(self, channels: int, *, statistics: str = "per_step") -> None:
        super().__init__()
        if statistics not in STATISTICS:
            raise ModelError(f"statistics is {statistics!r}; expected one of {', '.join(STATISTICS)}.")
        self.statistics = statistics
        self.divert: Callable[[Tensor, Tensor], None] | None = None
        """Where set, takes the statistics of each batch ([S,T,C] or [S,1,C]) in place of the running ones."""
        self.partners: Partners | None = None
        shape = (STREAMS, channels) if statistics == "domain" else (channels,)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.num_batches_tracked: Tensor
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("running_var", torch.ones(shape))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor, streams: Sequence[int]) -> Tensor:
        """Normalise x [B,S,T,C,H,W]; moves the running statistics in training mode.

        Half-precision frames are normalised in the type of the weights, and come back in it.

        Raises:
            InputShapeError: training with one value per channel, which has no variance.
        """
        if x.dtype in (torch.float16, torch.bfloat16):
            x = x.to(self.weight.dtype)
        if not self.training:
            mean, variance = self.running(streams)
            scale = self.weight * (variance + self.eps).rsqrt()  # [S,C]
            shift = self.bias - mean * scale
            return x * scale[:, None, :, None, None] + shift[:, None, :, None, None]
        if self.partners is None:
            self.check_count(x)
        B, S, T, C, H, W = x.shape
        if self.statistics == "pooled":
            y, mean, variance = self._normalize(x.transpose(1, 2).reshape(B * T, S * C, H, W))
            y = y.view(B, T, S, C, H, W).transpose(1, 2)  # [B,S,T,C,H,W]
        else:
            y, mean, variance = self._normalize(x.reshape(B, S * T * C, H, W))
            y = y.view(B, S, T, C, H, W)
        self.update_running(mean.view(S, -1, C), variance.view(S, -1, C), streams)
        return y

    def _normalize(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Call batch_norm once on [N,G*C,H,W]; at momentum 1 its running statistics are those of this batch."""
        groups = x.shape[1] // len(self.weight)
        if self.partners is not None:
            weight, bias = self.weight.repeat(groups), self.bias.repeat(groups)
            y, mean, variance = SynchronizedNorm.apply(x.flatten(2), weight, bias, self.partners, self.eps)
            return y.view(x.shape), mean, variance
        mean, variance = self.weight.new_zeros(x.shape[1]), self.weight.new_ones(x.shape[1])
        y = F.batch_norm(
            x, mean, variance, self.weight.repeat(groups), self.bias.repeat(groups), True, momentum=1.0, eps=self.eps
        )
        return y, mean, variance

    def check_count(self, x: Tensor) -> None:
        """Refuse a batch that has no variance: one value per channel (and time step, unless pooled)."""
        B, _, T, _, H, W = x.shape
        if B * H * W * (T if self.statistics == "pooled" else 1) < 2:
            raise InputShapeError(
                f"BatchNorm found one value per channel in {tuple(x.shape)} [B,S,T,C,H,W]; training needs two or more. "
                "Use a larger batch or a larger input."
            )

    def running(self, streams: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return running mean and variance of these streams, [S,C] each."""
        if self.statistics == "domain":
            return self.running_mean[list(streams)], self.running_var[list(streams)]
        shape = (len(streams), -1)
        return self.running_mean.expand(shape), self.running_var.expand(shape)

    @torch.no_grad()
    def update_running(self, mean: Tensor, variance: Tensor, streams: Sequence[int]) -> None:
        """Move the running statistics by the batch's, as if one step after the other had.

        Args:
            mean: [S,T,C], or [S,1,C] where pooled.
            variance: the same, unbiased.
            streams: which the S are.
        """
        if self.divert is not None:
            self.divert(mean, variance)
            return
        if self.statistics == "domain":
            for row, stream in enumerate(streams):
                self._advance(self.running_mean[stream], mean[row])
                self._advance(self.running_var[stream], variance[row])
        else:
            self._advance(self.running_mean, mean.flatten(0, 1))
            self._advance(self.running_var, variance.flatten(0, 1))
        self.num_batches_tracked += mean.shape[0] * mean.shape[1]

    def _advance(self, running: Tensor, values: Tensor) -> None:
        """Move in place: running [C] <- (1-m)^n running + sum_k m (1-m)^(n-1-k) values[k], values [n,C]."""
        n = len(values)
        left = torch.arange(n - 1, -1, -1, device=values.device, dtype=running.dtype)
        weights = self.momentum * (1 - self.momentum) ** left
        with torch.autocast(values.device.type, enabled=False):  # it would multiply in 16 bits
            running.mul_((1 - self.momentum) ** n).add_(weights @ values.to(running.dtype))

    def extra_repr(self) -> str:
        """Return channels and statistics, for `print(net)`."""
        return f"{len(self.weight)}, statistics={self.statistics}"
