import torch
from fake_shards import FakeShardSet, tiny_recipe

from spikebridge.train.evaluation.score import score, split_frames
from spikebridge.train.networks.build import make_network, network_arguments


def test_the_event_stream_runs_alone(tmp_path):
    """The static one would double the work; mode and recording of firing rates are put back."""
    shards, settings = FakeShardSet(tmp_path), tiny_recipe().train
    network = make_network(network_arguments(settings, shards), seed=0)
    shown = []
    network.register_forward_pre_hook(lambda net, given: shown.append((given[0], len(given[1][0]), net.training)))
    found = score(network, split_frames(shards, "test"), batch_size=5, device=torch.device("cpu"))
    assert shown == [(None, 5, False), (None, 5, False), (None, 2, False)]
    assert len(found.labels) == 12
    assert network.training
    assert not network.record_firing_rates
