"""HSV equal to the standard library's colorsys, and the named encodings."""

import colorsys
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikebridge.pipeline.images.colour import POOLED, SEEN, encode, hsv_to_rgb, rgb_to_hsv
from spikebridge.pipeline.shards import settings
from spikebridge.train.data import simulation

unit = st.floats(0, 1, allow_subnormal=False)


@given(unit, unit, unit)
def test_equals_colorsys(a, b, c):
    np.testing.assert_allclose(rgb_to_hsv(np.array([a, b, c])), colorsys.rgb_to_hsv(a, b, c), rtol=0, atol=1e-12)
    np.testing.assert_allclose(hsv_to_rgb(np.array([a, b, c])), colorsys.hsv_to_rgb(a, b, c), rtol=0, atol=1e-12)


def test_round_trip_of_all_8_bit_corners():
    levels = np.linspace(0, 1, 18)
    rgb = np.stack(np.meshgrid(levels, levels, levels), -1)
    np.testing.assert_allclose(hsv_to_rgb(rgb_to_hsv(rgb)), rgb, atol=1e-12)


def test_grey_images_are_the_same_for_pools_and_cameras():
    grey = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, -1)
    for encoding in (POOLED, SEEN):
        assert encode(grey, encoding).tobytes() == grey[..., 0].tobytes()
    assert POOLED == settings.CHOICES["encoding"][0] == simulation.POOLED, "cameras are fitted to what training shows"
    assert {field.name: field.default for field in fields(settings.ConversionSettings)}["encoding"] == POOLED


def test_encodings():
    rgb = np.array([[[255, 0, 0], [10, 20, 30]]], np.uint8)  # [1,2,3]
    assert encode(rgb, "v").tolist() == [[[255, 30]]]
    assert encode(rgb, "luma").tolist() == [[[76, 18]]]
    assert encode(rgb, "rgb").shape == (3, 1, 2)
    assert encode(rgb, "hsv")[:, 0, 0].tolist() == [0, 255, 255]
    with pytest.raises(ValueError, match="unknown encoding"):
        encode(rgb, "lab")
