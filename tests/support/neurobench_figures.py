"""Figures of neurobench itself on our networks: run by an interpreter that has neurobench 2.3 and snntorch.

Their neurons become modules that are called step by step, as neurobench's hooks expect; convolutions and linear layers
stay as they are. Prints a line of JSON per network: neurobench's figures, and ours.
"""

import json
import sys

import torch
from drawn_networks import WIDTHS, draw_case
from neurobench.metrics.static import ConnectionSparsity, Footprint
from neurobench.metrics.workload import ActivationSparsity, MembraneUpdates, SynapticOperations
from neurobench.models import TorchModel
from snntorch import SpikingNeuron
from torch import nn

from spikebridge.models import features, layers, nmnist, resnet, scnn, speck, vgg
from spikebridge.models.folding import over_frames
from spikebridge.models.neurons import Neuron
from spikebridge.train.evaluation.neurobench import figures, watching

T, B, SIZE = (
    4,
    3,
    {"vgg_snn": 16, "resnet18_snn": 16, "resnet34_snn": 16, "scnn": 20, "nmnist_snn": 16, "speck_snn": 16},
)


class StepNeuron(SpikingNeuron):
    """Charge, fire, reset of one time step, written once more; `mem` is the potential after reset."""

    def __init__(self, node):
        super().__init__(threshold=node.rule.threshold, init_hidden=True)
        self.rule, self.gain = node.rule, float(node.gain())

    def forward(self, x):
        start = self.mem
        before = start + ((x - start) if self.rule.leaky else x) * self.gain
        spikes = (before > self.rule.threshold).to(x.dtype)
        self.mem = before * (1 - spikes) if self.rule.hard_reset else before - self.rule.threshold * spikes
        return spikes


def fire_step_by_step(x, node, norm=None, *, streams=(), pool=False, potential=False):
    """What `models.layers.fire` does, through the module that neurobench watches."""
    x = x if norm is None else norm(x, streams)  # [B,S,T,...]
    if node.rule.spiking:
        node.step.mem = torch.zeros_like(x[:, :, 0])
    spikes, after = [], []
    for t in range(x.shape[2]):
        spikes.append(node.step(x[:, :, t]))
        after.append(node.step.mem if node.rule.spiking else x[:, :, t])
    made = torch.stack(spikes, 2)
    if pool:
        made = over_frames(lambda frames: nn.functional.avg_pool2d(frames, 2), made)
    return made, torch.stack(after, 2) if potential else None


def neurobench_figures(net, events):
    """Measure a network [T,B,P,H,W] by neurobench, as its benchmark does for one batch."""
    footprint = Footprint()(TorchModel(net))  # before its neurons are replaced
    for module in (layers, features, nmnist, resnet, scnn, speck, vgg):
        if hasattr(module, "fire"):
            module.fire = fire_step_by_step
    for node in [module for module in net.modules() if isinstance(module, Neuron)]:
        node.step = StepNeuron(node) if node.rule.spiking else nn.ReLU()
    model = TorchModel(net)
    model.add_activation_module(SpikingNeuron)
    model.register_hooks()
    with torch.no_grad():
        net(None, events)
        data, preds = (torch.zeros(events.shape[1]), None), None
        operations = SynapticOperations()(model, preds, data)
        return {
            "footprint": footprint,
            "connection_sparsity": ConnectionSparsity()(model),
            "activation_sparsity": ActivationSparsity()(model, preds, data),
            "membrane_updates": MembraneUpdates()(model, preds, data),
            "effective_macs": operations["Effective_MACs"],
            "effective_acs": operations["Effective_ACs"],
            "dense": operations["Dense"],
        }


def main():
    cases = []
    for number, kind in enumerate(WIDTHS):
        for neuron, reset in (("LIF", "hard"), ("IF", "soft"), ("ReLU", "hard")):
            net, _, events = draw_case(kind, T=T, B=B, size=SIZE[kind], seed=number, neuron=neuron, reset=reset)
            net, events = net.float().eval(), events.float()
            with torch.no_grad():
                pruned = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
                pruned.weight[pruned.weight.abs() < 0.05] = 0
                last = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
                last.weight[:, ::3] = 0
                with watching(net) as work:
                    net(None, events)
            ours = figures(net, work, recordings=B, execution_rate=None)
            cases.append((f"{kind} {neuron}", net, events, ours))
    for name, net, events, ours in cases:  # afterwards: the networks are changed for good
        print(json.dumps({"network": name, "neurobench": neurobench_figures(net, events), "ours": ours}))


if __name__ == "__main__":
    sys.exit(main())
