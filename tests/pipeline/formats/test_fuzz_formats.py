"""Arbitrary bytes and changed valid files: every parser reads them or refuses them, in the project's own words.

A longer run with coverage guidance: `make fuzz`.
"""

import re

import pytest
from conftest import ROOT
from fuzz.format_targets import FRAGILE, TARGETS, check
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = sorted(set(TARGETS) - set(FRAGILE))


def test_make_fuzz_takes_every_target():
    listed = re.search(r"^PARSERS +\?= (.*)$", (ROOT / "Makefile").read_text().replace("\\\n", ""), re.MULTILINE)
    assert listed[1].split() == sorted(TARGETS)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_the_seeds_are_valid(name):
    refused = {"cifar", "shard_manifest"}  # nothing but their first bytes
    for data in TARGETS[name].seeds:
        assert check(name, data) == (name not in refused)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.binary(max_size=600))
def test_arbitrary_bytes(name, data):
    check(name, data)


@st.composite
def changed(draw, valid):
    """A valid file with some bytes replaced, cut out, or repeated."""
    data = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 8))
        kind = draw(st.sampled_from(["replace", "cut", "insert", "end"]))
        if kind == "end":
            del data[at:]
        elif kind == "cut":
            del data[at : at + length]
        else:
            new = draw(st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 8, bytes(8), b"\x7f"])))
            data[at : at + (len(new) if kind == "replace" else 0)] = new
    return bytes(data)


@pytest.mark.parametrize("name", NAMES)
def test_changed_files(name):
    @settings(max_examples=80, deadline=None, derandomize=True, database=None)
    @given(changed(TARGETS[name].seeds))
    def run(data):
        check(name, data)

    run()
