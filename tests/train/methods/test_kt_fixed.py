"""Method `kt_fixed`: the defaults it replaces, and weights of steps that cannot switch a loss off."""

import json

import pytest
import torch
from fake_shards import FakeShardSet, tiny_recipe
from hypothesis import given, settings
from hypothesis import strategies as st
from network_outputs import labels, outputs
from safetensors.torch import load_file

from spikebridge.train.errors import RecipeError
from spikebridge.train.losses import classification_loss, step_weights, transfer_loss
from spikebridge.train.methods import find_method
from spikebridge.train.methods.kt_fixed import FIXES
from spikebridge.train.trainer.run import train


def test_published_weights_are_the_shares():
    c = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    up, down = step_weights(c)
    torch.testing.assert_close(up, c.sigmoid(), rtol=0, atol=0)
    torch.testing.assert_close(down, 1 - c.sigmoid(), rtol=0, atol=0)


def test_other_weights_in_closed_form():
    c = torch.log(torch.tensor([1.0, 3.0], dtype=torch.float64))  # shares 1/2 and 3/4
    for mode, up, down in (
        ("bounded", [0.75, 0.875], [0.75, 0.625]),
        ("normalized", [0.8, 1.2], [4 / 3, 2 / 3]),
    ):
        values = step_weights(c, mode=mode)
        torch.testing.assert_close(values[0], torch.tensor(up, dtype=torch.float64))
        torch.testing.assert_close(values[1], torch.tensor(down, dtype=torch.float64))
    with pytest.raises(ValueError, match="published, bounded or normalized"):
        step_weights(c, mode="none")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(c=st.lists(st.floats(-200, 200), min_size=1, max_size=12))
def test_no_coefficients_switch_a_loss_off(c):
    c = torch.tensor(c)
    for weights in step_weights(c, mode="normalized"):
        assert bool((weights >= 0).all())
        assert float(weights.mean()) == pytest.approx(1, rel=1e-4)
    for weights in step_weights(c, mode="bounded"):
        assert 0.5 <= float(weights.min()) <= float(weights.max()) <= 1


def test_under_huge_coefficients_only_the_published_weights_forget_the_events():
    out, y = outputs(), labels()
    huge = torch.full((3,), 50.0, dtype=torch.float64)
    values = {mode: transfer_loss(out, y, huge, weights=mode) for mode in ("published", "bounded", "normalized")}
    plain = classification_loss(out.event_logits, y, tet=True)
    assert float(values["published"].event.detach()) < 1e-12
    torch.testing.assert_close(values["bounded"].event, plain / 2)
    torch.testing.assert_close(values["normalized"].event, plain)


def test_equal_coefficients_are_no_weights_once_normalized():
    out, y = outputs(), labels()
    c = torch.full((3,), 1.0, dtype=torch.float64)
    weighted = transfer_loss(out, y, c, weights="normalized")
    plain = transfer_loss(out, y, c, regularization=False)
    torch.testing.assert_close(weighted.total, plain.total)


def test_what_is_published_is_replaced_and_what_is_chosen_stays():
    complete = find_method("kt_fixed").complete
    done = complete(tiny_recipe(method="kt_fixed", feature="spikes").train)
    assert (done.cka, done.feature, done.statistics, done.step_weights) == (
        "debiased",
        "spikes",
        "domain",
        "normalized",
    )
    assert complete(done) == done
    bare = complete(tiny_recipe(method="kt_fixed", regularization=False).train)
    assert (bare.cka, bare.step_weights) == ("debiased", "published")
    assert find_method("kt").complete(done) == done


def test_weights_of_steps_need_regularization():
    with pytest.raises(RecipeError, match="nothing to weigh"):
        tiny_recipe(step_weights="bounded", regularization=False)


def test_it_is_kt_with_these_settings_to_the_bit(tmp_path):
    shards = FakeShardSet(tmp_path / "shards")
    how = {"model": "vgg_snn", "width": 0.05, "epochs": 2}
    fixed = train(shards, tiny_recipe(method="kt_fixed", **how), tmp_path / "fixed", device="cpu")
    plain = train(shards, tiny_recipe(method="kt", **how, **FIXES), tmp_path / "plain", device="cpu")
    a, b = (load_file(tmp_path / run / "weights" / "last.safetensors") for run in ("fixed", "plain"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert fixed["changed_by_method"] == FIXES
    assert plain["changed_by_method"] == {}
    assert fixed["recipe"]["train"]["cka"] == "biased"  # the recipe as it was given: the same command continues the run
    again = train(shards, tiny_recipe(method="kt_fixed", **how), tmp_path / "fixed", device="cpu")
    assert again == json.loads((tmp_path / "fixed" / "result.json").read_text())
