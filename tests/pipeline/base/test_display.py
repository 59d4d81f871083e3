"""What others wrote reaches people escaped and cut."""

import pytest

from spikebridge.pipeline.base.display import csv_cell, printable, show

NASTY = "\x1b[2J\x07\x9b31m\u202egnp.exe\u2028\x7f\ud800"


def test_nothing_reaches_a_terminal_raw():
    assert show(NASTY + "\r\n\t") == r"\x1b[2J\x07\x9b31m\u202egnp.exe\u2028\x7f\ud800\r\n\t"
    assert printable("one\n\ttwo" + NASTY) == "one\n\ttwo" + r"\x1b[2J\x07\x9b31m\u202egnp.exe\u2028\x7f\ud800"
    assert show("Größe 日本 🙂") == "Größe 日本 🙂"


def test_a_long_name_is_cut_in_the_middle():
    assert show("a" * 80) == "a" * 80
    cut = show("a" * 5000 + "z")
    assert len(cut) == 80
    assert cut.endswith("z")
    assert "..." in cut


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_no_cell_is_a_formula(text):
    assert csv_cell(text) == "'" + text
    assert csv_cell("a" + text) == "a" + text


def test_no_cell_ends_its_row():
    assert csv_cell("a\rb\x00\udcff") == r"a\rb\x00\udcff"
