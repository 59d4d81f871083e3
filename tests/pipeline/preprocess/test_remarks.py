"""What a conversion says of recordings that can be read, passed over and doubtful; and the options of tables."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import make_events
from event_files import EVT3_HEADER, evt3
from PIL import Image

from spikebridge.cli import main
from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.readers import get_reader
from spikebridge.pipeline.shards.settings import ConversionSettings


@pytest.fixture
def raw(tmp_path):
    """Two classes of three recordings each: one with triggers and padding, one in ms, one plain."""
    root = tmp_path / "raw"
    for label, name in enumerate(("cat", "dog")):
        for side in ("events", "static"):
            (root / side / name).mkdir(parents=True)
        for number in range(3):
            events = make_events(10 * label + number, count=400, size=(30, 20))
            stem = root / "events" / name / f"r{number}"
            if number == 0:
                words = np.array([0xA001, 0x9999, 0x9999], "<u2").tobytes()
                stem.with_suffix(".raw").write_bytes(EVT3_HEADER + evt3(events) + words)
            else:
                t = events.t // 1000 if number == 1 else events.t
                np.savez(stem.with_suffix(".npz"), t=t, x=events.x, y=events.y, p=events.p)
            pixels = np.random.default_rng([label, number]).integers(0, 256, (9, 9), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "static" / name / f"r{number}.png")
    (root / "events" / "sensor.txt").write_text("30 20\n")
    return root


WANTED = {"dataset": "folders", "time_bins": 3, "size": 10}


def test_passed_over_and_doubtful_are_in_the_manifest_and_in_the_samples(raw, tmp_path):
    done = convert(prepare(ConversionSettings(**WANTED), events_root=raw, static_root=raw), tmp_path / "set")
    manifest = done.manifest
    assert manifest["events"]["passed_over_triggers"] == 2
    assert manifest["events"]["passed_over_padding words"] == 4
    passed_over, doubtful = sorted(manifest["notes"], reverse=True)
    assert passed_over == "passed over: 4 padding words, 2 triggers"
    assert doubtful.startswith("doubtful: cat/r1 and 1 more recordings: 400 events in ")
    assert "Likely times in ms" in doubtful
    assert "doubtful: cat/r1" in (tmp_path / "set" / "README.md").read_text()


def test_the_command_says_so_too_and_an_option_cures_it(raw, tmp_path):
    arguments = ["preprocess", "--dataset", "folders", "--events", raw, "--static", raw, "--workers", "1"]
    said = CliRunner().invoke(main, [str(a) for a in [*arguments, "--out", tmp_path / "a"]])
    assert said.exit_code == 0, said.output
    assert "  passed over: 4 padding words, 2 triggers\n" in said.stdout
    assert "  doubtful: cat/r1 and 1 more recordings" in said.stdout
    only = [*arguments, "--out", tmp_path / "b", "--time-unit", "ms", "--columns", "t,x,y,p", "--json"]
    result = json.loads(CliRunner().invoke(main, [str(a) for a in only]).stdout)
    assert not [line for line in result["notes"] if line.startswith("doubtful: cat/r1 ")]


def test_settings_that_are_not_given_change_no_hash():
    plain = ConversionSettings(**WANTED)
    assert not {"columns", "group", "time_unit"} & set(plain.as_dict())
    given = ConversionSettings(**WANTED, columns=("x", "y", "t", "p"), group="events", time_unit="ms")
    assert given.sha256 != plain.sha256
    for settings in (plain, given):
        assert ConversionSettings.from_dict(json.loads(json.dumps(settings.as_dict()))) == settings
    with pytest.raises(SettingsError, match="time_unit"):
        ConversionSettings(**WANTED, time_unit="h")


def test_options_of_tables_go_with_folders_only(raw):
    assert get_reader("folders", time_unit="ms").table.time_unit == "ms"
    with pytest.raises(SettingsError, match="go with data set folders only; nmnist knows its own"):
        get_reader("nmnist", time_unit="ms")
    with pytest.raises(SettingsError, match="expected t, x, y and p"):
        prepare(ConversionSettings(**WANTED, columns=("t",)), events_root=raw, static_root=raw)


def test_inspect_says_what_was_decided_and_doubted(raw, tmp_path):
    def said(name, *options):
        done = CliRunner().invoke(main, ["inspect", str(raw / "events" / name), *options])
        assert done.exit_code == 0, done.output
        return done.output

    assert "looks wrong: 400 events in 298 us" in said("cat/r1.npz")
    assert "298.000 ms" in said("cat/r1.npz", "--time-unit", "ms")
    assert "2 padding words, 1 triggers" in said("cat/r0.raw")
    events = Events(*(np.arange(100) for _ in "txy"), np.arange(100) % 2)
    np.save(tmp_path / "a.npy", np.column_stack([events.p, events.x, events.y, events.t * 1000]))
    done = CliRunner().invoke(main, ["inspect", str(tmp_path / "a.npy"), "--columns", "p,x,y,t"])
    assert "columns p,x,y,t" in done.output
