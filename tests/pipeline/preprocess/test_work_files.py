"""Whatever stands in the work folder of an interrupted conversion: the right set in the end, or one paragraph."""

import copy
import json
import shutil
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conversions import SMALL, contents, run

from spikebridge.pipeline.base.errors import PipelineError, RecordingError, SettingsError, ShardSetError
from spikebridge.pipeline.base.sealed_json import read_sealed, write_sealed
from spikebridge.pipeline.preprocess.array_jobs import Sources, convert_share, finish_shares
from spikebridge.pipeline.preprocess.decoded_files import FOLDER, ConvertedRecording, cached_frames
from spikebridge.pipeline.preprocess.prepare import prepare

OPEN = replace(SMALL, dtype="", dtype_open=True, samples_per_shard=8)
ODD = [None, [], {}, -1, 2**60, 0.5, "", "x" * 9, "../../x", [[[[]]]], True, {"events": -1}, ["a", "b", "c", "d"]]
BROKEN = [b"", b"null", b"[]", b"{", b'{"a": NaN}', b"\xff\xfe", b"[" * 40 + b"]" * 40, b"9" * 5000]


@pytest.fixture(scope="module")
def stopped(made_once):
    """An interrupted conversion of which only the last step is missing, and the raw data."""

    def write(folder):
        from conftest import write_digits_raw

        raw = write_digits_raw(folder / "raw", train=6, test=2)
        run(raw, folder / "whole", OPEN)
        run_but_the_last_step(raw, folder / "set", OPEN)

    return made_once("stopped-conversion", write)


def run_but_the_last_step(raw, out, settings):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spikebridge.pipeline.preprocess.run.finish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(raw, out, settings)


def work_files(folder):
    return sorted((folder / ".work").glob("*.json"))


def places(value, place=()):
    """Every place in a JSON value."""
    yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*place, key))


def changed(value, place, new):
    value = copy.deepcopy(value)
    if not place:
        return new
    at = value
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = new
    return value


def test_all_kinds_of_work_files_are_there(stopped):
    names = {path.name.split("-")[0].removesuffix(".json") for path in work_files(stopped / "set")}
    assert names == {"events", "static", "survey", "plan"}


@pytest.mark.parametrize("count", [10, pytest.param(300, marks=pytest.mark.long)])
@pytest.mark.parametrize("sealed", [False, True])
def test_odd_values_end_in_the_right_set_or_a_paragraph(stopped, tmp_path, sealed, count):
    """What somebody sealed may be of the right types and wrong; that is no accident, and promised to nobody."""
    rng, whole = np.random.default_rng(count), contents(stopped / "whole")
    for number in range(count):
        out = tmp_path / str(number)
        shutil.copytree(stopped / "set", out)
        path = work_files(out)[number % len(work_files(out))]
        value = json.loads(path.read_bytes())
        if sealed:
            del value["self_sha256"]
        everywhere = list(places(value))[1:]
        value = changed(value, everywhere[rng.integers(len(everywhere))], ODD[rng.integers(len(ODD))])
        if sealed:
            write_sealed(path, value)
        else:
            path.write_text(json.dumps(value))
        with suppress(PipelineError):
            run(stopped / "raw", out, OPEN)
            assert sealed or contents(out) == whole, path
        shutil.rmtree(out)


def test_what_is_no_json_is_made_again(stopped, tmp_path, caplog):
    shutil.copytree(stopped / "set", tmp_path / "set")
    paths = [path for path in work_files(tmp_path / "set") if path.name.startswith(("events-", "static-"))]
    for path, content in zip(paths, BROKEN * 2, strict=False):
        path.write_bytes(content)
    run(stopped / "raw", tmp_path / "set", OPEN)
    assert contents(tmp_path / "set") == contents(stopped / "whole")
    assert {record.message.partition(": ")[0] for record in caplog.records} == set(map(str, paths))
    assert all(record.message.endswith("The task is done again.") for record in caplog.records)


def test_a_plan_that_is_none_is_refused_until_it_is_replaced(stopped, tmp_path):
    for number, content in enumerate(BROKEN):
        out = tmp_path / str(number)
        (out / ".work").mkdir(parents=True)
        (out / ".work" / "plan.json").write_bytes(content)
        with pytest.raises(SettingsError, match=r"it is damaged: .*plan\.json"):
            run(stopped / "raw", out, OPEN)
        with pytest.raises(ShardSetError, match=r"plan\.json: .*--overwrite"):
            finish_shares(out)
    run(stopped / "raw", tmp_path / "0", OPEN, overwrite=True)
    assert contents(tmp_path / "0") == contents(stopped / "whole")


