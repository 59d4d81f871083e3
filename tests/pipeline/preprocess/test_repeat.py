"""A command given again: it compares names, sizes and times of the raw files, and lists them where these changed."""

import os
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest
from conftest import write_digits_raw

from spikebridge.pipeline.base.errors import PipelineError, SettingsError
from spikebridge.pipeline.preprocess import repeat
from spikebridge.pipeline.preprocess.array_jobs import Sources
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.repeat import WRITTEN_SINCE, convert_sources, take_stamp
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.shards.manifest import WORK_FOLDER
from spikebridge.pipeline.shards.settings import ConversionSettings

SMALL = ConversionSettings(dataset="digits", time_bins=2, size=8)


class Raw:
    """A raw data set with tables, and the conversion of it, given again and again."""

    def __init__(self, folder, monkeypatch):
        self.root, self.out = write_digits_raw(folder / "raw"), folder / "set"
        self.recording = self.root / "events" / "Train" / "0" / "00001.bin"
        self.splits = folder / "splits.csv"
        rows = [f"{p.relative_to(self.root / 'events').with_suffix('')}" for p in self.root.glob("events/*/*/*.bin")]
        self.splits.write_text("recording,split\n" + "".join(f"{r},{r.split('/')[0].lower()}\n" for r in sorted(rows)))
        self.sources = Sources(self.root, self.root, self.splits)
        self.listed = 0
        whole = Sources.prepare

        def prepare(sources, settings):
            self.listed += 1
            return whole(sources, settings)

        monkeypatch.setattr(Sources, "prepare", prepare)
        monkeypatch.setenv("SPIKEBRIDGE_CACHE", str(folder / "cache"))

    def convert(self, settings=SMALL, **options):
        self.said = []
        return convert_sources(self.sources, settings, self.out, say=self.said.append, **options)


@pytest.fixture
def raw(tmp_path, monkeypatch):
    made = Raw(tmp_path, monkeypatch)
    made.convert()
    return made


def test_unchanged_folders_are_not_listed_again(raw):
    said = raw.said
    assert raw.listed == 1
    again = raw.convert()
    assert (again.up_to_date, raw.listed, raw.said) == (True, 1, said)
    assert any("found 15 of" in line for line in said)
    raw.root.rename(raw.root.with_name("moved"))
    raw.sources = replace(raw.sources, events=raw.root.with_name("moved"), static=raw.root.with_name("moved"))
    assert raw.convert().up_to_date
    assert raw.listed == 1


def overwrite(raw):
    raw.recording.write_bytes(raw.recording.read_bytes()[::-1])


def overwrite_and_hide(raw):
    times = raw.recording.stat()
    overwrite(raw)
    os.utime(raw.recording, ns=(times.st_atime_ns, times.st_mtime_ns))


def copy_table(raw):
    raw.sources = replace(raw.sources, splits=shutil.copy(raw.splits, raw.splits.with_name("other.csv")))
    raw.sources.splits.write_text(raw.splits.read_text() + "\n")


CHANGES = {
    "added": lambda raw: (raw.recording.parent / "notes.txt").write_text("x"),
    "removed": lambda raw: (raw.root / "static" / "Train" / "0" / "00001.png").unlink(),
    "renamed": lambda raw: raw.recording.rename(raw.recording.with_name("00099.bin")),
    "another folder": lambda raw: (raw.root / "events" / "Train" / "more").mkdir(),
    "overwritten": overwrite,
    "with the old time": overwrite_and_hide,
    "linked": lambda raw: (raw.root / "events" / "Train" / "0" / "00077.bin").symlink_to(raw.recording),
    "a broken link": lambda raw: (raw.root / "events" / "link").symlink_to(raw.root / "nothing"),
    "simulated": lambda raw: (raw.root.parent / "simulated.json").write_text("{}"),
    "table": copy_table,
    "table of pairs": lambda raw: setattr(raw, "sources", replace(raw.sources, pairs=raw.splits)),
}


def test_every_table_counts():
    tables = {field.name for field in fields(Sources)} - {"events", "static"}
    assert Sources(Path(), Path()).tables.keys() == tables


@pytest.mark.parametrize("change", CHANGES)
def test_the_stamp_tells_every_change(raw, change):
    before = take_stamp(raw.sources, SMALL)
    assert before == take_stamp(raw.sources, SMALL)
    CHANGES[change](raw)
    assert take_stamp(raw.sources, SMALL) not in (before, None)


def test_a_change_is_listed_and_decides(raw):
    os.utime(raw.recording)  # nothing that the listing sees
    assert raw.convert().up_to_date
    assert (raw.listed, raw.said[-1]) == (2, WRITTEN_SINCE)
    assert raw.convert().up_to_date
    assert (raw.listed, raw.said[-1]) == (2, WRITTEN_SINCE)  # the new times are known, and still said
    raw.recording.unlink()
    with pytest.raises(SettingsError, match="no recording 'Train/0/00001'"):
        raw.convert()
    raw.sources = replace(raw.sources, splits=None)
    with pytest.raises(SettingsError, match="already holds another shard set"):
        raw.convert()


@pytest.mark.parametrize("there", ["nothing", "another set", "unfinished", "record damaged", "record gone"])
def test_what_is_not_the_set_that_was_found_is_looked_at(raw, there, tmp_path):
    (kept,) = (tmp_path / "cache" / "conversions").iterdir()
    if there == "nothing":
        shutil.rmtree(raw.out)
    elif there == "another set":
        shutil.rmtree(raw.out)
        convert(prepare(replace(SMALL, time_bins=3), events_root=raw.root, static_root=raw.root), raw.out)
    elif there == "unfinished":
        (raw.out / "manifest.json").unlink()
        (raw.out / WORK_FOLDER).mkdir()
    elif there == "record damaged":
        kept.write_text(kept.read_text().replace("choices", "chances"))
    else:
        kept.unlink()
    if there == "another set":
        with pytest.raises(SettingsError, match="already holds another shard set"):
            raw.convert()
    else:
        assert raw.convert().up_to_date == there.startswith("record")
    assert raw.listed == 2


def test_limits_hold_when_nothing_is_done(tmp_path, monkeypatch):
    raw = Raw(tmp_path, monkeypatch)
    raw.recording.write_bytes(b"")
    assert len(raw.convert(max_bad=1).rejects) == 1
    assert len(raw.convert(max_bad=1).rejects) == 1
    with pytest.raises(PipelineError, match="1 recordings or images cannot be used, 0 are allowed"):
        raw.convert()
    assert raw.listed == 1


def test_a_circle_of_links_ends_and_too_many_files_are_not_stamped(raw, monkeypatch):
    (raw.root / "events" / "Train" / "again").symlink_to(raw.root / "events")
    assert take_stamp(raw.sources, SMALL)
    monkeypatch.setattr(repeat, "MOST_ENTRIES", 10)
    assert take_stamp(raw.sources, SMALL) is None
    assert take_stamp(replace(raw.sources, events=raw.root / "nothing"), SMALL) is None
