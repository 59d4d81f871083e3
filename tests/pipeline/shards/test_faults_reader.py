"""What a shard set from elsewhere may do to its reader: nothing. Cuts, flipped bits, lies, tricks of archives."""

import json
import os
import pickle
import shutil
import tarfile
import tracemalloc
import zlib

import h5py
import numpy as np
import pytest
from memory import limited
from shard_files import sign

from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.preprocess.reformat import reformat
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards import tar
from spikebridge.pipeline.shards.reader import ShardSet, read_index
from spikebridge.pipeline.shards.static_pool import read_static
from spikebridge.pipeline.shards.writer import Sample, index_dtype, index_path, npy_header, write_shard

STORED = [(format_, codec) for format_ in ("webdataset", "hdf5") for codec in ("raw", "gzip")]
CLS, FRAMES = 0, 2 * tar.BLOCK
"""Where the headers of a sample's first two members begin."""


@pytest.fixture
def copy(shard_set, tmp_path):
    """A factory of copies of small sets, to be spoilt."""

    def make(format_="webdataset", codec="raw"):
        folder = tmp_path / f"{format_}-{codec}"
        shutil.copytree(shard_set(format=format_, codec=codec), folder)
        return folder

    return make


class Touch:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def problems(folder):
    """What `verify` finds, be it only that the manifest is not to be trusted."""
    try:
        return verify(folder).problems
    except ShardSetError as error:
        return [str(error)]


def shard(folder):
    (path,) = ShardSet(folder).event_shards("train")
    return path


# --- cuts


def tar_cuts(path):
    """One offset of every class of places at which a tar can end."""
    index, size = read_index(index_path(path)), path.stat().st_size
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    second = members[3]  # the class of the second sample
    frames = members[4]
    end = members[-1].offset_data + -(-members[-1].size // tar.BLOCK) * tar.BLOCK
    return {
        "nothing": 0,
        "in the first header": 100,
        "at a sample": second.offset,
        "in a header": second.offset + 300,
        "behind a header": frames.offset + tar.BLOCK,
        "in an npy header": frames.offset_data + 20,
        "in frames": int(index["offset"][1]) + 7,
        "in padding": members[5].offset - 3,
        "at a member": members[5].offset,
        "in metadata": members[5].offset_data + 9,
        "before the end blocks": end,
        "in the end blocks": end + 700,
        "behind the end blocks": end + 2 * tar.BLOCK,
        "at the last byte": size - 1,
    }


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("codec", ["raw", "gzip"])
def test_a_cut_tar(copy, codec, signed):
    folder = copy(codec=codec)
    path = shard(folder)
    whole, index = path.read_bytes(), read_index(index_path(path))
    manifest = (folder / manifests.MANIFEST).read_bytes()
    frames = ShardSet(folder).split("train").read_all()
    cuts = {name: at for name, at in tar_cuts(path).items() if at < len(whole)}
    assert len(cuts) >= 13
    for name, at in cuts.items():
        path.write_bytes(whole[:at])
        if signed:
            sign(folder)
        assert problems(folder), name
        if not signed:  # training reads what is whole, and says what is not
            split = ShardSet(folder).split("train")
            for i, row in enumerate(index):
                if row["offset"] + row["length"] <= at:
                    np.testing.assert_array_equal(split.read([i])[0], frames[i])
                else:
                    with pytest.raises(ShardSetError, match="damaged or cut"):
                        split.read([i])
        (folder / manifests.MANIFEST).write_bytes(manifest)
    path.write_bytes(whole + bytes(tar.RECORD))
    sign(folder)
    assert any("something follows" in problem for problem in problems(folder))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("codec", ["raw", "gzip"])
def test_a_cut_hdf5_file(copy, codec, signed):
    folder = copy("hdf5", codec)
    path = shard(folder)
    whole, index = path.read_bytes(), read_index(index_path(path))
    manifest = (folder / manifests.MANIFEST).read_bytes()
    inside = int(index["offset"][3]) + 5
    for at in (0, 4, 20, 60, int(index["offset"][0]), inside, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:at])
        if signed:
            sign(folder)
        assert problems(folder), at
        if not signed and at == inside:
            ShardSet(folder).split("train").read([0, 1, 2])
            with pytest.raises(ShardSetError, match=r"damaged or cut .*verify .*, then convert"):
                ShardSet(folder).split("train").read([3])
        (folder / manifests.MANIFEST).write_bytes(manifest)


