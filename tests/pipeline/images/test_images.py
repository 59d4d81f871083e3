"""Images of every mode become RGB; the pixel hash sees through renaming and re-encoding."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.images.decode import (
    EXTENSIONS,
    aspect_of,
    bits_in_use,
    decode_image,
    hash_pixels,
    read_image,
    to_static,
)

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def encoded(image, **options):
    file = io.BytesIO()
    image.save(file, **{"format": "PNG", **options})
    return file.getvalue()


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "RGB"])
def test_grey_in_every_mode(mode):
    image = Image.fromarray(GREY)
    data = encoded(image.quantize(256) if mode == "P" else image.convert(mode))
    np.testing.assert_array_equal(decode_image(data, source="x"), np.repeat(GREY[..., None], 3, -1))


def test_sixteen_bit_keeps_the_upper_byte():
    data = encoded(Image.fromarray(GREY.astype(np.uint16) * 256 + 7))
    np.testing.assert_array_equal(decode_image(data, source="x")[..., 0], GREY)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_integers_of_any_depth_fill_the_same_range(bits):
    """As cameras of 12 bits write them into PNG of 16: never nearly black, and the same picture in any depth."""
    data = encoded(Image.fromarray(np.left_shift(GREY.astype(np.uint16), bits - 8)))
    np.testing.assert_array_equal(decode_image(data, source="x")[..., 0], GREY)
    assert bits_in_use(data, source="x") == bits
    if bits < 16:  # said to be deeper, it is darker; said to be less deep, it saturates and never wraps
        assert decode_image(data, source="x", bits=bits + 1)[..., 0].max() == GREY.max() // 2
        assert decode_image(data, source="x", bits=8)[..., 0].max() == min(255, int(GREY.max()) << bits - 8)


def test_a_declared_depth_counts_whatever_the_largest_value():
    dark = (GREY // 4).astype(np.uint16) << 4
    for tag in ({281: 4095}, {}):
        data = encoded(Image.fromarray(dark), format="TIFF", tiffinfo=tag)
        expected = GREY // 4 if tag else decode_image(data, source="x", bits=10)[..., 0]
        np.testing.assert_array_equal(decode_image(data, source="x")[..., 0], expected)
        assert bits_in_use(data, source="x") == (0 if tag else 10)


@pytest.mark.parametrize("orientation", [*range(1, 9), 99])
def test_images_are_upright_as_viewers_show_them(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(stored), exif=exif)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    upright = decode_image(data, source="x")
    np.testing.assert_array_equal(upright, shown)
    (tmp_path / "1.png").write_bytes(data)
    assert aspect_of(tmp_path / "1.png") == pytest.approx(shown.shape[1] / shown.shape[0])
    assert hash_pixels(upright) == hash_pixels(decode_image(encoded(Image.fromarray(shown)), source="y"))


def test_damaged_exif_spoils_no_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(GREY), format="JPEG", exif=exif)
    where = data.index(b"Exif") + 6
    text = data.replace(b"\x01\x12\x00\x03", b"\x01\x12\x00\x02")  # where a number should be
    assert text != data
    for spoilt in (data[:where] + b"\xff" * 8 + data[where + 8 :], text):
        (tmp_path / "1.jpg").write_bytes(spoilt)
        assert decode_image(spoilt, source="x").shape == (6, 8, 3)
        assert aspect_of(tmp_path / "1.jpg") == pytest.approx(8 / 6)


@pytest.mark.parametrize("format_", ["WEBP", "AVIF"])
def test_newer_formats_where_pillow_reads_them(format_):
    if not features.check(format_.lower()):
        with pytest.raises(RecordingError, match="not an image that can be decoded"):
            decode_image(b"RIFF0000WEBPVP8 ", source="x")
        return
    data = encoded(Image.fromarray(np.full((8, 8, 3), 100, np.uint8)), format=format_)
    assert abs(decode_image(data, source="x").astype(int) - 100).max() <= 2
    assert f".{format_.lower()}" in EXTENSIONS


def test_transparent_is_shown_on_black():
    rgba = np.full((2, 2, 4), 200, np.uint8)
    rgba[0, 0, 3] = 0
    shown = decode_image(encoded(Image.fromarray(rgba)), source="x")
    assert shown[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("format_", ["JPEG", "TIFF"])
def test_cmyk_shows_the_colours_that_were_printed(format_):
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[:8, :, 1:3] = 255  # magenta and yellow print red; nothing prints the white of the paper
    shown = decode_image(encoded(Image.fromarray(inks, "CMYK"), format=format_), source="x").astype(int)
    assert shown.shape == (16, 16, 3)
    assert abs(shown[2, 2] - (255, 0, 0)).max() < 8
    assert abs(shown[13, 2] - 255).max() < 8


def test_palettes_are_looked_up_and_one_bit_is_black_and_white():
    image = Image.fromarray(np.arange(4, dtype=np.uint8).reshape(2, 2), "P")
    image.putpalette([9, 8, 7, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    expected = [[[9, 8, 7], [200, 0, 0]], [[0, 200, 0], [0, 0, 200]]]
    assert decode_image(encoded(image), source="x").tolist() == expected
    expected[1][1] = [0, 0, 0]
    assert decode_image(encoded(image, transparency=3), source="x").tolist() == expected
    assert (
        decode_image(encoded(Image.fromarray(GREY > 100)), source="x").tolist()
        == (np.repeat((GREY > 100)[..., None], 3, -1).astype(int) * 255).tolist()
    )


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_sixteen_bit_colour_and_alpha(format_):
    if format_ == "TIFF":
        data = encoded(Image.fromarray(GREY.astype(np.uint16) * 256 + 9), format="TIFF")
        assert (decode_image(data, source="x")[..., 1] == GREY).all()
        return

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    for colour, pixel, shown in ((2, (200, 100, 50), [200, 100, 50]), (6, (200, 100, 50, 0), [0, 0, 0])):
        row = b"\0" + struct.pack(f">{2 * len(pixel)}H", *([value * 256 + 3 for value in pixel] * 2))
        body = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, colour, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(row))
        data = b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")
        assert decode_image(data, source="x")[0, 1].tolist() == shown


def test_hash_sees_through_names_and_encodings(tmp_path):
    image = Image.fromarray(GREY)
    image.save(tmp_path / "a.png")
    image.convert("RGB").save(tmp_path / "renamed.bmp")
    image.convert("RGBA").save(tmp_path / "again.png", compress_level=1)
    hashes = {hash_pixels(read_image(path)) for path in tmp_path.iterdir()}
    assert len(hashes) == 1
    assert hash_pixels(np.zeros((2, 3, 3), np.uint8)) != hash_pixels(np.zeros((3, 2, 3), np.uint8))


@pytest.mark.parametrize("data", [b"", b"not an image", encoded(Image.fromarray(GREY))[:50]])
def test_unreadable_images_are_named(data):
    with pytest.raises(RecordingError, match=r"digit\.png") as caught:
        decode_image(data, source="digit.png")
    assert caught.value.reason == "unreadable_image"


def test_a_picture_that_claims_more_than_any_memory_is_refused_unread():
    header = encoded(Image.fromarray(GREY))
    most = header.replace(struct.pack(">II", 8, 6), struct.pack(">II", 2**31 - 1, 2**31 - 1), 1)
    most = most[:29] + struct.pack(">I", zlib.crc32(most[12:29])) + most[33:]
    with pytest.raises(RecordingError, match="exceeds limit of") as caught:
        decode_image(most, source="digit.png")
    assert caught.value.reason == "unreadable_image"


def test_an_image_larger_than_the_sensor_shows_what_the_camera_saw_of_it():
    """Recordings of a fitted camera may be of a part of the image."""
    rgb = np.zeros((40, 80, 3), np.uint8)
    rgb[10:30, 20:60] = 255
    assert (to_static(rgb, size=20, width=40, encoding="v", canvas=(40, 20), shown_fraction=2) == 255).all()
    half = to_static(rgb, size=20, width=40, encoding="v", canvas=(40, 20), shown_fraction=1)[0]
    assert (half[6:14, 11:29] == 255).all()
    assert not half[:4].any()
    tall = to_static(rgb, size=40, encoding="v", canvas=(40, 40), shown_fraction=2)[0]
    assert (tall[10:30] == 255).all(), "as wide as the sensor"
    assert tall.sum() == 800 * 255
    whole = rgb[:, 20:60].copy()
    far = to_static(whole, size=8, encoding="v", canvas=(40, 40), shown_fraction=1000.0)
    assert (far == 255).all(), "no more is resized than the sensor sees"


def test_to_static_stretches_to_a_square():
    rgb = np.repeat(GREY[..., None], 3, -1)
    assert to_static(rgb, size=5, encoding="v").shape == (1, 5, 5)
    assert to_static(rgb, size=9, encoding="rgb").shape == (3, 9, 9)


@pytest.mark.parametrize(("fit", "rows"), [("squash", slice(0, 8)), ("pad", slice(2, 6)), ("crop", slice(0, 8))])
def test_an_image_is_fitted_as_frames_are(fit, rows):
    """A bright image of 16x8 pixels whose middle half is brighter: stripes are black, cuts leave the middle."""
    rgb = np.full((8, 16, 3), 100, np.uint8)
    rgb[:, 4:12] = 200
    image = to_static(rgb, size=8, fit=fit, encoding="v")[0]
    assert (image[rows] >= 100).all()
    assert image.sum(dtype=int) == image[rows].sum(dtype=int)
    assert bool((image[rows] == 200).all()) == (fit == "crop")
    wide = to_static(rgb, size=8, width=16, fit=fit, encoding="rgb")
    np.testing.assert_array_equal(wide, np.moveaxis(rgb, -1, 0))
