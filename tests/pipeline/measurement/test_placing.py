"""Static images lie where the camera saw them, and as finely as they are where its frames are coarser."""

from __future__ import annotations

import numpy as np
import pytest

from spikebridge.pipeline.measurement.placing import Placing


@pytest.mark.parametrize(
    ("shape", "placing", "finer"),
    [
        ((28, 28, 3), Placing(34, (34, 34), 0.8235), 1),  # MNIST: a pixel of the sensor for each of the image
        ((32, 32, 3), Placing(48, (128, 128)), 1),  # CIFAR10: its pixels are larger than cells
        ((400, 600, 3), Placing(34, (34, 34)), 3),
        ((400, 600, 3), Placing(48, (240, 180), 1.5), 3),
        ((64, 64, 3), Placing(48, (240, 180), 1.5), 1),
    ],
)
def test_images_are_placed_finely_where_they_have_details(shape, placing, finer):
    assert placing.for_images([shape] * 3 + [(2, 2)], 3).finer == finer, "most of them decide"


@pytest.mark.parametrize("sensor", [(34, 34), (240, 180), (100, 60)])
@pytest.mark.parametrize("shown", [0.6, 1.5])
def test_a_fine_image_lies_where_the_coarse_one_does(sensor, shown):
    rows, columns = np.mgrid[:90, :120]
    image = (127 + 100 * np.sin(rows / 13) * np.cos(columns / 17)).astype(np.uint8)[..., None].repeat(3, -1)
    coarse = Placing(30, sensor, shown)
    fine = coarse.for_images([(900, 1200, 3)], 3)
    placed = fine.place(image, "v")
    assert placed.shape == (1, 90, 90)
    together, own = placed[0].reshape(30, 3, 30, 3).mean((1, 3)), coarse.place(image, "v")[0]

    def apart(rows: int, columns: int) -> float:
        return float(np.abs(np.roll(together, (rows, columns), (0, 1)) - own).mean())

    assert apart(0, 0) < min(apart(*way) for way in ((0, 1), (0, -1), (1, 0), (-1, 0)))
