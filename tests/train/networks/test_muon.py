"""Muon is torch's where torch has it, whatever the shape, and AdamW for all else."""

import pytest
import torch
from fake_shards import FakeShardSet, tiny_recipe
from interrupted import train_in_two_sittings
from run_folders import same_run
from torch import nn

from spikebridge.models import build_model
from spikebridge.train.config.settings import MODELS
from spikebridge.train.networks.adamw import AdamW
from spikebridge.train.networks.build import make_optimizer
from spikebridge.train.networks.muon import LARGEST_BLOCK, Muon, orthogonalize
from spikebridge.train.runs.checkpoints import read_weights
from spikebridge.train.trainer.run import train

CPU = torch.device("cpu")


def gradients(parameters, steps=4, seed=0):
    torch.manual_seed(seed)
    return [[torch.randn_like(p) * 10.0 ** (step - 2) for p in parameters] for step in range(steps)]


def step_all(optimizer, parameters, steps):
    for given in steps:
        for parameter, gradient in zip(parameters, given, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()


def matrix_and_bias(*shape):
    torch.manual_seed(1)
    return [nn.Parameter(torch.randn(*shape)), nn.Parameter(torch.randn(7))]


def mixed(parameters, **how):
    matrices = {"params": parameters[:1], "weight_decay": 0.1, "orthogonal": True}
    return Muon([matrices, {"params": parameters[1:], "weight_decay": 0.0}], lr=0.02, eps=1e-8, **how)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch before 2.9 has no Muon")
@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (128, 300)])
def test_it_computes_what_torch_computes(shape):
    """In bf16, as torch does; blocks begin beyond."""
    ours, theirs = matrix_and_bias(*shape), matrix_and_bias(*shape)
    step_all(mixed(ours, dtype=torch.bfloat16), ours, gradients(ours))
    muon = torch.optim.Muon(theirs[:1], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(theirs[1:], lr=0.02, weight_decay=0.0)
    for given in gradients(theirs):
        for parameter, gradient in zip(theirs, given, strict=True):
            parameter.grad = gradient.clone()
        muon.step()
        adamw.step()
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=1e-4)
    assert torch.equal(ours[1], theirs[1])


def test_a_convolution_moves_as_its_matrix():
    flat, conv = matrix_and_bias(8, 27), matrix_and_bias(8, 27)
    conv[0] = nn.Parameter(conv[0].detach().view(8, 3, 3, 3))
    step_all(mixed(flat), flat, gradients(flat))
    given = [[first.view(8, 3, 3, 3), second] for first, second in gradients(flat)]
    step_all(mixed(conv), conv, given)
    assert torch.equal(flat[0], conv[0].flatten(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1), (30, 50), (50, 30), (LARGEST_BLOCK, 400), (1, 9)])
def test_singular_values_are_near_one(shape, dtype):
    torch.manual_seed(0)
    for size in (1e-6, 1.0, 1e4):
        matrix = torch.randn(shape) * size
        found = orthogonalize(matrix, dtype=dtype)
        assert found.dtype == torch.float32
        U, _, V = torch.linalg.svd(matrix, full_matrices=False)
        values = (U.T @ found @ V.T).diagonal()
        assert values.min() > 0.3
        assert values.max() < 1.3


