"""`verify` fails on every planted fault: flipped bits, cuts, wrong counts, and leaks signed with valid hashes."""

import json
import shutil
import tarfile
from hashlib import sha256

import h5py
import numpy as np
import pytest
from conftest import make_events
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shard_files import sign

from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.base.files import HashedFile
from spikebridge.pipeline.checks.samples import Layout, walk_tar
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.events.compact import compact
from spikebridge.pipeline.events.packing import pack
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.static_pool import read_static, write_static
from spikebridge.pipeline.shards.writer import Sample, index_path, write_shard


@pytest.fixture
def copy(shard_set, tmp_path):
    shutil.copytree(shard_set(), tmp_path / "set")
    return tmp_path / "set"


def static_rows(static, order):
    """The rows of `order`, with roles as they are."""
    return type(static).sort(
        static.images[order],
        labels=[int(static.labels[i]) for i in order],
        keys=[static.keys[i] for i in order],
        roles=[static.roles[i] for i in order],
        pixels_sha256=static.pixels_sha256[order],
        num_classes=len(static.class_offsets) - 1,
    )


def add_to_pool(folder, *, pixels=None, images=None):
    """Put another image into the pool under a new name, and sign the set."""
    static = read_static(folder / "static.h5")
    n = len(static)
    test_row = static.roles.index("test")
    grown = type(static).sort(
        np.concatenate([static.images, static.images[test_row : test_row + 1] if images is None else images]),
        labels=[*static.labels.tolist(), int(static.labels[test_row])],
        keys=[*static.keys, "static-0-renamed"],
        roles=[*static.roles, "pool"],
        pixels_sha256=np.concatenate(
            [static.pixels_sha256, static.pixels_sha256[test_row : test_row + 1] if pixels is None else pixels]
        ),
        num_classes=len(static.class_offsets) - 1,
    )
    (folder / "static.h5").unlink()
    write_static(folder / "static.h5", grown)
    said = manifests.read(folder)["static"]
    roles = {**said["roles"], "pool": said["roles"]["pool"] + 1}
    sign(folder, static={**said, "images": n + 1, "roles": roles})


@pytest.mark.parametrize("options", [{}, {"format": "hdf5"}, {"reduction": "bilinear"}, {"encoding": "rgb"}])
def test_a_good_set_is_good(shard_set, options):
    found = verify(shard_set(**options))
    assert found.problems == []
    assert found.samples == 33


def test_a_renamed_source_image_in_the_pool(copy):
    other = np.zeros((1, 1, 12, 12), np.uint8)
    add_to_pool(copy, images=other)  # same full-size pixels, other name
    assert any("renamed in the static pool has the pixels of" in problem for problem in verify(copy).problems)


def test_a_reencoded_copy_in_the_pool(copy):
    add_to_pool(copy, pixels=np.full((1, 32), 7, np.uint8))  # another hash, same picture
    assert any("stored with the same pixels" in problem for problem in verify(copy).problems)


def test_a_held_out_image_moved_into_the_pool(copy):
    static = read_static(copy / "static.h5")
    roles = ["pool" if role == "test" else role for role in static.roles]
    (copy / "static.h5").unlink()
    moved = type(static).sort(
        static.images,
        labels=static.labels.tolist(),
        keys=static.keys,
        roles=roles,
        pixels_sha256=static.pixels_sha256,
        num_classes=len(static.class_offsets) - 1,
    )
    write_static(copy / "static.h5", moved)
    said = manifests.read(copy)["static"]
    counts = {role: roles.count(role) for role in said["roles"]}
    sign(copy, static={**said, "roles": counts})
    assert any("is in the static pool" in problem for problem in verify(copy).problems)