def test_results_of_another_conversion_are_none(stopped, tmp_path, caplog):
    shutil.copytree(stopped / "set", tmp_path / "set")
    run_but_the_last_step(stopped / "raw", tmp_path / "other", replace(OPEN, seed=1, encoding="rgb"))
    for path in (tmp_path / "other").rglob("*"):
        if path.is_file() and path.name != "plan.json":
            shutil.copy(path, tmp_path / "set" / path.relative_to(tmp_path / "other"))
    run(stopped / "raw", tmp_path / "set", OPEN)
    assert contents(tmp_path / "set") == contents(stopped / "whole")
    assert "of another conversion" in caplog.text


def test_where_the_raw_data_lies_is_checked(stopped, tmp_path):
    raw, out = stopped / "raw", tmp_path / "set"
    conversion = prepare(OPEN, events_root=raw, static_root=raw)
    convert_share(conversion, out, Sources(raw, raw), share=(1, 1))
    shared = out / ".work" / "shared.json"
    good = shared.read_bytes()
    for content in (*BROKEN, good.replace(b'"tasks": 1', b'"tasks": 0'), good.replace(b'"tasks": 1', b'"tasks": 2')):
        shared.write_bytes(content)
        with pytest.raises(ShardSetError, match=r"shared\.json: .*Run any task again"):
            finish_shares(out)
    convert_share(conversion, out, Sources(raw, raw), share=(1, 1))
    finish_shares(out)
    assert contents(out) == contents(stopped / "whole")


def test_a_damaged_list_of_rejects_is_a_paragraph(stopped, tmp_path):
    shutil.copytree(stopped / "whole", tmp_path / "set")
    for content in (b"null\n", b"{\n", b'{"kind": 1}\n', b"\xff\n"):
        (tmp_path / "set" / "rejects.jsonl").write_bytes(content)
        with pytest.raises(ShardSetError, match=r"rejects\.jsonl: "):
            run(stopped / "raw", tmp_path / "set", OPEN)


# --- files that hold many recordings


FACTS = dict.fromkeys(
    ("events", "dropped_events", "saturated_cells", "clipped_events", "outside_events", "duration_us"), 3
)
FACTS["events_sha256"] = "0" * 64
FRAMES = np.arange(32, dtype=np.uint16).reshape(2, 2, 2, 4)


def spoil_json(stem):
    path = stem.with_suffix(".json")
    path.write_text(path.read_text().replace('"duration_us": 3', '"duration_us": 4'))


def spoil_frames(stem):
    content = bytearray(stem.with_suffix(".npy").read_bytes())
    content[-64] ^= 1  # of the first recording's
    stem.with_suffix(".npy").write_bytes(content)


def remove_frames(stem):
    stem.with_suffix(".npy").unlink()


def spoil_header(stem):
    stem.with_suffix(".npy").write_bytes(b"\x93NUMPY\x01\x00\x09\x00{'a': ((\n")


@pytest.mark.parametrize("spoil", [spoil_json, spoil_frames, remove_frames, spoil_header])
def test_what_was_decoded_and_is_damaged_is_decoded_again(tmp_path, spoil, caplog):
    decoded = []

    def decode():
        decoded.append(1)
        yield "a", ConvertedRecording(FRAMES[:1], FACTS)
        yield "b", ConvertedRecording(FRAMES[1:], FACTS)
        yield "c", RecordingError("c: is bad.", reason="bad")

    def read(name, conversion="0" * 64):
        source = SimpleNamespace(file=str(tmp_path / "file"), path=tmp_path / "file", name=name)
        return cached_frames(tmp_path, source, conversion, decode)

    for _ in range(2):
        kept = read("a")
    (stem,) = (path.with_suffix("") for path in (tmp_path / FOLDER).glob("*.json"))
    spoil(stem)
    again = read("a")
    np.testing.assert_array_equal(again.frames, kept.frames)
    assert again.facts == kept.facts == FACTS
    assert len(decoded) == 2
    assert "The file is decoded again." in caplog.text
    with pytest.raises(RecordingError, match="c: is bad"):
        read("c")
    assert len(decoded) == 2
    read("b", "1" * 64)
    assert len(decoded) == 3


def test_a_disk_that_gives_back_something_else(tmp_path, monkeypatch):
    monkeypatch.setattr("spikebridge.pipeline.preprocess.decoded_files._read_row", lambda path, row: FRAMES[1:])
    recording = SimpleNamespace(file=str(tmp_path / "file"), path=tmp_path / "file", name="a")
    with pytest.raises(PipelineError, match="Is the disk sound"):
        cached_frames(tmp_path, recording, "0" * 64, lambda: [("a", ConvertedRecording(FRAMES[:1], FACTS))])


def test_a_work_file_comes_back_without_its_sum(tmp_path):
    write_sealed(tmp_path / "a.json", {"b": [1.5, "\udcff"]})
    assert read_sealed(tmp_path / "a.json", dict, error=PipelineError, remedy="") == {"b": [1.5, "\udcff"]}
    with pytest.raises(FileNotFoundError):
        read_sealed(tmp_path / "b.json", dict, error=PipelineError, remedy="")
