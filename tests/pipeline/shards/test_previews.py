"""Pictures beside the samples of a tar: seen by the stock reader, compared by verify, no matter to anything else."""

import io
import re
import warnings

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from spikebridge.pipeline.base.errors import SettingsError, ShardSetError
from spikebridge.pipeline.base.files import HashedFile
from spikebridge.pipeline.checks.samples import Layout, walk_tar
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.preprocess.reformat import reformat
from spikebridge.pipeline.shards import tar
from spikebridge.pipeline.shards.reader import ShardSet, read_index
from spikebridge.pipeline.shards.settings import ConversionSettings
from spikebridge.pipeline.shards.writer import index_path
from spikebridge.pipeline.ui.paint import preview_png
from spikebridge.train.config.recipes import load_recipe
from spikebridge.train.runs.folder import contents_id, require_shards


def test_a_picture_has_the_shape_of_a_sensor_that_was_squashed():
    frames = np.zeros((2, 2, 40, 40), np.uint8)
    frames[:, 1, :20, :10] = 1
    plain, wide, high = (
        np.asarray(Image.open(io.BytesIO(preview_png(frames, sensor=sensor))))
        for sensor in (None, (346, 260), (100, 200))
    )
    assert [picture.shape[:2] for picture in (plain, wide, high)] == [(120, 120), (90, 120), (120, 60)]
    assert np.array_equal(plain, np.asarray(Image.open(io.BytesIO(preview_png(frames, sensor=(34, 34))))))
    assert (wide[:45, :30] == plain[0, 0]).all()
    assert (high[60:, 15:] == plain[-1, -1]).all()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("store", ["", "events"])
def test_the_stock_reader_sees_them_and_all_else_is_as_without(shard_set, store):
    folder, plain = shard_set(preview=True, store=store), ShardSet(shard_set(store=store))
    shards = ShardSet(folder)
    assert verify(folder).ok
    assert shards.id != plain.id
    assert contents_id(shards) == contents_id(plain)
    np.testing.assert_array_equal(shards.split("test").read_all(), plain.split("test").read_all())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset

        paths = [str(path) for path in shards.event_shards("test")]
        found = list(webdataset.WebDataset(paths, shardshuffle=False, empty_check=False).decode("rgb8"))
    frames = shards.split("test").read_all()
    assert [sample["__key__"] for sample in found] == list(shards.split("test").keys)
    for sample, one in zip(found, frames, strict=True):
        assert sample["preview.png"].shape == (120, 120, 3)  # cells of 12x12 in squares of 10
        wanted = np.asarray(Image.open(io.BytesIO(preview_png(one))))
        np.testing.assert_array_equal(sample["preview.png"], wanted)
    assert len({sample["preview.png"].tobytes() for sample in found}) == len(found)


def test_every_place_of_a_preview_is_compared(shard_set, tmp_path):
    shards = ShardSet(shard_set(preview=True))
    (path,) = shards.event_shards("test")
    index, whole = read_index(index_path(path), preview=True), path.read_bytes()
    head = [m.start() for m in re.finditer(rb"[\w-]+\.preview\.png\0", whole)][1]
    size = int(tar.sizes(np.frombuffer(whole, np.uint8, tar.BLOCK, head)[None])[0])
    assert size % tar.BLOCK  # so that there is padding
    places = {
        "name": head,
        "size": head + 134,
        "picture": head + tar.BLOCK + size // 2,
        "padding": head + tar.BLOCK + size,
    }
    changed = tmp_path / path.name
    for name, place in places.items():
        changed.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with HashedFile(changed) as file, pytest.raises(ShardSetError, match=re.escape(index["key"][1].decode())):
            list(walk_tar(file, index, Layout.of(shards), name=name))
    with pytest.raises(ShardSetError, match="not the index"):
        read_index(index_path(path))


def test_they_come_and_go_without_the_raw_data(shard_set, tmp_path):
    with_previews = contents(shard_set(preview=True))
    reformat(shard_set(), tmp_path / "added", preview=True)
    assert contents(tmp_path / "added") == with_previews
    reformat(shard_set(preview=True), tmp_path / "hdf5", format_="hdf5")
    assert contents(tmp_path / "hdf5") == contents(shard_set(format="hdf5"))
    reformat(shard_set(store="events"), tmp_path / "events", preview=True)
    assert contents(tmp_path / "events") == contents(shard_set(store="events", preview=True))
    with pytest.raises(SettingsError, match="preview: goes with format webdataset only"):
        reformat(shard_set(), tmp_path / "none", format_="hdf5", preview=True)


def test_a_recipe_asks_for_them_and_takes_any_set(shard_set, tmp_path):
    text = (ROOT / "data" / "recipes" / "digits.toml").read_text().replace("[shards]", "[shards]\npreview = true")
    text = re.sub(r"(?m)^time_bins = .*", "time_bins = 4", re.sub(r"(?m)^size = .*", "size = 12", text))
    (tmp_path / "mine.toml").write_text(text)
    recipe = load_recipe(tmp_path / "mine.toml")
    assert recipe.shards.given()["preview"] is True
    require_shards(ShardSet(shard_set()), recipe.shards)
    assert "preview" not in ConversionSettings(dataset="digits").as_dict()
