"""Method `distill`: a teacher that knows the static pool, asked up to a point of the run."""

import pytest
import torch
from fake_shards import FakeShardSet, tiny_recipe
from interrupted import train_in_two_sittings
from run_folders import same_run
from safetensors.torch import load_file

from spikebridge.train.data.batches import TrainingBatches
from spikebridge.train.losses import distillation_loss
from spikebridge.train.methods import find_method
from spikebridge.train.methods.distill import train_teacher
from spikebridge.train.networks.build import make_network, network_arguments
from spikebridge.train.runs.folder import read_metrics
from spikebridge.train.trainer.run import train

CPU = torch.device("cpu")


def test_distance_in_closed_form():
    logits = torch.tensor([[[2.0, 0.0]], [[0.0, 0.0]]], dtype=torch.float64)  # [T,B,K], mean over time (1, 0)
    targets = torch.tensor([[0.0, 3.0]], dtype=torch.float64)
    p = torch.tensor([0.0, 1.5], dtype=torch.float64).softmax(0)
    q = torch.tensor([0.5, 0.0], dtype=torch.float64).softmax(0)
    expected = 4 * (p * (p / q).log()).sum()
    torch.testing.assert_close(distillation_loss(logits, targets, temperature=2.0), expected)
    assert float(distillation_loss(logits, logits.mean(0), temperature=3.0)) == pytest.approx(0, abs=1e-12)


def test_the_teacher_gets_no_gradient_and_the_student_is_pulled_towards_it():
    logits = torch.zeros(3, 2, 4, requires_grad=True)
    targets = torch.tensor([[4.0, 0, 0, 0], [0, 4.0, 0, 0]], requires_grad=True)
    distillation_loss(logits, targets, temperature=4.0).backward()
    assert targets.grad is None
    assert logits.grad[:, 0].argmin(1).tolist() == [0, 0, 0]
    assert logits.grad[:, 1].argmin(1).tolist() == [1, 1, 1]


@pytest.fixture
def shards(tmp_path):
    return FakeShardSet(tmp_path / "shards")


def made(shards, **how):
    settings = tiny_recipe(method="distill", teacher_steps=40, **how).train
    data = TrainingBatches(shards, settings, device=CPU, needs_static=True)
    method = find_method("distill")(settings, steps=10)
    network = make_network(network_arguments(settings, shards), seed=0)
    method.attach(network, data)
    return method, network, data


def test_the_teacher_is_an_ann_that_learns_the_pool_the_same_way_every_time(shards):
    weights = []
    for _ in range(2):
        method, network, data = made(shards)
        assert (method.teacher.settings.neuron, method.teacher.settings.time_steps) == ("ReLU", 1)
        assert {n: p.shape for n, p in method.teacher.named_parameters() if n != "coefficients"} == {
            n: p.shape for n, p in network.named_parameters() if n != "coefficients"
        }
        weights.append(method.prepare(data, CPU, lambda: None))
        method.restore(weights[-1], CPU)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    images = data.images(torch.arange(15))
    logits = method.teacher(images[None], None).static_logits[0]
    assert (logits.argmax(1) == data.image_classes(torch.arange(data.pool_images))).double().mean() > 0.9
    assert not any(p.requires_grad for p in method.teacher.parameters())
    assert not method.teacher.training


def test_training_the_teacher_can_be_stopped(shards):
    method, _, data = made(shards)
    with pytest.raises(KeyboardInterrupt):
        train_teacher(method.teacher.requires_grad_(True), data, steps=9, seed=0, on_batch=_interrupt)


def _interrupt():
    raise KeyboardInterrupt


def test_asked_up_to_the_share_and_on_the_chosen_streams(shards):
    losses = {}
    for chosen in ("static", "event", "both"):
        method, network, data = made(
            shards, model="vgg_snn", width=0.05, distill_on=chosen, distill_until=0.3, distill_weight=2.0
        )
        method.restore(method.teacher.state_dict(), CPU)
        batch = data.batch(0, 0)
        for step in (2, 3):
            inputs = method.inputs(batch, step)
            assert ("teacher" in inputs.extra) == (step < 3)
            loss = method.loss(network(inputs.static, inputs.event), inputs, network.coefficients, {})
            plain = loss.static + loss.event + 0.5 * loss.domain
            torch.testing.assert_close(loss.total, plain + 2 * loss.extra["distillation"])
            losses[chosen, step] = float(loss.extra["distillation"].detach())
    assert [losses[chosen, 3] for chosen in ("static", "event", "both")] == [0, 0, 0]
    assert losses["both", 2] == pytest.approx((losses["static", 2] + losses["event", 2]) / 2)
    assert losses["static", 2] != losses["event", 2]


def test_a_continued_run_keeps_its_teacher(shards, tmp_path):
    recipe = tiny_recipe(method="distill", epochs=4, teacher_steps=20, distill_until=0.75)
    train(shards, recipe, tmp_path / "whole", device="cpu")
    train_in_two_sittings(shards, recipe, tmp_path / "parts", step=4)
    same_run(tmp_path / "whole", tmp_path / "parts")
    first, *_, last = read_metrics(tmp_path / "whole")
    assert first["loss_distillation"] > 0
    assert last["loss_distillation"] == 0
    weights, teacher = (
        load_file(tmp_path / "whole" / name) for name in ("weights/last.safetensors", "prepared.safetensors")
    )
    assert weights.keys() == teacher.keys()  # the same layers, and none of them in the run's weights twice
    assert not torch.equal(weights["fc1.weight"], teacher["fc1.weight"])