@pytest.mark.parametrize("at", [0, 5, 60, 0.5, -1])
def test_a_cut_static_file_and_index(copy, at):
    folder = copy()
    for path in (folder / "static.h5", index_path(shard(folder))):
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * at) if isinstance(at, float) else at])
        assert problems(folder), path
        sign(folder)
        assert problems(folder), path
        path.write_bytes(whole)
        sign(folder)
        assert not problems(folder)


# --- tricks of archives


@pytest.mark.parametrize(
    ("name", "trick"),
    [
        (b"../train-0-x.cls", {}),
        (b"/train-0-x.cls", {}),
        (None, {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        (None, {"type": tarfile.LNKTYPE, "linkname": "other"}),
        (None, {"type": tarfile.DIRTYPE}),
        (None, {"type": tarfile.CHRTYPE, "devmajor": 1}),
        (None, {"type": tarfile.XHDTYPE}),
        (None, {"mode": 0o4777}),
        (None, {"mtime": 1}),
        (None, {"uname": "root"}),
    ],
)
@pytest.mark.parametrize("member", [CLS, FRAMES])
def test_members_that_are_not_plain_files(copy, name, trick, member):
    folder = copy()
    path = shard(folder)
    data = bytearray(path.read_bytes())
    info = tarfile.TarInfo.frombuf(bytes(data[member : member + tar.BLOCK]), "ascii", "strict")
    info.name = name.decode() if name else info.name
    for field, value in trick.items():
        setattr(info, field, value)
    data[member : member + tar.BLOCK] = info.tobuf(tarfile.USTAR_FORMAT)
    path.write_bytes(data)
    sign(folder)
    assert any("is not what the index says" in problem for problem in problems(folder))
    before = sorted(os.listdir(folder.parent))
    ShardSet(folder).split("train").read_all()  # nothing is unpacked to the disk
    assert sorted(os.listdir(folder.parent)) == before


def rewritten(folder, change, codec="raw"):
    """Replace the samples of the training shard and sign the set."""
    shards = ShardSet(folder)
    path, split = shard(folder), shards.split("train")
    with tarfile.open(path) as archive:
        texts = [archive.extractfile(m).read().decode() for m in archive if m.name.endswith(".json")]
    stored = [
        Sample(key, int(label), frames, text)
        for key, label, frames, text in zip(split.keys, split.labels, split.read_all(), texts, strict=True)
    ]
    changed = change(stored)
    width = max(len(sample.key) for sample in changed)
    write_shard(path, changed, shape=shards.sample_shape, dtype=shards.dtype, key_bytes=width, codec=codec)
    counts = manifests.read(folder)["splits"]
    labels = [sample.label for sample in changed]
    counts["train"] = {
        "samples": len(changed),
        "per_class": np.bincount(labels, minlength=len(shards.classes)).tolist(),
    }
    sign(folder, splits=counts)


def renamed(sample, key):
    return Sample(key, sample.label, sample.frames, sample.metadata)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda s: [*s, s[0]], "twice"),
        (lambda s: [*s[:-2], renamed(s[0], s[0].key + "A"), renamed(s[0], s[0].key + "a")], "but for its case"),
        (lambda s: [renamed(s[0], f"train-{s[0].label}-../../x"), *s[1:]], "no plain name"),
        (lambda s: [renamed(s[0], f"/train-{s[0].label}-x"), *s[1:]], "no plain name"),
        (lambda s: [renamed(s[0], f"train-{s[0].label}-a.b"), *s[1:]], "no plain name"),
        (lambda s: [renamed(s[0], f"test-{s[0].label}-a"), *s[1:]], "does not begin with"),
        (lambda s: [Sample(s[0].key, s[0].label, s[0].frames, "{"), *s[1:]], "its metadata"),
        (lambda s: [Sample(s[0].key, s[0].label, s[0].frames, "[" * 100_000), *s[1:]], "its metadata"),
        (lambda s: [Sample(s[0].key, s[0].label, s[0].frames, '{"static": null}'), *s[1:]], "its metadata"),
    ],
)  # fmt: skip
def test_samples_that_cannot_be(copy, change, expected):
    folder = copy()
    rewritten(folder, change)
    found = problems(folder)
    assert any(expected in problem for problem in found), found


