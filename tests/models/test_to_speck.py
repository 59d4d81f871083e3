"""Speck: sums for averages change no spike, weights are whole numbers, each limit of the chip is refused by name."""

import io
from dataclasses import replace

import h5py
import nir
import numpy as np
import pytest
import torch
from lively import frames, lively

from spikebridge.models import ModelError, build_model, to_speck
from spikebridge.models.backends import use
from spikebridge.models.run_nir import NIRProgram, read_graph
from spikebridge.models.to_nir import draw
from spikebridge.models.to_speck import CORES, Core, SpeckGraph, speck_file

CHIP = {"neuron": "IF", "reset": "soft"}


def run(graph, events, *, dtype=torch.float64):
    return NIRProgram(graph, time_step=graph.metadata["dt"], fires="counts", dtype=dtype).run(events)


def test_sum_pools_with_folded_shares_give_exactly_the_spikes_of_averages():
    net = lively("speck_snn", **CHIP)
    averages, _ = draw(net, SpeckGraph(net, "r-one"))
    speck = to_speck.to_speck(net, whole=False)
    found, expected = run(speck.graph, frames(net).double()), run(averages, frames(net).double())
    for layer in ("node1", "node2", "node3", "event_node"):
        assert expected[layer].max() > 1, layer  # several spikes in a step, or less is compared than there is
        assert torch.equal(found[layer], expected[layer])
    assert np.array_equal(speck.graph.nodes["conv2"].weight * 4, averages.nodes["conv2"].weight)
    assert {type(node) for node in speck.graph.nodes.values()} >= {nir.SumPool2d, nir.Flatten}


def test_without_second_spikes_and_without_a_floor_it_is_the_network():
    net = lively("speck_snn", **CHIP).double()
    with torch.no_grad():
        for layer in (net.conv1, net.conv2, net.fc, net.event_head):  # a step adds less than a threshold, never below 0
            layer.weight.abs_().div_(layer.weight.flatten(1).sum(1).view(-1, *[1] * (layer.weight.ndim - 1)))
            layer.weight *= 0.6
    events = torch.ones_like(frames(net)).double() * torch.linspace(0.4, 1, 21)
    found = run(to_speck.to_speck(net, whole=False).graph, events)
    assert all(found[layer].max() == 1 for layer in ("node1", "node2", "node3", "event_node"))
    with use("torch"):
        torch.testing.assert_close(10 * found["output"], net(None, events).event_logits)


def test_a_file_holds_whole_numbers_of_eight_bits_and_no_reset_potential(tmp_path):
    net = lively("speck_snn", **CHIP)
    speck = to_speck.to_speck(net)
    content = speck_file(speck.graph, {})
    (tmp_path / "speck.nir").write_bytes(content)
    graph = read_graph(tmp_path / "speck.nir")
    layers = [node for node in graph.nodes.values() if isinstance(node, nir.Conv2d | nir.Affine)]
    neurons = [node for node in graph.nodes.values() if isinstance(node, nir.IF)]
    assert len(layers) == len(neurons) == 4
    for node in layers:
        assert np.array_equal(node.weight, np.rint(node.weight))
        assert not node.bias.any()
        assert node.weight.max() == 127 or node.weight.min() == -128  # sinabs looks for the scale again, and finds 1
        assert -128 <= node.weight.min() <= node.weight.max() <= 127
    for node in neurons:
        assert np.array_equal(node.v_threshold, np.rint(node.v_threshold))
        assert node.v_threshold.min() >= 1
    with h5py.File(io.BytesIO(content)) as file:
        assert set(file["node/nodes/node1"]) == {"r", "v_threshold", "type"}  # what nir 1.0.4 knows of an IF
    # whole numbers: float32 is exact
    events = frames(net)
    single = run(graph, events, dtype=torch.float32)
    for layer, spikes in run(graph, events.double()).items():
        assert torch.equal(single[layer].double(), spikes), layer


def test_neurons_count_subtract_and_stop_below():
    """By hand: v 25 gives 2 and keeps 5; -40 stops at -10; 9 stays below; 1 more is at the threshold, and fires."""
    node = nir.IF(r=np.ones(1), v_threshold=np.full(1, 10.0), v_reset=np.zeros(1))
    graph = nir.NIRGraph.from_list(nir.Input(np.array((1,))), node, nir.Output(np.array((1,))))
    steps = torch.tensor([25.0, -40.0, 19.0, 1.0]).view(4, 1, 1)
    assert NIRProgram(graph, time_step=1.0, fires="counts")(steps).flatten().tolist() == [2, 0, 0, 1]


