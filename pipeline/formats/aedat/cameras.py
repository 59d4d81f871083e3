"""The cameras that AEDAT files name, and their sensors."""

from __future__ import annotations

import re

DAVIS_SIZES = {"128": (128, 128), "208": (208, 192), "240": (240, 180), "346": (346, 260), "640": (640, 480)}
"""(W, H) in pixels by the number in the name: DAVIS240C, Davis346Blue, DAVISRGBW640 and the like."""
DVS128_SIZE = (128, 128)
DVS128_NAMES = ("DVS128", "TMPDIFF128")
"""The DVS128 in capitals; the second is what jAER called it up to 2008."""


def is_dvs128(name: str) -> bool:
    """Return whether a camera is a DVS128, by its name; the DAVIS128 is none, nor is what joins several chips."""
    upper = name.upper()
    return upper in DVS128_NAMES or (DVS128_NAMES[0] in upper and "STEREO" not in upper)


def sensor_of(name: str) -> tuple[int, int] | None:
    """Return (W, H) of a camera by its name, or None for one that is not known."""
    upper = name.upper()
    if is_dvs128(name):
        return DVS128_SIZE
    davis = re.search(r"DAVIS(?:RGBW?)?_?(\d{3})", upper)
    return DAVIS_SIZES.get(davis[1]) if davis else None
