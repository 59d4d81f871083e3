"""The sensor's size: stated or measured, never assumed; an unreadable file moves no pixel; several are named."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import make_events
from conversions import contents
from own_folders import converted, planned, put_image, put_recording, write_own

from spikebridge.cli import main
from spikebridge.pipeline.base.errors import LayoutError, SettingsError
from spikebridge.pipeline.preprocess.array_jobs import Sources, convert_share, finish_shares
from spikebridge.pipeline.shards.reader import ShardSet


def frames(folder):
    """The frames of a set by key."""
    splits = ShardSet(folder).splits.values()
    return {key: frame for split in splits for key, frame in zip(split.keys, split.read_all(), strict=True)}


def write_mixed(root):
    """Two classes, each of one sensor; their events fill it alike."""
    for label, (name, size) in enumerate((("cat", (30, 20)), ("dog", (90, 60)))):
        for number in range(5):
            events = make_events(number, count=600, size=size)
            put_recording(root / "events" / name / f"r{number}.dat", events, size=size)
            put_image(root / "static" / name / f"r{number}.png", 10 * label + number)
    return root


def test_what_states_no_size_is_measured_over_all_and_said(tmp_path):
    raw = write_own(tmp_path / "raw")
    wide = make_events(77, size=(41, 20))
    put_recording(raw / "events" / "dog" / "r4.npz", wide)
    manifest = converted(raw, tmp_path / "set")
    assert manifest["sensor_size"] == [int(wide.x.max()) + 1, 20]
    assert manifest["notes"] == ["sensor of 41x20 pixels, measured over 10 recordings: --sensor WxH states it"]
    assert manifest["notes"][0] in (tmp_path / "set" / "README.md").read_text()
    (raw / "events" / "sensor.txt").write_text("41 20\n")
    assert converted(raw, tmp_path / "stated")["notes"] == []
    assert all((frames(tmp_path / "stated")[key] == frame).all() for key, frame in frames(tmp_path / "set").items())
    assert converted(raw, tmp_path / "given", sensor=(50, 20))["sensor_size"] == [50, 20]  # wins over sensor.txt


@pytest.mark.parametrize("ending", [".npz", ".dat"])
def test_an_unreadable_recording_moves_no_pixel_of_the_others(tmp_path, ending):
    raw = write_own(tmp_path / "raw", ending=ending)
    first = raw / "events" / "cat" / f"r0{ending}"
    whole = converted(raw, tmp_path / "whole")
    first.write_bytes(b"\0damaged" * 9)
    spoilt = converted(raw, tmp_path / "spoilt", max_bad=1)
    assert spoilt["sensor_size"] == whole["sensor_size"]
    others = frames(tmp_path / "spoilt")
    assert len(others) == 9
    assert all((frame == frames(tmp_path / "whole")[key]).all() for key, frame in others.items())


def test_the_same_whoever_measures(tmp_path):
    raw, expected = write_own(tmp_path / "raw"), tmp_path / "one"
    converted(raw, expected)
    sources = Sources(raw, raw)
    for number in (2, 1):
        convert_share(planned(raw), tmp_path / "shares", sources, share=(number, 2))
    finish_shares(tmp_path / "shares")
    assert contents(tmp_path / "shares") == contents(expected)


def test_recordings_of_several_sensors_are_refused_or_each_stretched_by_its_own(tmp_path):
    raw = write_mixed(tmp_path / "raw")
    refused = r"5 of 30x20 pixels \(such as cat/r0\), 5 of 90x60 pixels \(such as dog/r0\).*--mixed-sensors scale"
    with pytest.raises(LayoutError, match=refused):
        planned(raw)
    manifest = converted(raw, tmp_path / "set", mixed_sensors="scale")
    assert manifest["settings"]["mixed_sensors"] == "scale"
    (note,) = manifest["notes"]
    assert note == ("recordings of several sensors, each stretched by its own: 5 of 30x20 pixels, 5 of 90x60 pixels")
    used = {label: np.zeros((10, 10), bool) for label in "01"}
    for key, frame in frames(tmp_path / "set").items():
        used[key.split("-")[1]] |= frame.any((0, 1))
    assert all(cells.all() for cells in used.values())  # no camera sits in a corner


def test_a_recording_that_states_no_size_fits_into_that_of_the_others_or_is_another_sensor(tmp_path):
    raw = write_own(tmp_path / "raw", ending=".dat")
    (raw / "events" / "cat" / "r0.dat").unlink()
    silent = raw / "events" / "cat" / "r0.npz"
    put_recording(silent, make_events(3, size=(25, 20)))
    manifest = converted(raw, tmp_path / "set")
    assert manifest["sensor_size"] == [30, 20]
    assert manifest["notes"] == [
        "sensor of 30x20 pixels, stated by 9 recordings; the events of 1 recording fit into it"
    ]
    put_recording(silent, make_events(3, size=(31, 20)))
    with pytest.raises(LayoutError, match=r"9 of 30x20 pixels .*1 of 31x20 pixels \(such as cat/r0\)"):
        converted(raw, tmp_path / "refused")
    (note,) = converted(raw, tmp_path / "scaled", mixed_sensors="scale")["notes"]
    assert note.endswith("by its own: 9 of 30x20 pixels, and 1 recording of 31x20 pixels as measured")


def test_the_options(tmp_path):
    raw = write_own(tmp_path / "raw")
    arguments = ["preprocess", "--dataset", "folders", "--events", raw, "--static", raw, "--workers", 1, "--size", 10]

    def said(*options, code=0):
        done = CliRunner().invoke(main, [str(a) for a in [*arguments, "--out", tmp_path / "set", *options]])
        assert done.exit_code == code, done.output
        return done.output

    assert "is no size; expected WIDTHxHEIGHT in pixels" in said("--sensor", "big", code=2)
    assert "leave one of the two out" in said("--sensor", "30x20", "--mixed-sensors", "scale", code=1)
    said("--sensor", "30x20")
    assert json.loads((tmp_path / "set" / "manifest.json").read_text())["settings"]["sensor"] == [30, 20]
    shown = CliRunner().invoke(main, ["inspect", str(raw / "events"), "--static", str(raw / "static")]).output
    assert "sensor unknown" in shown


def test_a_known_sensor_is_not_overruled(digits_raw):
    from spikebridge.pipeline.preprocess.prepare import prepare
    from spikebridge.pipeline.shards.settings import ConversionSettings

    with pytest.raises(SettingsError, match=r"digits have 34x34 pixels, found 40x40 pixels"):
        prepare(ConversionSettings(dataset="digits", sensor=(40, 40)), events_root=digits_raw, static_root=digits_raw)
