"""What a conversion says at its end: facts for people, warnings in manifest and card, and --strict."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import make_events
from conversions import contents
from own_folders import converted, planned, put_recording, write_own

from spikebridge.cli import main
from spikebridge.pipeline.base.errors import PipelineError
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.remarks import list_warnings
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.readers.folders import Folders
from spikebridge.pipeline.shards.settings import ConversionSettings


@pytest.fixture
def awkward(tmp_path):
    """Two classes whose recordings have everything that is warned of, but clipping."""
    raw = write_own(tmp_path / "raw", each=6)
    (raw / "events" / "sensor.txt").write_text("30 20\n")
    dull = make_events(100, count=400, size=(30, 20))
    put_recording(raw / "events" / "cat" / "r1.npz", replace(dull, p=np.ones_like(dull.p)))
    still = make_events(101, count=400, size=(2, 2))
    put_recording(raw / "events" / "cat" / "r2.npz", still)
    put_recording(raw / "events" / "dog" / "r3.npz", make_events(102, size=(30, 20), duration_us=1_600_000))
    put_recording(raw / "events" / "dog" / "r4.npz", make_events(103, size=(31, 20)))
    for name in ("clip.mp4", "rest.zip", "two.mp4", "notes.txt", ".hidden", "Thumbs.db", "READ.md"):
        (raw / "events" / "cat" / name).write_bytes(b"no numbers")
    (raw / "static" / "dog" / "r9.heic").write_bytes(b"")
    (raw / "static" / "cow").mkdir()
    (raw / "static" / "dog" / "r0.png").rename(raw / "static" / "cow" / "r0.png")
    return raw


def test_every_doubt_is_a_line_in_manifest_and_card_and_names_its_cure(awkward, tmp_path):
    manifest = converted(awkward, tmp_path / "set", max_bad=2, size=20)
    notes = [note.removeprefix("warning: ") for note in manifest["notes"] if note.startswith("warning: ")]
    expected = {
        "1 recordings reach outside the sensor of 30x20 pixels, with 8 of their 300 events (2.7 %)": "--sensor WxH",
        "1 recordings have events of one polarity (cat/r1)": "--columns",
        "1 recordings use less than 2% of the cells that they could (cat/r2 ": "--extent recording",
        "the longest recording lasts 5.4 times": "--binning window",
        "files passed over among the recordings: 2 .mp4 (videos: make events": "1 .zip (unpack them)",
        "files passed over among the static images: 1 .heic (": "PNG",
    }
    assert len(notes) == len(expected)
    for note, (beginning, cure) in zip(notes, expected.items(), strict=True):
        assert note.startswith(beginning), note
        assert cure in note
        assert note in (tmp_path / "set" / "README.md").read_text()
    assert "1 .png (put them into the folders of classes with recordings" in notes[-1]
    assert "no recordings of the image classes cow" in manifest["notes"]
    assert len(list_warnings(manifest)) == len(expected) + 1


def test_strict_makes_them_errors_and_keeps_what_is_converted(awkward, tmp_path):
    out = tmp_path / "set"
    with pytest.raises(PipelineError, match=r"7 warning\(s\), and --strict:\n.*no recordings of the image classes"):
        convert(planned(awkward, size=20), out, max_bad=2, strict=True)
    assert not (out / "manifest.json").exists()
    shards = {path: path.stat().st_mtime_ns for path in out.glob("events-*.tar")}
    convert(planned(awkward, size=20), out, max_bad=2)
    assert shards == {path: path.stat().st_mtime_ns for path in out.glob("events-*.tar")}
    with pytest.raises(PipelineError, match="and --strict"):
        convert(planned(awkward, size=20), out, max_bad=2, strict=True)


def test_the_terminal_and_json_say_what_the_events_became(tmp_path):
    raw = write_own(tmp_path / "raw", each=6)
    (raw / "events" / "sensor.txt").write_text("30 20\n")
    options = ["--dataset", "folders", "--events", raw, "--static", raw, "--workers", 1, "--time-bins", 3, "--size", 10]

    def said(*more):
        done = CliRunner().invoke(main, ["preprocess", *map(str, [*options, *more])], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    text = said("--out", tmp_path / "plain", "--strict")
    assert "  sensor     30x20 pixels, stated by their folder" in text
    assert "  events     4,800 read, 0." in text
    assert "  durations  0.29" in text
    assert "warning" not in text
    again = said("--out", tmp_path / "plain")
    assert "is up to date" in again
    assert "  sensor     30x20 pixels\n  events     4,800 read, 0." in again
    cut = ["--binning", "window", "--window-us", 10_000, "--time-window", "0:80000", "--json"]
    found = json.loads(said("--out", tmp_path / "cut", *cut))
    assert "after the last bin, " in found["events"]
    again = json.loads(said("--out", tmp_path / "cut", *cut))
    assert again["events"] == found["events"], "the same words of a set that is up to date"
    assert "left out by time window" in found["events"]
    late, left_out = found["warnings"][:2]
    assert "of the events come after the last bin: a longer --window-us, or more --time-bins" in late
    assert "of the events are left out by --time-window: a milder one keeps more" in left_out


def test_what_was_decided_and_not_used_is_said(tmp_path):
    raw, wanted = write_own(tmp_path / "raw", each=2), ConversionSettings(dataset="folders", time_bins=3, size=10)
    table = np.stack(make_events(50, count=400, size=(30, 20)).columns, 1)
    np.savez(raw / "events" / "cat" / "r1.npz", events=table)
    rows = ["recording,split", "cat/r0,train", "cat/r1,train", "dog/r0,test"]
    (tmp_path / "splits.csv").write_text("\n".join(rows))
    conversion = prepare(wanted, events_root=raw, static_root=raw, splits=tmp_path / "splits.csv")
    lines = convert(conversion, tmp_path / "set").lines
    assert lines["recordings"] == "3 of 4 used; the others are in no split"
    assert lines["decided"] == "columns t,x,y,p by their content (1); events in events (1)"


def test_a_time_window_that_is_sought_gives_the_same_set(tmp_path, monkeypatch):
    """Byte by byte, with the counts of all events in the manifest; only what is read is less."""
    raw = write_own(tmp_path / "raw", each=4, ending=".dat")
    window = {"time_window_us": (60_000, 200_000), "hot_pixels": 20.0, "dtype": "uint8", "dtype_open": False}
    converted(raw, tmp_path / "whole", **window)
    monkeypatch.setattr("spikebridge.pipeline.formats.seek.SEEKS_FROM", 50)
    found, read = [], Folders.read_window

    def watched(*args, **options):
        found.append(read(*args, **options))
        return found[-1]

    monkeypatch.setattr(Folders, "read_window", watched)
    converted(raw, tmp_path / "sought", **window)
    assert contents(tmp_path / "sought") == contents(tmp_path / "whole")
    assert min(events.not_read for events in found) > 100
    assert len(found) == 8
