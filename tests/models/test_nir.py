"""NIR: the graph computes what the network computes, spike for spike; what it cannot say is refused by name."""

import importlib.util
import subprocess
import sys
from dataclasses import asdict, dataclass, replace

import nir
import numpy as np
import pytest
import torch
from conftest import ROOT
from lively import frames, lively

from spikebridge.models import NETWORKS, ModelError, build_model, layers
from spikebridge.models.backends import use
from spikebridge.models.network import NetworkSettings
from spikebridge.models.neurons import LIF
from spikebridge.models.nir_conventions import CONVENTIONS, Step, next_above, write_neurons
from spikebridge.models.run_nir import NIRProgram, read_graph
from spikebridge.models.to_nir import EVENT_PATHS, to_nir

VARIANTS = [{}, {"neuron": "PLIF"}, {"neuron": "IF"}, {"statistics": "domain"}, {"statistics": "pooled"}]


@torch.no_grad()
def spikes_of(net, events, monkeypatch):
    """Logits, and spikes [T,B,...] of every layer before pooling, by the names of the graph."""
    names = {id(module): name.replace(".", "_") for name, module in net.named_modules()}
    seen = {}
    original = layers.fire_torch

    def watch(x, node, norm, *, streams, pool, potential):
        spikes, _ = original(x, node, norm, streams=streams, pool=False, potential=False)
        seen[names[id(node)]] = spikes[:, 0].transpose(0, 1)  # [T,B,...]
        return original(x, node, norm, streams=streams, pool=pool, potential=potential)

    monkeypatch.setattr(layers, "fire_torch", watch)
    with use("torch"):
        return net(None, events).event_logits, seen


def through_a_file(graph, folder):
    """The graph, written and read again, as a program in float64."""
    nir.write(folder / "net.nir", graph)
    graph = read_graph(folder / "net.nir")
    read = graph.metadata
    how = {"integration": read["integration"], "fires": read["fires"], "dtype": torch.float64}
    return NIRProgram(graph, time_step=float(read["dt"]), **how)


CASES = [
    pytest.param(name, variant, id="-".join([name, *variant.values()]))
    for name in NETWORKS
    for variant in (VARIANTS if name in ("vgg_snn", "scnn") else VARIANTS[:1])
]


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_spikes_are_exactly_ours_in_float64(name, variant, tmp_path, monkeypatch):
    net = lively(name, **variant).double()
    events = frames(net).double()
    logits, spikes = spikes_of(net, events, monkeypatch)
    graph, notes = to_nir(net)
    found = through_a_file(graph, tmp_path).run(events)
    for layer, expected in spikes.items():
        assert 0 < expected.mean() < 1, layer  # or nothing is compared
        assert torch.equal(found[layer], expected), layer
    neurons = {key for key, node in graph.nodes.items() if isinstance(node, nir.LIF | nir.IF)}
    assert neurons == set(spikes)
    torch.testing.assert_close(found["output"], logits, rtol=0, atol=1e-12)
    assert any("static stream" in note for note in notes)


@pytest.mark.parametrize(("name", "neuron"), [("scnn", "LIF"), ("scnn", "PLIF"), ("scnn", "IF"), ("nmnist_snn", "LIF")])
def test_every_convention_gives_the_same_spikes(name, neuron, tmp_path, monkeypatch):
    net = lively(name, neuron=neuron).double()
    events = frames(net).double()
    logits, spikes = spikes_of(net, events, monkeypatch)
    for number, convention in enumerate(name for name in CONVENTIONS if (neuron, name) != ("IF", "exponential")):
        graph, notes = to_nir(net, convention=convention, nudge=number % 2 == 1)
        found = through_a_file(graph, tmp_path).run(events)
        for layer, expected in spikes.items():
            assert torch.equal(found[layer], expected), (convention, layer)
        torch.testing.assert_close(found["output"], logits, rtol=0, atol=1e-12)
        assert any(convention in note for note in notes)


