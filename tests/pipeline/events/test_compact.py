"""Compact events lose nothing, take few bytes, are refused when they cannot be, and give the frames of a conversion."""

import contextlib
import dataclasses

import numpy as np
import pytest
from conftest import make_events
from hypothesis import given, settings
from hypothesis import strategies as st

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.compact import HEAD_BYTES, CompactEvents, Head, compact
from spikebridge.pipeline.events.loops import framing, framing_plain
from spikebridge.pipeline.events.packing import LONGEST_US, LongEvents, pack, pack_chunks
from spikebridge.pipeline.shards.framing import Framing, frame_events
from spikebridge.pipeline.shards.settings import CHOICES, DTYPES, ConversionSettings

SENSOR = (240, 180)


def recording(seed, *, count=300, size=SENSOR, duration=300_000, start=0):
    events = make_events(seed, count=count, size=size, duration_us=duration)
    return dataclasses.replace(events, t=events.t + start)


def stored(events, size=SENSOR):
    return compact(pack(events, sensor_size=size, source="a"), sensor_size=size)


def read_with_numpy(data):
    """The lines of docs/reference/formats.md."""
    head = data[:80].view("<i8")
    _, n, long, step, start, _, width, height, *_ = head.tolist()
    bits, total = (width - 1).bit_length(), (width - 1).bit_length() + (height - 1).bit_length()
    ends = np.cumsum([80, 8 * long, 2 * n, step * n, n * (total > 16)])
    longs, place, steps, high = (
        data[a:b].view(t) for a, b, t in zip(ends, ends[1:], ("<i8", "<u2", f"<u{step}", "u1"), strict=False)
    )
    steps = steps.astype(np.int64)
    steps[steps == 2 ** (8 * step) - 1] = longs
    place = place.astype(np.int64) + (high.astype(np.int64) << 16 if total > 16 else 0)
    p = np.unpackbits(data[ends[-1] :], count=n, bitorder="little")
    return start + np.cumsum(steps), place % 2**bits, place >> bits, p


SIZES = st.sampled_from([(1, 1), (34, 34), (240, 180), (257, 256), (1280, 720), (4096, 2048)])


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1000), st.integers(1, 400), SIZES, st.sampled_from([1, 10**3, 10**6, 10**9]), st.booleans())
def test_nothing_is_lost(seed, count, size, duration, long):
    events = recording(seed, count=count, size=size, duration=duration, start=seed * 10**6)
    packed = pack_chunks(
        lambda: iter((events.part(slice(0, count // 2)), events.part(slice(count // 2, None)))),
        sensor_size=size,
        source="a",
        most=0 if long else count,
    )
    data = compact(packed, sensor_size=size)
    found = CompactEvents.parse(data)
    assert (len(found), found.start_us, found.duration_us) == (count, int(events.t[0]), events.duration_us)
    assert (found.extent, found.sensor_size) == (packed.extent, size)
    assert found.sha256() == packed.sha256()
    for column, wanted in zip(read_with_numpy(data), events.columns, strict=True):
        assert np.array_equal(column, wanted)
    if not long:
        assert np.array_equal(found.packed.words, packed.words)


@pytest.mark.parametrize(("count", "size"), [(4_000, (34, 34)), (115_000, SENSOR)])
def test_few_bytes_an_event(count, size):
    """As many events as recordings of N-MNIST and N-Caltech101 have."""
    assert len(stored(recording(1, count=count, size=size), size)) / count < 3.5


def test_the_longest_pause():
    events = Events(np.array([0, LONGEST_US]), np.array([0, 5], np.int32), np.array([1, 1], np.int32), np.ones(2, "u1"))
    assert CompactEvents.parse(stored(events)).packed.unpack().t.tolist() == [0, LONGEST_US]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, 2),
        (1, 0),
        (1, 299),
        (2, 1),
        (2, -1),
        (3, 3),
        (4, 2**62 + 1),
        (5, -1),
        (5, 2**40),
        (6, 0),
        (6, 241),
        (8, 5000),
    ],
)
def test_heads_that_cannot_be(place, value):
    data = stored(recording(1))
    data[:HEAD_BYTES].view("<i8")[place] = value
    with pytest.raises(ValueError, match=r"version|head|times|bytes"):
        CompactEvents.parse(data)


def test_too_few_bytes():
    for cut in (0, 1, HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + 1, -1):
        with pytest.raises(ValueError, match="bytes"):
            CompactEvents.parse(stored(recording(1))[:cut])


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 10**6), st.data())
def test_damage_is_refused_or_harmless(seed, data):
    """Where no checksum is wrong because whoever made the set wrote it so: an error, or some other events."""
    content = stored(recording(seed % 7, count=64, duration=10**5))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    out = np.empty((10, 2, 12, 12), np.uint8)
    for frame in (lambda: CompactEvents.parse(content).packed, lambda: WAY.frames_into(out, content, source="a")):
        with contextlib.suppress(ValueError, RecordingError):
            frame()


