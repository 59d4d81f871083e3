"""The loss and its parts; against the step-by-step oracle they are tested with the networks."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from network_outputs import labels, outputs

from spikebridge.models.folding import channels_last
from spikebridge.models.output import TransferOutput
from spikebridge.train import losses
from spikebridge.train.losses import classification_loss, linear_cka, transfer_loss


@settings(max_examples=30, deadline=None, derandomize=True)
@given(B=st.integers(4, 9), features=st.integers(2, 12), seed=st.integers(0, 99), scale=st.floats(0.1, 10))
@pytest.mark.parametrize("estimator", ["biased", "debiased"])
def test_cka_is_one_with_itself_and_ignores_shift_and_scale(estimator, B, features, seed, scale):
    torch.manual_seed(seed)
    x, y = torch.randn(2, 2, B, features, dtype=torch.float64)
    torch.testing.assert_close(linear_cka(x, x, estimator=estimator), torch.ones(2, dtype=x.dtype), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        linear_cka(x, y, estimator=estimator), linear_cka(y, scale * x + 1, estimator=estimator), atol=1e-4, rtol=1e-4
    )


def unbiased_hsic(k, m):
    """Song et al.'s formula, by its terms."""
    n = len(k)
    k, m, one = k - k.diag().diag(), m - m.diag().diag(), torch.ones(n, dtype=k.dtype)
    trace = (k @ m).trace()
    rest = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k @ m @ one)
    return (trace + rest) / (n * (n - 3))