@pytest.mark.parametrize("shape", [(2 * LARGEST_BLOCK + 1, 400), (400, 2 * LARGEST_BLOCK + 1)])
def test_large_matrices_are_orthogonalised_in_blocks(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    found = orthogonalize(matrix)
    if shape[0] > shape[1]:
        matrix, found = matrix.T, found.T
    expected = torch.cat([orthogonalize(block) for block in matrix.tensor_split(3)])
    torch.testing.assert_close(found, expected)


def test_zeros_stay_zeros():
    assert not orthogonalize(torch.zeros(3, 4)).any()
    parameters = matrix_and_bias(3, 4)
    before = parameters[0].detach().clone()
    step_all(mixed(parameters), parameters, [[torch.zeros(3, 4), torch.zeros(7)]])
    torch.testing.assert_close(parameters[0].detach(), before * (1 - 0.02 * 0.1))


def test_a_rate_that_is_a_tensor_is_a_rate():
    ours, theirs = matrix_and_bias(6, 9), matrix_and_bias(6, 9)
    with_tensor = mixed(theirs, capturable=False)
    for group in with_tensor.param_groups:
        group["lr"] = torch.tensor(0.02)
    step_all(mixed(ours), ours, gradients(ours))
    step_all(with_tensor, theirs, gradients(theirs))
    torch.testing.assert_close(ours[0], theirs[0])


def test_a_step_that_overflowed_is_left_out_and_gradients_are_scaled_back():
    """As torch's GradScaler asks of a fused optimiser."""
    ours, theirs = matrix_and_bias(6, 9), matrix_and_bias(6, 9)
    plain, scaled = mixed(ours), mixed(theirs, fused=True)
    step_all(plain, ours, gradients(ours))
    for i, given in enumerate(gradients(theirs)):
        scaled.grad_scale, scaled.found_inf = torch.tensor(8.0), torch.tensor(0.0)
        step_all(scaled, theirs, [[8 * gradient for gradient in given]])
        if i == 1:
            scaled.found_inf = torch.tensor(1.0)
            step_all(scaled, theirs, [[gradient * float("inf") for gradient in given]])
    torch.testing.assert_close(ours[0], theirs[0])


def test_a_state_that_was_kept_continues_with_the_same_bits():
    whole, halves = matrix_and_bias(6, 9), matrix_and_bias(6, 9)
    step_all(mixed(whole), whole, gradients(whole))
    first = mixed(halves)
    step_all(first, halves, gradients(halves)[:2])
    second = mixed(halves)
    second.load_state_dict(first.state_dict())
    assert set(second.state[halves[0]]) == {"momentum_buffer"}
    step_all(second, halves, gradients(halves)[2:])
    assert all(torch.equal(a, b) for a, b in zip(whole, halves, strict=True))


def test_vectors_are_no_matrices():
    with pytest.raises(ValueError, match="no matrix"):
        Muon([{"params": [nn.Parameter(torch.zeros(3))], "orthogonal": True}])


@pytest.mark.parametrize("model", sorted(MODELS))
def test_hidden_weights_of_every_network(model):
    """All weights of two or more dimensions but the heads'; every parameter is in one group."""
    net = build_model(model, num_classes=3, time_steps=2, in_channels=2, width=0.1)
    optimizer = make_optimizer(net, tiny_recipe(optimizer="muon").train, device=CPU)
    assert isinstance(optimizer, Muon)
    names = {id(p): name for name, p in net.named_parameters()}
    groups = [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]
    assert sorted(name for group in groups for name in group) == sorted(names.values())
    assert all(name.startswith(net.heads) for name in groups[0])
    assert groups[2]
    assert not any(name.startswith(net.heads) for name in groups[2])


def test_without_it_all_is_as_it_was():
    net = build_model("scnn", num_classes=3, time_steps=2, in_channels=2, width=0.1)
    optimizer = make_optimizer(net, tiny_recipe().train, device=CPU)
    assert type(optimizer) is AdamW
    assert len(optimizer.param_groups) == 2
    assert "optimizer" not in tiny_recipe().tables()["train"]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, precision):
    shards = FakeShardSet(tmp_path / "shards")
    recipe = tiny_recipe(epochs=2, optimizer="muon", precision=precision)
    train(shards, recipe, tmp_path / "whole", device="cpu")
    train_in_two_sittings(shards, recipe, tmp_path / "parts", step=3)
    same_run(tmp_path / "whole", tmp_path / "parts")
    train(shards, tiny_recipe(epochs=2, precision=precision), tmp_path / "adamw", device="cpu")
    ours, theirs = (read_weights(tmp_path / run / "weights" / "last.safetensors")[0] for run in ("whole", "adamw"))
    assert not torch.equal(ours["fc1.weight"], theirs["fc1.weight"])
