"""AEDAT 2.0 of the DVS128 and the DAVIS family, and AEDAT 3.1: what is read, passed over, decided and refused."""

import numpy as np
import pytest
from conftest import make_events
from event_files import aedat3 as aedat3_file
from event_files import aedat3_packet, davis_aedat2, later
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_sets.recordings import assert_equal, reason

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.formats.aedat import aedat2, aedat3
from spikebridge.pipeline.formats.recording import decode, read, sensor_size

HEADER = b"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n"
DVS128 = make_events(1, count=400, size=(128, 128))
DAVIS346 = make_events(2, count=400, size=(346, 260))


def with_corners(size, seed=3):
    """Events that reach every border of a sensor."""
    events = make_events(seed, count=300, size=size)
    events.x[:2], events.y[:2] = (0, size[0] - 1), (size[1] - 1, 0)
    return events


@pytest.mark.parametrize(
    ("chip", "size"),
    [
        ("eu.seebetter.ini.chips.davis.DAVIS240A", (240, 180)),
        ("eu.seebetter.ini.chips.davis.DAVIS240C", (240, 180)),
        ("eu.seebetter.ini.chips.davis.Davis346Blue", (346, 260)),
        ("DAVIS346B", (346, 260)),
        ("eu.seebetter.ini.chips.davis.DAVISRGBW640", (640, 480)),
    ],
)
def test_the_davis_family_by_the_chip_line(tmp_path, chip, size):
    path = tmp_path / "a.aedat"
    events = with_corners(size)
    path.write_bytes(davis_aedat2(events, size=size, header=HEADER + f"# AEChip: {chip}\r\n".encode(), others=True))
    found = decode(path)
    assert_equal(found.events, events)
    assert sensor_size(path) == found.facts.sensor_size == size
    assert found.facts.passed_over == {
        "special events": 1,
        "samples of frames": 2,
        "words of the inertial unit": 1,
    }
    assert read(path).passed_over == tuple(sorted(found.facts.passed_over.items()))


@pytest.mark.parametrize("size", [(240, 180), (346, 260), (640, 480)])
def test_without_a_chip_line_the_address_bits_decide(tmp_path, size):
    path = tmp_path / "a.aedat"
    path.write_bytes(davis_aedat2(with_corners(size), size=size, header=HEADER))
    found = decode(path)
    assert_equal(found.events, with_corners(size))
    assert found.facts.sensor_size == size
    assert f"no AEChip line: addresses fit a DAVIS of {size[0]}x{size[1]}" in found.facts.choices[0]
    path.write_bytes(aedat2.encode(DVS128, header=HEADER))
    found = decode(path)
    assert_equal(found.events, DVS128)
    assert "16 address bits of a DVS128" in found.facts.choices[0]


def test_addresses_that_fit_no_camera_are_refused(tmp_path):
    path = tmp_path / "a.aedat"
    for address in (0x7FFFF000, 0x00010001, 0x00400FFF):
        path.write_bytes(HEADER + np.array([[address, 5]], ">u4").tobytes())
        with pytest.raises(RecordingError, match="fit neither a DVS128 nor a DAVIS") as caught:
            read(path)
        assert caught.value.reason == "format"
    path.write_bytes(davis_aedat2(DAVIS346, header=HEADER + b"# AEChip: DAVIS240C\r\n"))
    with pytest.raises(RecordingError, match=r"header says DAVIS240C \(240x180"):
        read(path)


def test_coordinates_of_saveaerdat_stay_as_stored(tmp_path):
    """That program knows no jAER orientation: what its user has is what it writes, and what AedatTools reads."""
    path = tmp_path / "a.aedat"
    path.write_bytes(
        davis_aedat2(DAVIS346, header=b"#!AER-DAT2.0\r\n# This is a raw AE data file created by saveaerdat.m\r\n")
    )
    found = decode(path)
    np.testing.assert_array_equal(found.events.x, 345 - DAVIS346.x)
    np.testing.assert_array_equal(found.events.y, 259 - DAVIS346.y)
    assert "coordinates as stored" in found.facts.choices[1]


def test_special_events_of_a_dvs128_are_passed_over(tmp_path):
    path = tmp_path / "a.aedat"
    path.write_bytes(aedat2.encode(DVS128, header=HEADER) + np.array([[0x8000, 300_000]], ">u4").tobytes())
    assert_equal(read(path), DVS128)
    assert read(path).passed_over == (("special events", 1),)


@pytest.mark.parametrize("name", ["José", "日本", "Jos\xe9".encode("latin-1"), "naïve Zoë, ångström"])
@pytest.mark.parametrize("padding", range(8))
def test_headers_are_bytes_in_any_encoding(tmp_path, name, padding):
    """Whatever the length of the line: it must not be taken for records where it fits by chance."""
    name = name if isinstance(name, bytes) else name.encode()
    path = tmp_path / "a.aedat"
    header = HEADER + b"# User name: " + name + b"a" * padding + b"\r\n"
    path.write_bytes(aedat2.encode(DVS128, header=header))
    assert_equal(read(path), DVS128)
    path.write_bytes(davis_aedat2(DAVIS346, header=header + b"# AEChip: DAVIS346\r\n"))
    assert_equal(read(path), DAVIS346)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([1, 7, 100]))
def test_aedat3_round_trip_also_beyond_its_31_bits(seed, packet):
    events = later(make_events(seed, count=60, size=(128, 128)), 2**31 - 150_000)
    found = aedat3.decode(aedat3_file(events, packet=packet), source="x")
    assert_equal(found.events, events)
    assert found.facts.sensor_size == (128, 128)


def test_aedat3_passes_over_and_counts_what_is_no_event(tmp_path):
    path = tmp_path / "a.aedat"
    data = aedat3_file(DVS128, invalid=range(20))
    path.write_bytes(
        data + aedat3_packet(0, 8, bytes(24)) + aedat3_packet(2, 100, bytes(200)) + aedat3_packet(9, 4, bytes(4))
    )
    found = decode(path)
    np.testing.assert_array_equal(found.events.t, DVS128.t[20:])
    assert found.facts.passed_over == {
        "events marked invalid": 20,
        "special events": 3,
        "frames": 2,
        "events of kind 9": 1,
    }
    assert sensor_size(path) == (128, 128)


def test_damaged_aedat3(tmp_path):
    path = tmp_path / "a.aedat"
    data = aedat3_file(DVS128)
    cases = {
        data[:-1]: "truncated",
        data[: len(data) - 8 * 100 - 9]: "truncated",
        b"#!AER-DAT3.1\r\n" + bytes(100): "damaged",
        data.replace(b"RAW", b"Serial"): "format",
        data + aedat3_packet(1, 16, bytes(32)): "damaged",
        data + b"\1\0\0\0" + b"\xff" * 24: "damaged",
        data + aedat3_packet(1, 8, bytes(8), camera=1): "streams",
    }
    for content, expected in cases.items():
        path.write_bytes(content)
        assert reason(read, path) == expected
