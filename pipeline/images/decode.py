"""Static images: decoding, the hash of their pixels, and the resize to the size of a frame.

Axes: H, W height and width of the original, S the size of a frame, C channels of the encoding.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.images import colour

MAX_PIXELS = 200_000_000
"""Largest image that is decoded: a larger size in a header means an attack or damage."""
EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff")
"""Endings, in lower case, that count as images when a folder is listed."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode an image file (PNG, JPEG, BMP, GIF or TIFF) to RGB, [H,W,3] uint8; of an animation, the first frame.

    Grey images get three equal channels, palettes are looked up, transparent pixels are shown on black, CMYK goes
    through Pillow's conversion, 16-bit grey keeps its upper byte.

    Raises:
        RecordingError: the file is no image that Pillow can decode in full (`unreadable_image`).
    """
    return decode_image(path.read_bytes(), source=str(path))


def decode_image(data: bytes, *, source: str) -> NDArray[np.uint8]:
    """Decode the bytes of an image file as `read_image` does."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels is more than {MAX_PIXELS}")
            image.load()
            if image.mode.startswith("I") or image.mode == "F":
                grey = np.clip(np.asarray(image, np.float64), 0, 65535)
                upper = grey / 256.0 if image.mode != "F" and grey.max(initial=0) > 255 else grey
                return np.repeat(upper.astype(np.uint8)[..., None], 3, -1)  # [H,W,3]
            if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
                front = image.convert("RGBA")
                composite = Image.alpha_composite(Image.new("RGBA", front.size, (0, 0, 0, 255)), front)
                return np.asarray(composite.convert("RGB"), np.uint8)  # [H,W,3]
            return np.asarray(image.convert("RGB"), np.uint8)  # [H,W,3]
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        # Pillow's own text for an unknown format holds the address of an object, so it would not be the same twice.
        detail = "of no known format" if isinstance(error, UnidentifiedImageError) else error
        raise RecordingError(
            f"{source}: not an image that can be decoded ({detail}); expected PNG, JPEG, BMP, GIF or TIFF. "
            "Copy it again, or remove it.",
            reason="unreadable_image",
        ) from error


def hash_pixels(rgb: NDArray[np.uint8]) -> bytes:
    """Return the SHA-256, 32 bytes, of full-size pixels [H,W,3]: equal for a renamed or losslessly re-encoded copy."""
    height, width, _ = rgb.shape
    return hashlib.sha256(f"{height}x{width} rgb ".encode() + np.ascontiguousarray(rgb).tobytes()).digest()


def to_static(
    rgb: NDArray[np.uint8],
    *,
    size: int,
    encoding: str,
    canvas: tuple[int, int] | None = None,
    shown_fraction: float = 1.0,
) -> NDArray[np.uint8]:
    """Bring an image to a square of S pixels and encode it.

    Without a canvas the whole image is stretched to the square, as published. With one, it is first put where the
    camera saw it: scaled (aspect kept) to a fraction of the canvas, centred, on black. Frames that are cut from the
    sensor's canvas then show the same thing at the same place.

    Args:
        rgb: [H,W,3] uint8.
        size: S; bilinear, antialiased when shrinking (Pillow), as published for Caltech101 and Omniglot.
        encoding: see `pipeline.images.colour.encode`.
        canvas: (W, H) of the sensor, or None to stretch the image itself.
        shown_fraction: share of the canvas that the image fills, above 0 to 1; ignored without a canvas.

    Returns:
        [C,S,S] uint8.
    """
    if canvas is not None:
        scale = shown_fraction * min(canvas[0] / rgb.shape[1], canvas[1] / rgb.shape[0])
        width, height = (max(1, round(scale * length)) for length in (rgb.shape[1], rgb.shape[0]))
        left, top = (canvas[0] - width) // 2, (canvas[1] - height) // 2
        ground = np.zeros((canvas[1], canvas[0], 3), np.uint8)
        ground[top : top + height, left : left + width] = _resize(rgb, width, height)
        rgb = ground
    return colour.encode(_resize(rgb, size, size), encoding)


def _resize(rgb: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    from PIL import Image

    if rgb.shape[:2] == (height, width):
        return rgb
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR))
