import subprocess
import sys

import pytest

from spikebridge.train.networks import allocator

STEPS = """
import resource, sys
import numpy as np
from spikebridge.train.networks.allocator import keep_freed_memory

def faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        a = np.ones(12_000_000, np.float32)  # 46 MiB
        b = a + 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults(4)
kept = keep_freed_memory()
faults(2)
print(before, kept, faults(4))
"""


def test_a_step_takes_the_memory_of_the_one_before():
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    before, kept, after = done.stdout.split()
    if kept == "False":
        pytest.skip("the C library is not glibc, or its limits are set by the environment")
    assert int(before) > 100  # of 8 arrays, in pages of 4 KiB or 2 MiB
    assert int(after) < int(before) / 10


def test_limits_of_the_environment_stay(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: pytest.fail("it was asked to change them"))
    for name in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES"):
        with monkeypatch.context() as inner:
            inner.setenv(name, "1")
            assert not allocator.keep_freed_memory()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not allocator.keep_freed_memory()


def test_a_c_library_without_these_limits(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: object())
    assert not allocator.keep_freed_memory()


def test_older_libraries_keep_blocks_up_to_their_own_limit(monkeypatch):
    asked = []

    class Older:
        @staticmethod
        def mallopt(parameter, value):
            asked.append((parameter, value))
            return int(parameter != allocator.MMAP_THRESHOLD or value <= allocator.OLDER_LIMIT)

    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: Older)
    assert allocator.keep_freed_memory()
    assert asked == [(-3, allocator.KEPT), (-3, allocator.OLDER_LIMIT), (-1, allocator.KEPT)]
