"""Every planted leak that only content shows is found, whatever the set says of itself."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from spikebridge.cli import main
from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.checks.audit import MatchedImage
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.shards.manifest import SPLITS
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.static_pool import read_static


@pytest.fixture(scope="module")
def sources(shard_set):
    """Names of the recordings by split."""
    return {split: [named(key) for key in ShardSet(shard_set()).splits[split].keys] for split in SPLITS}


def named(key):
    """The recording of a sample as the reader of `digits` calls it."""
    split, label, stem = key.split("-")
    return f"{'Test' if split == 'test' else 'Train'}/{label}/{stem}"


def test_every_planted_leak_is_found(shard_set, sources):
    unknown = {name: MatchedImage("", "") for names in sources.values() for name in names}
    clean = verify(shard_set(), matched=unknown)
    assert clean.ok
    assert any(note.startswith("by content, 0 of ") for note in clean.notes)
    random = np.random.default_rng(0)
    for number in range(10):
        train, held_out = random.choice(sources["train"]), random.choice(sources["test"] + sources["validation"])
        image = MatchedImage("a/photo", f"{number:064x}" if number % 2 else "")
        planted = unknown | {str(train): image, str(held_out): image}
        found = verify(shard_set(), matched=planted)
        assert not found.ok
        assert len(found.problems) == 1
        assert found.problems[0].startswith("leak by content: train-")
        assert "show one static image, a/photo" in found.problems[0]


def test_the_verb_reads_a_table(shard_set, sources, tmp_path):
    table, rows = tmp_path / "pairs.csv", [f"{sources[split][0]},a/photo" for split in ("train", "test")]
    table.write_text("\n".join(["recording,image", *rows]) + "\n")
    done = CliRunner().invoke(main, ["verify", str(shard_set()), "--match", str(table)])
    assert done.exit_code == 4
    assert "problem: leak by content: train-" in done.output
    assert "by content, 2 of " in done.output


def test_an_image_of_the_pool_that_a_held_out_recording_shows_is_a_leak(shard_set, sources):
    static = read_static(shard_set() / "static.h5")
    row = static.roles.index("pool")
    image = MatchedImage("renamed", static.pixels_sha256[row].tobytes().hex())
    found = verify(shard_set(), matched={sources["test"][0]: image})
    (problem,) = found.problems
    assert problem.startswith(f"leak by content: {static.keys[row]} in the static pool is the image that test-")
    assert any("0 of 1 recordings show by content the image that the set pairs" in note for note in found.notes)
    legacy = verify(shard_set(protocol="legacy"), matched={sources["test"][0]: image})
    assert legacy.ok
    assert any(note.startswith("leak by content") for note in legacy.notes)


def test_a_table_of_another_set_is_refused(shard_set):
    with pytest.raises(
        ShardSetError, match="no recording of the table is in the set, whose recordings are named like T"
    ):
        verify(shard_set(), matched={"elsewhere/1": MatchedImage("a", "")})
