"""Long recordings cut into samples: the frames of each part, all of a recording in one split, nothing lost unsaid."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import make_events
from event_files import dat
from PIL import Image

from spikebridge.cli import main
from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.events.framing import to_frames
from spikebridge.pipeline.events.packing import pack
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import ConversionSettings

SENSOR = (300, 200)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Five recordings of a second in each of two classes, the last of 250 ms, with pauses of 100 ms in the first."""
    root = tmp_path_factory.mktemp("raw")
    for label, name in enumerate(("cat", "dog")):
        for number in range(5):
            duration = 250_000 if number == 4 else 1_000_000
            events = make_events(10 * label + number, count=800, size=SENSOR, duration_us=duration)
            events.t[[0, -1]] = 0, duration - 1
            if number == 0:
                quiet = (events.t % 400_000 >= 300_000) & (events.t < 950_000)
                events = events.part(~quiet)
            path = root / "events" / name / f"{number}.dat"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(dat(events, size=SENSOR))
            image = root / "static" / name / f"{number}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(10 * label + number).integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(pixels).save(image)
    return root


def converted(raw, out, **given):
    wanted = ConversionSettings(dataset="folders", time_bins=4, size=10, dtype="uint8", **given)
    made = convert(prepare(wanted, events_root=raw / "events", static_root=raw / "static"), out, workers=1)
    assert verify(out).ok
    shards = ShardSet(out)
    stored = {}
    for name, split in shards.splits.items():
        for key, frames in zip(split.keys, split.read_all(), strict=True):
            stored[key.partition("-")[2]] = (name, frames)
    return made, stored


def test_parts_of_one_length(raw, tmp_path, monkeypatch):
    made, stored = converted(raw, tmp_path / "set", cut_us=300_000, overlap_us=100_000)
    note = "10 recordings cut into 34 samples: parts of 300 ms that overlap by 100 ms; 0.8 s lie in none"
    assert note in made.manifest["notes"]
    assert len(stored) == 34  # four of each long recording, and the short ones as they are
    events = make_events(13, count=800, size=SENSOR, duration_us=1_000_000)
    events.t[[0, -1]] = 0, 999_999
    part = pack(events.part((events.t >= 400_000) & (events.t < 700_000)), sensor_size=SENSOR, source="x")
    way = {"time_bins": 4, "size": 10, "reduction": "sum", "dtype": "uint8", "canvas": SENSOR, "source": "x"}
    np.testing.assert_array_equal(stored["1-3_400000-700000"][1], to_frames(part, **way).frames)
    splits = {}
    for key, (split, _) in stored.items():
        splits.setdefault(key.partition("_")[0], set()).add(split)
    assert {len(names) for names in splits.values()} == {1}
    # the same where recordings are decoded anew instead of kept
    monkeypatch.setattr("spikebridge.pipeline.readers.folders.KEPT_EVENTS", 100)
    again, _ = converted(raw, tmp_path / "again", cut_us=300_000, overlap_us=100_000)
    assert again.manifest["self_sha256"] == made.manifest["self_sha256"]


def test_what_lies_between_pauses(raw, tmp_path):
    made, stored = converted(raw, tmp_path / "set", pauses_us=60_000)
    assert any("cut into 14 samples: what lies between pauses of 60 ms" in note for note in made.manifest["notes"])
    assert len(stored) == 14


def test_cuts_that_are_none():
    for wrong in (
        {"cut_us": 300, "pauses_us": 5},
        {"cut_us": 300, "overlap_us": 300},
        {"overlap_us": 5},
    ):
        with pytest.raises(SettingsError, match="cut_us"):
            ConversionSettings(dataset="folders", **wrong)
    plain = ConversionSettings(dataset="folders")
    assert "cut_us" not in plain.as_dict()


def test_cuts_on_the_command_line(raw):
    command = ["preprocess", "--dataset", "folders", "--events", raw / "events", "--static", raw / "static"]
    command = [*map(str, command), "--dry-run", "--json"]
    done = CliRunner().invoke(main, [*command, "--cut", "0.3s", "--overlap", "100ms"], catch_exceptions=False)
    plan = json.loads(done.stdout)
    assert sum(plan[split] for split in ("train", "validation", "test")) == 34
    done = CliRunner().invoke(main, [*command, "--cut", "pauses:60ms"], catch_exceptions=False)
    assert json.loads(done.stdout)["recordings"] == 14
    for wrong in ("300", "pauses:", "0ms", "0.5us"):
        done = CliRunner().invoke(main, [*command, "--cut", wrong])
        assert done.exit_code == 2
        assert "300ms" in done.stderr
