"""Static images: decoding, the hash of their pixels, and the resize to the size of a frame.

Axes: H, W height and width of the original, S the size of a frame, C channels of the encoding.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import RecordingError, blame_machine
from spikebridge.pipeline.base.fitting import fit_box
from spikebridge.pipeline.images import colour

if TYPE_CHECKING:  # Pillow is imported when an image is decoded
    from PIL.Image import Image

MAX_PIXELS = 200_000_000
"""Largest image that is decoded: a larger size in a header means an attack or damage."""
EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif")
"""Endings, in lower case, that count as images when a folder is listed."""
DEEP_EXTENSIONS = (".png", ".tif", ".tiff")
"""Endings of those whose pixels may be integers of more than 8 bits."""
ANIMATED_PNG, HEAD_BYTES = b"acTL", 2**12
"""What a PNG of several pictures says before the first, and bytes at its beginning that are looked at."""
SEVERAL_EXTENSIONS = (".gif", ".tif", ".tiff", ".webp", ".avif")
"""Endings of those that may hold several pictures."""
DEPTHS = (8, 10, 12, 14, 16)
"""Bits of an integer pixel, of the cameras and scanners that there are."""
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
CLEAR_MODES = ("LA", "PA", "RGBA", "La", "RGBa")
"""Pillow's modes of pixels of more than 8 bits, and of transparent ones."""
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)
"""Tag of EXIF."""
BITS_PER_SAMPLE, LARGEST_SAMPLE = 258, 281
"""Tags of TIFF."""


def read_image(path: Path, *, bits: int = 0) -> NDArray[np.uint8]:
    """Decode an image file (PNG, JPEG, WebP, AVIF, BMP, GIF or TIFF) to RGB, [H,W,3] uint8.

    It is upright as EXIF says; of an animation the first frame counts. Grey images get three equal channels, palettes
    are looked up, transparent pixels are shown on black, CMYK goes through Pillow's conversion; see `decode_image` for
    integers of more than 8 bits.

    Raises:
        RecordingError: the file is no image that Pillow can decode in full (`unreadable_image`).
    """
    return decode_image(path.read_bytes(), source=str(path), bits=bits)


def decode_image(data: bytes, *, source: str, bits: int = 0) -> NDArray[np.uint8]:
    """Decode the bytes of an image file as `read_image` does.

    `bits` says how many of an integer pixel are in use where the file has room for more than 8, as a 12-bit camera's
    picture in a PNG of 16: 255 is what 2**bits - 1 becomes, larger values saturate. With 0 it is what the file declares
    or, where it declares its room alone, the least of `DEPTHS` that holds the largest value.
    """
    with _reading(data, source) as image:
        image.load()
        if image.mode in DEEP_MODES:
            values = np.asarray(image, np.float64)
            depth = bits or _declared_bits(image) or _needed_bits(values)
            grey = np.clip(values * 2.0 ** (8 - depth), 0, 255).astype(np.uint8)
            return np.repeat(_upright(grey, image)[..., None], 3, -1)  # [H,W,3]
        shown = _on_black(image) if image.mode in CLEAR_MODES or "transparency" in image.info else image
        return _upright(np.asarray(shown.convert("RGB"), np.uint8), image)  # [H,W,3]


def holds_several(path: Path) -> bool:
    """Return whether a file is an animation or of several pages, of which `read_image` takes the first.

    Only of the endings that are known for it; False where it cannot be read, which whoever reads it says.
    """
    if path.suffix.lower() == ".png":
        with suppress(OSError), open(path, "rb") as file:
            return ANIMATED_PNG in file.read(HEAD_BYTES).partition(b"IDAT")[0]
        return False
    if path.suffix.lower() not in SEVERAL_EXTENSIONS:
        return False
    try:
        with _reading(path.read_bytes(), path.name) as image:
            return getattr(image, "n_frames", 1) > 1
    except (RecordingError, OSError):
        return False


def aspect_of(path: Path) -> float | None:
    """Return the width of an image file relative to its height, upright, from its header; None: no header."""
    try:
        with _reading(path.read_bytes(), path.name) as image:
            aspect = image.width / image.height
            return 1 / aspect if _orientation(image) in SIDEWAYS else aspect
    except (RecordingError, OSError):
        return None


def bits_in_use(data: bytes, *, source: str) -> int:
    """Return the least of `DEPTHS` that holds the pixels of an image, where its file has room for more than 8 bits.

    0 for other images, and where the file declares the depth.

    Raises:
        RecordingError: as `decode_image`.
    """
    with _reading(data, source) as image:
        deep = image.mode in DEEP_MODES and not _declared_bits(image)
        return _needed_bits(np.asarray(image, np.float64)) if deep else 0


def common_bits(paths: Iterable[Path]) -> int:
    """Return the least of `DEPTHS` that holds the pixels of images together, see `bits_in_use`.

    Those that cannot be decoded are passed over: whoever reads them says so.
    """
    bits = 0
    for path in paths:
        if path.suffix.lower() in DEEP_EXTENSIONS:
            with suppress(RecordingError, OSError):
                bits = max(bits, bits_in_use(path.read_bytes(), source=str(path)))
    return bits


@contextmanager
def _reading(data: bytes, source: str) -> Iterator[Image]:
    """Open an image for a `with` block, whose failures are those of the image.

    Raises:
        RecordingError: see `decode_image`.
    """
    import PIL.Image

    try:
        with PIL.Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels is more than {MAX_PIXELS}")
            yield image
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        blame_machine(error, source)
        # Pillow's own text for an unknown format holds the address of an object, so it would not be the same twice.
        detail = "of no known format" if isinstance(error, PIL.UnidentifiedImageError) else error
        raise RecordingError(
            f"{source}: not an image that can be decoded ({detail}); expected PNG, JPEG, WebP, AVIF, BMP, GIF or TIFF. "
            "Copy it again, or remove it.",
            reason="unreadable_image",
        ) from error


