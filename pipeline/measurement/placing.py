"""Static images as they lie on a sensor: where the camera saw them, as coarse as its frames or finer.

Axes: S side of what they are placed on, F pixels per pixel of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.fitting import shown_px
from spikebridge.pipeline.images.decode import to_static

DETAILED = 1.25
"""Pixels of an image per pixel of what it is placed on and axis from which on it has details that one does not."""
SAMPLE = 20
"""Images whose size tells that of all."""


@dataclass(frozen=True)
class Placing:
    """How static images lie on the sensor, aspect kept, and on a square of pixels, into which both are squashed."""

    size: int
    """S."""
    sensor: tuple[int, int]
    """(W, H) in pixels."""
    shown_fraction: float = 1.0
    """Share of the sensor that an image fills."""
    finer: int = 1
    """F. Pixels that stand for many of a sensor see what an image as coarse does not hold: strokes narrower than they
    are, one after the other."""

    @property
    def side(self) -> int:
        """Return the side of a placed image."""
        return self.size * self.finer

    def for_images(self, shapes: Iterable[tuple[int, ...]], finest: int) -> Placing:
        """Return this placing, `finest` times as fine if images of such shapes [H,W,...] have details for that.

        Most of them do, or images would be interpolated for nothing.
        """
        details = []
        for height, width, *_ in shapes:
            shown = shown_px(width / height, self.sensor, self.shown_fraction)
            placed = [pixels * self.size / side for pixels, side in zip(shown, self.sensor, strict=True)]
            details.append(np.sqrt(width * height / (placed[0] * placed[1])))
        return replace(self, finer=finest if np.median(details) > DETAILED else 1)

    def place(self, rgb: NDArray[np.uint8], encoding: str) -> NDArray[np.uint8]:
        """Return an image [H,W,3] as the sensor sees it, [C,FS,FS]; for `encoding` see `images.colour.encode`."""
        times = -(-self.side // max(self.sensor)) if self.finer > 1 else 1
        canvas = self.sensor[0] * times, self.sensor[1] * times
        return to_static(rgb, size=self.side, encoding=encoding, canvas=canvas, shown_fraction=self.shown_fraction)