def test_conventions_write_what_they_say():
    leaky, plain = ({c: to_nir(lively("scnn", neuron=n), convention=c)[0] for c in cs} for n, cs in (
        ("LIF", CONVENTIONS), ("IF", ["whole-input", "r-one"])
    ))  # fmt: skip

    def values(graph):
        node = graph.nodes["feature_1"]
        names = ("tau", "r", "v_threshold") if isinstance(node, nir.LIF) else ("r", "v_threshold")
        return [float(getattr(node, name).flat[0]) for name in names], graph.metadata["dt"]

    assert values(leaky["whole-input"]) == ([2e-4, 2, 1], 1e-4)
    assert values(leaky["r-one"]) == ([2e-4, 1, 0.5], 1e-4)
    assert values(leaky["exponential"]) == ([pytest.approx(1e-4 / np.log(2)), 1, 0.5], 1e-4)
    assert values(plain["whole-input"]) == ([1e-4 * 2**100, 2**100, 0.5], 1e-4)
    assert values(plain["r-one"]) == ([1, 0.5], 1)
    kinds = {convention: type(graph.nodes["feature_2"]) for convention, graph in leaky.items()}
    assert [name for name, kind in kinds.items() if kind is nir.SumPool2d] == ["sum-pools"]
    weight = {convention: graph.nodes["feature_3"].weight for convention, graph in leaky.items()}
    assert np.array_equal(weight["sum-pools"] * 4, weight["r-one"])
    same = to_nir(lively("nmnist_snn"), convention="exponential")[0]
    assert str(same.nodes["conv1"].padding) == "same"


def test_a_nudged_threshold_is_the_next_float_above():
    net = lively("scnn")
    nodes = {nudge: to_nir(net, nudge=nudge)[0].nodes["node1"] for nudge in (False, True)}
    above = np.nextafter(np.float32(1), np.float32(2))
    assert set(nodes[True].v_threshold.flat) == {float(above)}
    assert np.array_equal(nodes[True].r, nodes[False].r)
    one = np.ones(1)
    at = graph_of(nir.IF(r=one, v_threshold=next_above(one), v_reset=0 * one), (1,))
    plain = graph_of(nir.IF(r=one, v_threshold=one, v_reset=0 * one), (1,))
    inputs = torch.tensor([1.0, float(next_above(one)[0]), 0.5]).view(3, 1, 1)  # at the threshold, then just above
    for graph, fires in ((plain, "above"), (at, "at")):
        assert NIRProgram(graph, time_step=1, fires=fires)(inputs[:1]).item() == 0
        assert NIRProgram(graph, time_step=1, fires=fires)(inputs[1:2]).item() == 1


def test_a_convention_without_words_for_a_neuron_is_refused():
    with pytest.raises(ModelError, match=r"feature\.1: convention 'exponential' has no time constant for IF"):
        to_nir(lively("scnn", neuron="IF"), convention="exponential")
    with pytest.raises(ModelError, match="forget all"):
        write_neurons(Step(1.0, 1.0), (1,), "exponential", nudge=False)


def test_every_network_has_a_translation():
    assert set(EVENT_PATHS) == set(NETWORKS)


def test_domain_statistics_are_those_of_the_events():
    net = lively("vgg_snn", statistics="domain")
    graph, notes = to_nir(net)
    before = graph.nodes["feature_0_conv"].bias
    net.feature["0"].bn.running_mean[0] += 1  # the static row
    assert np.array_equal(to_nir(net)[0].nodes["feature_0_conv"].bias, before)
    net.feature["0"].bn.running_mean[1] += 1
    assert not np.array_equal(to_nir(net)[0].nodes["feature_0_conv"].bias, before)
    assert any("of the event stream" in note for note in notes)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"reset": "soft"}, "feature.1: reset is 'soft'"), ({"surrogate": "SigmoidGrad"}, "SigmoidGrad")],
)
def test_what_nir_cannot_say_is_refused(settings, expected):
    with pytest.raises(ModelError, match=expected):
        to_nir(lively("scnn", **settings))


def test_an_unknown_network_is_refused(monkeypatch):
    monkeypatch.delitem(EVENT_PATHS, "scnn")
    with pytest.raises(ModelError, match="scnn: no translation to NIR"):
        to_nir(build_model("scnn", num_classes=2, time_steps=2, width=0.1))