def test_members_that_stock_readers_would_unpickle(copy, tmp_path):
    """A pickle in the place of a sample's frames, under a name that asks for it: refused, and never loaded."""
    mark = tmp_path / "mark"
    program = pickle.dumps(Touch(str(mark)))
    for ending in ("pkl", "pyd", "pickle", "pth", "pt"):
        folder = copy()
        path = shard(folder)
        data = bytearray(path.read_bytes())
        info = tarfile.TarInfo.frombuf(bytes(data[FRAMES : FRAMES + tar.BLOCK]), "ascii", "strict")
        info.name = info.name.replace("frames.npy", ending)
        data[FRAMES : FRAMES + tar.BLOCK] = info.tobuf(tarfile.USTAR_FORMAT)
        data[FRAMES + tar.BLOCK : FRAMES + tar.BLOCK + len(program)] = program
        path.write_bytes(data)
        sign(folder)
        assert any("is not what the index says" in problem for problem in problems(folder))
        ShardSet(folder).split("train").read_all()  # reads numbers by their place, whatever stands before
        shutil.rmtree(folder)
    assert not mark.exists()
    pickle.loads(program)
    assert mark.exists()  # it would have run


def test_frames_that_are_no_array_of_the_manifest(copy):
    folder = copy()
    path = shard(folder)
    shards = ShardSet(folder)
    good = path.read_bytes()
    header = npy_header(shards.sample_shape, shards.dtype)
    at = good.index(header)
    for lie in (b"'shape': (9, 9", b"'descr': '|O'", b"'descr': '<u4", b"'fortran_order': True"):
        bad = header.replace(header[header.index(lie[:8]) :][: len(lie)], lie)
        assert len(bad) == len(header) != 0
        assert bad != header
        path.write_bytes(good[:at] + bad + good[at + len(header) :])
        sign(folder)
        assert any("another shape or type" in problem for problem in problems(folder))
    program = pickle.dumps(os.getcwd)
    path.write_bytes(good[:at] + program + good[at + len(program) :])
    sign(folder)
    assert problems(folder)


# --- lies of the index


def index_with(folder, **changes):
    path = index_path(shard(folder))
    index = np.load(path)
    for name, value in changes.items():
        index[name][1] = value
    np.save(path, index)
    sign(folder)


@pytest.mark.parametrize("codec", ["raw", "gzip"])
@pytest.mark.parametrize(
    "lie",
    [
        {"offset": 2**63},
        {"offset": 2**64 - 8},
        {"offset": 10**7},
        {"length": 2**62},
        {"length": 0},
        {"label": 10**6},
        {"label": -1},
    ],
)
def test_index_rows_that_point_outside(copy, codec, lie):
    folder = copy(codec=codec)
    index_with(folder, **lie)
    assert problems(folder)
    with pytest.raises(ShardSetError, match="cannot be"):
        ShardSet(folder).split("train")


@pytest.mark.parametrize("stored", STORED)
def test_index_rows_that_point_at_something_else(copy, stored):
    folder = copy(*stored)
    for lie in ({"crc32": 5}, {"key": b"train-0-other"}):
        index_with(folder, **lie)
        assert any("what the index says" in p or "does not begin" in p for p in problems(folder)), lie
        if "key" not in lie:
            with pytest.raises(ShardSetError, match="damaged"):
                ShardSet(folder).split("train").read_all()


@pytest.mark.parametrize("stored", STORED)
def test_index_rows_that_share_bytes(copy, stored):
    folder = copy(*stored)
    index_with(folder, offset=read_index(index_path(shard(folder)))["offset"][2])
    assert "begins inside row" in "".join(problems(folder))
    with pytest.raises(ShardSetError, match="begins inside row"):
        ShardSet(folder).split("train")


def lying_index(shape, dtype, data):
    header = npy_header(shape, np.dtype("u1")).replace(b"'|u1'", repr(dtype).encode())
    return header + data


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(np.zeros(3)),
        lying_index((10**15,), index_dtype(9).descr, bytes(90)),
        lying_index((-1,), index_dtype(9).descr, bytes(90)),
        lying_index((2, 2), index_dtype(9).descr, bytes(148)),
        lying_index((1,), "|O", pickle.dumps(print)),
        lying_index((1,), [("offset", "|O"), ("length", "<u8")], bytes(16)),
        lying_index((3,), "<f8", bytes(24)),
        lying_index((1,), "(" * 90, b""),
        b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535,
        b"\x93NUMPY\x03\x00",
        b"",
    ],
)
def test_indexes_that_are_none(copy, content):
    folder = copy()
    index_path(shard(folder)).write_bytes(content)
    sign(folder)
    assert problems(folder)
    with pytest.raises(ShardSetError, match=r"\.idx\.npy"):
        ShardSet(folder).split("train")


