"""Static images of more than 8 bits: one depth for the set, inferred from all of them and said, or given."""

import numpy as np
from own_folders import converted, write_own
from PIL import Image

from spikebridge.pipeline.preprocess.prepare import Conversion
from spikebridge.pipeline.shards.reader import ShardSet


def pool_means(folder):
    """Mean of every static image by key."""
    images = ShardSet(folder).static_images()
    return {key: float(image.mean()) for key, image in zip(images.keys, images.images, strict=True)}


def test_one_depth_for_the_set_inferred_from_all_images_and_said(tmp_path, monkeypatch):
    raw = write_own(tmp_path / "raw")
    (raw / "events" / "sensor.txt").write_text("30 20\n")
    for number in range(5):  # of a camera of 12 bits; the first is dark
        level = 800 if number == 0 else 4000
        Image.fromarray(np.full((9, 9), level + number, np.uint16)).save(raw / "static" / "cat" / f"r{number}.png")
    manifest = converted(raw, tmp_path / "set")
    (note,) = manifest["notes"]
    said = "5 static images have room for 16 bits and hold none above 12: taken for 12 bits; --image-bits states it"
    assert note == f"warning: {said}"
    means = pool_means(tmp_path / "set")
    assert means["static-0-r0"] == 800 // 16
    assert means["static-0-r1"] == 4001 // 16
    monkeypatch.setattr(Conversion, "own_images", property(lambda conversion: False))
    assert converted(raw, tmp_path / "known")["notes"] == [note]  # of a known data set, whose first image is deep
    assert pool_means(tmp_path / "known") == means
    monkeypatch.undo()
    given = converted(raw, tmp_path / "given", image_bits=12)
    assert given["notes"] == []
    assert pool_means(tmp_path / "given") == means
    assert given["settings"]["image_bits"] == 12
