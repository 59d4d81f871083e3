"""`diff` says in what two sets differ: one test for each way in which they can."""

import json
import shutil

import numpy as np
import pytest
from shard_files import sign

from spikebridge.pipeline.checks.diff import difference
from spikebridge.pipeline.preprocess.reformat import reformat
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.static_pool import read_static, write_static
from spikebridge.pipeline.shards.writer import Sample, write_shard


@pytest.fixture
def copy(shard_set, tmp_path):
    shutil.copytree(shard_set(), tmp_path / "set")
    return tmp_path / "set"


def compared(first, second):
    """The difference, whose text and JSON form are looked at as well."""
    found = difference(ShardSet(first), ShardSet(second))
    values = json.loads(json.dumps(found.as_dict()))
    assert values["same_content"] == found.same_content
    return found, found.text()


def rewritten(folder, change):
    """Write the training shard again with `change` made to its samples, and sign the set with its new counts."""
    shards = ShardSet(folder)
    (path,), split = shards.event_shards("train"), shards.split("train")
    said = json.dumps({"events_sha256": "0" * 64, "static": None})
    samples = [
        Sample(key, int(label), frames, said)
        for key, label, frames in zip(split.keys, split.labels, split.read_all(), strict=True)
    ]
    samples = change(samples)
    width = max(len(sample.key) for sample in samples)
    write_shard(path, samples, shape=shards.sample_shape, dtype=shards.dtype, key_bytes=width)
    counts = manifests.read(folder)["splits"]
    per_class = np.bincount([sample.label for sample in samples], minlength=10).tolist()
    sign(folder, splits={**counts, "train": {"samples": len(samples), "per_class": per_class}})


def test_a_set_and_itself(shard_set):
    found, text = compared(shard_set(), shard_set())
    assert found.identical
    assert text == f"the same shard set, {found.ids[0]}"


def test_another_setting_is_named_with_both_values(shard_set):
    found, text = compared(shard_set(), shard_set(time_bins=5))
    assert "setting time_bins: 4 in the first, 5 in the second" in text
    assert "samples: 4x2x12x12 uint8 and 5x2x12x12 uint8, so that none can be equal" in text
    assert found.parts["train"].equal == 0
    assert found.parts["static"].same
    assert not found.same_content


def test_another_protocol_moves_photographs_between_roles(shard_set):
    found, text = compared(shard_set(), shard_set(protocol="leaky"))
    assert "setting protocol: strict in the first, leaky in the second" in text
    assert found.parts["train"].same
    assert found.parts["static"].reasons == {"role": 12}
    assert "static: 21 equal, 12 changed (12 role)\n" in text


@pytest.mark.parametrize(("wanted", "setting"), [({"format_": "hdf5"}, "format"), ({"codec": "gzip"}, "codec")])
def test_another_container_or_codec_holds_the_same(shard_set, tmp_path, wanted, setting):
    reformat(shard_set(), tmp_path / "other", **wanted)
    found, text = compared(shard_set(), tmp_path / "other")
    assert found.same_content
    assert not found.identical
    assert text.startswith("same samples, classes and images: ")
    assert f"setting {setting}: " in text
    assert [line.split(":")[0] for line in found.settings] == [f"setting {setting}".split()[1]]
    assert found.files.changed or found.files.only_first


def test_other_bytes_of_one_sample(shard_set, copy):
    def change(samples):
        samples[2].frames[0, 0, 0, 0] ^= 1
        return samples

    rewritten(copy, change)
    found, text = compared(shard_set(), copy)
    key = ShardSet(copy).split("train").keys[2]
    assert found.parts["train"].changed == [key]
    assert found.parts["train"].reasons == {"frames": 1}
    assert f"    changed: {key}" in text
    assert "events-train-00000.tar" in found.files.changed
    assert "events-test-00000.tar" not in found.files.changed
    assert found.settings == []


def test_another_class_of_one_sample(shard_set, copy):
    rewritten(copy, lambda s: [Sample(s[0].key, (s[0].label + 1) % 3, s[0].frames, s[0].metadata), *s[1:]])
    found, text = compared(shard_set(), copy)
    assert found.parts["train"].reasons == {"class": 1}
    assert "1 changed (1 class)" in text


def test_a_missing_sample_and_one_more(shard_set, copy):
    rewritten(copy, lambda s: [Sample(s[0].key + "x", s[0].label, s[0].frames, s[0].metadata), *s[2:]])
    found, text = compared(shard_set(), copy)
    first = ShardSet(shard_set()).split("train").keys
    assert found.parts["train"].only_first == list(first[:2])
    assert found.parts["train"].only_second == [first[0] + "x"]
    assert "2 only in the first, 1 only in the second" in text
    assert f"only in the second: {first[0]}x" in text


def test_another_order(shard_set, copy):
    rewritten(copy, lambda s: s[::-1])
    found, text = compared(shard_set(), copy)
    assert all(part.same for part in found.parts.values())
    assert not found.order
    assert not found.same_content
    assert "the samples come in another order" in text


def test_other_metadata_alone_changes_files_alone(shard_set, copy):
    rewritten(copy, lambda s: s)  # but for their metadata, the samples are what they were
    found, text = compared(shard_set(), copy)
    assert found.same_content
    assert not found.identical
    assert found.files.changed == ["events-train-00000.idx.npy", "events-train-00000.tar"]
    assert "    changed: events-train-00000.idx.npy, events-train-00000.tar" in text


def test_another_static_image_and_other_class_names(shard_set, copy):
    static = read_static(copy / "static.h5")
    static.images[5] ^= 255
    (copy / "static.h5").unlink()
    write_static(copy / "static.h5", static)
    classes = list(ShardSet(copy).classes)
    sign(copy, classes=[*classes[:2], "deux", *classes[3:]])
    found, text = compared(shard_set(), copy)
    assert found.parts["static"].changed == [static.keys[5]]
    assert found.parts["static"].reasons == {"pixels": 1}
    assert "classes only in the first: 2" in text
    assert "classes only in the second: deux" in text
    sign(copy, classes=classes[::-1])
    assert "classes: the same names with other numbers" in compared(shard_set(), copy)[1]
