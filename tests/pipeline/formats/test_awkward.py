"""Valid files in forms that few programs write, and what downloads leave in place of files."""

import gzip

import numpy as np
import pytest
from event_files import aedat3, aedat3_packet, dat, davis_aedat2, evt2, evt3

from spikebridge.pipeline.base.errors import RecordingError
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats.aedat import aedat2
from spikebridge.pipeline.formats.recording import decode, sensor_size


def some_events(count=200, size=(128, 128), seed=0):
    rng = np.random.default_rng(seed)
    x, y = (rng.integers(0, side, count).astype(np.int32) for side in size)
    return Events(
        np.sort(rng.integers(1, 300_000, count)).astype(np.int64), x, y, rng.integers(0, 2, count).astype(np.uint8)
    )


def same(found, events):
    return all(np.array_equal(a, b) for a, b in zip(found.columns, events.columns, strict=True))


def refusal(path, **options):
    with pytest.raises(RecordingError) as caught:
        decode(path, **options)
    return caught.value


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"../../.git/annex/objects/aa/bb/MD5E-s9--0.npz/MD5E-s9--0.npz", "git annex get"),
        (b"\xef\xbb\xbf <!DOCTYPE html><html>404</html>", "web page"),
    ],
)
@pytest.mark.parametrize("ending", [".npz", ".raw", ".bin", ".h5", ".csv"])
def test_what_is_in_place_of_a_file_is_named(tmp_path, data, said, ending):
    path = tmp_path / f"0{ending}"
    path.write_bytes(data)
    assert said in str(refusal(path))
    assert refusal(path).reason == "format"


def test_recordings_of_prophesee_are_known_under_another_ending(tmp_path):
    events = some_events()
    for name, data in (("0.bin", b"% evt 3.0\n% geometry 128x128\n% end\n" + evt3(events)), ("1.bin", dat(events))):
        (tmp_path / name).write_bytes(data)
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(data))
        assert same(decode(tmp_path / name).events, events)
        assert same(decode(tmp_path / f"{name}.gz").events, events)


@pytest.mark.parametrize("empty", [b"%\n", b"%\r\n"])
def test_lines_of_a_header_may_be_empty(tmp_path, empty):
    events = some_events()
    (tmp_path / "0.raw").write_bytes(b"% evt 2.0\n" + empty + b"% geometry 128x128\n" + evt2(events))
    assert same(decode(tmp_path / "0.raw").events, events)
    assert decode(tmp_path / "0.raw").facts.sensor_size == (128, 128)


def test_a_header_that_does_not_name_evt(tmp_path):
    events, lines = some_events(), b"%% Date 2019-03-01 10:00:00\n%% plugin_name hal_plugin_gen%s\n%% system_ID 21\n"
    (tmp_path / "3.raw").write_bytes(lines % b"31_fx3" + evt2(events))
    assert same(decode(tmp_path / "3.raw").events, events)
    assert "by the generation of the camera" in decode(tmp_path / "3.raw").facts.choices[0]
    (tmp_path / "4.raw").write_bytes(lines % b"4_fx3" + evt3(events))
    assert "`% evt 3.0`" in str(refusal(tmp_path / "4.raw"))


def test_a_line_that_a_person_added_to_a_header(tmp_path):
    """With another line ending than the program's: eight bytes of it were taken for an event."""
    events = some_events(size=(240, 180))
    for line in (b"# AEChip: DAVIS240C\n", b"# by me 12345678\n# AEChip: DAVIS240C\n", b"# AEChip:   DAVIS240C\n"):
        header = b"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n" + line
        (tmp_path / "0.aedat").write_bytes(davis_aedat2(events, size=(240, 180), header=header))
        assert same(decode(tmp_path / "0.aedat").events, events)


def test_the_dvs128_under_its_older_name_and_two_of_them(tmp_path):
    events = some_events()
    for name, known in ((b"Tmpdiff128", True), (b"DVS128StereoPair", False), (b"Tmpdiff128AndCochleaAERb", False)):
        header = b"#!AER-DAT2.0\r\n# AEChip: ch.unizh.ini.caviar.chip.retina." + name + b"\r\n"
        (tmp_path / "0.aedat").write_bytes(aedat2.encode(events, header=header))
        if known:
            assert same(decode(tmp_path / "0.aedat").events, events)
            assert decode(tmp_path / "0.aedat").facts.sensor_size == (128, 128)
        else:
            assert "addresses are not known" in str(refusal(tmp_path / "0.aedat"))


def test_an_aedat_without_a_header_is_not_called_damaged(tmp_path):
    (tmp_path / "0.aedat").write_bytes(bytes.fromhex("26ef00000000") * 20)
    assert refusal(tmp_path / "0.aedat").reason == "format"
    assert "AEDAT 1.0" in str(refusal(tmp_path / "0.aedat"))


def test_the_camera_of_an_aedat3_is_that_of_its_events(tmp_path):
    events = some_events()
    old, new = b"#Source 0: DVS128\r\n", b"#Source 7: DAVIS346\r\n#Source 0: DVS128\r\n"
    imu = aedat3_packet(3, 36, bytes(72), camera=7)
    end = b"#!END-HEADER\r\n"
    path = tmp_path / "0.aedat"
    path.write_bytes(aedat3(events).replace(old, new).replace(end, end + imu))
    assert sensor_size(path) == decode(path).facts.sensor_size == (128, 128)
    path.write_bytes(aedat3(events).replace(old, b"#Source 0: Visualizer\r\n#-Source 1: DAVIS240C\r\n"))
    assert sensor_size(path) == decode(path).facts.sensor_size == (240, 180)
    assert decode(path).facts.format == "AEDAT 3.1, DAVIS240C"
