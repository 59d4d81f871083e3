"""Colour spaces and the named encodings of static images.

Axes: images [...,3] with R, G, B last.
Source: A. R. Smith 1978, "Color gamut transform pairs", the hexcone model that Python's `colorsys` follows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ENCODING_CHANNELS = {"v": 1, "luma": 1, "rgb": 3, "hsv": 3}
"""Channels C that each encoding stores."""
POOLED, SEEN = "v", "luma"
"""What a static pool holds unless another is asked for, and so what a camera that trains is fitted to; and what a
camera sees, in which light is a sum over colours. Of grey images all encodings of one channel are the same."""


def rgb_to_hsv(rgb: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return hue, saturation and value [...,3] of colours [...,3], all in 0 to 1, as `colorsys.rgb_to_hsv` does.

    Greys have hue and saturation 0.
    """
    rgb = np.asarray(rgb, np.float64)
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    high, low = rgb.max(-1), rgb.min(-1)
    span = high - low
    safe = np.where(span > 0, span, 1.0)
    to_red, to_green, to_blue = (high - red) / safe, (high - green) / safe, (high - blue) / safe
    hue = np.where(
        red == high, to_blue - to_green, np.where(green == high, 2.0 + to_red - to_blue, 4.0 + to_green - to_red)
    )
    hue = np.where(span > 0, (hue / 6.0) % 1.0, 0.0)
    saturation = np.where(span > 0, span / np.where(high > 0, high, 1.0), 0.0)
    return np.stack([hue, saturation, high], -1)


def hsv_to_rgb(hsv: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return colours [...,3] of hue, saturation and value [...,3], all in 0 to 1, as `colorsys.hsv_to_rgb` does."""
    hsv = np.asarray(hsv, np.float64)
    hue, saturation, value = hsv[..., 0], hsv[..., 1], hsv[..., 2]
    sector = np.floor(hue * 6.0)
    part = hue * 6.0 - sector
    low = value * (1.0 - saturation)
    falling = value * (1.0 - saturation * part)
    rising = value * (1.0 - saturation * (1.0 - part))
    sector = sector.astype(np.int64) % 6
    red = np.choose(sector, [value, falling, low, low, rising, value])
    green = np.choose(sector, [rising, value, value, falling, low, low])
    blue = np.choose(sector, [low, low, rising, value, value, falling])
    return np.stack([red, green, blue], -1)


def encode(rgb: NDArray[np.uint8], encoding: str) -> NDArray[np.uint8]:
    """Turn one image [H,W,3] into the channels that a static pool stores, [C,H,W] uint8, 255 meaning 1.

    Encodings are `v` (maximum of R, G, B, the published choice), `luma` (ITU-R BT.601 weights), `rgb` and `hsv`.
    """
    if encoding == "v":
        return np.maximum(np.maximum(rgb[..., 0], rgb[..., 1]), rgb[..., 2])[None]  # [1,H,W]
    if encoding == "luma":
        weights = np.array([0.299, 0.587, 0.114])
        return np.rint(rgb @ weights).astype(np.uint8)[None]  # [1,H,W]
    if encoding == "rgb":
        return np.ascontiguousarray(np.moveaxis(rgb, -1, 0))  # [3,H,W]
    if encoding == "hsv":
        hsv = np.rint(rgb_to_hsv(rgb / 255.0) * 255.0).astype(np.uint8)
        return np.ascontiguousarray(np.moveaxis(hsv, -1, 0))  # [3,H,W]
    raise ValueError(f"unknown encoding {encoding!r}; expected one of {', '.join(ENCODING_CHANNELS)}")