def test_debiased_cka_is_that_of_unbiased_hsic():
    x, y = torch.randn(2, 3, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for t, found in enumerate(linear_cka(x, y, estimator="debiased")):
        k, m = x[t] @ x[t].T, y[t] @ y[t].T
        expected = unbiased_hsic(k, m) / (unbiased_hsic(k, k) * unbiased_hsic(m, m)).sqrt()
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_biased_cka_saturates_and_debiased_does_not():
    x, y = torch.randn(2, 1, 120, 18432, generator=torch.Generator().manual_seed(0))
    assert linear_cka(x, y) > 0.99
    assert linear_cka(x, y, estimator="debiased").abs() < 0.05


@pytest.mark.parametrize("estimator", ["biased", "debiased"])
def test_silent_or_constant_features_have_finite_gradients(estimator):
    for value in (0.0, 1.0):
        out = outputs()
        out.event_features = torch.full_like(out.event_features, value, requires_grad=True)
        coefficients = torch.ones(3, dtype=torch.float64, requires_grad=True)
        loss = transfer_loss(out, labels(), coefficients, cka=estimator)
        loss.total.backward()
        torch.testing.assert_close(loss.cka, torch.zeros_like(loss.cka), atol=1e-6, rtol=0)
        for tensor in (*vars(out).values(), coefficients):
            assert tensor.grad.isfinite().all()


@pytest.mark.parametrize(("estimator", "smallest"), [("biased", 3), ("debiased", 4)])
def test_alignment_is_skipped_for_small_batches(estimator, smallest):
    coefficients = torch.ones(3, dtype=torch.float64)
    for B in (1, 2, 3, 4, 5):
        loss = transfer_loss(outputs(B=B), labels(B), coefficients, cka=estimator)
        assert bool(loss.cka.any()) == (smallest <= B)
        assert bool(loss.domain != 0) == (smallest <= B)
    skipped = transfer_loss(outputs(B=4), labels(4), coefficients, smallest_aligned_batch=5)
    assert skipped.domain == 0
    assert skipped.total == skipped.static + skipped.event
    with pytest.raises(ValueError, match="it needs"):
        linear_cka(torch.ones(1, 2, 3), torch.ones(1, 2, 3))


@pytest.mark.parametrize("tet", [True, False])
@pytest.mark.parametrize("stream", ["static", "event"])
def test_one_stream_is_its_loss_alone_with_weights_one(stream, tet):
    out = outputs()
    other = "event" if stream == "static" else "static"
    setattr(out, f"{other}_logits", None)
    setattr(out, f"{other}_features", None)
    coefficients = torch.full((3,), 2.0, dtype=torch.float64)
    loss = transfer_loss(out, labels(), coefficients, tet=tet)
    assert loss.total == getattr(loss, stream)
    assert loss.total == classification_loss(getattr(out, f"{stream}_logits"), labels(), tet=tet)
    assert getattr(loss, other) == loss.domain == 0
    assert not loss.cka.any()


def test_parts_without_tet_are_plain_cross_entropies():
    out = outputs()
    loss = transfer_loss(out, labels(), torch.ones(3, dtype=torch.float64), tet=False, domain_coefficient=0.0)
    torch.testing.assert_close(loss.static, F.cross_entropy(out.static_logits.mean(0), labels()))
    torch.testing.assert_close(loss.total, loss.static + loss.event)
    assert loss.cka.all()
    loss.total.backward()
    assert out.static_features.grad is None


def test_regularization_moves_weight_from_the_event_stream_to_the_alignment():
    low, high = (transfer_loss(outputs(), labels(), torch.full((3,), c, dtype=torch.float64)) for c in (-20.0, 20.0))
    plain = transfer_loss(outputs(), labels(), torch.ones(3, dtype=torch.float64), regularization=False)
    torch.testing.assert_close(low.event, plain.event)
    torch.testing.assert_close(high.domain, plain.domain)
    assert low.domain < 1e-6
    assert high.event < 1e-6


def test_gradients_are_those_of_finite_differences():
    out = outputs(T=2, B=5, features=3)
    coefficients = torch.randn(2, dtype=torch.float64, requires_grad=True)
    for estimator in ("biased", "debiased"):
        assert torch.autograd.gradcheck(
            lambda a, b, c, d, w, e=estimator: (
                transfer_loss(
                    SimpleNamespace(static_logits=a, event_logits=b, static_features=c, event_features=d),
                    labels(5),
                    w,
                    cka=e,
                ).total
            ),
            (*vars(out).values(), coefficients),
        )


def test_refusals():
    nothing = SimpleNamespace(static_logits=None, event_logits=None, static_features=None, event_features=None)
    with pytest.raises(ValueError, match="Both streams are None"):
        transfer_loss(nothing, labels(), torch.ones(3))
    with pytest.raises(ValueError, match="biased, debiased"):
        transfer_loss(outputs(), labels(), torch.ones(3), cka="kernel")


@pytest.mark.parametrize("features", [(5,), (16,), (3, 2, 4)], ids=str)
@pytest.mark.parametrize("how", [{}, {"regularization": False}, {"tet": False}, {"cka": "debiased"}], ids=str)
def test_the_loss_of_a_gpu_equals_that_of_a_cpu(how, features, monkeypatch):
    """One product of all steps and streams, split along the features as they lie, with a gradient of its own."""
    found = []
    for kinds in (set(), {"cpu"}):
        monkeypatch.setattr(losses, "FUSED_ON", kinds)
        torch.manual_seed(0)
        parts = [torch.randn(shape, dtype=torch.float64) for shape in ((3, 6, 4), (3, 6, 4), (6, 2, 3, *features))]
        if len(features) > 1:
            parts[2] = channels_last(parts[2])
        static, event, aligned = (part.requires_grad_() for part in parts)
        coefficients = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
        target = torch.tensor([0, 1, 2, 3, 0, 1])
        loss = transfer_loss(TransferOutput(static, event, aligned), target, coefficients, **how)
        loss.total.backward()
        if kinds:
            assert aligned.grad.stride() == aligned.stride()
        found.append([*vars(loss).values(), *(part.grad for part in (static, event, aligned, coefficients))])
    for a, b in zip(*found, strict=True):
        assert (a is None) == (b is None)
        if isinstance(a, torch.Tensor):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
