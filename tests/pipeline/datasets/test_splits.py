"""Splits and the static pool: sizes, stability, and no held-out photograph in the pool."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.datasets.pairs import Listing, Recording, StaticImage
from spikebridge.pipeline.datasets.splits import (
    assign_image_roles,
    assign_splits,
    leave_out_shared_groups,
    parted_groups,
    read_splits,
    select,
)


def recording(name, label=0, subset=None, image=None):
    return Recording(name, name, label, subset, name, image)


def image(name, label=0, subset=None):
    return StaticImage(name, name, label, subset, name)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 5))
def test_sizes_with_official_subsets(train, test, seed):
    recordings = [recording(f"a{i}", subset="train") for i in range(train)]
    recordings += [recording(f"b{i}", subset="test") for i in range(test)]
    split = assign_splits(recordings, seed=seed, protocol="strict")
    counts = [list(split.values()).count(name) for name in ("train", "validation", "test")]
    validation = max(round(0.1 * train), 1 if train >= 3 else 0)
    assert counts == [train - validation, validation, test]
    legacy = assign_splits(recordings, seed=seed, protocol="legacy")
    assert list(legacy.values()).count("validation") == 0


@given(st.integers(1, 80), st.integers(0, 5))
def test_sizes_without_official_subsets(n, seed):
    split = assign_splits([recording(str(i)) for i in range(n)], seed=seed, protocol="strict")
    assert list(split.values()).count("test") == round(0.2 * n)


@given(st.permutations(range(20)))
def test_the_order_of_the_listing_does_not_matter(order):
    recordings = [recording(str(i), label=i % 2) for i in range(20)]
    shuffled = [recordings[i] for i in order]
    assert assign_splits(recordings, seed=1, protocol="strict") == assign_splits(shuffled, seed=1, protocol="strict")


def roles(images, recordings, split, *, hashes=None, **options):
    prints = {i.name: ((hashes or {}).get(i.name, i.name.encode()),) for i in images}
    return assign_image_roles(images, prints, recordings=recordings, split=split, **{"protocol": "strict", **options})


def test_the_pool_holds_no_held_out_photograph():
    images = [image("t"), image("v"), image("x"), image("spare"), image("official", subset="test"), image("twin")]
    recordings = [recording("1", image="t"), recording("2", image="v"), recording("3", image="x")]
    split = {"1": "train", "2": "validation", "3": "test"}
    hashes = {"twin": b"same", "x": b"same"}
    assert roles(images, recordings, split, hashes=hashes) == {
        "t": "pool",
        "v": "validation",
        "x": "test",
        "spare": "pool",
        "official": "test",
        "twin": "duplicate",
    }
    legacy = roles(images, recordings, split, hashes=hashes, protocol="legacy")
    assert [name for name, role in legacy.items() if role != "pool"] == ["official"]
    assert roles(images, recordings, split, official=False)["official"] == "pool"


def test_choose_classes_and_limit():
    recordings = tuple(recording(f"{c}{i}", label=c) for c in range(3) for i in range(4))
    listing = Listing(("a", "b", "c"), recordings, tuple(image(f"i{c}", label=c) for c in range(3)), (4, 4))
    chosen = select(listing, classes=("c", "a"), limit=0)
    assert chosen.classes == ("a", "c")
    assert {r.label for r in chosen.recordings} == {0, 1}
    assert [i.name for i in chosen.images] == ["i0", "i2"]
    limited = select(listing, classes=(), limit=4)
    assert sorted(r.name for r in limited.recordings) == ["00", "01", "10", "20"]
    with pytest.raises(SettingsError, match="no class is called d"):
        select(listing, classes=("d",), limit=0)


def test_csv_replaces_the_rules(tmp_path):
    recordings = [recording("a"), recording("b"), recording("c"), recording("d")]
    path = tmp_path / "s.csv"
    path.write_text("recording,split\na,train\nb,test\nc,unused\n")
    assert read_splits(path, recordings) == {"a": "train", "b": "test"}


def test_every_problem_of_a_csv_is_shown(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("recording,split\nnowhere,train\na,training\na,test\na,test\n")
    with pytest.raises(SettingsError) as caught:
        read_splits(path, [recording("a")])
    text = str(caught.value)
    assert "line 2" in text
    assert "line 3" in text
    assert "line 5: a is listed twice" in text
    path.write_text("name,part\n")
    with pytest.raises(SettingsError, match="columns recording and split"):
        read_splits(path, [])


def test_leaky_has_the_splits_of_strict_and_every_photograph_in_the_pool():
    recordings = [recording(str(i), label=i % 2, image=f"i{i}") for i in range(20)]
    split = assign_splits(recordings, seed=1, protocol="leaky")
    assert split == assign_splits(recordings, seed=1, protocol="strict")
    images = [image(f"i{i}") for i in range(20)] + [image("official", subset="test")]
    assert set(roles(images, recordings, split, protocol="leaky").values()) == {"pool"}
    assert "test" in roles(images, recordings, split).values()


def grouped(subjects, classes=4, each=3, **fields):
    """Recordings of subjects, each of whom does everything in all classes."""
    return [
        replace(recording(f"{s}-{c}-{i}", label=c, **fields), group=f"subject{s}")
        for s in subjects
        for c in range(classes)
        for i in range(each)
    ]


@settings(max_examples=50)
@given(st.integers(3, 40), st.integers(1, 6), st.integers(1, 5), st.integers(0, 3), st.booleans())
def test_no_split_parts_a_group(subjects, classes, each, seed, official):
    recordings = grouped(range(subjects), classes, each, subset="train" if official else None)
    recordings += grouped(range(100, 105), classes, each, subset="test") if official else []
    split = assign_splits(recordings, seed=seed, protocol="strict")
    assert parted_groups(recordings, split) == {}
    assert split.keys() == {r.name for r in recordings}
    counts = Counter(split.values())
    if not official:
        assert abs(counts["test"] - 0.2 * len(recordings)) <= max(classes * each, 0.3 * len(recordings))
        assert 0 < counts["test"] < len(recordings)
    assert counts["validation"] > 0 or subjects < 4


@given(st.permutations(range(12)))
def test_groups_of_one_are_drawn_like_recordings_without(order):
    alone = [recording(str(i), label=i % 2) for i in order]
    some = [replace(r, group="a" if int(r.name) < 4 else "") for r in alone]
    split = assign_splits(some, seed=1, protocol="strict")
    assert len({split[str(i)] for i in range(4)}) == 1
    assert split == assign_splits(sorted(some, key=lambda r: r.name), seed=1, protocol="strict")


def test_a_group_with_an_official_test_recording_is_tested_or_left_out():
    recordings = [*grouped([1], subset="test"), *grouped([1, 2, 3, 4, 5], each=2, subset="train")]
    recordings = [replace(r, name=f"{r.subset}/{r.name}") for r in recordings]
    listing = Listing(tuple("abcd"), tuple(recordings), (), (34, 34))
    left = leave_out_shared_groups(listing)
    assert [r.subset for r in left.recordings].count("unused") == 8
    assert left.notes[0].startswith("8 recordings are not used: others of their groups (subject1) are in the official")
    split = assign_splits(left.recordings, seed=0, protocol="strict")
    assert parted_groups(recordings, split) == {}
    assert parted_groups(recordings, assign_splits(recordings, seed=0, protocol="legacy")) == {
        "subject1": {"train", "test"}
    }
    unassigned = [replace(r, subset=None) if r.subset == "train" else r for r in recordings]
    assert parted_groups(unassigned, assign_splits(unassigned, seed=0, protocol="strict")) == {}


def test_images_of_a_held_out_group_stay_out_of_the_pool():
    images = [image("a"), image("b"), image("c")]
    recordings = [replace(recording(n, image=n), group=g) for n, g in (("a", "s"), ("b", "s"), ("c", "t"))]
    assert roles(images, recordings, {"a": "test", "c": "train"}) == {"a": "test", "b": "test", "c": "pool"}
