"""New recordings get the class that the test split got: their frames are made by the same code."""

import csv
import gzip
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from event_files import text_lines
from fake_shards import FakeShardSet
from run_folders import whole_and_half

import spikebridge
from spikebridge.cli import main
from spikebridge.pipeline.formats import bin40, recording
from spikebridge.pipeline.prediction.frames import frame_recordings
from spikebridge.pipeline.readers import list_readers
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.config.recipes import recipe_from
from spikebridge.train.config.settings import ShardSettings
from spikebridge.train.errors import RunError, ShardMismatchError
from spikebridge.train.evaluation.evaluate import evaluate
from spikebridge.train.trainer.run import train


@pytest.fixture(scope="module")
def trained(shard_set, made_once):
    """A run on a set of simulated-like digits, the set, and its raw recordings."""
    shards = ShardSet(shard_set(size=16))

    def write(folder):
        tables = {name: shards.settings[name] for name in ShardSettings.__dataclass_fields__ if name in shards.settings}
        small = {"method": "event_only", "model": "scnn", "width": 0.3, "epochs": 2, "batch_size": 8, "lr": 3e-3}
        train(shards, recipe_from({"shards": tables, "train": small}), folder / "run", device="cpu")

    return made_once("predicting run", write) / "run", shards, shard_set(size=16).parent / "raw" / "events"


