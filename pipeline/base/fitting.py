"""What of a picture a frame shows when the two are not of one shape: all of it, or as much as keeps its aspect."""

from __future__ import annotations

Box = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels, right and bottom exclusive; it may reach beyond the picture."""
FITS = ("squash", "pad", "crop")
"""`squash` stretches each axis on its own; `pad` keeps the aspect and adds empty stripes, `crop` cuts stripes off."""


def fit_box(box: Box, frame: tuple[int, int], fit: str) -> Box:
    """Return the box that a frame of (W, H) pixels shows when `box` is to be fitted, centred; at least a pixel."""
    if fit == "squash":
        return box
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    by_width = width * frame[1] >= height * frame[0]  # the picture is wider than the frame
    if by_width == (fit == "pad"):
        shown = width, max(1, -(-width * frame[1] // frame[0]) if fit == "pad" else width * frame[1] // frame[0])
    else:
        shown = max(1, -(-height * frame[0] // frame[1]) if fit == "pad" else height * frame[0] // frame[1]), height
    first = left + (width - shown[0]) // 2, top + (height - shown[1]) // 2
    return (*first, first[0] + shown[0], first[1] + shown[1])
