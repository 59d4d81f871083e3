"""What every method may rely on: modules and constants of its own, further losses, draws from the pool; fair to all."""

import dataclasses

import numpy as np
import pytest
import torch
from fake_shards import FakeShardSet, tiny_recipe
from interrupted import train_in_two_sittings
from run_folders import same_run
from safetensors.torch import load_file
from torch import nn

from spikebridge.train.config.settings import METHODS
from spikebridge.train.data.batches import TrainingBatches
from spikebridge.train.data.draws import shuffle_classes
from spikebridge.train.errors import MethodError, NonFiniteError
from spikebridge.train.methods import find_method
from spikebridge.train.methods.kt import KnowledgeTransfer
from spikebridge.train.networks.build import feature_count, seeded_weights
from spikebridge.train.report.write import write_report
from spikebridge.train.runs.folder import contents_id, read_metrics, read_result
from spikebridge.train.trainer import epochs
from spikebridge.train.trainer.run import train

CPU = torch.device("cpu")


class Loaded(KnowledgeTransfer):
    """Everything that the interface offers."""

    terms = ("guess",)
    prepared = 0

    def attach(self, network, data):
        with seeded_weights(self.settings.seed, "loaded"):
            self.modules = {"guess": nn.Linear(feature_count(network), 1)}

    def prepare(self, data, device, on_batch):
        on_batch()
        type(self).prepared += 1
        return {"target": torch.full((1,), 0.25 * data.pool_images)}

    def restore(self, prepared, device):
        self.target = prepared["target"].to(device)

    def heads(self, out, inputs):
        return {"guess": self.modules["guess"](out.event_features.mean(0))}

    def loss(self, out, inputs, coefficients, heads):
        plain = super().loss(out, inputs, coefficients, heads)
        guess = (heads["guess"] - self.target).square().mean()
        return dataclasses.replace(plain, total=plain.total + 0.1 * guess, extra={"guess": guess})


@pytest.fixture
def shards(tmp_path):
    return FakeShardSet(tmp_path / "shards")


@pytest.fixture
def loaded(monkeypatch):
    monkeypatch.setattr(epochs, "find_method", lambda name: Loaded)
    monkeypatch.setattr(Loaded, "prepared", 0)


@pytest.mark.usefixtures("loaded")
def test_modules_train_along_and_a_continued_run_is_the_same_to_the_bit(shards, tmp_path):
    recipe = tiny_recipe(epochs=2)
    train(shards, recipe, tmp_path / "whole", device="cpu")
    assert Loaded.prepared == 1
    train_in_two_sittings(shards, recipe, tmp_path / "parts", step=4)
    assert Loaded.prepared == 2  # once more for the other run, and not again for its second sitting
    same_run(tmp_path / "whole", tmp_path / "parts")
    first, last = read_metrics(tmp_path / "whole")
    assert last["loss_guess"] < first["loss_guess"]
    parts = last["loss_static"] + last["loss_event"] + 0.5 * last["loss_domain"] + 0.1 * last["loss_guess"]
    assert last["loss_total"] == pytest.approx(parts, rel=1e-5)
    assert not any("guess" in name for name in load_file(tmp_path / "whole" / "weights" / "last.safetensors"))
    assert load_file(tmp_path / "parts" / "prepared.safetensors")["target"].tolist() == [0.25 * 15]
    write_report([tmp_path / "whole"], tmp_path / "report.html", shards=None)
    assert "total, and its parts static, event, domain, guess" in (tmp_path / "report.html").read_text()


@pytest.mark.usefixtures("loaded")
def test_what_was_prepared_from_other_data_is_made_again(tmp_path):
    """A run that was stopped before its first checkpoint may go on with another shard set."""
    pools = [FakeShardSet(tmp_path / "shards", pool=pool, pairing=str(pool)) for pool in (5, 6)]
    recipe = tiny_recipe(epochs=1)
    for pool, expected in zip((pools[0], pools[0], pools[1]), (3.75, 3.75, 4.5), strict=True):
        one = epochs.Trainer(
            pool, recipe.train, epochs.RunFolder(tmp_path / "run"), device=CPU, contents=contents_id(pool)
        )
        one.restore()
        assert one.method.target.tolist() == [expected]
    assert Loaded.prepared == 2


