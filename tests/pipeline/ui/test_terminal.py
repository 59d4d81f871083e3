"""What verbs say fits the terminal, and is left alone where a program listens."""

import errno
import io
import logging
import sys

import click
import pytest
from tqdm import tqdm

from spikebridge.pipeline.ui import terminal
from spikebridge.pipeline.ui.terminal import complete_writes
from spikebridge.pipeline.verbs.subset import parse_counts
from spikebridge.train.verbs.options import whole_numbers


class Screen(io.StringIO):
    def isatty(self):
        return True


def terminal_of_40_columns(monkeypatch):
    """On stdout and stderr; called in the test itself, because pytest takes both over when that begins."""
    shown = Screen()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("MAKELEVEL", raising=False)
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setattr(sys, "stderr", shown)
    return shown


def test_lines_break_between_words_below_their_column(monkeypatch):
    terminal_of_40_columns(monkeypatch)
    text = "Shard set\n  samples    1,295 train, 143 validation, 359 test\n  ID         " + 30 * "f"
    assert terminal.wrap_text(text).splitlines() == [
        "Shard set",
        "  samples    1,295 train, 143",
        "             validation, 359 test",
        "  ID",
        "             " + 30 * "f",  # longer than any line, but whole
    ]


def test_a_paragraph_starts_behind_its_mark(monkeypatch):
    terminal_of_40_columns(monkeypatch)
    lines = terminal.wrap_text("one two three four five six seven eight", first=7, err=True).splitlines()
    assert all(len(line) <= 40 for line in ("Error: " + lines[0], *lines[1:]))
    assert " ".join(lines) == "one two three four five six seven eight"


def test_a_file_is_shown_as_it_is(monkeypatch):
    shown = terminal_of_40_columns(monkeypatch)
    terminal.print_result({}, "word " * 20, as_json=False, verbatim=True)
    assert shown.getvalue() == "word " * 20 + "\n"


def test_nothing_is_broken_in_a_pipe(capsys):
    text = "word " * 100
    assert terminal.wrap_text(text) == text


def test_the_next_command_can_be_copied_and_is_not_for_programs_or_make(monkeypatch):
    screen = terminal_of_40_columns(monkeypatch)
    terminal.print_result({}, "done", as_json=False, then=["verify", "my shards"])
    assert screen.getvalue() == "done\nNext: spikebridge verify 'my shards'\n"
    terminal.print_result({}, "done", as_json=True, then=["verify"])
    monkeypatch.setenv("MAKELEVEL", "1")
    terminal.print_result({}, "done", as_json=False, then=["verify"])
    assert screen.getvalue().count("Next") == 1


def test_messages_stand_above_a_bar(monkeypatch):
    screen = terminal_of_40_columns(monkeypatch)
    with tqdm(total=3, file=screen, ncols=40) as bar:
        bar.update(1)
        record = logging.LogRecord("train", logging.WARNING, __file__, 1, "layer %s is dead", ("node1",), None)
        terminal.StderrHandler().emit(record)
    lines = screen.getvalue().replace("\r", "\n").splitlines()
    assert "layer node1 is dead" in lines  # on a line of its own


class Filling(io.RawIOBase):
    """A disk that takes ten more bytes."""

    left = 10

    def writable(self):
        return True

    def write(self, data):
        if not self.left:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = min(self.left, len(data))
        self.left -= taken
        return taken


def test_a_result_is_written_as_a_whole_or_not_in_silence():
    unbuffered = io.TextIOWrapper(Filling(), encoding="utf-8", write_through=True)
    unbuffered.write("more than ten bytes")  # as Python does with PYTHONUNBUFFERED
    unbuffered.flush()
    stream = complete_writes(io.TextIOWrapper(Filling(), encoding="utf-8", write_through=True))
    with pytest.raises(OSError, match="No space left"):
        print("more than ten bytes", file=stream, flush=True)
    buffered = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert complete_writes(buffered) is buffered


def test_digits_that_are_no_numbers_are_refused_by_their_option():
    with pytest.raises(click.BadParameter, match="no number of recordings"):
        parse_counts(("train=²",))
    with pytest.raises(click.BadParameter, match="whole numbers"):
        whole_numbers("0,²", "--seeds")


@pytest.mark.parametrize("text", ["", "34", "34x", "0x34", "34x0", "-3x4", "16385x4", "3.5x4", "34x34x2", "axb"])
def test_a_sensor_has_two_sides_of_some_pixels(text):
    with pytest.raises(click.BadParameter, match="expected WIDTHxHEIGHT in pixels, each from 1 to 16384"):
        terminal.parse_sensor(text)
    assert terminal.parse_sensor("346x260") == (346, 260)
    assert terminal.parse_sensor(None) is None


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "-0.1", "much"])
def test_numbers_are_finite_and_in_their_range(text):
    with pytest.raises(click.BadParameter, match=r"in the range x>=0|not a valid float"):
        terminal.FiniteRange(0).convert(text, None, None)
    assert terminal.FiniteRange(0).convert("0.5", None, None) == 0.5
