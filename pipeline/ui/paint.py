"""Events and static images as pixels on white paper.

Axes: T time bins, P polarity (0 OFF, 1 ON), C channels, H, W pixels.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.ui.style import HEAT, OFF, ON

PREVIEW_PIXELS = 112
CAPTION_PIXELS = 22
"""Height of the caption below an image."""


def event_pixels(frames: NDArray[Any]) -> NDArray[np.uint8]:
    """Paint frames [T,P,H,W] as images [T,H,W,3]: ON and OFF inks multiplied, on a square-root scale of all T together.

    An empty bin stays white. Frames with one channel are drawn in the colour of ON, further channels are left out.
    """
    counts = np.asarray(frames, np.float64)
    depth = np.sqrt(counts / max(float(counts.max(initial=0)), 1e-12))  # single events stay visible beside busy pixels
    papers = np.ones((len(counts), *counts.shape[2:], 3))  # [T,H,W,3]
    inks = (OFF, ON) if counts.shape[1] > 1 else (ON,)
    for channel, ink in enumerate(inks):
        papers *= 1 - depth[:, channel, ..., None] * (1 - _rgb(ink))
    return np.rint(255 * papers).astype(np.uint8)


def preview_png(frames: NDArray[Any], *, sensor: tuple[int, int] | None = None) -> bytes:
    """Return a PNG file of frames [T,P,H,W] in one picture, cells enlarged to squares up to 112 pixels or more.

    With a sensor of (W, H) pixels, which was squashed into the frames, the picture has its shape, and cells what they
    show.
    """
    pixels = event_pixels(np.asarray(frames, np.float64).sum(0, keepdims=True))[0]  # [H,W,3]
    height, width = pixels.shape[:2]
    times = max(1, -(-PREVIEW_PIXELS // max(height, width)))
    rows, columns = times * height, times * width
    if sensor:
        longer = max(rows, columns)
        columns, rows = (max(1, round(longer * side / max(sensor))) for side in sensor)
    return png(pixels[np.arange(rows) * height // rows][:, np.arange(columns) * width // columns])


def heat_pixels(frames: NDArray[Any], heat: NDArray[Any]) -> NDArray[np.uint8]:
    """Paint frames [T,P,H,W] in grey under heat [T,H,W] of 0 to 1 in one colour: images [T,H,W,3]."""
    counts = np.asarray(frames, np.float64).sum(1)  # [T,H,W]
    depth = np.sqrt(counts / max(float(counts.max(initial=0)), 1e-12))
    wash = 1 - np.clip(np.asarray(heat, np.float64), 0, 1)[..., None] * (1 - _rgb(HEAT))  # [T,H,W,3]
    return np.rint(255 * wash * (1 - 0.75 * depth[..., None])).astype(np.uint8)


def static_pixels(image: NDArray[np.uint8], *, encoding: str) -> NDArray[np.uint8]:
    """Return a static image [C,H,W], as a shard set stores it, as grey [H,W] or colours [H,W,3]."""
    if len(image) == 1:
        return image[0]
    pixels = np.moveaxis(image, 0, -1)  # [H,W,3]
    if encoding == "hsv":
        from spikebridge.pipeline.images.colour import hsv_to_rgb

        pixels = np.rint(255 * hsv_to_rgb(pixels / 255.0)).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode pixels as a PNG file."""
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="PNG", optimize=True)
    return data.getvalue()


def gif(images: NDArray[np.uint8], *, captions: Sequence[str] = (), milliseconds: int = 100, least: int = 256) -> bytes:
    """Encode images [T,H,W,3] as an endless GIF, pixels enlarged to squares until the longer side has `least`.

    Captions, one for each image, stand below it.
    """
    from PIL import Image, ImageDraw

    times = max(1, -(-least // max(images.shape[1:3])))
    large = images.repeat(times, axis=1).repeat(times, axis=2)
    if captions:
        large = np.pad(large, ((0, 0), (0, CAPTION_PIXELS), (0, 0), (0, 0)), constant_values=255)
    frames = [Image.fromarray(image) for image in large]
    for frame, caption in zip(frames, captions, strict=False):
        ImageDraw.Draw(frame).text((4, frame.height - CAPTION_PIXELS + 3), caption, fill="#5a626b", font_size=13)
    data = io.BytesIO()
    frames[0].save(data, format="GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return data.getvalue()


def _rgb(colour: str) -> NDArray[np.float64]:
    return np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
