"""Published checkpoints become runs; nothing in them is executed, and what does not fit is named."""

import argparse
import json
import os
import pickle
from collections import OrderedDict

import pytest
import torch
from click.testing import CliRunner
from fake_shards import FakeShardSet, tiny_recipe

from spikebridge import cli
from spikebridge.models import build_model
from spikebridge.models.published import neuron_constants, published_names, read_published_checkpoint
from spikebridge.train.errors import RunError, ShardMismatchError
from spikebridge.train.evaluation.evaluate import evaluate
from spikebridge.train.report.write import write_report
from spikebridge.train.runs.folder import RunFolder
from spikebridge.train.trainer.import_published import import_checkpoint
from spikebridge.train.trainer.run import train

RECIPE = {"model": "vgg_snn", "width": 0.05}


def published(seed=0, classes=3, T=4):
    """A network and its state dictionary under published names, as the published code saves it."""
    torch.manual_seed(seed)
    net = build_model("vgg_snn", num_classes=classes, time_steps=T, width=0.05, input_size=16)
    net.train()(torch.rand(T, 4, 2, 16, 16), torch.rand(T, 4, 2, 16, 16))  # running statistics of some data
    state = OrderedDict((theirs, net.state_dict()[ours].clone()) for ours, theirs in published_names(net).items())
    state.update((f"coefficient.{t}", c.detach().view(1).clone()) for t, c in enumerate(net.coefficients))
    state.update((name, torch.tensor(value)) for name, value in neuron_constants(net).items())
    return net.eval(), state


def timm_file(path, state, **more):
    """All that timm's saver writes, Namespace included."""
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    content = {
        "epoch": 297,
        "arch": "VGG_SNN",
        "state_dict": state,
        "optimizer": optimizer.state_dict(),
        "version": 2,
        "args": argparse.Namespace(model="VGG_SNN", step=4, lr=5e-3, betas=(0.9, 0.999), output=None, amp=False),
        "amp_scaler": {"scale": 65536.0},
        "metric": 92.64,
        **more,
    }
    torch.save(content, path, _use_new_zipfile_serialization=path.name != "old.pth.tar")
    return path


@pytest.fixture
def shards(tmp_path):
    return FakeShardSet(tmp_path / "shards")


@pytest.mark.parametrize("file", ["model_best.pth.tar", "old.pth.tar"])
def test_an_imported_run_scores_as_the_network_it_was(tmp_path, shards, file):
    net, state = published()
    path = timm_file(tmp_path / file, state)
    result = import_checkpoint(path, shards, tiny_recipe(**RECIPE), tmp_path / "run", device="cpu")
    taken = result["imported"]
    assert (taken["file"], taken["epoch"], taken["arch"]) == (file, 297, "VGG_SNN")
    assert taken["fitted"] == taken["tensors"] == len(state)
    assert taken["missing"] == taken["unexpected"] == taken["misfits"] == []

    split = shards.split("test")
    frames = torch.from_numpy(split.frames).float().transpose(0, 1)
    with torch.no_grad():
        predictions = net(None, frames).event_logits.mean(0).argmax(1).numpy()
    assert result["test_accuracy"] == (predictions == split.labels).mean()
    again = evaluate(tmp_path / "run", shards, device="cpu")
    assert (again["accuracy"], again["loss"]) == (result["test_accuracy"], result["test_loss"])
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    write_report([tmp_path / "run"], tmp_path / "report.html")
    fresh = import_checkpoint(path, shards, tiny_recipe(**RECIPE, recalibrate=True), tmp_path / "fresh", device="cpu")
    assert fresh["test_loss"] != result["test_loss"]
    trained = train(shards, tiny_recipe(**RECIPE, epochs=1), tmp_path / "trained", device="cpu")
    assert trained.keys() - {"precision", "tf32"} == result.keys() - {"imported"}  # nothing was trained here


def test_the_same_import_again_changes_nothing_and_another_is_refused(tmp_path, shards):
    recipe, run = tiny_recipe(**RECIPE), tmp_path / "run"
    path = timm_file(tmp_path / "a.pth.tar", published()[1])
    result = import_checkpoint(path, shards, recipe, run, device="cpu")
    before = (run / "result.json").stat().st_mtime_ns
    assert import_checkpoint(path, shards, recipe, run, device="cpu") == result
    assert train(shards, recipe, run, device="cpu") == result
    assert (run / "result.json").stat().st_mtime_ns == before
    other = timm_file(tmp_path / "b.pth.tar", published(seed=1)[1])
    with pytest.raises(RunError, match="holds another run"):
        import_checkpoint(other, shards, recipe, run, device="cpu")
    with RunFolder(run).lock(), pytest.raises(RunError, match="another process is working on this run"):
        import_checkpoint(other, shards, recipe, run, device="cpu", overwrite=True)
    assert (run / "result.json").stat().st_mtime_ns == before
    replaced = import_checkpoint(other, shards, recipe, run, device="cpu", overwrite=True)
    assert replaced["imported"]["sha256"] != result["imported"]["sha256"]
    with pytest.raises(ShardMismatchError):
        import_checkpoint(path, FakeShardSet(tmp_path / "s", time_bins=8), recipe, tmp_path / "x", device="cpu")


