"""Tensors that backward makes again: the same gradients, and nothing of them in memory meanwhile."""

import weakref

import torch

from spikebridge.models.folding import channels_last, fold, fold_padded
from spikebridge.models.layers import FrameConv2d
from spikebridge.models.recomputation import offer, recompute_offered


def half(x):
    return x.detach() / 2


class Halves(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return half(x)

    @staticmethod
    def backward(ctx, grad):
        return grad / 2


def gradient(conv, x, *, offered):
    """Gradients of input and weight, and whether the convolution's input was alive before backward."""
    x = x.clone().requires_grad_()
    conv.zero_grad()
    with recompute_offered():
        halves = Halves.apply(x)
        if offered:
            offer(halves, lambda: half(x))
        out = conv(halves[1:])  # a view of what was offered
        storage = weakref.ref(halves.untyped_storage())
        del halves
        # what lies at the same address now was not offered
        other = conv(torch.full_like(x, 3.0))
    alive = storage() is not None
    (out.square().sum() + other.square().sum()).backward()
    return x.grad, conv.weight.grad, alive


def test_what_is_offered_is_made_again_and_not_kept():
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(2, 3, 3, padding=1).double()
    x = torch.randn(3, 2, 5, 5, dtype=torch.float64)
    kept, again = (gradient(conv, x, offered=offered) for offered in (False, True))
    assert torch.equal(kept[0], again[0])
    assert torch.equal(kept[1], again[1])
    assert (kept[2], again[2]) == (True, False)


def test_an_offer_that_nobody_asked_for_is_dropped():
    x = torch.ones(2)
    offer(x, x.clone)


def test_channels_of_zeros_change_nothing():
    generator = torch.Generator().manual_seed(0)
    sequences = [torch.randn(3, 2, 2, 5, 4, generator=generator, dtype=torch.float64) for _ in range(2)]
    plain, wide = fold(sequences, torch.float64), fold_padded(sequences, torch.float64, channels=8)
    assert torch.equal(wide[:, :, :, :2], plain)
    assert not wide[:, :, :, 2:].any()
    assert wide.stride() == channels_last(wide).stride()
    torch.manual_seed(0)
    conv = FrameConv2d(2, 3, 3, padding=1, bias=True).double()
    found = []
    for x in (plain, wide):
        conv.zero_grad()
        out = conv(x.flatten(0, 2))
        out.square().sum().backward()
        found.append((out.detach(), conv.weight.grad, conv.bias.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)
