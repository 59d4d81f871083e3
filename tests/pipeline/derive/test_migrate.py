"""A set of frames becomes the very set that a conversion with its events makes, of its own raw data alone."""

import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import write_digits_raw
from PIL import Image

from spikebridge import cli
from spikebridge.pipeline.base.errors import SettingsError, ShardSetError
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.derive.migrate import migrate
from spikebridge.pipeline.derive.subset import subset
from spikebridge.pipeline.preprocess.array_jobs import Sources
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import ConversionSettings


@pytest.fixture(scope="module")
def raw(made_once):
    """That of `shard_set`."""
    return made_once("raw data of shard sets", lambda folder: write_digits_raw(folder / "raw", train=8, test=3)) / "raw"


@pytest.mark.parametrize("store", ["both", "events"])
def test_the_set_that_a_conversion_makes(shard_set, raw, tmp_path, store):
    source, wanted = shard_set(samples_per_shard=7), ShardSet(shard_set(samples_per_shard=7, store=store))
    words = ["migrate", source, "--events", raw, "--static", raw, "--out", tmp_path / "set", "--workers", 1]
    words += ["--store", store] if store != "both" else []
    done = CliRunner().invoke(cli.main, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert (ShardSet(source).manifest["schema"], ShardSet(tmp_path / "set").manifest["schema"]) == (1, 2)
    assert ShardSet(tmp_path / "set").id == wanted.id
    assert verify(tmp_path / "set").ok
    assert migrate(source, Sources(raw, raw), tmp_path / "set", store=store).up_to_date


def test_raw_data_that_lacks_a_recording_or_has_one_more(shard_set, raw, tmp_path):
    changed = tmp_path / "raw"
    shutil.copytree(raw, changed)
    recording = changed / "events" / "Test" / "0" / "00009.bin"
    recording.rename(tmp_path / "away")
    with pytest.raises(ShardSetError, match=r"lacks 1 of its 33 recordings.* first is test-0-00009"):
        migrate(shard_set(), Sources(changed, changed), tmp_path / "set")
    (tmp_path / "away").rename(recording)
    for side, end in (("events", "bin"), ("static", "png")):
        folder = changed / side / "Test" / "0"
        shutil.copy(folder / f"00009.{end}", folder / f"00099.{end}")
    with pytest.raises(ShardSetError, match=r"gives 1 recordings that the set lacks, 0 of them dropped.* test-0-00099"):
        migrate(shard_set(), Sources(changed, changed), tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_raw_data_with_other_events_or_pixels(shard_set, raw, tmp_path):
    changed = tmp_path / "raw"
    shutil.copytree(raw, changed)
    path = changed / "events" / "Test" / "0" / "00009.bin"
    path.write_bytes(path.read_bytes()[: 5 * 20])
    image = changed / "static" / "Train" / "1" / "00012.png"
    Image.fromarray(255 - np.asarray(Image.open(image))).save(image)
    with pytest.raises(ShardSetError) as refused:
        migrate(shard_set(), Sources(changed, changed), tmp_path / "set")
    said = str(refused.value)
    assert "the raw data has changed since that was made" in said
    assert "test: 8 equal, 1 changed (1 frames)\n    changed: test-0-00009" in said
    assert "1 changed (1 pixels)\n    changed: static-1-train00012" in said
    assert verify(tmp_path / "set").ok


def test_sets_that_are_not_to_be_migrated(shard_set, raw, tmp_path):
    with pytest.raises(SettingsError, match=r"schema 2 already.*convert --store"):
        migrate(shard_set(store="events"), Sources(raw, raw), tmp_path / "set")
    subset(shard_set(), tmp_path / "part", splits=("train",))
    with pytest.raises(SettingsError, match=r"made of other sets \(subset\).*Migrate those"):
        migrate(tmp_path / "part", Sources(raw, raw), tmp_path / "set")


def test_tables_must_be_those_of_the_set(shard_set, raw, tmp_path):
    table, other = tmp_path / "splits.csv", tmp_path / "other.csv"
    settings = ConversionSettings(dataset="digits", time_bins=4, size=12)
    usual = Sources(raw, raw).prepare(settings).split
    table.write_text("recording,split\n" + "".join(f"{name},{split}\n" for name, split in sorted(usual.items())[4:]))
    other.write_text(table.read_text() + "\n")
    convert(Sources(raw, raw, table).prepare(settings), tmp_path / "set")
    with pytest.raises(SettingsError, match="made with --splits: give the same file"):
        migrate(tmp_path / "set", Sources(raw, raw), tmp_path / "new")
    with pytest.raises(SettingsError, match=r"other.csv: not the --splits that .* \(whose SHA-256 is "):
        migrate(tmp_path / "set", Sources(raw, raw, other), tmp_path / "new")
    with pytest.raises(SettingsError, match=r"not the --splits .*made without"):
        migrate(shard_set(), Sources(raw, raw, table), tmp_path / "new")
    done = migrate(tmp_path / "set", Sources(raw, raw, table), tmp_path / "new")
    assert done.manifest["splits"] == manifests.read(tmp_path / "set")["splits"]
