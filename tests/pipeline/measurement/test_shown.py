"""A table says which static image each recording shows; names that are not there are refused."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import write_digits_raw

from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.images.decode import read_image
from spikebridge.pipeline.measurement.placing import Placing
from spikebridge.pipeline.measurement.recordings import read_static_images
from spikebridge.pipeline.measurement.shown import paired_files, read_shown


@pytest.fixture
def raw(tmp_path):
    return write_digits_raw(tmp_path / "raw", train=3, test=0, classes=2)


def test_recordings_get_the_images_that_the_table_names(raw, tmp_path):
    events, static = raw / "events" / "Train", raw / "static" / "Train"
    files = sorted(path.relative_to(events).with_suffix("") for path in events.rglob("*.bin"))
    images = sorted(path.relative_to(static).with_suffix("") for path in static.rglob("*.png"))
    table = tmp_path / "pairs.csv"
    lines = [f"{files[0]},{images[4]}", f"{files[1]},", f"{files[5]},{images[0]}"]
    table.write_text("recording,image\n" + "\n".join(lines) + "\n")
    sources, found = paired_files(table, events, static)
    assert {path.relative_to(events).with_suffix(""): sources.images[row] for path, row in found.items()} == {
        files[0]: str(images[4]),
        files[5]: str(images[0]),
    }
    placing = Placing(12, (12, 12), 0.8)
    shown = read_shown(sources, [found[events / f"{files[5]}.bin"]], placing)
    assert shown.shape == (1, 1, 12, 12)
    everything = read_static_images(static, placing, most=10, seed=0).placed
    assert np.array_equal(shown[0], everything[0]), "as a calibration takes all"
    assert read_image(static / f"{images[0]}.png").any()

    table.write_text(f"recording,image\n{files[0]},nothing\nnobody,{images[0]}\n")
    with pytest.raises(SettingsError, match=r"(?s)line 3: no recording 'nobody'.*line 2: no image 'nothing'"):
        paired_files(table, events, static)
    for content, problem in ((b"recording,image\n", "nothing below it"), (b"\xff\xd8\0\x10", "no text")):
        table.write_bytes(content)
        with pytest.raises(SettingsError, match=rf"pairs\.csv: .*{problem}.*expected"):
            paired_files(table, events, static)
    table.write_text(f"recording,image\n{files[0]},\n")
    with pytest.raises(SettingsError, match="names a static image for no recording"):
        paired_files(table, events, static)
