"""Figures of NeuroBench: counted by hand, in result.json, and, where neurobench is at hand, by neurobench itself."""

import json
import os
import subprocess

import numpy as np
import pytest
import torch
from conftest import ROOT, SUPPORT
from fake_shards import FakeShardSet
from run_folders import whole_and_half
from torch import nn

from spikebridge.models.layers import fire
from spikebridge.models.neurons import make_neuron
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.train.evaluation.neurobench import figures, watching
from spikebridge.train.report.records import load_run
from spikebridge.train.report.sections.cost import MEANINGS, neurobench
from spikebridge.train.runs.folder import read_result
from spikebridge.train.runs.result import NEUROBENCH

PYTHON = os.environ.get("NEUROBENCH", "")


class Counted(nn.Module):
    """A convolution, integrating neurons, a linear layer; small enough to be counted by hand."""

    def __init__(self):
        super().__init__()
        self.conv, self.node = nn.Conv2d(1, 1, 2, bias=False), make_neuron("IF", surrogate="QGateGrad", reset="hard")
        self.linear = nn.Linear(4, 3)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([[[[0.3, 0.0], [0.0, 0.0]]]]))
            self.linear.weight[0] = 0

    def forward(self, frames):  # [T,1,3,3]
        x = self.conv(frames)[None, None]  # [B,S,T,1,2,2]
        spikes, _ = fire(x, self.node)
        return self.linear(spikes.flatten(3)[0, 0])


def test_a_network_counted_by_hand():
    net, frames = Counted(), torch.zeros(3, 1, 3, 3)
    frames[0, 0, 0, 0], frames[1, 0, 0, 0], frames[1, 0, 2, 2] = 2, 1, 1
    with watching(net) as work:
        net(frames)
    made = figures(net, work, recordings=1, execution_rate=None)
    # The only weight of the convolution that is not 0 sees the upper left event of two frames; the event at the lower
    # right meets zeros. Counts of 2 make all of it multiplications. The neuron there is charged with 0.6, fires, is
    # charged with 0.3: the first step updates 4 potentials, the second one, the third none.
    assert (made["effective_macs"], made["effective_acs"]) == (2, 2)  # the spike meets 2 of 3 outputs
    assert made["dense"] == 3 * (4 * 4) + 3 * (4 * 3)
    assert made["membrane_updates"] == 4 + 1
    assert made["activation_sparsity"] == 11 / 12
    assert made["connection_sparsity"] == round(7 / 16, 4)
    assert made["footprint"] == 4 * (4 + 12 + 3)
    with watching(net) as again:
        net(frames)
    again.add(work)
    assert again.dense == 2 * work.dense
    assert again.membrane_updates == 10
    net(frames)  # nobody watches any more
    assert net.node.work is None


def test_result_and_report_have_the_same_names(made_once):
    run = whole_and_half(made_once) / "whole"
    made = read_result(run)["neurobench"]
    assert set(MEANINGS) == set(NEUROBENCH) == set(made) - {"version", "recordings"}
    assert (made["version"], made["recordings"], made["execution_rate"]) == ("2.3", 12, 20.0)  # 4 steps of 0.2 s
    assert 0 < made["effective_macs"] + made["effective_acs"] < made["dense"]
    page = neurobench(load_run(run))
    assert all(name in page for name in NEUROBENCH)
    assert "energy, derived" in page
    assert "0.9 pJ" in page


def test_durations_are_those_of_the_samples(shard_set):
    expected = None
    for form, codec in (("webdataset", "raw"), ("webdataset", "gzip"), ("hdf5", "raw")):
        split = ShardSet(shard_set(format=form, codec=codec)).split("train")
        found = split.durations_us(np.arange(len(split)))
        assert ((found > 200_000) & (found < 300_000)).all()
        assert len(set(found.tolist())) > 1
        expected = found if expected is None else expected
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(split.durations_us([3, 0]), expected[[3, 0]])
    events = ShardSet(shard_set(store="events")).split("train")
    of_both = dict(zip(split.keys, expected.tolist(), strict=True))
    assert [of_both[key] for key in events.keys] == events.durations_us(np.arange(len(events))).tolist()
    assert FakeShardSet(ROOT).split("test").durations_us([0]).tolist() == [200_000]


@pytest.mark.long
@pytest.mark.skipif(not PYTHON, reason="NEUROBENCH names a Python with neurobench 2.3 and snntorch")
def test_neurobench_itself_counts_the_same_on_our_networks():
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(SUPPORT)])}
    version = "import importlib.metadata as m; print(m.version('neurobench'))"
    done = subprocess.run([PYTHON, "-c", version], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.startswith("2.3.")
    command = [PYTHON, "-W", "ignore", str(SUPPORT / "neurobench_figures.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 18
    for line in lines:
        assert {name: line["ours"][name] for name in line["neurobench"]} == line["neurobench"], line["network"]
