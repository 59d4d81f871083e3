"""Inspection of recordings, samples and sets: facts, anomalies, and the files that are written."""

import io
import json
import os
import shutil

import numpy as np
import pytest
import scipy.io
from conftest import make_events, write_digits_raw
from hypothesis import given
from hypothesis import strategies as st
from own_folders import write_own
from PIL import Image

from spikebridge.pipeline.base.errors import LayoutError, PipelineError, RecordingError, SettingsError, ShardSetError
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.packing import pack, pack_chunks
from spikebridge.pipeline.formats import bin40
from spikebridge.pipeline.formats.aedat import aedat2
from spikebridge.pipeline.inspection.facts import (
    find_furthest_count,
    find_unusual_counts,
    screen,
    summarize_events,
    summarize_frames,
)
from spikebridge.pipeline.inspection.figures import draw_plots
from spikebridge.pipeline.inspection.inspect import inspect_path
from spikebridge.pipeline.inspection.views import RecordingView, make_full_frames
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.ui.paint import CAPTION_PIXELS, event_pixels, gif

PLAIN = {"dataset": None, "static": None, "sample": None, "only": None, "time_bins": 10, "limit": 1000}


def inspect(path, **changes):
    return inspect_path(path, **{**PLAIN, **changes}, progress=lambda items, total, what: items)


def opened(path):
    return Image.open(io.BytesIO(path.read_bytes()))


def columns(t, x, y, p):
    return Events(np.array(t, np.int64), np.array(x, np.int32), np.array(y, np.int32), np.array(p, np.uint8))


def packed(events):
    return pack(events, sensor_size=(640, 480), source="a")


def test_facts_of_a_recording_counted_by_hand():
    facts = summarize_events(
        packed(columns([0, 10, 20, 100], [2, 2, 3, 5], [1, 1, 1, 4], [0, 1, 1, 1])), name="a", time_bins=2
    )
    assert facts.events == 4
    assert facts.on_share == 0.75
    assert facts.extent == (2, 1, 6, 5)
    assert facts.active_pixels == 3
    assert facts.events_per_bin == (3, 1)
    assert (facts.duration_us, facts.longest_gap_us) == (100, 80)
    assert facts.rate_hz == pytest.approx(40_000)
    assert facts.anomalies == ("a pause of 0.1 ms in 0.1 ms",)


def test_an_ordinary_recording_has_no_anomaly():
    assert summarize_events(packed(make_events(0, count=2000)), name="a", time_bins=10).anomalies == ()


def test_a_hot_pixel_is_named_with_its_place():
    events = make_events(1, count=2000)
    hot = np.arange(0, 2000, 4)
    events.x[hot], events.y[hot] = 7, 9
    facts = summarize_events(packed(events), name="a", time_bins=10)
    assert facts.hot_pixels[0][:2] == (7, 9)
    assert "x=7 y=9 with 25 %" in facts.anomalies[0]


def test_one_polarity_and_empty_bins_are_named():
    events = make_events(2, count=500)
    events.p[:] = 1
    events.t[events.t > 100_000] += 200_000  # leaves bins 3 to 6 of 10 nearly without events
    anomalies = " ".join(summarize_events(packed(events), name="a", time_bins=10).anomalies)
    assert "100 % ON" in anomalies
    assert "time bins are empty" in anomalies


def test_a_sample_without_events_and_one_at_the_limit():
    assert summarize_frames(np.zeros((4, 2, 5, 5), np.uint8), name="a").anomalies == ("no event",)
    frames = np.ones((4, 2, 5, 5), np.uint8)
    frames[0, 0, 0, 0] = 255
    assert "1 cells at the limit of uint8" in summarize_frames(frames, name="a").anomalies


@given(
    seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(("uint8", "uint16", "float32")), polarities=st.integers(1, 2)
)
def test_screening_finds_the_samples_with_anomalies(seed, dtype, polarities):
    rng = np.random.default_rng(seed)
    samples = rng.poisson(rng.choice([0, 0.02, 1, 3], (9, 1, polarities, 1, 1)), (9, 3, polarities, 6, 5)).astype(dtype)
    rows = rng.integers(0, 9, 3)
    samples[rows[0], 0, 0, 2, 2] = rng.choice([60, 255])
    samples[rows[1], :, :, 3, 3] = 200
    samples[rows[2], 1] = 0
    events, odd = screen(samples)
    each = [summarize_frames(sample, name="a") for sample in samples]
    assert [bool(facts.anomalies) for facts in each] == odd.tolist()
    assert [facts.events for facts in each] == events.tolist()