def _on_black(image: Image) -> Image:
    """Return a transparent image as it looks on black."""
    import PIL.Image

    front = image.convert("RGBA")
    return PIL.Image.alpha_composite(PIL.Image.new("RGBA", front.size, (0, 0, 0, 255)), front)


def _declared_bits(image: Image) -> int:
    """Return the depth that a file declares, if it declares more than its room: 12 bits in a TIFF, a largest value."""
    tags = getattr(image, "tag_v2", None) or {}
    for tag, to_bits in ((LARGEST_SAMPLE, lambda largest: int(largest).bit_length()), (BITS_PER_SAMPLE, int)):
        declared = tags.get(tag, 0)
        value = to_bits(declared[0] if isinstance(declared, tuple) else declared)
        if 8 < value < 16:
            return value
    return 0


def _needed_bits(values: NDArray[np.float64]) -> int:
    largest = float(values.max(initial=0))
    return next((bits for bits in DEPTHS if largest < 2.0**bits), DEPTHS[-1])


def _upright(pixels: NDArray[np.uint8], image: Image) -> NDArray[np.uint8]:
    """Turn and mirror pixels [H,W] or [H,W,3] as EXIF says that viewers show them."""
    orientation = _orientation(image)
    if orientation in SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _orientation(image: Image) -> Any:
    """Return what EXIF says of how viewers show an image, 1 to 8 where it can be understood; 1 where it is damaged."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow's parser lets through whatever Python raises on damaged bytes
        return 1


def hash_pixels(rgb: NDArray[np.uint8]) -> bytes:
    """Return the SHA-256, 32 bytes, of full-size pixels [H,W,3]: equal for a renamed or losslessly re-encoded copy."""
    height, width, _ = rgb.shape
    return hashlib.sha256(f"{height}x{width} rgb ".encode() + np.ascontiguousarray(rgb).tobytes()).digest()


def to_static(
    rgb: NDArray[np.uint8],
    *,
    size: int,
    width: int = 0,
    fit: str = "squash",
    encoding: str,
    canvas: tuple[int, int] | None = None,
    shown_fraction: float = 1.0,
) -> NDArray[np.uint8]:
    """Bring an image to the size of a frame and encode it.

    Without a canvas the whole image is fitted to the frame: stretched, as published, by default. With one, it is first
    put where the camera saw it: scaled (aspect kept) to a fraction of the canvas, centred, on black; what lies beyond
    the canvas is cut off. Frames that are cut from the sensor's canvas then show the same thing at the same place.

    Args:
        rgb: [H,W,3] uint8.
        size: S, the height; bilinear, antialiased when shrinking (Pillow), as published for Caltech101 and Omniglot.
        width: W; 0 for S.
        fit: what becomes of an image or canvas of another aspect, see `pipeline.base.fitting`.
        encoding: see `pipeline.images.colour.encode`.
        canvas: (W, H) of the sensor, or None to stretch the image itself.
        shown_fraction: share of the canvas that the image fills, above 0; above 1 it is larger than the canvas. Ignored
            without one.

    Returns:
        [C,S,W] uint8.
    """
    if canvas is not None:
        rgb = _on_canvas(rgb, canvas, shown_fraction)
    return colour.encode(_fit(rgb, (width or size, size), fit), encoding)


def _on_canvas(rgb: NDArray[np.uint8], canvas: tuple[int, int], shown_fraction: float) -> NDArray[np.uint8]:
    """Put an image [H,W,3] into the middle of a black canvas of (W, H) pixels, as much of it as lies there."""
    lengths = rgb.shape[1::-1]  # W, H
    scale = shown_fraction * min(side / length for side, length in zip(canvas, lengths, strict=True))
    boxes = []
    for side, length in zip(canvas, lengths, strict=True):
        shown = max(1, round(scale * length))
        first = (side - shown) // 2
        begin, end = max(0, first), min(side, first + shown)
        boxes.append((begin, end, (begin - first) * length / shown, (end - first) * length / shown))
    (left, right, *across), (top, bottom, *down) = boxes
    ground = np.zeros((canvas[1], canvas[0], 3), np.uint8)
    part = across[0], down[0], across[1], down[1]
    ground[top:bottom, left:right] = _resize(rgb, right - left, bottom - top, part)
    return ground


def _fit(rgb: NDArray[np.uint8], frame: tuple[int, int], fit: str) -> NDArray[np.uint8]:
    """Bring an image [H,W,3] to a frame of (W, H) pixels: squashed, with black stripes, or without those cut off."""
    height, width, _ = rgb.shape
    left, top, right, bottom = fit_box((0, 0, width, height), frame, fit)
    if fit != "pad":
        return _resize(rgb[top:bottom, left:right], *frame)
    across, down = max(1, round(frame[0] * width / (right - left))), max(1, round(frame[1] * height / (bottom - top)))
    ground = np.zeros((frame[1], frame[0], 3), np.uint8)
    first, upper = (frame[0] - across) // 2, (frame[1] - down) // 2
    ground[upper : upper + down, first : first + across] = _resize(rgb, across, down)
    return ground


def _resize(
    rgb: NDArray[np.uint8], width: int, height: int, part: tuple[float, float, float, float] | None = None
) -> NDArray[np.uint8]:
    """Resize an image [H,W,3], or a part of it from left and top to right and bottom."""
    from PIL import Image

    whole = (0.0, 0.0, float(rgb.shape[1]), float(rgb.shape[0]))
    part = part or whole
    if rgb.shape[:2] == (height, width) and part == whole:
        return rgb
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR, box=part))