# --- lies of the manifest


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda m: m.update(schema=3), "Update spikebridge"),
        (lambda m: m["files"][0].update(name="../../etc/passwd"), r"name is the text .* plain name"),
        (lambda m: m["files"][0].update(name="/etc/passwd"), r"name is the text .* plain name"),
        (lambda m: m["files"][0].update(name="events-train-/../../x.tar"), r"name is the text .* plain name"),
        (lambda m: m["files"][0].update(name=".work"), r"name is the text .* plain name"),
        (lambda m: m["files"].append(m["files"][0]), "listed twice"),
        (lambda m: m["files"][0].update(bytes=-1), "bytes is the number -1"),
        (lambda m: m["files"][0].update(sha256="x"), "expected a SHA-256"),
        (lambda m: m["files"][0].pop("samples"), r"files\[0\]\.samples is missing"),
        (lambda m: m["sample"].update(dtype="|O"), r"dtype is the text \"\|O\""),
        (lambda m: m["sample"].update(shape=[4, 2, 0, 12]), r"sample\.shape\[2\]"),
        (lambda m: m["sample"].update(shape=[4, 2, -1, 12]), r"sample\.shape\[2\]"),
        (lambda m: m["settings"].update(codec="pickle"), "codec|format"),
        (lambda m: m["settings"].update(format=["x"]), "codec|format"),
        (lambda m: m.update(classes=[1, 2, 3]), r"classes\[0\] is the number 1"),
        (lambda m: m["splits"].update({"../x": m["splits"]["test"]}), "its splits are not train, validation, test"),
        (lambda m: m["splits"]["test"].update(samples=1.5), r"splits\.test\.samples is the number 1\.5"),
        (lambda m: m.update(files=7), "files is the number 7; expected a list"),
        (lambda m: m.pop("simulated"), "simulated is missing"),
    ],
)
def test_manifests_that_lie_with_a_valid_hash(copy, change, expected):
    folder = copy()
    manifest = manifests.read(folder)
    change(manifest)
    manifests.write(folder, manifests.seal(manifest))
    with pytest.raises(ShardSetError, match=expected):
        ShardSet(folder)
    with pytest.raises(ShardSetError, match=expected):
        verify(folder)


@pytest.mark.parametrize("stored", STORED)
def test_a_shape_that_no_shard_could_hold(copy, stored):
    folder = copy(*stored)
    sign(folder, sample={**manifests.read(folder)["sample"], "shape": [2**20, 2, 2**15, 2**15]})
    assert problems(folder)
    with pytest.raises(ShardSetError, match=r"sample\.shape\[0\] is the number 1048576"):
        ShardSet(folder)


@pytest.mark.parametrize("stored", STORED)
def test_a_sample_is_no_larger_than_its_file_can_hold(copy, stored):
    """Gigabytes that the settings would allow, in files of kilobytes: refused before a sample takes memory."""
    folder, large = copy(*stored), {"time_bins": 1000, "size": 1024}
    manifest = manifests.read(folder)
    manifest["sample"]["shape"] = [1000, 2, 1024, 1024]
    manifest["settings"] |= large
    manifests.write(folder, manifests.seal(manifest))
    with limited(2**27), pytest.raises(ShardSetError, match=r"has [\d,]+ bytes, too few for \d+ of its samples"):
        ShardSet(folder)
    for entry in manifest["files"]:
        entry["samples"] = 0
    manifests.write(folder, manifests.seal(manifest))
    with limited(2**27), pytest.raises(ShardSetError, match=r"\.idx\.npy: row 0 names a place, size or class"):
        ShardSet(folder).split("train")


# --- lies of HDF5


def static_with(folder, change):
    with h5py.File(folder / "static.h5", "a") as file:
        change(file)
    sign(folder)


def replaced(name, **more):
    def change(file):
        del file[name]
        file.create_dataset(name, **more)

    return change


def linked(name, link):
    def change(file):
        del file[name]
        file[name] = link

    return change


def virtual(file):
    del file["images"]
    layout = h5py.VirtualLayout((5, 1, 12, 12), "u1")
    layout[:] = h5py.VirtualSource("/etc/passwd", "images", (5, 1, 12, 12))
    file.create_virtual_dataset("images", layout)


