"""--fit and --size WxH: settings of frames and static images alike, in the manifest only where they are given."""

import json
from types import SimpleNamespace

import numpy as np
import torch
from click.testing import CliRunner
from own_folders import write_own
from PIL import Image

from spikebridge.cli import main
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.config.recipes import recipe_from
from spikebridge.train.networks.build import make_network, network_arguments


def test_a_set_of_wide_padded_frames(tmp_path):
    raw = write_own(tmp_path / "raw", size=(30, 20))
    (raw / "events" / "sensor.txt").write_text("30 20\n")
    options = ["preprocess", "--dataset", "folders", "--events", raw, "--static", raw, "--workers", 1, "--time-bins", 3]

    lines = {}

    def manifest(name, *more, code=0):
        done = CliRunner().invoke(main, [str(a) for a in [*options, "--out", tmp_path / name, *more]])
        assert done.exit_code == code, done.output
        lines[name] = " ".join(done.stdout.split())
        if code:
            return done.output
        assert "Next: spikebridge recipes new --shards " in done.stderr  # no shipped recipe fits
        return json.loads((tmp_path / name / "manifest.json").read_text())

    plain = manifest("plain", "--size", 16, "--fit", "squash")
    assert not {"fit", "width"} & set(plain["settings"])
    assert "static images are 1 times as wide as high, the sensor 1.5; frames squash each on its own" in lines["plain"]
    wide = manifest("wide", "--size", "24x16", "--fit", "pad")
    assert (wide["settings"]["size"], wide["settings"]["width"], wide["settings"]["fit"]) == (16, 24, "pad")
    assert wide["sample"]["shape"] == [3, 2, 16, 24]
    assert wide["static"]["shape"] == [1, 16, 24]
    assert verify(tmp_path / "wide").ok
    assert "squash" not in lines["wide"]
    images = ShardSet(tmp_path / "wide").static_images().images  # square ones: stripes of 4 columns on each side
    assert not images[..., :4].any()
    assert not images[..., -4:].any()
    assert images[..., 4:-4].any()
    random = np.random.default_rng(0)
    for path in sorted(raw.rglob("*.png"))[::2]:
        Image.fromarray(random.integers(0, 256, (24, 48, 3), dtype=np.uint8)).save(path)
    manifest("mixed", "--size", 16)
    assert "static images are 1 to 2 times as wide as high, the sensor 1.5" in lines["mixed"], "half of them are wider"
    for bad in ("wide", "0x16", "²", "²x16"):
        assert "is no size; expected one number, or WIDTHxHEIGHT" in manifest("bad", "--size", bad, code=2)


def test_a_network_takes_frames_that_are_not_square():
    recipe = recipe_from(
        {
            "shards": {"dataset": "folders", "time_bins": 3, "size": 16, "reduction": "sum", "extent": "canvas",
                       "encoding": "v", "protocol": "strict"},
            "train": {"method": "kt", "model": "scnn", "epochs": 1, "batch_size": 2, "lr": 1e-3, "width": 0.2},
        }
    )  # fmt: skip
    shards = SimpleNamespace(sample_shape=(3, 2, 16, 24), classes=("cat", "dog"))
    arguments = network_arguments(recipe.train, shards)
    assert arguments["input_size"] == [16, 24]
    network = make_network(json.loads(json.dumps(arguments)), seed=0)
    logits = network(None, torch.rand(3, 2, 2, 16, 24)).event_logits
    assert logits.shape == (3, 2, 2)