def invoke(*words, code=0):
    done = CliRunner().invoke(main, ["predict", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


def test_recordings_of_the_test_split_get_its_predictions(trained):
    run, shards, raw = trained
    made = spikebridge.predict(run, [raw / "Test"])
    assert made.classes == shards.classes
    found = {one.file.rpartition("/")[2].removesuffix(".bin"): one for one in made.recordings}
    rows = list(csv.DictReader((run / "predictions.csv").read_text().splitlines()))
    assert len(rows) == len(found) == 9
    for row in rows:
        one = found[row["key"].rpartition("-")[2]]
        scores = np.array([float(row[f"score_{name}"]) for name in made.classes])
        shares = np.exp(scores - scores.max())
        np.testing.assert_allclose(one.probabilities[-1], shares / shares.sum(), rtol=1e-4)
        assert one.label == row["prediction"]
        assert one.probabilities.shape == (4, 10)
        np.testing.assert_allclose(one.probabilities.sum(1), 1)


def test_frames_are_those_of_the_set_whatever_its_settings(trained, shard_set):
    _, _, raw = trained
    for settings in ({"size": 16}, {"reduction": "bilinear"}, {"store": "events"}):
        shards = ShardSet(shard_set(**settings))
        split, sensor = shards.split("test"), shards.manifest["sensor_size"]
        framed = dict(frame_recordings([raw / "Test"], shards.settings, sensor))
        frames = {name.rpartition("/")[2].removesuffix(".bin"): content.frames for name, content in framed.items()}
        for key, stored in zip(split.keys, split.read(range(len(split))), strict=True):
            np.testing.assert_array_equal(frames[key.rpartition("-")[2]], stored)


def test_parts_of_a_cut_set_are_predicted_one_by_one(trained):
    _, shards, raw = trained
    file = sorted(raw.rglob("*.bin"))[0]
    settings = {**shards.settings, "cut_us": 100_000}
    names = [name for name, _ in frame_recordings([file], settings, shards.manifest["sensor_size"])]
    assert names[:2] == [f"{file}@0-100000", f"{file}@100000-200000"]


def test_table_json_and_csv_say_the_same_and_a_bad_file_is_named(trained, tmp_path):
    run, _, raw = trained
    good = sorted((raw / "Test").rglob("*.bin"))[0]
    bad = tmp_path / "bad.bin"
    bad.write_bytes(good.read_bytes()[:7])
    values = json.loads(invoke(run, good, bad, "--json", code=3).stdout)
    first, second = values["recordings"]
    assert first["class"] == max(first["over_time"][-1], key=first["over_time"][-1].get)
    assert (second["class"], second["over_time"]) == (None, None)
    assert "bad.bin" in second["problem"]
    lines = list(csv.DictReader(invoke(run, good, bad, "--csv", code=3).stdout.splitlines()))
    assert [line["time_step"] for line in lines] == ["1", "2", "3", "4", ""]
    assert float(lines[3][f"probability_{first['class']}"]) == first["probability"]
    text = invoke(run, good, bad, code=3).stdout
    assert f"{first['probability']:.2f}" in text
    assert "not usable: " in text
    assert "no such file" in invoke(run, tmp_path / "absent", code=1).stderr
    (tmp_path / "empty").mkdir()
    assert "no recording below it" in invoke(run, tmp_path / "empty", code=1).stderr
    assert "expected one of them" in invoke(run, good, "--csv", "--json", code=2).stderr


def test_lines_of_numbers_in_a_folder_are_predicted(trained, tmp_path):
    _, shards, raw = trained
    events = recording.read(sorted((raw / "Test").rglob("*.bin"))[0])
    (tmp_path / "1.txt").write_bytes(text_lines(events, seconds=False, head="t x y p\n"))
    (tmp_path / "notes.txt").write_text("what the camera saw\n")
    settings = {**shards.settings, "dataset": "folders", "time_unit": "us"}
    ((name, content),) = frame_recordings([tmp_path], settings, [34, 34])
    assert name == str(tmp_path / "1.txt")
    assert content.frames.shape == (4, 2, 16, 16)


def test_a_user_s_recording_of_another_sensor_is_refused(trained, tmp_path):
    _, shards, raw = trained
    file = tmp_path / "own.csv"
    events = recording.read(sorted(raw.rglob("*.bin"))[0])
    rows = zip(events.x, events.y, events.t, events.p, strict=True)
    file.write_text("# 346,260\nx,y,t,p\n" + "".join(f"{x},{y},{t},{p}\n" for x, y, t, p in rows))
    settings = {**shards.settings, "dataset": "folders", "columns": ["x", "y", "t", "p"], "time_unit": "us"}
    ((_, content),) = frame_recordings([file], settings, [34, 34])
    assert content.frames.shape == (4, 2, 16, 16)
    raw_file = tmp_path / "own.raw"
    raw_file.write_bytes(b"% evt 3.0\n% geometry 640x480\n% end\n" + b"\x00\x80" * 2)
    ((name, content),) = frame_recordings([raw_file], {**shards.settings, "dataset": "folders"}, [34, 34])
    assert name == str(raw_file)
    assert "640x480" in str(content)
    assert "34x34" in str(content)


def test_a_run_of_an_early_version_needs_its_shard_set(trained, tmp_path):
    run, shards, raw = trained
    shutil.copytree(run, tmp_path / "run")
    result = json.loads((run / "result.json").read_text())
    assert result["frames"] == {"settings": shards.settings, "sensor_size": [34, 34]}
    early = {name: v for name, v in result.items() if name not in ("frames", "files", "self_sha256")} | {"schema": 1}
    (tmp_path / "run" / "result.json").write_text(json.dumps(early))
    file = sorted(raw.rglob("*.bin"))[0]
    with pytest.raises(RunError, match="--shards"):
        spikebridge.predict(tmp_path / "run", [file])
    again = spikebridge.predict(tmp_path / "run", [file], shards=shards)
    np.testing.assert_array_equal(
        again.recordings[0].probabilities, spikebridge.predict(run, [file]).recordings[0].probabilities
    )


def test_a_foreign_set_is_scored_only_when_asked_and_marked(made_once, tmp_path):
    run = whole_and_half(made_once) / "whole"
    own, other = FakeShardSet(tmp_path), FakeShardSet(tmp_path, train=25)
    assert evaluate(run, own, foreign=True)["foreign"] is False
    with pytest.raises(ShardMismatchError, match="--foreign"):
        evaluate(run, other)
    plain = evaluate(run, other, foreign=True)
    assert plain["foreign"] is True
    assert plain["accuracy"] == evaluate(run, own)["accuracy"]
    other.classes = ("c", "a", "b")  # the same classes in another order
    for split in other._splits.values():
        split.labels = (split.labels + 1) % 3
    assert evaluate(run, other, foreign=True) == plain
    other.classes = ("c", "a", "x")
    with pytest.raises(ShardMismatchError, match="in one of them only: b, x"):
        evaluate(run, other, foreign=True)
    own.classes, own.sample_shape = ("a", "b", "c"), (5, 2, 16, 16)
    with pytest.raises(ShardMismatchError, match=r"\[5, 2, 16, 16\]"):
        evaluate(run, own, foreign=True)


def test_files_of_other_formats_than_the_data_set_s_are_read_by_their_own(trained, tmp_path):
    _, shards, raw = trained
    file = sorted((raw / "Test").rglob("*.bin"))[0]
    events = recording.read(file)
    (tmp_path / "1.txt").write_bytes(text_lines(events, seconds=False, head="t x y p\n"))
    np.save(tmp_path / "2.npy", np.stack([*events.columns], 1))
    (tmp_path / "3.bin.gz").write_bytes(gzip.compress(file.read_bytes()))
    (tmp_path / "4.BIN").write_bytes(file.read_bytes())
    for more in ({}, {"cut_us": 100_000}):
        settings = {**shards.settings, **more}
        parts = dict(frame_recordings([file], settings, [34, 34]))
        found = dict(frame_recordings([tmp_path], settings, [34, 34]))
        assert len(found) == 4 * len(parts)
        for name, content in found.items():
            part = str(file) + name[len(name.partition("@")[0]) :]
            assert not isinstance(content, Exception), content
            np.testing.assert_array_equal(content.frames, parts[part].frames)


def test_a_file_of_no_format_is_refused_for_what_it_is(trained, tmp_path):
    _, shards, _ = trained
    (tmp_path / "1.jpg").write_bytes(b"\xff\xd8\xff\xe0 a picture")
    (tmp_path / "notes.txt").write_text("what the camera saw\n")
    (tmp_path / "large.csv").write_text("t,x,y,p\n" + "".join(f"{i * 10},{i},3,1\n" for i in range(300)))
    (tmp_path / "which.txt").write_text("10 3 4 1\n200 3 5 0\n250 9 9 1\n")
    files = [tmp_path / name for name in ("1.jpg", "notes.txt", "large.csv", "which.txt")]
    found = [str(content) for _, content in frame_recordings(files, shards.settings, [34, 34])]
    assert "1.jpg: no known recording; expected one of .bin, " in found[0]
    assert "notes.txt" in found[1]
    assert "truncated" not in found[1]
    assert "34x34" in found[2]
    assert "--columns" in found[3]
    assert "names of its columns (t x y p) in its first line" in found[3], "predict has no such option"


def test_a_set_whose_recordings_count_from_their_corner_shows_others_so(trained, tmp_path):
    _, shards, raw = trained
    events = recording.read(sorted((raw / "Test").rglob("*.bin"))[0])
    moved = replace(events, x=events.x + 100, y=events.y + 50)
    (tmp_path / "1.bin").write_bytes(bin40.encode(moved))
    np.save(tmp_path / "2.npy", np.stack([*moved.columns], 1))
    settings = {**shards.settings, "dataset": "ncaltech101", "time_window_us": [0, 200_000]}
    own, other = (content.frames for _, content in frame_recordings([tmp_path], settings, [240, 180]))
    np.testing.assert_array_equal(own, other)


def test_endings_of_readers_are_those_of_formats():
    for reader in list_readers():
        assert set(reader.endings) <= set(recording.FORMATS), reader.name
