"""Recordings that are decoded in chunks give what decoding at once gives, wherever the chunks part them."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import make_events
from event_files import (
    EVT2_HEADER,
    EVT3_HEADER,
    EVT21_HEADER,
    aedat3,
    aedat3_packet,
    dat,
    davis_aedat2,
    event_stream,
    evt2,
    evt3,
    evt21,
    later,
    write_aedat4,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_sets.recordings import assert_equal, reason

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.containers import lz4
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.binning import Binning
from spikebridge.pipeline.events.filters import Filters
from spikebridge.pipeline.events.framing import to_frames
from spikebridge.pipeline.events.packing import LongEvents, PackedEvents, Unpacked, Words, pack, pack_chunks
from spikebridge.pipeline.formats import bin40, recording
from spikebridge.pipeline.formats.aedat import aedat2
from spikebridge.pipeline.formats.source import Source

EVENTS = make_events(3, count=400, size=(200, 150))
SMALL = make_events(4, count=300, size=(120, 100))
WRAPPING = later(SMALL, 2**32 - 150_000)
VECTORS = np.array([0x8001, 0x6002, 0x0005, 0x3812, 0x4FFF, 0x50FF, 0x4A05, 0xA001, 0x9999, 0x8002, 0x4003], "<u2")
FILES = {
    "evt2": ("evt", EVT2_HEADER + evt2(EVENTS)),
    "evt21": ("evt", EVT21_HEADER.replace(b"little", b"legacy") + evt21(EVENTS, legacy=True)),
    "evt3": ("evt", EVT3_HEADER + evt3(EVENTS) + VECTORS.tobytes()),
    "evt3 beyond its clock": ("evt", EVT3_HEADER + evt3(make_events(6, count=200, duration_us=50_000_000))),
    "dat": ("dat", dat(WRAPPING)),
    "dat in order": ("dat", dat(EVENTS)),
    "dat of an ATIS": ("dat", dat(SMALL, layout=1, version=1)),
    "bin": ("bin40", bin40.encode(SMALL)[:500] + bytes([0, bin40.OVERFLOW_Y, 0, 0, 0]) + bin40.encode(SMALL)[500:]),
    "aedat2": ("aedat2", aedat2.encode(WRAPPING)),
    "aedat2 of a DAVIS": ("aedat2", davis_aedat2(WRAPPING, others=True)),
    "aedat3": (
        "aedat3",
        aedat3(EVENTS, packet=30, invalid=(3, 77)) + aedat3_packet(2, 50, bytes(100)) + aedat3_packet(99, 4, bytes(8)),
    ),
    "es": ("event_stream", event_stream(EVENTS)),
    "es of an ATIS": ("event_stream", event_stream(EVENTS, atis=True, exposures=3)),
}
"""Decoder and content."""


def stream(name):
    kind, data = FILES[name]
    return recording.DECODERS[kind](Source.of_bytes(data, "x"), recording.DEFAULT)


def test_a_header_of_another_layout_starts_the_pass_over(monkeypatch):
    """A DAT of version 2 is taken for layout 2 until an event, or the clock, says otherwise."""
    monkeypatch.setattr("spikebridge.pipeline.formats.source.BLOCK_BYTES", 64)
    rows = SMALL.part(slice(None))
    rows.y[:150] = 0  # the first blocks fit both layouts
    source = Source.of_bytes(dat(rows, layout=1, version=2), "x")
    packed = pack_chunks(
        recording.DECODERS["dat"](source, recording.DEFAULT).annotated, sensor_size=(304, 240), source="x"
    )
    assert_equal(packed.unpack(), rows)
    found = recording.DECODERS["dat"](source, recording.DEFAULT).decoded()
    assert_equal(found.events, rows)
    assert found.facts.choices == ("version 2 in the header: layout 1 by the events",)


@pytest.mark.parametrize("name", FILES)
def test_chunks_of_any_size_are_the_whole(name, monkeypatch):
    whole = stream(name).decoded()
    for size in (16, 24, 40, 136, 1000):
        monkeypatch.setattr("spikebridge.pipeline.formats.source.BLOCK_BYTES", size)
        parts = stream(name)
        found = parts.decoded()
        assert sum(1 for _ in parts.passes()) > 1
        assert_equal(found.events, whole.events)
        assert found.facts == whole.facts


@pytest.mark.parametrize("name", ["evt3", "dat of an ATIS", "aedat3", "es"])
def test_a_file_is_read_as_its_bytes_are(name, tmp_path, monkeypatch):
    kind, data = FILES[name]
    (tmp_path / "x").write_bytes(data)
    monkeypatch.setattr("spikebridge.pipeline.formats.source.BLOCK_BYTES", 64)
    found = recording.DECODERS[kind](Source.of_file(tmp_path / "x"), recording.DEFAULT).decoded()
    assert_equal(found.events, stream(name).decoded().events)


def outcome(pack_it):
    """What packing gives: all about the events, or why it is refused."""
    try:
        packed = pack_it()
    except RecordingError as error:
        return str(error), error.reason
    return packed.sha256(), packed.start_us, packed.extent, packed.passed_over, packed.doubts


def pack_both_ways(make, *, sensor=(640, 480)):
    """Let the decoder pack, and pack the columns that it gives otherwise; return what that gives, which is the same."""
    by_columns = outcome(lambda: pack(make().decoded().annotated(), sensor_size=sensor, source="x"))
    found = outcome(lambda: pack_chunks(make().annotated, sensor_size=sensor, source="x"))
    assert found == by_columns
    return found


@pytest.mark.parametrize("name", FILES)
def test_a_decoder_that_packs_gives_what_its_columns_give(name, monkeypatch):
    for size in (16, 136, 2**19):
        monkeypatch.setattr("spikebridge.pipeline.formats.source.BLOCK_BYTES", size)
        assert len(pack_both_ways(lambda: stream(name))) == (2 if name == "evt3" else 5)  # its vectors go back
        pack_both_ways(lambda: stream(name), sensor=(100, 400))
    if name.startswith("evt") or name in ("dat in order", "aedat3"):
        assert all(isinstance(chunk, Words | Unpacked) for chunk in stream(name).packed())


def of_evt3(*words):
    return lambda: recording.DECODERS["evt"](
        Source.of_bytes(EVT3_HEADER + np.array(words, "<u2").tobytes(), "x"), recording.DEFAULT
    )


PLACED = (0x8001, 0x6002, 0x0005, 0x2007)
"""Time, row, and an event."""


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 2**16 - 1), max_size=40), st.sampled_from([(), PLACED]))
def test_any_words_give_the_same_both_ways(words, before):
    pack_both_ways(of_evt3(*before, *words))
    evt2 = EVT2_HEADER + np.array([8 << 28 | 1, *(1 << 26 | word for word in words)], "<u4").tobytes()
    pack_both_ways(lambda: recording.DECODERS["evt"](Source.of_bytes(evt2, "x"), recording.DEFAULT))


def test_what_no_word_has_room_for_is_packed_from_columns(tmp_path):
    """Times beyond 39 bits, pixels beyond 4096x2048, polarities beyond 1, times before the first: said, or kept."""
    wraps = [word for _ in range(2**15 + 2) for word in (0x8FFF, 0x8000)]
    assert pack_both_ways(of_evt3(*PLACED, *wraps, 0x2009))[1] == "too_long"
    start, *_ = pack_both_ways(of_evt3(0x8001, 0x6002, 0x0005, *wraps, 0x2009))
    assert len(start) == 64  # a late beginning is none of it
    beyond = pack_both_ways(of_evt3(*PLACED, 0x37FF, *[0x5001] * 300), sensor=(10_000, 2_000))
    assert beyond[1] == "out_of_range"
    for change in (lambda e: e.x.__setitem__(5, 4096), lambda e: e.y.__setitem__(5, 2048)):
        events = make_events(1, count=20)
        change(events)
        data = dat(events, size=(8_000, 8_000))
        made = lambda data=data: recording.DECODERS["dat"](Source.of_bytes(data, "x"), recording.DEFAULT)  # noqa: E731
        assert pack_both_ways(made, sensor=(8_000, 8_000))[1] == "out_of_range"
        data = aedat3(events)
        made = lambda data=data: recording.DECODERS["aedat3"](Source.of_bytes(data, "x"), recording.DEFAULT)  # noqa: E731
        assert pack_both_ways(made, sensor=(8_000, 8_000))[1] == "out_of_range"
        write_aedat4(tmp_path / "a.aedat4", events, size=(8_000, 8_000))
        assert pack_both_ways(lambda: recording.stream(tmp_path / "a.aedat4"), sensor=(8_000, 8_000))[1]
    events = make_events(1, count=20)
    events.t[:] += 500
    write_aedat4(tmp_path / "a.aedat4", events)
    assert len(pack_both_ways(lambda: recording.stream(tmp_path / "a.aedat4"))) == 5
    events.t[7] = 100
    made = lambda: recording.DECODERS["dat"](Source.of_bytes(dat(events), "x"), recording.DEFAULT)  # noqa: E731
    assert pack_both_ways(made)[1] == "unsorted"


@pytest.mark.parametrize(("clocks", "why"), [((0, 300), "too_long"), ((5, 0), "unsorted"), ((300, 301), None)])
def test_clocks_of_aedat3_that_words_hold_and_that_they_do_not(clocks, why):
    records = np.column_stack([np.full(40, 7 << 17 | 9 << 2 | 1), np.arange(40) * 100]).astype("<u4").tobytes()
    packets = b"".join(aedat3_packet(1, 8, records, overflow=clock) for clock in clocks)
    data = aedat3(EVENTS.part(slice(0))) + packets
    found = pack_both_ways(lambda: recording.DECODERS["aedat3"](Source.of_bytes(data, "x"), recording.DEFAULT))
    assert found[1] == (why or clocks[0] << 31)


def test_what_is_cut_is_refused_wherever_the_chunks_end(monkeypatch):
    for size in (16, 24, 40, 1000):
        monkeypatch.setattr("spikebridge.pipeline.formats.source.BLOCK_BYTES", size)
        for name in ("aedat3", "es"):
            kind, data = FILES[name]
            for cut in (1, 3):
                parts = recording.DECODERS[kind](Source.of_bytes(data[:-cut], "x"), recording.DEFAULT)
                assert reason(parts.decoded) == "truncated"


def chunked(events, sizes):
    """Begin passes over events in chunks of sizes that come round and round; chunks are overwritten, as decoders do."""

    def passes():
        at, turn = 0, 0
        while at < len(events):
            count = sizes[turn % len(sizes)]
            chunk = events.part(slice(at, at + count))
            copy = Events(*(column.copy() for column in chunk.columns))
            yield copy
            for column in copy.columns:
                column[:] = 0
            at, turn = at + count, turn + 1
        yield Events(*Events.room(0).columns, passed_over=(("triggers", 3),))

    return passes


WAYS = (
    {"reduction": "sum", "dtype": "uint8"},
    {"reduction": "event", "dtype": "uint8", "canvas": None},
    {"reduction": "bilinear", "dtype": "float16"},
    {"reduction": "frequency", "dtype": "float16"},
    {"reduction": "sum", "dtype": "uint16", "binning": Binning("count", events_per_bin=37)},
    {"reduction": "sum", "dtype": "uint16", "binning": Binning("window", window_us=9_000), "crop": (5, 6, 30, 31)},
    {"reduction": "event", "dtype": "uint8", "span_us": 10**9},
)
FILTERS = (
    Filters(),
    Filters(time_window_us=(30_000, 200_000), refractory_us=3_000),
    Filters(hot_pixels=1.5, background_us=40_000),
)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 10**6), st.lists(st.integers(1, 90), min_size=1, max_size=4), st.integers(0, 350), st.integers(0, 2)
)
def test_a_long_recording_gives_the_frames_of_one_in_memory(seed, sizes, most, which):
    """In memory at once, in memory after chunks, or decoded anew for each use."""
    events, filters = make_events(seed, size=(40, 34)), FILTERS[which]
    whole = pack(events, sensor_size=(40, 34), source="x")
    parts = pack_chunks(chunked(events, sizes), sensor_size=(40, 34), source="x", most=most)
    assert isinstance(parts, PackedEvents if most >= len(events) else LongEvents)
    assert parts.passed_over == (("triggers", 3),)
    if filters:
        whole, taken = filters.apply(whole, source="x")
        parts, also = filters.apply(parts, source="x", most=most // 2)
        assert taken == also
    for name in ("start_us", "duration_us", "extent"):
        assert getattr(parts, name) == getattr(whole, name)
    assert (len(parts), parts.sha256()) == (len(whole), whole.sha256())
    for way in WAYS:
        given = {"time_bins": 5, "size": 12, "canvas": (40, 34), "source": "x", **way}
        expected, found = to_frames(whole, **given), to_frames(parts, **given)
        np.testing.assert_array_equal(found.frames, expected.frames)
        assert (found.dropped_events, found.saturated_cells) == (expected.dropped_events, expected.saturated_cells)


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e.t.__setitem__(slice(100, 102), [e.t[99] - 50, e.t[99] - 60]),
        lambda e: e.x.__setitem__(200, 34),
        lambda e: e.y.__setitem__(299, -1),
        lambda e: e.p.__setitem__(150, 2),
        lambda e: e.t.__setitem__(299, 2**40),
    ],
)
def test_a_check_that_fails_says_the_same(change):
    events = make_events(1)
    change(events)
    messages = []
    for sizes, most in (([300], 300), ([100], 300), ([7, 50], 0)):
        with pytest.raises(RecordingError) as caught:
            pack_chunks(chunked(events, sizes), sensor_size=(34, 34), source="x", most=most)
        messages.append((str(caught.value), caught.value.reason))
    assert len(set(messages)) == 1


def test_lz4_is_what_the_package_unpacks(tmp_path):
    """Packets that are plain LZ4 are unpacked here: their events are those of the package `aedat`."""
    import aedat

    path, events = tmp_path / "a.aedat4", make_events(9, count=3000, size=(346, 260))
    write_aedat4(path, events, others=True, packet=700)
    theirs = [packet["events"] for packet in aedat.Decoder(str(path)) if "events" in packet]
    found = recording.decode(path)
    for ours, name in zip(found.events.columns, ("t", "x", "y", "on"), strict=True):
        np.testing.assert_array_equal(ours, np.concatenate([packet[name] for packet in theirs]))
    assert_equal(found.events, events)


def frame(*blocks):
    """A frame of LZ4 from (stored, bytes)."""
    parts = [len(data).to_bytes(4, "little")[:3] + (b"\x80" if stored else b"\0") + data for stored, data in blocks]
    return lz4.LZ4 + b"\x40\x40\xc0" + b"".join(parts) + bytes(4)


def test_blocks_of_lz4():
    """Literals, matches that overlap and reach into the block before, long lengths, stored blocks, and damage."""
    room = np.empty(0, np.uint8)
    cases = {
        b"abc": (True, b"abc"),
        b"abcabcabcab" + b"wxyz!": (False, b"\x34abc\x03\0" + b"\x50wxyz!"),
        bytes(300) + b"12345": (False, b"\x1f\0\x01\0\xff" + bytes([300 - 1 - 19 - 255]) + b"\x5012345"),
        b"q" * 20: (False, b"\xf0\x05" + b"q" * 20),
    }
    for expected, block in cases.items():
        content, room = lz4.unpack(frame(block), room)
        assert content.tobytes() == expected
    content, room = lz4.unpack(frame((True, b"0123456789"), (False, b"\x04\x08\0\x5012345")), room)
    assert content.tobytes() == b"0123456789" + b"23456789" + b"12345"
    for damaged in (
        frame((False, b"\x34abc\x04\0\x50wxyz!")),  # before the beginning
        frame((False, b"\x34abc\0\0\x50wxyz!")),
        frame((False, b"\xf0")),
        frame((False, b"\x34abc\x03\0")),  # ends with a match
        frame((False, b"\x34ab")),
        frame((True, b"abc"))[:-1],
        frame((True, b"abc")) + b"x",
        frame((False, b"\x1f\0\x01\0" + b"\xff" * 300_000)),
    ):
        with pytest.raises(ValueError, match="LZ4"):
            lz4.unpack(damaged, room)


def lz4_block(seed):
    """A block of random sequences, short and long, near and overlapping; and what it unpacks to, byte by byte."""
    rng, block, content = np.random.default_rng(seed), bytearray(), bytearray()
    for _ in range(60):
        literals = rng.integers(0, 256, rng.choice([0, 1, 3, 7, 8, 14, 15, 20]), np.uint8).tobytes()
        content += literals
        length = int(rng.choice([4, 5, 8, 9, 18, 19, 40])) if content else 0
        long = bytes([len(literals) - 15]) if len(literals) >= 15 else b""
        block += bytes([min(len(literals), 15) << 4 | max(0, min(length - 4, 15))]) + long + literals
        if not length:
            return lz4_block(seed + 1)
        offset = int(rng.integers(1, min(len(content), 40) + 1))
        block += offset.to_bytes(2, "little") + (bytes([length - 19]) if length >= 19 else b"")
        for _ in range(length):
            content.append(content[-offset])
    return bytes(block) + b"\x50wxyz!", bytes(content) + b"wxyz!"


@pytest.mark.parametrize("seed", range(1, 9))
def test_sequences_of_lz4_are_what_a_loop_over_bytes_unpacks(seed):
    block, expected = lz4_block(10 * seed)
    content, room = lz4.unpack(frame((False, block)), np.empty(0, np.uint8))
    assert content.tobytes() == expected
    short = bytearray(block)
    short[5:] = bytes(len(block) - 5)
    with pytest.raises(ValueError, match="LZ4"):
        lz4.unpack(frame((False, bytes(short))), room)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=80), st.integers(0, 60), st.integers(0, 255))
def test_no_bytes_make_the_loop_leave_its_room(data, at, byte):
    """Any bytes behind a good beginning give an error or a content within the bound."""
    good = bytearray(b"\x34abc\x03\0\x50wxyz!\xf0\x05" + b"q" * 20)
    good[at % len(good)] = byte
    room = np.full(70_000, 7, np.uint8)
    for block in (bytes(good), data, bytes(good) + data):
        try:
            content, taken = lz4.unpack(frame((False, block)), room)
        except ValueError:
            continue
        assert taken is room
        assert len(content) <= 255 * len(block)


LIMITED = """
import resource, sys
sys.path[:0] = sys.argv[2:]
from memory import peak_bytes
from spikebridge.pipeline.events.framing import to_frames
from spikebridge.pipeline.events.packing import pack_chunks
from spikebridge.pipeline.formats import recording
from pathlib import Path
path = Path(sys.argv[1])
before = peak_bytes()
stream = recording.stream(path)
events = pack_chunks(stream.annotated, sensor_size=(640, 480), source="x", likely=stream.likely, most=2**16)
to_frames(events, time_bins=10, size=48, reduction="sum", dtype="uint16", canvas=(640, 480), source="x")
print(len(events), peak_bytes() - before)
"""


@pytest.mark.long
@pytest.mark.parametrize("kind", ["dat", "evt3", "aedat4"])
def test_a_recording_of_millions_takes_the_memory_of_a_chunk(kind, tmp_path):
    from conftest import ROOT

    count = 300_000 if kind == "aedat4" else 5_000_000
    events = make_events(0, count=count, size=(640, 480), duration_us=count)
    path = tmp_path / {"dat": "a.dat", "evt3": "a.raw", "aedat4": "a.aedat4"}[kind]
    if kind == "aedat4":
        write_aedat4(path, events, size=(640, 480), packet=10_000)
    else:
        path.write_bytes(dat(events) if kind == "dat" else EVT3_HEADER + evt3(events))
    folders = [str(ROOT / "src"), str(ROOT / "tests" / "support")]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), *folders], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found, grown = map(int, done.stdout.split())
    assert found == count
    assert grown < 140 * 2**20  # numba alone takes most of it; the events would take 85 more