def test_the_full_network_fits_and_no_layer_shares_a_core():
    cores = to_speck.to_speck(build_model("speck_snn", num_classes=10, time_steps=2, **CHIP)).cores
    assert [core.name for core in cores] == ["conv1", "conv2", "fc", "event_head"]
    assert [core.weights for core in cores] == [2 * 32 * 16, 16 * 32 * 32, 32 * 16 * 128, 128 * 1 * 16]
    assert [core.states for core in cores] == [16 * 32 * 32, 32 * 8 * 8, 128, 10]
    assert [core.pools for core in cores] == [(2,), (2,), (1,), ()]
    assert len({core.number for core in cores}) == 4
    for core in cores:
        assert core.weights <= CORES[core.number][0]
        assert core.states <= CORES[core.number][1]


FITS = Core("layer", (3, 3), (1, 1), 2, (8, 10, 10), (1,))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kernel": (3, 5)}, "layer does not fit: kernel 3x5; a core of Speck takes square ones"),
        ({"kernel": (17, 17)}, "kernel 17x17; a core of Speck takes 16x16 at most"),
        ({"stride": (3, 3)}, "stride 3x3; a core of Speck takes 1, 2, 4, 8"),
        ({"neurons": (1025, 1, 1)}, "1,025 features; a core of Speck takes 1,024 at most"),
        ({"pools": (1, 2, 2)}, "3 layers read it; a core of Speck takes 2 at most"),
        ({"channels": 1024}, "131,072 words of weights; a core of Speck takes 65,536 at most"),
        ({"neurons": (8, 128, 100)}, "131,072 words of neurons; a core of Speck takes 65,536 at most"),
        (
            {"channels": 257, "neurons": (8, 64, 64)},
            "32,896 words of weights with 32,768 of neurons; the cores of Speck",
        ),
    ],
)
def test_each_limit_is_refused_by_name(change, said):
    to_speck._require_possible(FITS)
    to_speck._require_possible(replace(FITS, channels=256, neurons=(8, 64, 64)))  # fills a core to the last word
    with pytest.raises(ModelError) as caught:
        to_speck._require_possible(replace(FITS, **change))
    assert said in str(caught.value)


def test_cores_are_made_room_for_and_the_first_layer_without_one_is_named():
    small, wide = FITS, replace(FITS, name="wide", neurons=(8, 64, 64))  # wide: cores 0 to 4
    cores = [replace(small, name=f"small{n}") for n in range(4)] + [replace(wide, name=f"wide{n}") for n in range(5)]
    placed = to_speck._placed(tuple(cores))
    assert sorted(core.number for core in placed) == list(range(9))
    with pytest.raises(ModelError, match=r"wide5 does not fit: .* are taken, by wide"):
        to_speck._placed((*cores[4:], replace(wide, name="wide5")))


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("speck_snn", {}, "node1: LIF neurons; a core of Speck"),
        ("speck_snn", {"neuron": "IF"}, "node1: IF neurons with reset 'hard'"),
        ("scnn", CHIP, "fc2: found Output output behind it; expected neurons"),
        ("nmnist_snn", CHIP, "votes: found a Linear"),
        ("resnet18_snn", CHIP, "conv1: found Conv2d layer1_0_bn1 behind it; expected neurons"),
    ],
)
def test_networks_that_the_chip_cannot_compute_are_refused(name, settings, said):
    with pytest.raises(ModelError) as caught:
        to_speck.to_speck(lively(name, **settings))
    assert said in str(caught.value)


def test_a_layer_that_does_not_fit_is_named():
    with pytest.raises(ModelError, match="fc does not fit: 524,288 words of weights; a core of Speck takes 65,536"):
        to_speck.to_speck(build_model("speck_snn", num_classes=10, time_steps=2, input_size=48, **CHIP))


def test_a_threshold_below_a_step_of_the_weights_is_refused():
    net = lively("speck_snn", **CHIP)
    with torch.no_grad():
        net.fc.weight[0, 0] = 1e4
    with pytest.raises(
        ModelError, match=r"fc: with weights up to 2\.5e.03 in 8 bits a threshold of 0.5 is less than one"
    ):
        to_speck.to_speck(net)