@pytest.mark.parametrize("size", [(34, 34), (640, 480)])
def test_places_beyond_their_bits_overrun_no_table(size):
    """Numba checks no index: events whose places say more than the extent's bits are left out, and `packed` refuses."""
    data = stored(recording(1, count=4_000, size=size), size)
    out = np.empty(WAY.shape, np.uint8)
    WAY.frames_into(out, data, source="a")
    whole, columns = int(out.sum()), CompactEvents.parse(data)
    assert whole > 3_900
    top, bits = (columns.high, 0xF8) if len(columns.high) else (columns.place, 0xF000)  # 19 and 12 bits say all
    top[::2] |= bits
    WAY.frames_into(out, data, source="a")
    assert abs(int(out.sum()) - whole / 2) < 100
    with pytest.raises(ValueError, match="places"):
        columns.packed  # noqa: B018  (raises)


def way(crop=None, span_us=None, **more):
    made = ConversionSettings(dataset="digits", **{"time_bins": 10, "size": 12, **more})
    return Framing(made, made, crop, span_us)


WAY = way()
FRAMES = st.fixed_dictionaries(
    {"time_bins": st.integers(1, 12), "size": st.integers(1, 40)},
    optional={
        "width": st.integers(1, 50),
        "fit": st.sampled_from(["", "pad", "crop"]),
        "extent": st.sampled_from(["recording", "canvas"]),
    },
)
CUTS = st.one_of(
    st.just({}),
    st.builds(lambda us: {"binning": "window", "window_us": us}, st.integers(1, 10**5)),
    st.builds(lambda n: {"binning": "count", "events_per_bin": n}, st.integers(0, 50)),
)
FLOATS = ("bilinear", "voxel", "est", "surface", "tore")
KINDS = st.sampled_from([("sum", "uint8"), ("sum", "uint16"), ("event", "uint8"), *((n, "float16") for n in FLOATS)])


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 1000),
    st.integers(1, 600),
    st.sampled_from([40, 2_000, 300_000, 10**8]),
    FRAMES,
    CUTS,
    KINDS,
    st.sampled_from([None, (20, 10, 120, 90)]),
    st.sampled_from([None, 10**9]),
    st.booleans(),
)
def test_frames_are_those_of_a_conversion(seed, count, duration, frame, cuts, kind, crop, span, windowed):
    """Whatever the settings: from stored bytes, by compiled loops and by numpy, the same frames or the same refusal."""
    size = SENSOR if seed % 2 else (34, 34)
    events = recording(seed, count=count, size=size, duration=duration, start=seed % 3 * 100)
    if seed % 5 == 0:  # many in one cell
        events.x[:], events.y[:] = events.x[0], events.y[0]
    if kind[0] in ("voxel", "est"):
        frame["time_bins"] = max(frame["time_bins"], 2)
    tau = {"tau_us": 1 + seed * 37} if kind[0] == "surface" else {}
    if kind[0] == "tore":
        tau = {"latest_events": 1 + seed % 4}
        frame["time_bins"] = min(frame["time_bins"], 250) * tau["latest_events"]
    now = ConversionSettings(dataset="digits", reduction=kind[0], dtype=kind[1], **frame, **cuts, **tau)
    of_set, packed = now, pack(events, sensor_size=size, source="a")
    if windowed:
        now = dataclasses.replace(now, time_window_us=(duration // 10, duration // 2 + 1))
    rule = Framing(now, of_set, crop, span)

    def convert():
        kept = now.filters.apply(packed, source="a")[0] if windowed else packed
        return frame_events(kept, now, sensor_size=size, crop=crop, span_us=span, source="a").frames

    data = compact(packed, sensor_size=size)
    wanted, refusal = None, ""
    try:
        wanted = convert()
    except RecordingError as error:
        refusal = error.reason
    if wanted is None:
        with pytest.raises(RecordingError) as found:
            rule.frames_into(np.empty(rule.shape, rule.dtype), data, source="a")
        assert found.value.reason == refusal
        return
    for numba in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not numba:
                patch.setitem(vars(rule), "_counted", False)
                patch.setattr("spikebridge.pipeline.events.framing.loops", lambda: framing_plain)
            out = np.full(rule.shape, 7, rule.dtype)
            rule.frames_into(out, data, source="a")
        assert out.dtype == wanted.dtype
        assert np.array_equal(out, wanted)


@pytest.mark.parametrize("crop", [None, (1, 2, 20, 30)])
@pytest.mark.parametrize("extent", ["canvas", "recording"])
def test_recordings_of_any_size_are_counted_in_turn(extent, crop):
    """What counted the recording before counts the next only if that is of its kind; nobody's bytes are nobody's."""
    rule = way(crop, extent=extent)
    sizes = [(34, 34), (34, 34), (30, 33), (16, 17), (33, 33), (240, 180), (34, 180), (700, 500), (700, 500), (1, 1)]
    for seed, size in enumerate(sizes):
        data = stored(recording(seed, size=size), size)
        out = np.full(rule.shape, 7, rule.dtype)
        counted = rule.count_into(out, data)
        assert counted or crop
        if counted:
            assert np.array_equal(out, rule.frame(data, source="a")[1].frames)
    for damaged, what in (
        (data[:40], "40 bytes, which are too few"),
        (np.append(data, data[:8]), "bytes, which are not those of 300 events"),
        (with_number(data, 0, 2), "a head that cannot be"),
        (with_number(data, 3, 3), "a head that cannot be"),
        (with_number(data, 5, -1), "times that cannot be"),
    ):
        with pytest.raises(ValueError, match=what):
            rule.frames_into(out, damaged, source="a")


def with_number(data, place, number):
    """Return stored bytes with another number in their head."""
    changed = data.copy()
    changed[:HEAD_BYTES].view("<i8")[place] = number
    return changed


def test_a_long_recording_is_packed_in_pieces(tmp_path, monkeypatch):
    """Words some at a time, the same frames in every reduction, and stored bytes that lie in a file."""
    events = recording(5, count=301, duration=10**7)
    whole = pack(events, sensor_size=SENSOR, source="a")
    data = stored(events)
    long = LongEvents(
        lambda: iter(np.split(whole.words, [90, 203])),
        301,
        whole.duration_us,
        whole.sha256(),
        whole.start_us,
        whole.extent,
    )
    in_file = compact(long, sensor_size=SENSOR, folder=tmp_path)
    assert np.array_equal(in_file, data)
    assert isinstance(in_file.base, np.memmap)
    assert not list(tmp_path.iterdir())
    asked = [{"reduction": name, "dtype": DTYPES[name][-1]} for name in CHOICES["reduction"]]
    asked[-2] |= {"tau_us": 10**6}
    asked[-1] |= {"latest_events": 2}
    asked.append({"time_window_us": (10**6, 5 * 10**6)})
    of_set = ConversionSettings(dataset="digits", size=9, time_bins=4)
    rules = [Framing(dataclasses.replace(of_set, **each), of_set, None, None) for each in asked]
    wanted = [rule.frame(data, source="a")[1].frames for rule in rules]
    monkeypatch.setattr("spikebridge.pipeline.events.compact.KEPT_EVENTS", 100)
    monkeypatch.setattr("spikebridge.pipeline.events.compact.PIECE", 64)
    pieces = CompactEvents.parse(data).packed
    assert isinstance(pieces, LongEvents)
    for _ in range(2):
        assert [len(words) for words in pieces.chunks()] == [64, 64, 64, 64, 45]
        assert np.array_equal(np.concatenate([words.copy() for words in pieces.chunks()]), whole.words)
    assert pieces.sha256() == whole.sha256()
    for rule, frames in zip(rules, wanted, strict=True):
        assert np.array_equal(rule.frame(data, source="a")[1].frames, frames)
    columns = CompactEvents.parse(data.copy())
    columns.step[250] ^= 1
    with pytest.raises(ValueError, match="times"):
        columns.packed  # noqa: B018


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**4), st.integers(1, 300))
def test_rates_in_numpy(seed, count):
    events = recording(seed, count=count)
    counts = [np.zeros((2, 180, 240), np.int32) for _ in range(2)]
    for loops, target in zip((framing, framing_plain), counts, strict=True):
        loops.count_pixels(events.x, events.y, events.p, target)
    assert np.array_equal(*counts)


def test_what_is_too_short_is_known_from_the_index():
    heads = [Head.read(stored(recording(seed, count=5 + seed, duration=60))) for seed in range(3)]
    index = np.array([(head.events, head.duration_us) for head in heads], [("events", "<u8"), ("duration_us", "<u8")])
    assert way().too_short(index).tolist() == [False] * 3
    assert way(time_bins=100).too_short(index).tolist() == [True] * 3
    assert way(time_bins=6, binning="count").too_short(index).tolist() == [True, False, False]
    assert not way(time_bins=100, binning="window", window_us=10).too_short(index).any()
