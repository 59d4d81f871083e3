"""A table pairs recordings with images; what it leaves out is said, and what cannot be is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.datasets.matched import apply_pairs
from spikebridge.pipeline.datasets.pairs import PAIRS_UNKNOWN, UNUSED, Listing, Recording, StaticImage
from spikebridge.pipeline.datasets.splits import assign_splits, parted_groups
from spikebridge.pipeline.datasets.tables import read_pairs
from spikebridge.pipeline.measurement.sources import Answer, write_pairs

HERE = Path(__file__)


def listing(*, groups=("",) * 6, subsets=(None,) * 6):
    recordings = tuple(
        Recording(f"c/{i}", HERE, i % 2, subset, str(i), None, group=group)
        for i, (group, subset) in enumerate(zip(groups, subsets, strict=True))
    )
    images = tuple(StaticImage(f"p/{i}", HERE, i % 2, "test" if i > 3 else "train", str(i)) for i in range(6))
    return Listing(("a", "b"), recordings, images, None, pairing="class", notes=(f"{PAIRS_UNKNOWN}; so", "kept"))


def paired(tmp_path, *rows, head="recording,image", **more):
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join([head, *rows]) + "\n")
    return apply_pairs(listing(**more), path)


def test_pairs_are_exact_and_the_rest_is_told(tmp_path):
    found = paired(tmp_path, "c/0,p/2", "c/1,p/0", "c/2,p/2", "c/3,", "c/4,p/4")
    assert found.pairing == "exact"
    assert [r.image for r in found.recordings] == ["p/2", None, "p/2", None, "p/4", None]
    assert [r.subset for r in found.recordings] == [None, UNUSED, None, UNUSED, "test", UNUSED]
    assert [r.group for r in found.recordings] == ["p/2", "", "p/2", "", "", ""]
    assert found.notes == (
        "kept",
        "static images by a table: 3 recordings show 2 of them",
        "2 recordings are not used: the table names no static image for them",
        "1 recordings are not used: the table names an image of another class",
        "1 recordings show images of an official test or validation subset, and are of it",
    )
    split = assign_splits([r for r in found.recordings if r.subset != UNUSED], seed=0, protocol="strict")
    assert split["c/4"] == "test"
    assert not parted_groups(found.recordings, split)


def test_what_cannot_be_paired_is_refused(tmp_path):
    with pytest.raises(
        SettingsError,
        match=r"(?s)line 2: no recording 'x/0'; they are named like 'c/0'.*the two folders",
    ):
        paired(tmp_path, "x/0,p/0")
    with pytest.raises(SettingsError, match=r"line 3: no static image 'p/9'"):
        paired(tmp_path, "c/0,p/0", "c/1,p/9")
    with pytest.raises(SettingsError, match="nothing could be paired"):
        paired(tmp_path, "c/0,p/1")
    with pytest.raises(SettingsError, match=r"c/0, c/2 show p/0 and are of several groups \(a, b\)"):
        paired(tmp_path, "c/0,p/0", "c/2,p/0", groups=("a", "", "b", "", "", ""))
    kept = paired(tmp_path, "c/0,p/0", "c/2,p/0", groups=("a", "", "a", "", "", ""))
    assert [r.group for r in kept.recordings if r.image] == ["a", "a"]
    head = "recording,image,confidence,pixels_sha256"
    for row, problem in (
        (",p/0,1,", "no recording"),
        (" ,p/0,1,", "no recording"),
        ("c/0, p/0,1,", "no static image ' p/0'"),
        ("c/0,p/0,often,", "confidence 'often'"),
        ("c/0,p/0,2,", "expected a number from 0 to 1"),
        ("c/0,p/0,nan,", "confidence 'nan'"),
        ("c/0,p/0,1,00", "expected 64 hexadecimal digits"),
    ):
        with pytest.raises(SettingsError, match=f"line 2: .*{problem}|line 2: {problem}"):
            paired(tmp_path, row, head=head)
    with pytest.raises(SettingsError, match="line 3: c/0 is listed twice"):
        paired(tmp_path, "c/0,p/0", "c/0,p/2")
    (tmp_path / "pairs.csv").write_text(f"{head}\nc/0,p/0,0.5,{'0' * 64}\nc/1,,,\n")
    assert [(p.image, p.pixels_sha256) for p in read_pairs(tmp_path / "pairs.csv")] == [("p/0", "0" * 64), ("", "")]


def test_candidates_are_read_where_no_image_is_named(tmp_path):
    path, hashes = tmp_path / "pairs.csv", ("0" * 64, "1" * 64)
    answers = [
        Answer("c/0", "p/0", 0.9, hashes[0]),
        Answer("c/1", "", 0.3, "", (("a|b%", hashes[0]), ('%7C,"', hashes[1])), 0.75),
        Answer("c/2", "", 0.0, ""),
        Answer(" c/3", " p/3 ", 0.9, hashes[0]),
        Answer(" c/4 ", "", 0.3, "", ((" p/4", hashes[0]), ("p/4 ", hashes[1])), 0.75),
        Answer("c/\udcff", "p/\udce9", 0.9, hashes[0]),  # names that are no UTF-8
    ]
    write_pairs(path, answers)
    head, *_ = path.read_text(errors="surrogateescape").splitlines()
    assert head == "recording,image,confidence,pixels_sha256,candidates,candidates_confidence,candidates_sha256"
    assert [(p.image, p.candidates, p.held) for p in read_pairs(path)] == [
        ("p/0", (), 1.0),
        ("", answers[1].candidates, 0.75),
        ("", (), 1.0),
        (" p/3 ", (), 1.0),
        ("", answers[4].candidates, 0.75),
        ("p/\udce9", (), 1.0),
    ]
    assert [p.recording for p in read_pairs(path)] == [answer.recording for answer in answers]
    path.write_text("recording,image,candidates\nc/0,,p/0|p/9\nc/1,p/1,p/3|p/5\n")
    assert [p.candidates for p in read_pairs(path)] == [(("p/0", ""), ("p/9", "")), ()]
    paired = apply_pairs(listing(), path)
    assert [r.image for r in paired.recordings[:2]] == [None, "p/1"], "pairs are made of images alone"
    head = "recording,image,candidates,candidates_sha256,candidates_confidence"
    for row, problem in (
        ("c/0,,a||b", "candidates 'a||b'; expected names with one | between two"),
        (f"c/0,,a|b,{hashes[0]}", "1 hashes, 2 candidates"),
        (f"c/0,,,{hashes[0]}", "1 hashes, 0 candidates"),
        ("c/0,,a,11", "candidates_sha256 '11'; expected 64 hexadecimal digits"),
        ("c/0,,a,,2", "confidence '2'; expected a number from 0 to 1"),
    ):
        path.write_text(f"{head}\n{row}\n")
        with pytest.raises(SettingsError) as refused:
            read_pairs(path)
        assert f"line 2: {problem}" in str(refused.value)
