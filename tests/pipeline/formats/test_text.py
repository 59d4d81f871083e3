"""Events as text, with and without a line of names, in the orders that tools write."""

import numpy as np
import pytest
from conftest import make_events
from event_files import text_lines
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_sets.recordings import assert_equal, reason

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.formats.recording import decode, is_recording, read, sensor_size
from spikebridge.pipeline.formats.tables import text
from spikebridge.pipeline.formats.tables.columns import TableOptions

EVENTS = make_events(9, count=400, size=(240, 180))


def celex(events):
    """y,x,b,p,t with rows of p = 0 between, as THU-EACT-50 has them."""
    rows = []
    for t, x, y, p in zip(*(getattr(events, name).tolist() for name in "txyp"), strict=True):
        rows += [f"{y},{x},80,{2 * p - 1},{t}", f"{y},{x},80,0,{t}"]
    return "\n".join(rows).encode()


@pytest.mark.parametrize(
    ("name", "data", "size"),
    [
        ("rpg.txt", text_lines(EVENTS), None),
        ("e2vid.txt", text_lines(EVENTS, head="240 180\n"), (240, 180)),
        ("converter.csv", text_lines(EVENTS, order="xypt", seconds=False, between=","), None),
        (
            "geometry.csv",
            text_lines(EVENTS, order="xypt", seconds=False, between=",", head="%geometry:640,480\n"),
            (640, 480),
        ),
        (
            "names.csv",
            text_lines(EVENTS, order="ytxp", seconds=False, between=",", head="y,timestamp,x,polarity\n"),
            None,
        ),
        ("quoted.csv", text_lines(EVENTS, order="xypt", between=";", head='"x";"y";"p";"t"\n'), None),
        ("comment.txt", text_lines(EVENTS, order="txyp", seconds=False, head="# t x y p\n"), None),
        ("tabs.txt", text_lines(EVENTS, between="\t").replace(b"\n", b"\r\n"), None),
        ("marked.csv", b"\xef\xbb\xbf" + text_lines(EVENTS, order="xypt", between=","), None),
        ("celex.csv", celex(EVENTS), None),
        ("text.dat", text_lines(EVENTS), None),
    ],
)
def test_text_as_tools_write_it(tmp_path, name, data, size):
    path = tmp_path / name
    path.write_bytes(data)
    found = decode(path)
    assert_equal(found.events, EVENTS)
    assert found.facts.sensor_size == sensor_size(path) == size
    assert is_recording(path)
    assert found.facts.passed_over == ({"rows without a polarity": 400} if name == "celex.csv" else {})


def test_words_for_polarity_and_an_unnamed_first_column(tmp_path):
    path = tmp_path / "a.csv"
    rows = "".join(
        f"{i},{t},{x},{y},{bool(p)}\n"
        for i, (t, x, y, p) in enumerate(zip(EVENTS.t, EVENTS.x, EVENTS.y, EVENTS.p, strict=True))
    )
    path.write_text(",t,x,y,p\n" + rows)
    assert_equal(read(path), EVENTS)
    path.write_text(rows)
    assert_equal(read(path, TableOptions(columns=("-", "t", "x", "y", "p"))), EVENTS)
    assert reason(read, path) == "columns"


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(-(10**15), 10**15), st.integers(0, 9), st.sampled_from(["", "e3", "E-2", "e+0"])),
        min_size=1,
    )
)
def test_numbers_are_what_python_reads(numbers):
    lines = [
        f"{'-' if a < 0 else ''}{abs(a) // 10**b}.{abs(a) % 10**b:0{b}d}{e}" if b else f"{a}{e}" for a, b, e in numbers
    ]
    (values, ones), ends = text._numbers(
        np.frombuffer(bytearray("\n".join(f"{line} 1" for line in lines), "ascii"), np.uint8), 2, "x", 1
    )
    assert values.tolist() == pytest.approx([float(line) for line in lines], rel=1e-15)
    assert ones.tolist() == [1] * len(lines)
    assert ends == len(lines) - 1


def test_stamps_beyond_53_bits_stay_exact(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("t,x,y,p\n9007199254740993,1,2,0\n9007199254740995,3,4,1\n")
    assert read(path).t.tolist() == [9007199254740993, 9007199254740995]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"t,x,y,p\n", "empty"),
        (b"<html><body>1 2 3 4</body></html>", "format"),
        (b"1 2 3 1\n2 2 3\n3 2 3 1\n", "damaged"),
        (b"1 2 3 1\n2 2 3 1 9\n3 2 3 1\n", "damaged"),
        (b"1 2 3 1\n2 2 x 1\n3 2 3 1\n", "damaged"),
        (b"1,2,3,1\n2,,3,1\n", "damaged"),
        (b"1 2 3 1\n2 2 3 1\n3 2", "truncated"),
        (b"1 2 3 99999999999999999999\n", "damaged"),
        (b"a,b,c,d\n1,2,3,1\n", "columns"),
    ],
)
def test_texts_that_are_no_recordings(tmp_path, data, expected):
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    assert reason(read, path) == expected


def test_the_bad_line_is_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("# a comment\nt,x,y,p\n1,2,3,1\n2,2,oh,1\n")
    with pytest.raises(RecordingError, match=r"line 4 is '2,2,oh,1'; expected 4 numbers"):
        read(path)


def test_notes_beside_recordings_are_none(tmp_path):
    for name, content in (
        ("README.txt", "These are 12 recordings\n"),
        ("size.txt", "240 180\n"),
        (".hidden.txt", "1 2 3 4\n"),
    ):
        (tmp_path / name).write_text(content)
        assert not is_recording(tmp_path / name)
    assert np.dtype(np.int64) == EVENTS.t.dtype


def test_numbers_of_any_power_are_the_quotients():
    """Digits divided by a power of ten, as numpy divides them, over the whole range of powers."""
    lines = "".join(f"{n} 3 4 1 {n + 1}e{power}\n" for n, power in enumerate(range(-100, 60, 7)))
    numbers, _ = text._numbers(np.frombuffer(bytearray(lines, "ascii"), np.uint8), 5, "x", 1)
    digits = np.arange(1, len(numbers[4]) + 1)
    np.testing.assert_array_equal(numbers[4], digits / 10.0 ** -np.arange(-100.0, 60, 7))
    assert [column.dtype.kind for column in numbers] == ["i", "i", "i", "i", "f"]
