"""Outputs of a network in training, drawn."""

from types import SimpleNamespace

import torch


def outputs(T=3, B=6, K=4, features=5, seed=0):
    torch.manual_seed(seed)
    kind = {"dtype": torch.float64, "requires_grad": True}
    return SimpleNamespace(
        static_logits=torch.randn(T, B, K, **kind),
        event_logits=torch.randn(T, B, K, **kind),
        static_features=torch.randn(T, B, features, **kind),
        event_features=torch.randn(T, B, features, **kind),
    )


def labels(B=6, K=4):
    return torch.arange(B) % K