@pytest.mark.parametrize("keep_original", [True, False])
def test_a_recording_moved_from_test_to_training(copy, keep_original):
    shards = ShardSet(copy)
    test, train = shards.split("test"), shards.split("train")
    rewritten = {"train": [], "test": []}
    for name, split in (("train", train), ("test", test)):
        metadata = _metadata(shards, name)
        for i, frames in enumerate(split.read_all()):
            rewritten[name].append(Sample(split.keys[i], int(split.labels[i]), frames, metadata[i]))
    moved = rewritten["test"][0]
    rewritten["train"].append(Sample(moved.key.replace("test-", "train-"), moved.label, moved.frames, moved.metadata))
    if not keep_original:
        del rewritten["test"][0]
    counts = manifests.read(copy)["splits"]
    for name, samples in rewritten.items():
        (path,) = shards.event_shards(name)
        width = max(len(sample.key) for sample in samples)
        write_shard(path, samples, shape=shards.sample_shape, dtype=shards.dtype, key_bytes=width)
        per_class = np.bincount([sample.label for sample in samples], minlength=10).tolist()
        counts[name] = {"samples": len(samples), "per_class": per_class}
    sign(copy, splits=counts)
    problems = verify(copy).problems
    assert any("held-out static image" in problem for problem in problems)
    assert any("one recording in two splits" in problem for problem in problems) == keep_original


def _metadata(shards, split):
    (path,) = shards.event_shards(split)
    with tarfile.open(path) as tar:
        return [tar.extractfile(m).read().decode() for m in tar if m.name.endswith(".json")]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_flipped_bit_passes(copy, data):
    names = sorted(p.name for p in copy.iterdir() if p.name not in manifests.OUTSIDE)
    path = copy / data.draw(st.sampled_from([name for name in names if (copy / name).stat().st_size]))
    good = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(good) - 1))
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bad)
    try:
        assert verify(copy).problems
    except ShardSetError:
        pass  # the manifest itself
    finally:
        path.write_bytes(good)


@pytest.mark.parametrize(("codec", "store"), [("raw", "frames"), ("gzip", "frames"), ("raw", "both")])
def test_a_tar_says_nothing_that_its_index_does_not(tmp_path, codec, store):
    """Every byte counts without the help of SHA-256, but for JSON texts, and the lead and the last bits of gzip."""
    rng = np.random.default_rng(0)
    layout = Layout((2, 2, 5, 5), np.dtype("u1"), codec, store)
    metadata = json.dumps({"events_sha256": "0" * 64, "static": None})
    samples = [
        Sample(
            f"train-{i}-a{i}",
            i,
            rng.integers(0, 9, layout.shape, np.uint8),
            metadata + " " * 97 * i,
            events=compact(
                pack(make_events(i, count=20 + 50 * i), sensor_size=(34, 34), source="a"), sensor_size=(34, 34)
            ),
        )
        for i in range(9)
    ]
    path = tmp_path / "a.tar"
    made = {"shape": layout.shape, "dtype": layout.dtype, "key_bytes": 10, "codec": codec, "store": store}
    index = write_shard(path, samples, **made).index

    def walked():
        with HashedFile(path) as file:
            read = [
                ([bytes(one) for one in stored.arrays.values()], stored.metadata)
                for stored in walk_tar(file, index, layout, name="a")
            ]
            assert file.sha256() == sha256(path.read_bytes()).hexdigest()
        return read

    wanted = [[sample.frames.tobytes(), sample.events.tobytes()][: len(layout.arrays)] for sample in samples]
    assert walked() == list(zip(wanted, [sample.metadata.encode() for sample in samples], strict=True))
    good = path.read_bytes()
    free = np.zeros(len(good), bool)
    with tarfile.open(path) as tar:
        for member in tar:
            kind, begin, end = member.name.rpartition(".")[2], member.offset_data, member.offset_data + member.size
            free[begin : {"json": end, "gz": begin + 10}.get(kind, begin)] = True
            free[end - 9] |= kind == "gz"
    for at in rng.choice(np.flatnonzero(~free), 600 if store == "frames" else 150, replace=False).tolist():
        bad = bytearray(good)
        bad[at] ^= 1 << at % 8
        path.write_bytes(bad)
        with pytest.raises(ShardSetError, match="a: "):
            walked()


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda folder, tar: tar.unlink(), "missing"),
        (lambda folder, tar: tar.write_bytes(tar.read_bytes()[:1024]), "bytes found"),
        (lambda folder, tar: index_path(tar).unlink(), "missing"),
        (lambda folder, tar: (folder / "static.h5").write_bytes(b""), "bytes found"),
        (lambda folder, tar: (folder / "events-train-00009.tar").write_bytes(b""), "not part of the shard set"),
        (lambda folder, tar: (folder / "SHA256SUMS").unlink(), "SHA256SUMS"),
    ],
)
def test_files_missing_cut_or_added(copy, spoil, expected):
    spoil(copy, copy / "events-train-00000.tar")
    assert any(expected in problem for problem in verify(copy).problems)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda text: text.replace('"schema": 1', '"schema": 3'), "Update spikebridge"),
        (lambda text: text.replace('"digits"', '"digit5"'), "does not match its own hash"),
        (lambda text: text[:-30], "not JSON"),
        (lambda text: "[]", "a list of 0; expected an object"),
        (lambda text: '{"schema": 1}', "does not match its own hash"),
        (lambda text: "[" * 100_000, "not JSON"),
    ],
)
def test_manifests_that_cannot_be_trusted(copy, change, expected):
    path = copy / manifests.MANIFEST
    path.write_text(change(path.read_text()))
    with pytest.raises(ShardSetError, match=expected):
        verify(copy)