def test_settings_and_neurons_of_later_versions_are_refused():
    @dataclass(frozen=True)
    class Later(NetworkSettings):
        pooling: str = "average"

    class Adaptive(LIF):
        pass

    net = lively("scnn")
    net.settings = Later(**asdict(net.settings))
    to_nir(net)  # what the setting was before there was one
    net.settings = replace(net.settings, pooling="max")
    with pytest.raises(ModelError, match="pooling is 'max'"):
        to_nir(net)
    net = lively("scnn")
    net.node1 = Adaptive("QGateGrad", "hard")
    with pytest.raises(ModelError, match="node1: no translation of Adaptive neurons"):
        to_nir(net)


def graph_of(node, shape):
    return nir.NIRGraph.from_list(nir.Input(np.array(shape)), node, nir.Output(np.array(shape)))


def test_neurons_follow_their_equations():
    one = np.ones(1)
    lif = nir.LIF(tau=4 * one, r=2 * one, v_leak=0.5 * one, v_threshold=1.2 * one, v_reset=-0.25 * one)
    program = NIRProgram(graph_of(lif, (1,)), time_step=1.0, dtype=torch.float64)
    inputs = torch.tensor([0.0, 1.0, 2.0, 0.0]).view(4, 1, 1)
    # v: 0.125; .125 + (.375 + 2) / 4 = .71875; .71875 + (-.21875 + 4) / 4 = 1.664 fires; -.25 + .75 / 4 = -.0625
    assert program(inputs).flatten().tolist() == [0, 0, 1, 0]
    integrator = nir.IF(r=0.5 * one, v_threshold=1.0 * one, v_reset=0.25 * one)
    program = NIRProgram(graph_of(integrator, (1,)), time_step=2.0, dtype=torch.float64)
    # v: 1 (not above), 2 fires, .25 + .5 = .75, 1.75 fires
    assert program(torch.tensor([1.0, 1.0, 0.5, 1.0]).view(4, 1, 1)).flatten().tolist() == [0, 1, 0, 1]


def test_graphs_that_cannot_be_run_are_refused(tmp_path):
    one = np.ones(1)
    odd = graph_of(nir.LI(tau=one, r=one, v_leak=one), (1,))
    with pytest.raises(ModelError, match="is a LI"):
        NIRProgram(odd, time_step=1.0)
    nodes = {"in": nir.Input(np.array([1])), "a": nir.Linear(np.eye(1)), "out": nir.Output(np.array([1]))}
    cyclic = nir.NIRGraph(nodes, [("in", "a"), ("a", "a"), ("a", "out")])
    with pytest.raises(ModelError, match="cycle"):
        NIRProgram(cyclic, time_step=1.0)
    forked = nir.NIRGraph({**nodes, "more": nir.Output(np.array([1]))}, [("in", "a"), ("a", "out"), ("a", "more")])
    with pytest.raises(ModelError, match="one of each"):
        NIRProgram(forked, time_step=1.0)
    (tmp_path / "no.nir").write_bytes(b"\x89HDF\r\n\x1a\n" + b"0" * 99)
    with pytest.raises(ModelError, match=r"no\.nir: cannot be read as NIR"):
        read_graph(tmp_path / "no.nir")


def test_statistics_of_every_time_step_are_refused():
    net = lively("vgg_snn")
    net.feature["3"].bn.statistics = "running_per_step"
    with pytest.raises(ModelError, match="'running_per_step' have no translation"):
        to_nir(net)


@pytest.mark.long
def test_the_importer_script_runs_without_importers():
    script = ROOT / "tests" / "bench" / "nir_importer.py"
    command = [sys.executable, script, "jaxpike", "--networks", "scnn"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [line for line in done.stdout.splitlines() if line.startswith("|") and "failed" in line]
    assert len(rows) == 3 * len(CONVENTIONS) - 1 or importlib.util.find_spec("jaxpike")  # IF has no exponential
    assert all("failed: ModuleNotFoundError" in row for row in rows) or importlib.util.find_spec("jaxpike")