def test_what_does_not_fit_is_named_and_refused_or_left_out(tmp_path, shards, caplog):
    _, state = published(classes=7)
    del state["feature.1.bn.weight"]
    state["fc3.weight"] = torch.zeros(2)
    path = timm_file(tmp_path / "a.pth.tar", state)
    words = (
        "missing (1): feature.1.bn.weight",
        "unexpected (1): fc3.weight",
        "dvs_fc.1.bias: found [7], expected [3]",
    )
    with pytest.raises(RunError) as caught:
        import_checkpoint(path, shards, tiny_recipe(**RECIPE), tmp_path / "run", device="cpu")
    assert all(word in str(caught.value) for word in (*words, "--partial"))
    assert not (tmp_path / "run").exists()
    result = import_checkpoint(path, shards, tiny_recipe(**RECIPE), tmp_path / "run", device="cpu", partial=True)
    assert all(word in caplog.text for word in words)
    assert len(result["imported"]["misfits"]) == 4  # weight and bias of two heads
    assert result["imported"]["fitted"] == len(state) - 5
    nothing = timm_file(tmp_path / "b.pth.tar", {"weight": torch.zeros(1)})
    with pytest.raises(RunError, match="nothing in it fits"):
        import_checkpoint(nothing, shards, tiny_recipe(**RECIPE), tmp_path / "no", device="cpu", partial=True)


class Malicious:
    """Unpickling it would make a folder."""

    def __init__(self, where):
        self.where = where

    def __reduce__(self):
        return os.mkdir, (str(self.where),)


@pytest.mark.parametrize("place", ["args", "state_dict", "inside the Namespace", "a bare pickle"])
def test_nothing_in_the_file_is_executed(tmp_path, shards, place):
    _, state = published()
    trap, path = tmp_path / "executed", tmp_path / "bad.pth.tar"
    if place == "a bare pickle":
        path.write_bytes(pickle.dumps({"state_dict": state, "args": Malicious(trap)}))
    elif place == "state_dict":
        timm_file(path, {**state, "coefficient.0": Malicious(trap)})
    else:
        args = Malicious(trap) if place == "args" else argparse.Namespace(output=Malicious(trap))
        timm_file(path, state, args=args)
    why = "torch.save did not write it" if place == "a bare pickle" else r"it holds \w+\.mkdir"
    with pytest.raises(RunError, match=rf"bad\.pth\.tar: cannot be read as a published checkpoint: {why}"):
        import_checkpoint(path, shards, tiny_recipe(**RECIPE), tmp_path / "run", device="cpu")
    assert not trap.exists()
    assert not (tmp_path / "run").exists()


def test_files_that_hold_no_tensors_are_refused(tmp_path, shards):
    for content, words in (
        ({"state_dict": {"a": 3}}, "no tensors under a"),
        ({"model": {}}, "no 'state_dict'"),
        ([1], "state_dict"),
    ):
        torch.save(content, tmp_path / "x.pth.tar")
        with pytest.raises(RunError, match=words):
            import_checkpoint(tmp_path / "x.pth.tar", shards, tiny_recipe(**RECIPE), tmp_path / "run", device="cpu")
    torch.save({"state_dict": {"a": torch.ones(1)}, "epoch": "x"}, tmp_path / "y.pth.tar")
    checkpoint = read_published_checkpoint(tmp_path / "y.pth.tar")
    assert (checkpoint.epoch, checkpoint.arch) == (None, None)


def test_command_line(tmp_path, shard_set):
    shards, run = shard_set(size=16), tmp_path / "run"
    path = timm_file(tmp_path / "best.pth.tar", published(classes=10)[1])
    options = ["--shards", shards, "--recipe", "digits", "--set", "time_bins=4", "--set", "size=16"]
    options += ["--set", "model=vgg_snn", "--set", "width=0.05"]

    def invoke(*arguments):
        return CliRunner().invoke(cli.main, [str(a) for a in arguments], catch_exceptions=False)

    made = invoke("import-checkpoint", path, *options, "--run", run)
    assert made.exit_code == 0, made.output
    assert "tensors fitted" in made.stdout
    assert "SIMULATED" in made.stdout
    scored = json.loads(invoke("evaluate", run, "--shards", shards, "--json").stdout)
    assert scored["accuracy"] == json.loads((run / "result.json").read_text())["test_accuracy"]
    assert "Example" in invoke("import-checkpoint", "--help").stdout
