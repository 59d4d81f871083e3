"""--dry-run tries one of each class; its Next line repeats the options; rejects are never waved through; endings."""

import shlex

import numpy as np
import pytest
from click.testing import CliRunner
from own_folders import converted, put_image, write_own

from spikebridge.cli import main
from spikebridge.pipeline.base.errors import LayoutError, PipelineError
from spikebridge.pipeline.datasets import endings
from spikebridge.pipeline.formats.recording import FORMATS
from spikebridge.pipeline.images.decode import EXTENSIONS
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.shards.settings import ConversionSettings


def said(*arguments, code=0):
    done = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


def test_what_cannot_be_read_is_said_before_and_the_next_line_repeats_the_options(tmp_path):
    raw = write_own(tmp_path / "raw", each=12)
    np.save(tmp_path / "dict.npy", {"t": 1}, allow_pickle=True)
    first = raw / "events" / "dog" / "r0.npz"
    first.write_bytes((tmp_path / "dict.npy").read_bytes())
    (raw / "static" / "cat" / "r0.png").write_bytes(b"no picture")
    options = ["--dataset", "folders", "--events", raw, "--static", raw, "--time-bins", 3, "--size", 10, "--max-bad", 3]
    dry = said("preprocess", *options, "--dry-run")
    assert "of them cannot be used:" in dry.stdout
    assert "dog/r0: r0.npz" in dry.stdout
    assert "r0.png: not an image that can be decoded" in dry.stdout
    assert "not stated by all recordings: will be measured; --sensor WxH states it" in dry.stdout
    (next_line,) = [line for line in dry.stderr.splitlines() if line.startswith("Next: ")]
    words = shlex.split(next_line)
    assert words[words.index("preprocess") + 1 :] == [str(word) for word in [*options, "--out", "SHARDS"]]
    assert "2 of the lines above are warnings" in said("preprocess", *options, "--dry-run", "--strict", code=1).stderr
    first.unlink()
    (raw / "static" / "cat" / "r0.png").unlink()
    (raw / "events" / "cat" / "r0.npz").unlink()
    assert "all can be used" in said("preprocess", *options, "--dry-run", "--strict").stdout


def test_the_size_is_that_of_what_will_be_stored(tmp_path):
    raw = write_own(tmp_path / "raw")
    sizes = {}
    for store, preview in (("", False), ("events", False), ("both", False), ("both", True)):
        settings = ConversionSettings(
            dataset="folders", time_bins=3, size=10, dtype="uint8", store=store, preview=preview
        )
        conversion = prepare(settings, events_root=raw, static_root=raw)
        sizes[store + "preview" * preview] = conversion.summary(workers=1)["output_bytes"]
    found = converted(raw, tmp_path / "set", time_bins=3, size=10, store="events")
    shards = [entry for entry in found["files"] if entry["name"].endswith(".tar")]
    static = sizes[""] - 10 * 3 * 2 * 100
    assert sizes["both"] == sizes[""] + sizes["events"] - static
    assert sizes["bothpreview"] > sizes["both"] + 10 * 67  # no PNG is smaller
    assert 0 < sizes["events"] - static < sum(entry["bytes"] for entry in shards)


def test_max_bad_is_not_advised_where_nothing_can_be_used(tmp_path):
    raw = write_own(tmp_path / "raw")
    for path in raw.glob("events/*/*.npz"):
        path.write_bytes(b"PK\3\4 damaged")
    with pytest.raises(PipelineError, match=r"none of the 10 recordings can be used \(10 \w+\)") as caught:
        converted(raw, tmp_path / "a")
    assert "--max-bad" not in str(caught.value)
    with pytest.raises(PipelineError, match="none of the 10 recordings"):  # not even where it is allowed
        converted(raw, tmp_path / "b", max_bad=10)
    raw = write_own(tmp_path / "other")
    for path in raw.glob("static/*/*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(PipelineError, match=r"none of the 10 images can be used \(10 unreadable_image\)") as caught:
        converted(raw, tmp_path / "c")
    assert "--max-bad" not in str(caught.value)


def test_a_folder_that_cannot_be_read_says_which_endings_it_holds_and_what_to_do_with_each(tmp_path):
    for name in ("a.mp4", "b.mp4", "c.bag", "d.npz", "e.png", "README", ".hidden"):
        path = tmp_path / "events" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    put_image(tmp_path / "static" / "cat" / "a.png", 1)
    with pytest.raises(LayoutError) as caught:
        prepare(ConversionSettings(dataset="folders"), events_root=tmp_path / "events", static_root=tmp_path / "static")
    message = str(caught.value)
    for part in (
        "2 .mp4 (videos: make events of them",
        "1 .bag (convert them",
        "1 .npz (put them into class folders, <class>/<name>.npz)",
        "1 .png (give their folder with --static)",
        "1 without ending (",
    ):
        assert part in message
    assert "hidden" not in message.partition("Its files")[2]


def test_the_endings_are_those_that_are_read():
    assert {*endings.RECORDINGS, ".txt"} == {ending for ending in FORMATS if not ending.endswith(".gz")}
    assert set(endings.IMAGES) >= set(EXTENSIONS)
    assert not set(endings.ADVICE) & {*endings.RECORDINGS, *endings.IMAGES, *endings.DOCUMENTS}
