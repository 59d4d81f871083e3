"""Arrays from files that others wrote."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from spikebridge.pipeline.containers.npy import read_npy
from spikebridge.pipeline.shards.reader import read_index
from spikebridge.pipeline.shards.writer import index_dtype


def test_headers_are_evaluated_one_at_a_time(tmp_path, monkeypatch):
    """Python 3.11 raises a SystemError where two threads build syntax trees at once and one is interrupted."""
    np.save(tmp_path / "a.npy", np.arange(5))
    np.save(tmp_path / "a.idx.npy", np.zeros(2, index_dtype(3)))
    real, inside, most = np.lib.format.read_array_header_1_0, [], []

    def watched(file):
        inside.append(threading.get_ident())
        most.append(len(inside))
        time.sleep(0.002)
        found = real(file)
        inside.pop()
        return found

    monkeypatch.setattr(np.lib.format, "read_array_header_1_0", watched)
    with ThreadPoolExecutor(4) as pool:
        arrays = list(pool.map(lambda _: read_npy(tmp_path / "a.npy"), range(8)))
        indexes = list(pool.map(lambda _: read_index(tmp_path / "a.idx.npy"), range(8)))
    assert all(np.array_equal(array, np.arange(5)) for array in arrays)
    assert {len(index) for index in indexes} == {2}
    assert most == [1] * 16
