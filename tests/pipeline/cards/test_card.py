"""The card of a shard set: front matter that a YAML reader and a hub's rules accept, for every data set."""

import re

import pytest
import yaml

from spikebridge.pipeline.cards.card import dataset_card, size_category
from spikebridge.pipeline.readers import list_readers
from spikebridge.pipeline.shards.reader import ShardSet

KEYS = {
    "pretty_name": str,
    "license": str,
    "license_name": str,
    "license_details": str,
    "task_categories": list,
    "size_categories": list,
    "tags": list,
}
"""What huggingface/hub-docs, datasetcard.md, asks for, and its types."""
SIZES = re.compile(r"n<1K|1K<n<10K|10K<n<100K|100K<n<1M|1M<n<10M|10M<n<100M|100M<n<1B")


def front_matter(text):
    before, front, body = text.split("---\n", 2)
    assert before == ""
    assert body.startswith("# ")
    return yaml.safe_load(front)


def check(head):
    for name, kind in KEYS.items():
        assert isinstance(head[name], kind), name
    assert set(head) <= {*KEYS, "configs"}
    assert head["license"] == "other"
    assert re.fullmatch("[a-z0-9.-]+", head["license_name"])
    assert head["task_categories"] == ["image-classification"]
    assert all(SIZES.fullmatch(size) for size in head["size_categories"])
    assert all(re.fullmatch("[a-z0-9-]+", tag) for tag in head["tags"])


def test_of_a_real_set(shard_set):
    path = shard_set(samples_per_shard=4)
    head = front_matter((path / "README.md").read_text())
    check(head)
    assert head["size_categories"] == ["n<1K"]
    assert "simulated" in head["tags"]
    (config,) = head["configs"]
    found = {one["split"]: sorted(file.name for file in path.glob(one["path"])) for one in config["data_files"]}
    shards = sorted(name for name in ShardSet(path).files if name.endswith(".tar"))
    assert sorted(name for names in found.values() for name in names) == shards
    assert list(found) == ["train", "validation", "test"]
    assert all(name.startswith(f"events-{split}-") for split, names in found.items() for name in names)


def test_hdf5_promises_no_loader(shard_set):
    head = front_matter((shard_set(format="hdf5") / "README.md").read_text())
    check(head)
    assert "configs" not in head
    assert "hdf5" in head["tags"]


@pytest.mark.parametrize("reader", list_readers(), ids=lambda reader: reader.name)
def test_of_every_data_set(shard_set, reader):
    content = ShardSet(shard_set()).manifest
    settings = {**content["settings"], "dataset": reader.name}
    card = dataset_card({**content, "dataset": reader.name, "settings": settings, "simulated": False}, reader.card)
    head = front_matter(card)
    check(head)
    assert head["pretty_name"] == reader.card.title
    assert head["license_details"] == reader.card.licence
    assert head["license_name"] == f"{reader.name}-terms"
    assert "simulated" not in head["tags"]


def test_sizes():
    wanted = {0: "n<1K", 999: "n<1K", 1000: "1K<n<10K", 9999: "1K<n<10K", 10_000: "10K<n<100K", 2_500_000: "1M<n<10M"}
    assert {count: size_category(count) for count in wanted} == wanted
