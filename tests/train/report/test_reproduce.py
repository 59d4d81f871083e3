"""The commands at the end of a report make the run's own shard set again."""

from dataclasses import fields
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from spikebridge.cli import main
from spikebridge.pipeline.shards.settings import ConversionSettings
from spikebridge.train.report.reproduce import TABLES, conversion_words, reproduce

RECIPE = {"dataset": "folders", "time_bins": 10, "size": 28, "reduction": "sum", "extent": "canvas", "encoding": "v"}
OTHER = (
    {"sensor": (34, 34)},
    {"size": 20, "width": 30, "fit": "pad", "protocol": "legacy", "time_bins": 5},
    {"binning": "window", "window_us": 1000, "time_window_us": (0, 5000), "dtype": "uint16"},
    {"binning": "count", "events_per_bin": 50, "hot_pixels": 5.0, "refractory_us": 100, "background_us": 200},
    {"reduction": "surface", "tau_us": 3000, "extent": "recording", "encoding": "rgb", "seed": 3},
    {"reduction": "tore", "latest_events": 2, "format": "hdf5", "samples_per_shard": 50, "min_shards": 3},
    {"codec": "gzip", "classes": ("a cat", "dog"), "limit": 9, "preview": True, "store": "both"},
    {"columns": ("x", "y", "t", "p"), "group": "events", "time_unit": "ns", "group_by": "s[0-9]", "pairing": "class"},
    {"cut_us": 300_000, "overlap_us": 100_000, "image_bits": 12},
    {"pauses_us": 50_000, "mixed_sensors": "scale"},
)


@pytest.mark.parametrize("settings", OTHER, ids=lambda settings: next(iter(settings)))
def test_options_give_the_settings_of_the_set(settings):
    wanted = ConversionSettings(**RECIPE | settings)
    words = conversion_words(wanted.as_dict())
    done = CliRunner().invoke(main, ["preprocess", *words, "--settings-hash"])
    assert done.exit_code == 0, done.output
    assert done.output.split()[-1] == wanted.sha256[:12], words


def test_every_setting_has_an_option():
    seen = {name for settings in (RECIPE, *OTHER) for name in settings} | TABLES.keys() | {"published"}
    assert seen == {field.name for field in fields(ConversionSettings) if field.compare}


def test_tables_are_named_and_only_built_in_recordings_are_simulated():
    tables = {name: 64 * "a" for name in TABLES}
    settings = ConversionSettings(**RECIPE, **tables).as_dict()

    def page(**result):
        record = SimpleNamespace(result={"recipe": {"shards": RECIPE}} | result)
        return reproduce(record, SimpleNamespace(settings=settings))

    for option in ("--splits SPLITS.csv", "--labels LABELS.csv", "--class-map CLASSES.csv", "--pairs PAIRS.csv"):
        assert option in page()
    assert conversion_words(settings | {"published": "x"}).count("--splits") == 1
    assert "simulate" not in page(simulated=True), "nobody knows how recordings of one's own were simulated"
    digits = {"recipe": {"shards": RECIPE | {"dataset": "digits"}}, "simulated": True}
    assert "spikebridge simulate digits --out RAW" in page(**digits)
    assert "left out" in reproduce(SimpleNamespace(result={"recipe": {"shards": RECIPE}}), None)
