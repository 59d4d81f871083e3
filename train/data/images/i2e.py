"""Static images as event frames without a camera: differences of neighbouring pixels, a direction per time step.

Axes: T time, B batch, C channels, P polarity (OFF before ON), H, W.

The value of a pixel is its largest channel. A step compares two pixels of the 3x3 neighbourhood that lie its own
displacement apart: ON where the second is brighter, OFF where the first is, an event where they differ by at least a
share of the image's range. Frames hold 0 and 1. Each use of an image draws anew, step by step, which of the pairs with
this displacement is compared: 2 to 6 lie within the neighbourhood.

Source: I2E (AAAI 2026), the authors' published code.

Differs: pairs are drawn for each image, not for a batch. The directions begin anew after eight time steps, of which the
authors have no more. An image of one grey value has no events, where the authors' comparison gives all of them.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from spikebridge.train.data.draws import Epoch, uniforms

DISPLACEMENTS = ((-1, -2), (-1, 2), (2, -1), (-2, -1), (0, 1), (-1, 0), (-1, 1), (-1, -1))
"""From the first pixel to the second (down, right), in the order of the steps."""
FIRST_PIXELS = ((2, 2), (1, 0), (0, 2), (2, 1), (1, 1), (1, 1), (1, 1), (1, 1))
"""Row and column in the neighbourhood of each step's first pixel, where no pair is drawn."""
SIDE = 3


def pairs_of(step: int) -> list[tuple[int, int]]:
    """Return the pairs of a step as numbers of neighbours, row by row from 0 to 8; the one that is usual first."""
    down, right = DISPLACEMENTS[step % len(DISPLACEMENTS)]
    first = FIRST_PIXELS[step % len(DISPLACEMENTS)]
    cells = [(row, column) for row in range(SIDE) for column in range(SIDE)]
    inside = [(row, column) for row, column in cells if (row + down, column + right) in cells]
    inside.sort(key=lambda cell: cell != first)
    return [(SIDE * row + column, SIDE * (row + down) + column + right) for row, column in inside]


@torch.no_grad()
def difference_frames(images: Tensor, firsts: Tensor, seconds: Tensor, *, ratio: float) -> Tensor:
    """Render images by given pairs of neighbours.

    Args:
        images: [B,C,H,W].
        firsts: int64 [T,B], see `pairs_of`.
        seconds: the same.
        ratio: least difference of an event, relative to the image's range.

    Returns:
        float32 [T,B,2,H,W] of 0 and 1.
    """
    value = images.float().amax(1)  # [B,H,W]
    B, H, W = value.shape
    padded = F.pad(value[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    moved = [padded[:, row : row + H, column : column + W] for row in range(SIDE) for column in range(SIDE)]
    neighbours = torch.stack(moved)  # [9,B,H,W]
    samples = torch.arange(B, device=value.device)
    difference = neighbours[seconds, samples] - neighbours[firsts, samples]  # [T,B,H,W]
    least = ratio * (value.amax((1, 2)) - value.amin((1, 2)))[:, None, None]  # [B,1,1]
    event = difference.abs() >= least
    return torch.stack([event & (difference < 0), event & (difference > 0)], 2).float()


class I2ESimulator:
    """Recordings that I2E makes of static images, for one run.

    Args:
        time_bins: T.
        ratio: least difference of an event, relative to the image's range.
        seed: root seed of the run.
    """

    def __init__(self, time_bins: int, *, ratio: float, seed: int) -> None:
        self.time_bins, self.ratio, self.seed = time_bins, ratio, seed

    def frames(self, images: Tensor, *, epoch: Epoch, draws: Tensor) -> Tensor:
        """Render event frames float32 [T,B,2,H,W] of images [B,C,H,W], pure in (seed, epoch, draws [B])."""
        counts, pairs = self._tables(images.device)
        numbers = uniforms(self.seed, "i2e", epoch, draws, self.time_bins).to(images.device).T  # [T,B]
        chosen = (numbers * counts[:, None]).long()
        steps = torch.arange(self.time_bins, device=images.device)[:, None]
        firsts, seconds = pairs[steps, chosen].unbind(-1)  # [T,B]
        return difference_frames(images, firsts, seconds, ratio=self.ratio)

    @cache  # noqa: B019  (a run has one; a copy from the host in each step would end a CUDA graph)
    def _tables(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the number of pairs [T] and the pairs [T,most,2] of each step, on a device."""
        pairs = [pairs_of(step) for step in range(self.time_bins)]
        most = max(map(len, pairs))
        filled = [(own + own[:1] * most)[:most] for own in pairs]
        return torch.tensor([len(own) for own in pairs], device=device), torch.tensor(filled, device=device)