def test_counts_of_the_manifest_are_checked(copy):
    counts = manifests.read(copy)["splits"]
    counts["test"]["per_class"] = [*counts["test"]["per_class"][::-1][1:], 99]
    sign(copy, splits=counts)
    assert any("samples per class" in problem for problem in verify(copy).problems)


def test_swapped_index_rows_are_noticed(copy):
    path = copy / "events-train-00000.idx.npy"
    index = np.load(path)
    index[[0, 1]] = index[[1, 0]]
    np.save(path, index)
    sign(copy)
    assert any("not what the index says" in problem for problem in verify(copy).problems)


def test_a_broken_static_file_is_named(copy):
    with h5py.File(copy / "static.h5", "a") as file:
        del file["label"]
    sign(copy)
    assert any("static.h5" in problem for problem in verify(copy).problems)


def test_metadata_is_plain_json(copy):
    for text in _metadata(ShardSet(copy), "train"):
        assert json.loads(text)["events"] == 300


def test_a_leaky_set_says_so_everywhere_and_passes_only_under_its_name(shard_set, tmp_path):
    strict, leaky = ShardSet(shard_set()), ShardSet(shard_set(protocol="leaky"))
    for split in ("train", "validation", "test"):
        assert strict.split(split).keys == leaky.split(split).keys
        assert np.array_equal(strict.split(split).read_all(), leaky.split(split).read_all())
    assert leaky.manifest["static"]["roles"]["pool"] == 33 > strict.manifest["static"]["roles"]["pool"]
    assert "**LEAKY.**" in (leaky.path / "README.md").read_text()
    assert "LEAKY" not in (strict.path / "README.md").read_text()

    found = verify(leaky.path)
    assert found.problems == []
    assert found.verdict == "whole, LEAKY as declared"
    assert any(note.startswith("protocol LEAKY: 12 static image(s) leak") for note in found.notes)
    assert verify(strict.path).verdict == "whole, no leaks"

    renamed = tmp_path / "renamed"
    shutil.copytree(leaky.path, renamed)
    sign(renamed, settings={**leaky.settings, "protocol": "strict"})
    found = verify(renamed)
    assert found.verdict == "FAILED"
    assert sum("is in the static pool" in problem for problem in found.problems) == 12
