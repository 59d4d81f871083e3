"""Method `pretrain`: images first, events afterwards, one head."""

import pytest
import torch
from fake_shards import FakeShardSet, tiny_recipe
from interrupted import train_in_two_sittings
from run_folders import same_run

from spikebridge.train.data.batches import TrainingBatches
from spikebridge.train.methods import find_method
from spikebridge.train.runs.folder import read_metrics
from spikebridge.train.schedules import pretraining_steps
from spikebridge.train.trainer.run import train


@pytest.mark.parametrize(
    ("steps", "share", "first"),
    [(10, 0.5, 5), (10, 0.25, 2), (300, 0.99, 297), (3, 0.01, 1), (2, 0.99, 1), (1, 0.5, 1)],
)
def test_steps_before_fine_tuning(steps, share, first):
    assert pretraining_steps(steps, share) == first


def test_images_of_the_whole_pool_then_the_events_of_event_only(tmp_path):
    shards = FakeShardSet(tmp_path / "shards")
    settings = tiny_recipe(method="pretrain", pretrain_share=0.4).train
    cls = find_method("pretrain")
    data = TrainingBatches(
        shards, settings, device=torch.device("cpu"), needs_static=True, draw_from_pool=cls.draw_from_pool
    )
    method, batch = cls(settings, steps=10), data.batch(0, 0)
    for step in range(4):
        inputs = method.inputs(batch, step)
        assert inputs.static is None
        assert torch.equal(inputs.event, batch.images.expand(4, -1, -1, -1, -1))
        assert torch.equal(inputs.labels, batch.image_labels)
    for step in range(4, 10):
        inputs = method.inputs(batch, step)
        assert (inputs.static, inputs.event is batch.events, inputs.labels is batch.labels) == (None, True, True)


def test_the_switch_is_logged_and_a_continued_run_is_the_same(tmp_path):
    shards = FakeShardSet(tmp_path / "shards")
    recipe = tiny_recipe(method="pretrain", epochs=4, pretrain_share=0.5)
    train(shards, recipe, tmp_path / "whole", device="cpu")
    assert [line["replacement_probability"] for line in read_metrics(tmp_path / "whole")] == [0, 0, 1, 1]
    train_in_two_sittings(shards, recipe, tmp_path / "parts", step=5)
    same_run(tmp_path / "whole", tmp_path / "parts")