@pytest.mark.usefixtures("loaded")
def test_a_broken_term_is_named(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(Loaded, "prepare", lambda self, *_: {"target": torch.full((1,), torch.nan)})
    with pytest.raises(NonFiniteError, match="guess = nan"):
        train(shards, tiny_recipe(), tmp_path / "run", device="cpu")


def test_pool_draws_cover_the_pool_and_carry_their_own_labels(shards):
    data = TrainingBatches(shards, tiny_recipe().train, device=CPU, needs_static=True, draw_from_pool=True)
    classes = np.concatenate([data.batch(epoch, index).image_labels for epoch in range(9) for index in range(3)])
    assert set(classes) == {0, 1, 2}
    batch = data.batch(0, 0)
    assert not torch.equal(batch.image_labels, batch.labels)
    bright = batch.images[:, 0].mean(1).view(-1, 4, 4).mean(2).argmax(1)  # the column block that a class lights up
    assert torch.equal(bright, batch.image_labels)
    torch.testing.assert_close(*data.images(torch.tensor([14]))[0])
    assert data.image_classes(torch.arange(15)).tolist() == [0] * 5 + [1] * 5 + [2] * 5


def test_pool_draws_need_images_of_some_class_only(tmp_path):
    data = TrainingBatches(
        FakeShardSet(tmp_path / "a", pool=[0, 4, 0]),
        tiny_recipe().train,
        device=CPU,
        needs_static=True,
        draw_from_pool=True,
    )
    assert set(data.batch(0, 0).image_labels.tolist()) == {1}
    with pytest.raises(MethodError, match="static pool is empty"):
        TrainingBatches(
            FakeShardSet(tmp_path / "b", pool=0),
            tiny_recipe().train,
            device=CPU,
            needs_static=True,
            draw_from_pool=True,
        )


@pytest.mark.parametrize("n", [2, 3, 10])
def test_shuffled_classes_leave_none_in_its_place(n):
    classes = torch.arange(3, 3 + n)
    shuffled = [shuffle_classes(classes, seed=seed).tolist() for seed in range(20)]
    for other in shuffled:
        assert sorted(other) == classes.tolist()
        assert not np.any(other == classes.numpy())
    assert n == 2 or len(set(map(tuple, shuffled))) > 1
    assert shuffled[3] == shuffle_classes(classes, seed=3).tolist()


def test_shuffled_partners_show_another_class_under_the_label_of_the_recording(shards, tmp_path):
    data = TrainingBatches(shards, tiny_recipe(partners="shuffled").train, device=CPU, needs_static=True)
    pairs = set()
    for epoch in range(3):
        batch = data.batch(epoch, 0)
        pairs |= set(zip(batch.labels.tolist(), batch.image_labels.tolist(), strict=True))
    assert len(pairs) == 3  # one class of images per class of recordings, throughout
    assert all(label != shown for label, shown in pairs)
    result = train(shards, tiny_recipe(partners="shuffled", epochs=1), tmp_path / "run", device="cpu")
    assert result["recipe"]["train"]["partners"] == "shuffled"


def test_shuffled_partners_need_two_classes(tmp_path):
    shards = FakeShardSet(tmp_path / "shards", classes=1)
    with pytest.raises(MethodError, match="needs two classes, found 1"):
        TrainingBatches(shards, tiny_recipe(partners="shuffled").train, device=CPU, needs_static=True)


def some(name, labelled):
    """Recordings per class for a method that needs unlabelled ones, 0 for all."""
    return labelled if find_method(name).unlabelled == "others" else 0


@pytest.mark.parametrize("name", METHODS)
def test_all_methods_see_the_same_recordings_in_the_same_order(shards, name):
    """Whatever else they see: same draws, augmentation and number of steps, so that they compare."""
    cls = find_method(name)

    def data(kind):
        settings = kind.complete(tiny_recipe(method=name, events_per_class=4).train)
        return TrainingBatches(
            shards, settings, device=CPU, needs_static=kind.needs_static, draw_from_pool=kind.draw_from_pool,
            unlabelled=kind.unlabelled,
        )  # fmt: skip

    mine, theirs = data(cls), data(find_method("event_only"))
    assert mine.steps_per_epoch == theirs.steps_per_epoch
    for index in range(mine.steps_per_epoch):
        a, b = mine.batch(1, index), theirs.batch(1, index)
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.events, b.events)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.long if name in ("self_training", "label_free") else ())
        for name in METHODS  # of these two test_self_training has what is smaller
    ],
)
def test_every_method_learns_and_changes_the_whole_network(tmp_path, name):
    shards = FakeShardSet(tmp_path / "shards", train=12, validation=6, test=9)
    recipe = tiny_recipe(
        method=name, model="vgg_snn", width=0.05, epochs=6, batch_size=6, lr=1e-2, validate_every=6, teacher_steps=30,
        events_per_class=some(name, 3),
    )  # fmt: skip
    train(shards, recipe, tmp_path / "run", device="cpu")
    first, *_, last = read_metrics(tmp_path / "run")
    assert last["loss_total"] < first["loss_total"]
    assert last["train_accuracy"] > 1 / 3
    begun = epochs.Trainer(shards, recipe.train, epochs.RunFolder(tmp_path / "none"), device=CPU)
    start = begun.network.state_dict()
    trained = load_file(tmp_path / "run" / "weights" / "last.safetensors")
    still = [key for key, value in trained.items() if value.is_floating_point() and torch.equal(value, start[key])]
    alone = begun.method.inputs(begun.data.batch(0, 0), 0).static is None  # no static stream
    assert all(alone and (key == "coefficients" or key.startswith("static_head")) for key in still)
    assert read_result(tmp_path / "run")["method"] == name


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_with_the_fused_kernels_asked_for(tmp_path, name):
    recipe = tiny_recipe(method=name, epochs=1, batch_size=12, teacher_steps=1, events_per_class=some(name, 4))
    result = train(FakeShardSet(tmp_path / "shards"), recipe, tmp_path / "run", device="cpu", backend="numba")
    assert "numba" in result["backend"]