def test_unusual_counts_are_relative_to_the_class():
    phrases = find_unusual_counts([100, 110, 90, 105, 95, 1000, 1000, 1010, 990, 1005, 995, 100], [0] * 6 + [1] * 6)
    assert phrases[5] == "9.8 times more events than the median of its class"
    assert phrases[11].startswith("10.0 times fewer")
    assert sorted(phrases) == [5, 11]


def test_frames_at_full_resolution_hold_every_event():
    events = make_events(3)
    frames = make_full_frames(packed(events), 7)
    assert frames.sum() == len(events)
    assert frames[:, 1].sum() == events.p.sum()


def test_a_file_is_read_by_its_ending(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bin40.encode(make_events(4)))
    inspection = inspect(path)
    assert inspection.values["events"] == 300
    assert "events       300" in inspection.text


def test_matlab_and_aedat_files_are_read_too(tmp_path):
    events = make_events(4, size=(128, 128))
    (tmp_path / "a.aedat").write_bytes(aedat2.encode(events))
    scipy.io.savemat(tmp_path / "a.mat", {name: getattr(events, name) for name in "txyp"})
    for name, sensor in (("a.aedat", "128x128"), ("a.mat", None)):
        inspection = inspect(tmp_path / name).values
        assert (inspection["events"], inspection["origin_sensor"]) == (300, sensor)


def test_recordings_without_the_folders_around_them(tmp_path):
    """What is left of N-MNIST when `Train` alone is there, or is named itself."""
    train = tmp_path / "Train"
    for digit in range(3):
        (train / str(digit)).mkdir(parents=True)
        (train / str(digit) / "00007.bin").write_bytes(bin40.encode(make_events(digit)))
    inspection = inspect(train)
    assert inspection.values["looked"] == 3
    assert "recordings alone" in inspection.text
    assert inspect(train, sample="1/00007").values["events"] == 300
    with pytest.raises(LayoutError, match=r"(?s)Train/<digit>.*Without --dataset, the recordings below .*Train"):
        inspect(train, dataset="nmnist")


def test_an_unknown_ending_is_refused_with_the_known_ones(tmp_path):
    (tmp_path / "a.xyz").write_text("no events")
    with pytest.raises(RecordingError, match=r"a\.xyz: no known recording; expected one of \.bin"):
        inspect(tmp_path / "a.xyz")


def test_the_odd_recording_of_a_raw_set_comes_first(tmp_path):
    raw = write_digits_raw(tmp_path, train=8)
    odd = sorted((raw / "events" / "Train" / "1").glob("*.bin"))[3]
    events = make_events(5, count=60)
    events.p[:] = 0
    events.x[:50], events.y[:50] = 3, 3
    odd.write_bytes(bin40.encode(events))
    (
        raw / "events" / "Train" / "2" / sorted(p.name for p in (raw / "events" / "Train" / "2").iterdir())[0]
    ).write_bytes(b"")
    inspection = inspect(raw, dataset="digits")
    assert inspection.values["odd"][0]["name"] == f"Train/1/{odd.stem}"
    assert len(inspection.values["unreadable"]) == 1
    assert f"--sample Train/1/{odd.stem}" in inspection.text
    inspection.write("png", tmp_path / "sheet.png")
    assert opened(tmp_path / "sheet.png").width > 500
    assert inspect(raw, dataset="digits", limit=5).values["looked"] == 5


def test_a_raw_folder_is_recognised_or_refused(tmp_path):
    raw = write_digits_raw(tmp_path / "raw")
    assert "raw data set: digits" in inspect(raw).text
    (tmp_path / "empty").mkdir()
    with pytest.raises(LayoutError, match="--dataset"):
        inspect(tmp_path / "empty")
    with pytest.raises(RecordingError, match="names look like"):
        inspect(raw, sample="Train/0/nothing")


def test_files_that_are_passed_over_are_counted(tmp_path):
    raw = write_own(tmp_path, each=2)
    (raw / "events" / "cat" / "clip.mp4").write_bytes(b"x")
    (raw / "events" / "sensor.txt").write_text("30 20\n")
    (raw / "static" / "cow").mkdir()
    (raw / "static" / "dog" / "r0.png").rename(raw / "static" / "cow" / "r0.png")
    text = inspect(raw, dataset="folders").text
    assert "files passed over among the recordings: 1 .mp4 (videos: make events" in text
    assert "files passed over among the static images: 1 .png (put them into the folders of classes" in text
    assert "sensor.txt" not in text


