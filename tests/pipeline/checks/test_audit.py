"""Every planted leak that only content shows is found, whatever the set says of itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from spikebridge.cli import main
from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.checks.audit import Matched, MatchedImage, matched_of
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.datasets.tables import Pair
from spikebridge.pipeline.shards.manifest import SPLITS
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.static_pool import read_static


@pytest.fixture(scope="module")
def sources(shard_set):
    """Names of the recordings by split."""
    return {split: [named(key) for key in ShardSet(shard_set()).splits[split].keys] for split in SPLITS}


def named(key):
    """The recording of a sample as the reader of `digits` calls it."""
    split, label, stem = key.split("-")
    return f"{'Test' if split == 'test' else 'Train'}/{label}/{stem}"


def keyed(name):
    """The sample of a recording."""
    split, label, stem = name.split("/")
    return f"{split.lower()}-{label}-{stem}"


def test_every_planted_leak_is_found(shard_set, sources):
    unknown = {name: Matched() for names in sources.values() for name in names}
    clean = verify(shard_set(), matched=unknown)
    assert clean.ok
    assert any(note.startswith("by content, 0 of ") for note in clean.notes)
    random = np.random.default_rng(0)
    for number in range(10):
        train, held_out = random.choice(sources["train"]), random.choice(sources["test"] + sources["validation"])
        image = MatchedImage("a/photo", f"{number:064x}" if number % 2 else "")
        planted = unknown | {str(train): Matched((image,)), str(held_out): Matched((image,))}
        found = verify(shard_set(), matched=planted)
        assert not found.ok
        (problem,) = found.problems
        assert problem.startswith(("leak by content: test-", "leak by content: validation-"))
        assert f"-{keyed(held_out).partition('-')[2]} (" in problem
        assert problem.endswith(f"shows a/photo, which training sees: shown by {keyed(train)}")
        assert any(note.startswith("1 leaks by content: preprocess --pairs TABLE") for note in found.notes)
        assert found.verdict == "FAILED"


def test_the_verb_reads_a_table(shard_set, sources, tmp_path):
    table, rows = tmp_path / "pairs.csv", [f"{sources[split][0]},a/photo" for split in ("train", "test")]
    table.write_text("\n".join(["recording,image", *rows]) + "\n")
    done = CliRunner().invoke(main, ["verify", str(shard_set()), "--match", str(table)])
    assert done.exit_code == 4
    assert "problem: leak by content: test-" in done.output
    assert "by content, 2 of " in done.output


def test_an_image_of_the_pool_that_a_held_out_recording_shows_is_a_leak(shard_set, sources):
    static = read_static(shard_set() / "static.h5")
    row = static.roles.index("pool")
    image = MatchedImage("renamed", static.pixels_sha256[row].tobytes().hex())
    shown = {sources["test"][0]: Matched((image,))}
    found = verify(shard_set(), matched=shown)
    (problem,) = found.problems
    assert problem.startswith("leak by content: test-")
    assert problem.endswith(f" shows renamed, which training sees: in the static pool as {static.keys[row]}")
    assert any("0 of 1 recordings show by content the image that the set pairs" in note for note in found.notes)
    legacy = verify(shard_set(protocol="legacy"), matched=shown)
    assert legacy.ok
    assert any(note.startswith("leak by content") for note in legacy.notes)


def test_a_candidate_that_somebody_chose_is_found_in_the_pool(shard_set, sources, tmp_path):
    """As a possible leak tells to do; an image without a hash in any row cannot be looked for, and that is said."""
    static, table = read_static(shard_set() / "static.h5"), tmp_path / "pairs.csv"
    digest, test, other = static.pixels_sha256[static.roles.index("pool")].tobytes().hex(), *sources["test"][:2]
    for row, alike in ((f"{test},a,a|b,{digest}|{'0' * 64}", ""), (f"{test},a,,", f"{other},,a,{digest}\n")):
        table.write_text(f"recording,image,candidates,candidates_sha256\n{row}\n{alike}")
        done = CliRunner().invoke(main, ["verify", str(shard_set()), "--match", str(table)])
        assert done.exit_code == 4
        assert f"leak by content: {keyed(test)} (test) shows a, which training sees: in the static pool" in done.output
        assert "pixels_sha256" not in done.output
    table.write_text(f"recording,image\n{test},a\n")
    done = CliRunner().invoke(main, ["verify", str(shard_set()), "--match", str(table)])
    assert done.exit_code == 0
    assert "note: of 1 held-out recordings the table says no pixels_sha256 of an image: whether" in done.output


def test_a_table_of_another_set_is_refused(shard_set):
    with pytest.raises(
        ShardSetError, match="no recording of the table is in the set, whose recordings are named like T"
    ):
        verify(shard_set(), matched={"elsewhere/1": Matched()})


def test_one_of_several_images_is_a_possible_leak_unless_training_sees_them_all(shard_set, sources):
    """Of the pool, shown by training recordings, or perhaps; the rest of the set stays as it is."""
    static, path = read_static(shard_set() / "static.h5"), shard_set()
    pool, other = (row for row in range(len(static)) if static.roles[row] == "pool" and row < 2)
    pool, other = (MatchedImage(f"pool/{row}", static.pixels_sha256[row].tobytes().hex()) for row in (pool, other))
    nowhere, train, test = MatchedImage("nowhere", "0" * 64), sources["train"][0], sources["test"][0]

    def found(held_out, **shown_by_train):
        return verify(path, matched={test: held_out, train: Matched(**shown_by_train)})

    whichever = found(Matched((pool, other)))
    (problem,) = whichever.problems
    assert (
        f"{keyed(test)} (test) shows one of 2 static images, 2 of which training sees, pool/0, pool/1: in the"
        in problem
    )
    assert not whichever.possible_leaks

    for several, also in (
        (Matched((pool, nowhere)), {}),
        (Matched((pool, other), sure=False), {}),
        (Matched((pool,), sure=False), {}),
        (Matched((nowhere,)), {"images": (nowhere, pool)}),
        (Matched((nowhere, MatchedImage("gone", ""))), {"images": (nowhere,)}),
        (Matched((nowhere, MatchedImage("gone", ""))), {"images": (nowhere, pool), "sure": False}),
    ):
        perhaps = found(several, **also)
        assert perhaps.ok, "nothing is proved"
        (line,) = perhaps.possible_leaks
        assert line.startswith(f"{keyed(test)} (test) {'shows' if several.sure else 'may show'} ")
        assert "which training may see" in line
        assert ("in the static pool as" in line) == (pool in several.images)
        assert (f"shown by {keyed(train)}" in line) == bool(also)
        assert perhaps.verdict == "whole, 1 possible leaks"
        assert any(note.startswith("1 possible leaks by content: look at the candidates") for note in perhaps.notes)

    sure = found(Matched((nowhere, pool)), images=(nowhere,))
    assert len(sure.problems) == 1, "one in the pool, the other shown by a training recording"
    for nothing in (Matched((nowhere, MatchedImage("gone", ""))), Matched()):
        assert not found(nothing).problems + found(nothing).possible_leaks


def test_candidates_of_a_table_are_sure_from_a_confidence_on(shard_set, sources, tmp_path):
    several = (("a", ""), ("b", "0" * 64))
    found = matched_of(
        [
            Pair(2, "r", "a", ""),
            Pair(3, "s", "", "", several),
            Pair(4, "t", "", "", several, 0.79),
            Pair(5, "u", "", ""),
        ]
    )
    images = tuple(MatchedImage(*image) for image in several)
    assert found == {"r": Matched((images[0],)), "s": Matched(images), "t": Matched(images, sure=False), "u": Matched()}
    static, table = read_static(shard_set() / "static.h5"), tmp_path / "pairs.csv"
    digests = f"{static.pixels_sha256[0].tobytes().hex()}|{'0' * 64}"
    table.write_text(f"recording,image,candidates,candidates_sha256\n{sources['test'][0]},,a|b,{digests}\n")
    done = CliRunner().invoke(main, ["verify", str(shard_set()), "--match", str(table)])
    assert done.exit_code == 0, "a possible leak is no error"
    assert done.output.startswith("whole, 1 possible leaks: ")
    assert "\npossible leak by content: test-" in done.output
    assert "0 of 1" not in done.output
    as_json = CliRunner().invoke(main, ["verify", str(shard_set()), "--match", str(table), "--json"])
    assert len(json.loads(as_json.stdout)["possible_leaks"]) == 1
