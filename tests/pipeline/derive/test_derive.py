"""`combine` and `subset`: the same samples under new names, provenance, and no leak over all sets together."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import write_nmnist_raw
from own_folders import converted, planned, write_own

from spikebridge import cli
from spikebridge.pipeline.base.errors import SettingsError, ShardSetError
from spikebridge.pipeline.checks.diff import difference
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.derive import write as writing
from spikebridge.pipeline.derive.combine import combine
from spikebridge.pipeline.derive.subset import subset
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import ConversionSettings

OTHERS = [str(number) for number in range(9, 0, -1)]
"""All classes of the set but 0; 1 and 2 have recordings."""


@pytest.fixture(scope="session")
def source(shard_set):
    return shard_set(samples_per_shard=7)


def shards_of(folder):
    return {path.name: path.read_bytes() for path in folder.glob("events-*")}


def test_parts_put_together_again_are_the_set(source, tmp_path):
    subset(source, tmp_path / "first", classes=["0"])
    subset(source, tmp_path / "rest", classes=OTHERS)
    whole = combine([tmp_path / "first", tmp_path / "rest"], tmp_path / "whole").manifest
    assert shards_of(tmp_path / "whole") == shards_of(source)
    assert difference(ShardSet(source), ShardSet(tmp_path / "whole")).same_content
    assert whole["events"] == ShardSet(source).manifest["events"]
    for name in ("first", "rest", "whole"):
        report = verify(tmp_path / name)
        assert (report.problems, report.state) == ([], "whole")
    ids = [ShardSet(tmp_path / name).id for name in ("first", "rest")]
    steps = whole["made_from"]
    assert [step["verb"] for step in steps] == ["subset", "subset", "combine"]
    assert [step.get("gave") for step in steps] == [*ids, None]
    assert [one["id"] for one in steps[-1]["sets"]] == ids
    assert steps[1]["selection"] == {"classes": OTHERS[::-1]}
    card = (tmp_path / "whole" / "README.md").read_text()
    assert all(one in card for one in [*ids, ShardSet(source).id])


@pytest.mark.parametrize("store", [pytest.param("events", marks=pytest.mark.long), "both"])
def test_parts_of_stored_events(shard_set, tmp_path, store):
    whole = ShardSet(shard_set(samples_per_shard=7, store=store))
    subset(whole.path, tmp_path / "first", classes=["0"])
    subset(whole.path, tmp_path / "others", classes=OTHERS)
    combine([tmp_path / "first", tmp_path / "others"], tmp_path / "both")
    both = ShardSet(tmp_path / "both")
    assert both.store == store
    assert both.manifest["stored"] == whole.manifest["stored"]
    assert both.with_frames(time_bins=2).sample_shape == (2, 2, 12, 12)
    for name in whole.present:
        splits = [one.split(name) for one in (both, whole)]
        found, wanted = ({one.sha256() for one in split.read_events(range(len(split)))} for split in splits)
        assert found == wanted
    assert verify(both.path).ok
    with pytest.raises(SettingsError, match="store"):
        combine([tmp_path / "first", shard_set(samples_per_shard=7)], tmp_path / "mixed")


def test_a_part_by_split_number_and_key(source, tmp_path):
    whole = ShardSet(source)
    few = subset(source, tmp_path / "few", per_class={"train": 2}, splits=["train", "test"]).manifest
    assert few["splits"]["train"]["per_class"] == [2, 2, 2, *[0] * 7]
    assert few["splits"]["validation"]["samples"] == 0
    assert few["splits"]["test"] == whole.manifest["splits"]["test"]
    assert few["static"] == whole.manifest["static"]
    drawn = set(ShardSet(tmp_path / "few").split("train").keys)
    subset(source, tmp_path / "more", per_class={"train": 4})
    assert drawn < set(ShardSet(tmp_path / "more").split("train").keys)
    subset(source, tmp_path / "other", per_class={"train": 2}, seed=1)
    assert drawn != set(ShardSet(tmp_path / "other").split("train").keys)
    keys = [*whole.split("train").keys[:3], whole.split("test").keys[0]]
    (tmp_path / "keys.txt").write_text("\n".join(keys) + "\n")
    subset(source, tmp_path / "chosen", keys=tmp_path / "keys.txt")
    chosen = ShardSet(tmp_path / "chosen")
    assert sorted([*chosen.split("train").keys, *chosen.split("test").keys]) == sorted(keys)
    row = chosen.split("train").keys.index(keys[0])
    assert np.array_equal(chosen.split("train").read([row])[0], whole.split("train").read([0])[0])
    assert verify(tmp_path / "few").ok
    assert verify(tmp_path / "chosen").ok


def test_what_cannot_be_asked_of_a_part_is_named(source, tmp_path):
    for asked, words in (
        ({}, "nothing is left out"),
        ({"classes": ["17"]}, "no class '17'; did you mean 7"),
        ({"splits": ["tset"]}, "no split 'tset'; did you mean test"),
        ({"per_class": {"train": 0}}, "expected at least 1"),
    ):
        with pytest.raises(SettingsError, match=words):
            subset(source, tmp_path / "new", **asked)
    for text, words in (("", "empty"), ("a\na\n", "twice"), ("train-0-none\n", "no sample train-0-none")):
        (tmp_path / "keys.txt").write_text(text)
        with pytest.raises(SettingsError, match=words):
            subset(source, tmp_path / "new", keys=tmp_path / "keys.txt")
    assert not (tmp_path / "new" / manifests.MANIFEST).exists()


def test_sets_that_leak_together_are_refused(shard_set, tmp_path):
    """Each alone is sound; a recording validates in one and trains in the other."""
    with pytest.raises(ShardSetError, match="one recording in two splits"):
        combine([shard_set(), shard_set(seed=1)], tmp_path / "new")
    held = ShardSet(shard_set()).split("validation").keys
    stems = {key.split("-", 2)[2] for key in held}
    others = [key for key in ShardSet(shard_set(seed=1)).split("train").keys if key.split("-", 2)[2] not in stems]
    for name, keys, settings in (("held", held, {}), ("training", others, {"seed": 1})):
        (tmp_path / f"{name}.txt").write_text("\n".join(keys))
        subset(shard_set(**settings), tmp_path / name, keys=tmp_path / f"{name}.txt")
    assert ShardSet(tmp_path / "training").static_images().roles.count("pool") > 0
    combine([tmp_path / "held", tmp_path / "training"], tmp_path / "sound")
    static = ShardSet(tmp_path / "sound").static_images()
    roles = {name[-5:]: role for name, role in zip(static.keys, static.roles, strict=True)}
    assert {roles[stem] for stem in stems} == {"validation"}  # as in the first set; the second has them in its pool
    assert verify(tmp_path / "sound").ok


def test_sets_of_the_same_recordings_hold_them_once(source, tmp_path):
    subset(source, tmp_path / "part", classes=["1"])
    made = combine([source, tmp_path / "part"], tmp_path / "both").manifest
    assert shards_of(tmp_path / "both") == shards_of(source)
    repeated = sum(split["per_class"][1] for split in made["splits"].values())
    assert f"{repeated} recordings stand in several of the sets" in made["notes"][-1]
    assert verify(tmp_path / "both").ok


def test_settings_that_differ_are_named(shard_set, source, tmp_path):
    with pytest.raises(SettingsError, match=r"time_bins: 5 in .*, 4 in .*"):
        combine([source, shard_set(time_bins=5)], tmp_path / "new")
    with pytest.raises(SettingsError, match="given twice"):
        combine([source, source], tmp_path / "new")
    with pytest.raises(SettingsError, match="one set alone"):
        combine([source], tmp_path / "new")


def test_container_and_shard_size_are_those_of_the_first(shard_set, source, tmp_path):
    subset(source, tmp_path / "first", classes=["0"])
    subset(shard_set(format="hdf5", codec="gzip"), tmp_path / "rest", classes=OTHERS)
    combine([tmp_path / "first", tmp_path / "rest"], tmp_path / "whole")
    assert shards_of(tmp_path / "whole") == shards_of(source)


def test_two_data_sets_of_equal_names(source, tmp_path):
    """Keys that both have stay apart, and cards, licences and citations of both are there."""
    raw = write_nmnist_raw(tmp_path / "raw")
    wanted = ConversionSettings(dataset="nmnist", time_bins=4, size=12)
    convert(prepare(wanted, events_root=raw, static_root=raw), tmp_path / "nmnist")
    before = ShardSet(source), ShardSet(tmp_path / "nmnist")
    made = combine([source, tmp_path / "nmnist"], tmp_path / "both").manifest
    assert made["dataset"] == made["settings"]["dataset"] == "digits+nmnist"
    total = {name: sum(one.manifest["splits"][name]["samples"] for one in before) for name in made["splits"]}
    assert {name: split["samples"] for name, split in made["splits"].items()} == total
    assert verify(tmp_path / "both").ok
    card = (tmp_path / "both" / "README.md").read_text()
    assert "N-MNIST" in card
    assert "scikit-learn" in card
    assert made["simulated"]
    both = ShardSet(tmp_path / "both").split("test")
    of_nmnist = before[1].split("test")
    row = next(i for i, key in enumerate(both.keys) if key.endswith(of_nmnist.keys[0].split("-", 2)[2]))
    assert both.labels[row] == int(both.keys[row].split("-")[1])
    assert cli_json(["convert", tmp_path / "both", "--out", tmp_path / "h5", "--format", "hdf5"])["up_to_date"] is False


def test_groups_may_not_be_parted_between_sets(tmp_path):
    """Subjects r0 to r7: other recordings of those that train in one set are tested in the other."""
    raw = write_own(tmp_path / "raw", each=8)
    settings = {"group_by": r"r(\d)", "pairing": "class", "sensor": (30, 20)}
    converted(raw, tmp_path / "first", **settings)
    first = ShardSet(tmp_path / "first")
    subset(tmp_path / "first", tmp_path / "training", splits=["train"])
    for path in raw.glob("events/*/*.npz"):
        events = dict(np.load(path))
        np.savez(path, **{**events, "x": events["x"][::-1]})
    tested = [f"{name}/r{group}" for name in ("cat", "dog") for group in sorted(set(first.split("train").groups))]
    (tmp_path / "splits.csv").write_text("recording,split\n" + "".join(f"{name},test\n" for name in tested))
    wanted = planned(raw, **settings).settings
    convert(prepare(wanted, events_root=raw, static_root=raw, splits=tmp_path / "splits.csv"), tmp_path / "second")
    with pytest.raises(ShardSetError, match=r"group .* has recordings in train and test"):
        combine([tmp_path / "training", tmp_path / "second"], tmp_path / "new")


def test_an_interrupted_run_continues(source, tmp_path, monkeypatch):
    written, whole = [], writing.write_shard

    def stop_at_the_second(path, *rest, **more):
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(path)
        return whole(path, *rest, **more)

    monkeypatch.setattr(writing, "write_shard", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        subset(source, tmp_path / "new", splits=["train", "test"])
    with pytest.raises(ShardSetError, match="not finished"):
        ShardSet(tmp_path / "new")
    again = []
    monkeypatch.setattr(writing, "write_shard", lambda path, *a, **m: again.append(path) or whole(path, *a, **m))
    made = subset(source, tmp_path / "new", splits=["train", "test"])
    assert written[0] not in again
    assert again
    assert subset(source, tmp_path / "new", splits=["test", "train"]).up_to_date
    assert made.manifest["self_sha256"] == ShardSet(tmp_path / "new").id
    with pytest.raises(SettingsError, match="already holds another shard set"):
        subset(source, tmp_path / "new", splits=["train"])


@pytest.mark.parametrize("name", ["events-test-00000.tar", "events-train-00001.idx.npy", "static.h5", "rejects.jsonl"])
def test_a_damaged_source_is_refused(source, tmp_path, name):
    shutil.copytree(source, tmp_path / "source")
    data = bytearray((tmp_path / "source" / name).read_bytes() or b"\n")
    data[len(data) // 2] ^= 1
    (tmp_path / "source" / name).write_bytes(data)
    with pytest.raises(ShardSetError, match=name.split(".")[0]):
        subset(tmp_path / "source", tmp_path / "new", splits=["train", "test"])
    assert not (tmp_path / "new" / manifests.MANIFEST).exists()


def cli_json(words, code=0):
    done = CliRunner().invoke(cli.main, [*map(str, words), "--json"], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def test_the_verbs(source, tmp_path):
    part = cli_json(["subset", source, "--to", tmp_path / "part", "--per-class", "2", "--per-class", "train=3"])
    assert part["splits"] == {"train": 9, "validation": 3, "test": 6}
    assert part["made_from"] == [ShardSet(source).id]
    rest = cli_json(["subset", source, "--to", tmp_path / "rest", "--classes", "2", "--split", "test"])
    both = cli_json(["combine", tmp_path / "part", tmp_path / "rest", "--to", tmp_path / "both"])
    assert both["made_from"] == [part["id"], rest["id"]]
    assert both["splits"]["test"] == 7
    shown = CliRunner().invoke(cli.main, ["inspect", str(tmp_path / "both")], catch_exceptions=False).output
    assert f"combine of {part['id'][:12]}, {rest['id'][:12]}" in shown
    refused = CliRunner().invoke(cli.main, ["subset", str(source), "--to", str(tmp_path / "x"), "--per-class", "dev=3"])
    assert refused.exit_code == 2
    assert "expected for example 10, or train=10" in refused.output
