"""Small files of networks that ask for gigabytes, or for other files: refused, in a process that may not take them."""

import json
import struct
import zipfile
import zlib
from types import SimpleNamespace

import h5py
import nir
import numpy as np
import pytest
import torch
from memory import limited

from spikebridge.models import build_model
from spikebridge.models.build import NETWORKS
from spikebridge.models.errors import CheckpointError, ModelError
from spikebridge.models.published import read_published_checkpoint
from spikebridge.models.to_nir import TIME_STEP, nir_file, to_nir
from spikebridge.train.errors import ExportError, RunError
from spikebridge.train.export.read import open_export
from spikebridge.train.networks.build import load_network
from spikebridge.train.runs.checkpoints import copy_weights, encode_weights

GIB = 2**30
ROOM = GIB // 2
"""Bytes that a reader may map beyond what this process has mapped."""
CPU = torch.device("cpu")
ARGUMENTS = {"name": "scnn", "num_classes": 3, "time_steps": 4, "input_size": 16, "width": 0.05}
DESCRIBED = {
    "schema": 1,
    "shard_set": "0" * 64,
    "contents": "0" * 64,
    "preprocessing": {},
    "weights": "best",
    "threads": 1,
    "batch_size": 10,
    "test_accuracy": 0.5,
    "validation_accuracy": None,
    "time_step_seconds": TIME_STEP,
}


@pytest.fixture(scope="module")
def network():
    return build_model(**ARGUMENTS).eval()


@pytest.fixture
def exported(network, tmp_path):
    """A file of NIR that a test may spoil."""
    path = tmp_path / "network.nir"
    path.write_bytes(nir_file(to_nir(network)[0], {"spikebridge": json.dumps(DESCRIBED)}))
    return path