def test_a_name_that_is_no_utf_8_stands_on_the_page(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.bin")
    path.write_bytes(bin40.encode(make_events(1)))
    inspect(path).write("html", tmp_path / "page.html")
    assert "caf\\udce9.bin" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("form", ["webdataset", "hdf5"])
def test_a_stored_sample_and_its_static_image(shard_set, tmp_path, form):
    shards = shard_set(format=form)
    inspection = inspect(shards)
    assert inspection.values["of"] == inspection.values["looked"] == 33
    key = ShardSet(shards).split("train").keys[5]
    sample = inspect(shards, sample=key)
    assert sample.values["origin_static"].startswith("static-")
    assert sample.values["duration_us"] is None
    assert f"duration {sample.values['origin_duration_us'] / 1000:,.3f} ms" in " ".join(sample.text.split())
    for kind in ("png", "gif", "html"):
        sample.write(kind, tmp_path / f"a.{kind}")
    page = (tmp_path / "a.html").read_text()
    assert "Static partner: static image static-" in page
    assert page.count("<img") == 1 + 4 + 2 + 1  # static image, time bins, plots, motion
    assert opened(tmp_path / "a.gif").n_frames > 1
    with pytest.raises(ShardSetError, match="no sample 'nothing'"):
        inspect(shards, sample="nothing")


def test_a_set_is_one_page_and_no_animation(shard_set, tmp_path):
    inspection = inspect(shard_set())
    inspection.write("html", tmp_path / "set.html")
    page = (tmp_path / "set.html").read_text()
    name = inspection.values["worst"]
    assert page.index(f"Nothing looks wrong; furthest from its class: {name}") < page.index("Recordings of each class")
    assert f"--sample {name} --html worst.html" in page
    assert page.count("<img") == 1 + 4 + 3 * 8  # static image and time bins of the worst, recordings of three classes
    assert "<script" not in page
    assert "http" not in page.replace('http-equiv="Content', "")
    with pytest.raises(SettingsError, match="--sample"):
        inspection.write("gif", tmp_path / "set.gif")
    with pytest.raises(SettingsError, match="no class is called"):
        inspect(shard_set(), only="nothing").write("png", tmp_path / "no.png")
    assert not (tmp_path / "no.png").exists()
    json.dumps(inspection.values)


def test_what_looks_wrong_is_named_first_and_the_worst_is_shown(shard_set, tmp_path):
    """One recording of a raw set has a hot pixel and another one polarity and a hot pixel, too."""
    raw = write_digits_raw(tmp_path / "raw", train=4)
    for name, polarity in (("1/00008", None), ("2/00015", 1)):
        events = make_events(3, count=2000)
        events.x[::4], events.y[::4] = 7, 9
        if polarity is not None:
            events.p[:] = polarity
        (raw / "events" / "Train" / f"{name}.bin").write_bytes(bin40.encode(events))
    inspection = inspect(raw)
    assert inspection.values["worst"] == "Train/2/00015"
    lines = inspection.text.splitlines()
    start = lines.index("  looks wrong: 2 of 18, the worst first")
    assert [line.split(":")[0].strip() for line in lines[start + 1 : start + 3]] == ["Train/2/00015", "Train/1/00008"]
    assert lines[-1].endswith("--sample Train/2/00015 --html worst.html")
    inspection.write("html", tmp_path / "set.html")
    page = (tmp_path / "set.html").read_text()
    assert page.index("Worst: Train/2/00015") < page.index("Looks wrong: 2 of 18")
    assert "2: Train/2/00015, looks wrong" in page


def test_of_many_classes_sheets_say_what_they_leave_out(tmp_path):
    raw = write_digits_raw(tmp_path / "raw", train=1, test=0, classes=25)
    inspection = inspect(raw / "events")
    assert "and 13 classes more" in inspection.text
    assert inspection.write("png", tmp_path / "sheet.png") == "the first 20 of 25 classes; --class NAME shows one"
    assert inspection.write("html", tmp_path / "set.html") == ""
    assert (tmp_path / "set.html").read_text().count(": Train/") == 25 + 1
    assert inspect(raw / "events", only="24").write("png", tmp_path / "one.png") == ""


def test_polarities_have_their_colours_and_gifs_their_size():
    frames = np.zeros((2, 2, 3, 4))
    frames[0, 1, 0, 0] = frames[1, 0, 2, 3] = 5
    images = event_pixels(frames)
    assert images[0, 0, 0].tolist() == [213, 94, 0]
    assert images[1, 2, 3].tolist() == [0, 114, 178]
    assert (images[0, 1:] == 255).all()
    moving = Image.open(io.BytesIO(gif(images)))
    assert (moving.n_frames, moving.size) == (2, (256, 192))
    captioned = Image.open(io.BytesIO(gif(images, captions=["5 ms", "10 ms"])))
    first = np.asarray(captioned.convert("RGB"))
    assert captioned.size == (256, 192 + CAPTION_PIXELS)
    np.testing.assert_array_equal(first[:64, :64], np.full((64, 64, 3), (213, 94, 0)))
    assert (first[192:] < 200).any()


def test_the_furthest_recording_is_named_where_nothing_looks_wrong(shard_set):
    assert find_furthest_count([100, 90, 130, 10, 12, 11], [0, 0, 0, 1, 1, 1]) == (2, 100.0)
    inspection = inspect(shard_set())
    name, counts = inspection.values["furthest"], {}
    for split in ShardSet(shard_set()).splits.values():
        for key, label, frames in zip(split.keys, split.labels, split.read_all(), strict=True):
            counts.setdefault(int(label), {})[key] = float(frames.sum())
    away = {
        key: abs(np.log(count / np.median(list(of_class.values()))))
        for of_class in counts.values()
        for key, count in of_class.items()
    }
    assert name == max(away, key=away.get)
    assert f"furthest from its class: {name}" in inspection.text
    command = inspection.text.splitlines()[-1].partition("spikebridge ")[2]
    assert command == f"inspect {shard_set()} --sample {name} --html worst.html"


def test_recordings_without_their_images_are_shown_alone(tmp_path):
    raw = write_digits_raw(tmp_path)
    alone = inspect(raw / "events")
    assert "recordings alone" in alone.text
    assert alone.values["of"] == 21
    assert [entry["class"] for entry in alone.values["classes"]] == ["0", "1", "2"]
    assert inspect(raw / "events", sample="Test/0/00006").values["origin_class"] == "0"


def test_simulated_recordings_are_called_so(tmp_path, shard_set):
    raw = write_digits_raw(tmp_path / "raw")
    assert "(SIMULATED" in inspect(raw).text  # the data set is
    path = next((raw / "events").rglob("*.bin"))
    assert "SIMULATED" not in inspect(path).text
    (raw / "simulated.json").write_text("{}")  # what the simulator leaves there
    assert inspect(path).text.startswith(f"{path.name} (SIMULATED)")
    assert inspect(shard_set(), sample=ShardSet(shard_set()).split("test").keys[0]).values["simulated"] is True


def test_a_long_recording_looks_like_one_in_memory():
    """Facts, frames and plots of a recording that is decoded anew whenever it is gone over."""
    events = make_events(8, count=900, size=(60, 40))
    whole = packed(events)

    def passes():
        for start in range(0, 900, 70):
            yield events.part(slice(start, start + 70))

    long = pack_chunks(passes, sensor_size=(640, 480), source="a", most=0)
    assert summarize_events(long, name="a", time_bins=7) == summarize_events(whole, name="a", time_bins=7)
    views = []
    for recording in (whole, long):
        frames = make_full_frames(recording, 7)
        facts = summarize_events(recording, name="a", time_bins=7)
        views.append(RecordingView(facts, frames, recording, None, "", {}))
    np.testing.assert_array_equal(views[0].frames, views[1].frames)
    assert draw_plots(views[0]) == draw_plots(views[1])


@pytest.mark.parametrize("format_", ["webdataset", "hdf5"])
def test_a_part_of_a_shard_set_is_no_raw_data_set(shard_set, tmp_path, format_):
    """As while a set is copied or replaced: its manifest is not there yet, whichever files are, whole or empty."""
    for path in shard_set(format=format_).iterdir():
        if path.name != "manifest.json":
            (tmp_path / path.name).mkdir()
            shutil.copy(path, tmp_path / path.name)
            for _ in range(2):
                with pytest.raises(PipelineError, match=r"no manifest\.json|Layouts that fit: none"):
                    inspect(tmp_path / path.name)
                (tmp_path / path.name / path.name).write_bytes(b"")


@pytest.mark.parametrize(("reduction", "said"), [("sum", False), ("event", True)])
def test_cells_that_do_not_count_events_are_called_so(shard_set, reduction, said):
    assert ("do not count them" in inspect(shard_set(reduction=reduction)).text) is said
