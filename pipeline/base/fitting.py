"""What of a picture a frame shows when the two are not of one shape, and how large an image is on the sensor then."""

from __future__ import annotations

Box = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels, right and bottom exclusive; it may reach beyond the picture."""
FITS = ("squash", "pad", "crop")
"""`squash` stretches each axis on its own; `pad` keeps the aspect and adds empty stripes, `crop` cuts stripes off."""


STATED_SHOWN = (0.001, 1000.0)
"""Least and most share of a sensor that an image fills in the notes of recordings and in profiles; above 1 the camera
saw a part of it."""
ASKED_SHOWN = (0.01, 4.0)
"""The same that `calibrate` and `match` take from whoever gives it."""
FITTED_SIZES = (0.5, 2.0)
"""Least and most size of images, relative to the share that was said, at which a fit finds them."""


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


def shown_px(aspect: float, sensor: tuple[int, int], shown_fraction: float) -> tuple[float, float]:
    """Return width and height, in pixels of a sensor of (W, H), of an image that fills a share of it.

    `aspect` is the image's width relative to its height.
    """
    height = shown_fraction * min(sensor[0] / aspect, sensor[1])
    return aspect * height, height


def fitted_px(aspect: float, sensor: tuple[int, int], frame: tuple[int, int], fit: str) -> tuple[float, float]:
    """Return the same of an image that was fitted to a frame of (W, H), as the sensor was, each on its own."""
    scale = 10_000  # of an image that is no whole number of pixels high
    image = max(1, round(aspect * scale)), scale
    sizes = []
    sensor_box, image_box = (fit_box((0, 0, *size), frame, fit) for size in (sensor, image))
    for axis in range(2):
        pixels, shown = (box[axis + 2] - box[axis] for box in (sensor_box, image_box))
        sizes.append(image[axis] / shown * pixels)
    return sizes[0], sizes[1]