def zeros(size, wbits=15):
    """A zlib stream of so many zeros, a thousandth of their size."""
    part = 2**24
    packer = zlib.compressobj(9, wbits=wbits)
    first = packer.compress(bytes(part)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(part)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + again * (size // part - 1) + packer.flush()


def link_elsewhere(file, place):
    file[place] = h5py.ExternalLink("/etc/hostname", "/")


def link_within(file, place):
    file[place] = h5py.SoftLink("/node")


def store_elsewhere(file, place):
    file.create_dataset(place, shape=(8,), dtype="u1", external=[("/etc/hostname", 0, 8)])


def show_elsewhere(file, place):
    layout = h5py.VirtualLayout(shape=(8,), dtype="u1")
    layout[:] = h5py.VirtualSource("other.h5", "x", shape=(8,))
    file.create_virtual_dataset(place, layout)


def claim(file, place):
    file.create_dataset(place, shape=(GIB,), dtype="<f8", chunks=(2**16,), compression="gzip")


def claim_some(file, place):
    file.create_dataset(place, shape=(GIB // 16,), dtype="<f8", chunks=(2**16,), compression="gzip")


def claim_in_one_piece(file, place):
    file.create_dataset(place, shape=(GIB // 16,), dtype="<f8")


def lie(file, place):
    data = file.create_dataset(place, shape=(8,), dtype="<f8", chunks=(8,), compression="gzip")
    data.id.write_direct_chunk((0,), zeros(2 * GIB))


def pack_otherwise(file, place):
    file.create_dataset(place, data=np.zeros(8), compression="lzf")


def nest(file, place):
    file.create_group(place + "/a" * 40)


def pad(file, place):
    conv = next(node for node in file["node/nodes"].values() if "dilation" in node)
    del conv["padding"]
    conv["padding"] = np.array([10**6, 10**6])


SPOILED = {
    link_elsewhere: "a link to something else",
    link_within: "a link to something else",
    store_elsewhere: "lies in another file",
    show_elsewhere: "lies in another file",
    claim: "claims more than",
    claim_some: "of which 0 are there",
    claim_in_one_piece: "of which 0 are there",
    lie: "a chunk unpacks to more than 64 bytes",
    pack_otherwise: "expected numbers in gzip at most",
    nest: "nested too deeply",
    pad: "type mismatch",
}


def test_a_file_of_nir_that_is_whole_is_read_as_the_library_reads_it(exported):
    _, described, format = open_export(exported, device=CPU)
    assert (format, described) == ("nir", DESCRIBED)
    theirs = nir.read(exported)
    from spikebridge.models.run_nir import read_graph

    ours = read_graph(exported)
    assert ours.edges == theirs.edges
    for name, node in theirs.nodes.items():
        for field, value in node.to_dict().items():
            assert np.array_equal(value, ours.nodes[name].to_dict()[field]), (name, field)


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
def test_a_file_of_nir_is_read_alone_and_bounded(exported, spoil):
    with h5py.File(exported, "a") as file:
        spoil(file, "node/metadata/more")
    with limited(ROOM), pytest.raises(ExportError, match=SPOILED[spoil]) as caught:
        open_export(exported, device=CPU)
    assert str(exported) in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"threads": True},
        {"threads": 10**5},
        {"threads": "two"},
        {"batch_size": 0},
        {"time_step_seconds": 0},
        {"time_step_seconds": None},
        {"integration": "runge-kutta"},
        {"fires": "sometimes"},
        {"shard_set": 3},
        {"test_accuracy": "high"},
        {"weights": "first"},
        {"schema": True},
    ],
)
def test_what_a_file_of_nir_says_about_itself_is_checked(network, tmp_path, change):
    path = tmp_path / "network.nir"
    path.write_bytes(nir_file(to_nir(network)[0], {"spikebridge": json.dumps(DESCRIBED | change)}))
    with pytest.raises(ExportError, match=str(path)):
        open_export(path, device=CPU)


@pytest.mark.parametrize(
    "change",
    [
        {"width": 900.0},
        {"num_classes": 2**24},
        {"num_classes": 10**12},
        {"time_steps": 2**16},
        {"in_channels": 1000},
        {"input_size": [2**14, 2**14]},
        {"input_size": 10**9},
        {"input_size": [16]},
        {"name": "resnet34_snn", "width": 100.0},
        {"width": "wide"},
        {"width": 1e308},
        {"num_classes": True},
        {"reset": "none"},
        {"colour": 1},
    ],
)
def test_a_network_is_built_only_where_its_weights_are_there(network, tmp_path, change):
    path = tmp_path / "best.safetensors"
    header = {"network": json.dumps(network.config | change), "shard_set": "0" * 64, "epoch": "1"}
    path.write_bytes(encode_weights(copy_weights(network), header))
    with limited(ROOM), pytest.raises(RunError, match=str(path)):
        load_network(path, device=CPU)


def packed_member(path, name):
    """Pack a member of torch's archive; torch would unpack it."""
    with zipfile.ZipFile(path) as archive:
        contents = {info.filename: archive.read(info) for info in archive.infolist()}
    (target,) = [member for member in contents if member.endswith(name)]
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in contents.items():
            if member == target:
                info = zipfile.ZipInfo(member)
                info.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(info, "w") as file:
                    file._compressor = SimpleNamespace(flush=lambda: zeros(GIB, wbits=-15))
                    file._file_size = GIB
            else:
                archive.writestr(member, content)


def twice_the_same(path, _):
    """Let the directory name one member 10,000 times."""
    content = path.read_bytes()
    end = content.rindex(b"PK\5\6")
    start = struct.unpack("<I", content[end + 16 : end + 20])[0]
    directory = content[start:end]
    one = directory[: directory.index(b"PK\1\2", 4)]
    many = one * 10_000
    closing = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 10_000, 10_000, len(many), start, 0)
    path.write_bytes(content[:start] + many + closing)


@pytest.mark.parametrize(
    ("spoil", "name"), [(packed_member, "data.pkl"), (packed_member, "data/0"), (twice_the_same, "")]
)
def test_members_of_a_published_checkpoint_hold_what_the_file_holds(tmp_path, spoil, name):
    path = tmp_path / "model.pth.tar"
    torch.save({"state_dict": {"weight": torch.zeros(1000)}}, path)
    assert read_published_checkpoint(path).state["weight"].shape == (1000,)
    spoil(path, name)
    with limited(ROOM), pytest.raises(CheckpointError, match=str(path)):
        read_published_checkpoint(path)


@pytest.mark.parametrize("archive", [True, False])
def test_tensors_of_a_published_checkpoint_are_no_larger_than_the_file(tmp_path, archive):
    path = tmp_path / "model.pth.tar"
    endless = torch.zeros(1).expand(2**40)  # one number, claimed again and again
    torch.save({"state_dict": {"weight": endless}}, path, _use_new_zipfile_serialization=archive)
    with limited(ROOM), pytest.raises(CheckpointError, match="would take more bytes than the file has"):
        read_published_checkpoint(path)


def test_an_old_checkpoint_claims_storages_that_are_not_there(tmp_path):
    path = tmp_path / "model.pth.tar"
    torch.save({"state_dict": {"weight": torch.zeros(0x0101)}}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    claimed = content.replace(b"M\x01\x01", b"J\x01\x01\x01\x40")  # the number of values, in the pickle
    assert claimed != content
    path.write_bytes(claimed)
    with limited(ROOM), pytest.raises(CheckpointError, match="cannot be read as a published checkpoint"):
        read_published_checkpoint(path)


def test_constants_of_a_published_checkpoint_are_named_by_their_shape(tmp_path):
    network = build_model("scnn", num_classes=3, time_steps=4, input_size=16, width=0.05)
    name = next(name for name, _ in network.named_modules() if name.endswith("node1"))
    report = network.load_published({f"{name}.threshold": torch.zeros(2**20)}, strict=False)
    assert report.misfits == (f"{name}.threshold: found [1048576], expected one number",)


def test_a_node_that_gives_a_frame_too_much_is_refused():
    from spikebridge.models.run_nir import NIRProgram

    nodes = {
        "input": nir.Input(np.array([1, 4, 4])),
        "conv": nir.Conv2d((4, 4), np.ones((1, 1, 3, 3)), 1, 10**6, 1, 1, np.zeros(1)),
        "pool": nir.AvgPool2d(np.array([10**6, 10**6]), np.array([10**6, 10**6]), np.array([0, 0])),
        "output": nir.Output(np.array([1, 2, 2])),
    }
    graph = nir.NIRGraph(nodes, [("input", "conv"), ("conv", "pool"), ("pool", "output")])
    with pytest.raises(ModelError, match="node conv gives 4,000,008,000,004 values a frame"):
        NIRProgram(graph, time_step=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_shapes_of_every_network_are_known_without_its_values(tmp_path, name):
    """Building for shapes alone draws nothing, and gives the shapes of the network itself."""
    network = build_model(name, num_classes=3, time_steps=2, input_size=32, width=0.05, statistics="domain")
    path = tmp_path / "best.safetensors"
    header = {"network": json.dumps(network.config), "shard_set": "0" * 64, "epoch": "1"}
    path.write_bytes(encode_weights(copy_weights(network), header))
    state = torch.random.get_rng_state()
    again, _ = load_network(path, device=CPU)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())