@pytest.mark.parametrize(
    "change",
    [
        linked("images", h5py.ExternalLink("/etc/passwd", "images")),
        linked("images", h5py.SoftLink("/label")),
        virtual,
        replaced("images", shape=(10**9, 1, 12, 12), dtype="u1", chunks=(256, 1, 12, 12), fletcher32=True),
        replaced("images", shape=(5, 1, 12, 12), dtype="u1", external=[("/etc/passwd", 0, 1000)]),
        replaced("images", data=np.zeros((5, 1, 12, 12), "u1"), compression="gzip"),
        replaced("images", data=np.zeros((5, 1, 12, 12), "u1"), compression="lzf"),
        replaced("images", data=np.zeros((5, 1, 12, 12), "f8"), chunks=True, fletcher32=True),
        replaced("key", data=["a", "b"], dtype=h5py.string_dtype()),
        replaced("key", shape=(), dtype=h5py.ref_dtype),
        replaced("class_offsets", data=np.array([0, 9, 3, 10**9], "<i8"), chunks=(4,), fletcher32=True),
        replaced("label", data=np.zeros(2, "<i4"), chunks=(2,), fletcher32=True),
        lambda file: file.pop("role"),
    ],
)
def test_static_files_that_lie(copy, change):
    folder = copy()
    static_with(folder, change)
    assert any("static.h5" in problem for problem in problems(folder))
    with pytest.raises(ShardSetError, match=r"static\.h5"):
        ShardSet(folder).static_pool()
    with pytest.raises(ShardSetError, match=r"static\.h5"):
        read_static(folder / "static.h5", resident=False)


@pytest.mark.parametrize(
    "change",
    [
        replaced("frames", shape=(10**9, 4, 2, 12, 12), dtype="u1", chunks=(1, 4, 2, 12, 12), fletcher32=True),
        replaced("frames", data=np.zeros((3, 4, 2, 12, 12), "u1"), chunks=(1, 4, 2, 12, 12), compression="gzip"),
        replaced("json", data=["{}"] * 3, dtype=h5py.string_dtype()),
        linked("key", h5py.ExternalLink("/etc/passwd", "key")),
        lambda file: file.create_group("more"),
        lambda file: file["frames"].write_direct(np.zeros((1, 4, 2, 12, 12), "u1"), dest_sel=np.s_[1:2]),
    ],
)
def test_hdf5_shards_that_lie(copy, change):
    folder = copy("hdf5")
    path = shard(folder)
    with h5py.File(path, "a") as file:
        change(file)
    sign(folder)
    found = problems(folder)
    assert any(path.stem in problem for problem in found), found
    with pytest.raises(ShardSetError):
        reformat(folder, folder.parent / "new", format_="webdataset")
    assert not (folder.parent / "new" / manifests.MANIFEST).exists()


def test_an_empty_hdf5_shard_that_holds_a_folder(copy):
    folder = copy("hdf5")
    shards, path = ShardSet(folder), shard(folder)
    write_shard(path, [], shape=shards.sample_shape, dtype=shards.dtype, key_bytes=1)
    counts = {**manifests.read(folder)["splits"], "train": {"samples": 0, "per_class": [0] * len(shards.classes)}}
    sign(folder, splits=counts, samples={path.name: 0, index_path(path).name: 0})
    assert not problems(folder)
    with h5py.File(path, "a") as file:
        del file["frames"]
        file.create_group("frames")
    sign(folder)
    assert problems(folder)


def test_json_of_a_manifest_that_asks_for_much(copy):
    folder = copy()
    for text in ("[" * 10**6, '{"schema": ' + "9" * 10**5 + "}", json.dumps({"schema": 1, "files": 3}), "\0" * 99):
        (folder / manifests.MANIFEST).write_text(text)
        with pytest.raises(ShardSetError):
            ShardSet(folder)


@pytest.mark.parametrize("stored", STORED)
def test_rows_that_share_bytes(copy, stored):
    folder = copy(*stored)
    path = index_path(shard(folder))
    index = np.load(path)
    index["offset"][2] = index["offset"][1] + (0 if stored[1] == "raw" else 1)
    np.save(path, index)
    sign(folder)
    with pytest.raises(ShardSetError, match=r"events-train-00000\.idx\.npy: row 2 begins inside row 1"):
        ShardSet(folder).split("train")
    assert problems(folder)


def test_packed_samples_of_another_size(copy):
    folder = copy(codec="gzip")
    path = shard(folder)
    row = read_index(index_path(path))[-1]
    bomb = zlib.compressobj(9, wbits=31)
    packed = bomb.compress(bytes(2**24)) + bomb.flush()
    data = path.read_bytes()
    path.write_bytes(data[: int(row["offset"])] + packed + data[int(row["offset"]) + len(packed) :])
    index_with(folder, crc32=1)
    index = np.load(index_path(path))
    index["length"][-1] = len(packed)
    np.save(index_path(path), index)
    sign(folder)
    split = ShardSet(folder).split("train")
    tracemalloc.start()
    with pytest.raises(ShardSetError, match="damaged"):
        split.read([len(split) - 1])
    assert tracemalloc.get_traced_memory()[1] < 2**20, "unpacked beyond what the manifest says"
    tracemalloc.stop()
    assert problems(folder)
