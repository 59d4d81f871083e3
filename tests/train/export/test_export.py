"""Exported runs: each format carries what is needed to use it and scores as its run does; bad files are refused."""

import json
import pickle
import random
import re
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT
from fake_shards import FakeShardSet, tiny_recipe

from spikebridge.models.backends import BACKENDS, use
from spikebridge.train.errors import ExportError, RunError, ShardMismatchError, TrainError
from spikebridge.train.evaluation.evaluate import evaluate
from spikebridge.train.export.read import open_export
from spikebridge.train.export.write import FORMATS, export
from spikebridge.train.networks.build import load_network
from spikebridge.train.runs.checkpoints import encode_weights, read_weights
from spikebridge.train.runs.folder import RunFolder
from spikebridge.train.trainer.run import train

NAMES = {"nir": "net.nir", "torch": "net.pt2", "safetensors": "net.safetensors"}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return FakeShardSet(tmp_path_factory.mktemp("shards"))


def trained(model, shards, folder):
    recipe = tiny_recipe(model=model, width={"scnn": 0.3, "nmnist_snn": 0.05}[model], epochs=2)
    train(shards, recipe, folder, device="cpu")
    return folder


@pytest.fixture(scope="module", params=["scnn", pytest.param("nmnist_snn", marks=pytest.mark.long)])
def run(request, shards, tmp_path_factory):
    return trained(request.param, shards, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def exports(run, tmp_path_factory):
    """Exports by format, each made when it is first asked for."""
    folder = tmp_path_factory.mktemp("exports")

    class Made(dict):
        def __missing__(self, format):
            self[format] = export(run, folder / NAMES[format], format=format)
            return self[format]

    return Made()


def scores_as(run, file, shards, format):
    for split in ("test", "validation"):
        found = evaluate(file, shards, split=split, device="cpu", trust=True)
        expected = evaluate(run, shards, split=split, device="cpu")
        assert found.pop("recorded") == expected["accuracy"]
        assert found.pop("format") == format
        assert found.pop("loss") == pytest.approx(expected.pop("loss"), abs=1e-5)
        assert expected.pop("backend") in BACKENDS  # an exported file brings its own code
        assert found == expected


@pytest.mark.parametrize("format", FORMATS)
def test_it_scores_as_its_run_does(run, exports, shards, format):
    scores_as(run, exports[format].file, shards, format)


def test_a_network_that_votes_scores_as_its_run_does(shards, tmp_path):
    """Each day without a program, whose tracing takes seconds."""
    run = trained("nmnist_snn", shards, tmp_path / "run")
    for format in ("nir", "safetensors"):
        scores_as(run, export(run, tmp_path / NAMES[format], format=format).file, shards, format)


@pytest.mark.parametrize("format", FORMATS)
def test_it_says_what_it_is(run, exports, shards, format):
    _, described, found = open_export(exports[format].file, device=CPU, trust=True)
    assert found == format
    assert described == json.loads(json.dumps(exports[format].description))
    assert described["shard_set"] == shards.id
    assert described["classes"] == list(shards.classes)
    assert described["preprocessing"]["time_bins"] == described["network"]["time_steps"] == 4
    assert described["test_accuracy"] == json.loads((run / "result.json").read_text())["test_accuracy"]
    assert described["simulated"] is True
    assert described["environment"] == json.loads((run / "result.json").read_text())["environment"]
    assert f"Trained with spikebridge {described['environment']['spikebridge']}" in exports[format].card.read_text()
    assert {name for name in ("time_step_seconds", "convention", "integration", "fires") if name in described} == (
        {"time_step_seconds", "convention", "integration", "fires"} if format == "nir" else set()
    )


def test_no_file_names_a_path_of_this_machine(exports):
    home = str(ROOT).encode()
    for made in (exports[format] for format in FORMATS):
        assert home not in made.file.read_bytes()
        assert home not in made.card.read_bytes()
    with zipfile.ZipFile(exports["torch"].file) as archive:
        assert not [name for name in archive.namelist() if home in archive.read(name)]
        assert not [name for name in archive.namelist() if b"site-packages" in archive.read(name)]


def test_a_program_says_what_it_takes_and_refuses_the_rest(exports):
    exported = exports["torch"]
    assert "float32 frames [4,B,2,16,16] and any batch size" in " ".join(exported.card.read_text().split())
    program, (opened, _, _) = (
        torch.export.load(exported.file).module(),
        open_export(exported.file, device=CPU, trust=True),
    )
    frames = torch.zeros(4, 2, 2, 16, 16)
    for wrong, words in ((frames.byte(), "dtype mismatch! Expected: Float"), (frames[:3], r"size\(\)\[0\] == 4")):
        with pytest.raises((RuntimeError, AssertionError), match=words):
            program(wrong)
        with pytest.raises(ExportError, match=r"takes torch.float32 frames \[4,B,2,16,16\]"):
            opened(None, wrong)


def test_vectors_of_nir_are_the_answers_of_the_network(run, exports):
    nir = pytest.importorskip("nir")
    exported = exports["nir"]
    data, graph = nir.read_data(exported.vectors).nodes, nir.read(exported.file)
    firing = {name for name, node in graph.nodes.items() if isinstance(node, nir.LIF | nir.IF)}
    assert data.keys() == {"input", "output", *firing}
    values = {name: next(iter(node.observables.values())).data for name, node in data.items()}
    assert {name for name, value in values.items() if value.dtype == bool} == firing
    assert any(0 < values[name].mean() < 1 for name in firing)
    frames = torch.from_numpy(values["input"]).float().unflatten(2, (2, 16, 16)).transpose(0, 1)  # [T,n,P,H,W]
    network, _ = load_network(RunFolder(run).best, device=CPU)
    with torch.no_grad():
        logits = network(None, frames).event_logits.transpose(0, 1).double()
    torch.testing.assert_close(torch.from_numpy(values["output"]), logits, atol=1e-4, rtol=1e-4)
    assert next(iter(data["output"].observables.values())).dt == exported.description["time_step_seconds"]


def test_a_program_takes_any_batch(run, exports):
    program = torch.export.load(exports["torch"].file).module()
    network, _ = load_network(RunFolder(run).best, device=CPU)
    for batch in (1, 2, 7):
        frames = torch.poisson(torch.full((4, batch, 2, 16, 16), 0.5), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            assert torch.equal(program(frames), network(None, frames).event_logits)


@pytest.mark.parametrize("format", FORMATS)
def test_all_of_it_goes_to_the_device(exports, format):
    device = torch.device("meta")  # stands for any that is not the CPU: one tensor left behind is an error
    network, _, _ = open_export(exports[format].file, device=device, trust=True)
    with torch.no_grad(), use("torch"):
        logits = network(None, torch.empty(4, 3, 2, 16, 16, device=device)).event_logits
    assert logits.shape == (4, 3, 3)
    assert logits.device == device


@pytest.mark.parametrize("format", FORMATS)
def test_hubs_can_read_the_card(exports, format):
    _, front, text = exports[format].card.read_text().split("---\n", 2)
    head = yaml.safe_load(front)
    assert head["license"] == "other"
    assert re.fullmatch("[a-z0-9.-]+", head["license_name"])
    assert head["library_name"] in ("nir", "pytorch")
    assert head["pipeline_tag"] == "image-classification"
    assert head["datasets"] == ["fake"]
    assert head["metrics"] == ["accuracy"]
    assert "spiking-neural-networks" in head["tags"]
    (result,) = head["model-index"][0]["results"]
    accuracy = exports[format].description["test_accuracy"]
    assert result["metrics"] == [{"type": "accuracy", "name": "test accuracy", "value": accuracy}]
    assert result["dataset"] == {"type": "fake", "name": "fake", "split": "test"}
    assert result["task"] == {"type": "image-classification"}
    assert "SIMULATED" in text
    assert exports[format].description["shard_set"] in text
    assert exports[format].file.name in text
    assert "{" not in text


@pytest.mark.parametrize("format", FORMATS)
def test_the_code_in_the_card_runs(exports, monkeypatch, format):
    made = exports[format]
    monkeypatch.chdir(made.file.parent)
    text = made.card.read_text().partition("## Use")[2]
    code = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))
    names = {"frames": torch.ones(4, 3, 2, 16, 16)}
    exec(code, names)
    if format == "nir":
        assert json.loads(names["graph"].metadata["spikebridge"])["shard_set"] == made.description["shard_set"]
    else:
        assert names["logits"].shape == (4, 3, 3)


@pytest.mark.parametrize("format", FORMATS)
def test_a_folder_is_what_a_hub_takes(run, exports, tmp_path, format):
    clone = tmp_path / "clone"
    (clone / ".git").mkdir(parents=True)
    made = export(run, clone, format=format)
    beside = ["model.vectors.nir"] if format == "nir" else []
    assert sorted(path.name for path in clone.iterdir()) == sorted([".git", "README.md", made.file.name, *beside])
    assert made.file.read_bytes() == exports[format].file.read_bytes()
    assert made.file.name in made.card.read_text()
    with pytest.raises(ExportError, match="exists"):
        export(run, clone, format=format)
    if format != "torch":  # once more of what is quickly made
        fresh = export(run, f"{tmp_path}/fresh/", format=format)
        assert fresh.card == tmp_path / "fresh" / "README.md"
        assert fresh.card.read_bytes() == made.card.read_bytes()


@pytest.mark.long
def test_a_program_goes_into_a_new_folder_too(run, exports, tmp_path):
    fresh = export(run, f"{tmp_path}/fresh/", format="torch")
    assert fresh.card == tmp_path / "fresh" / "README.md"
    assert fresh.file.read_bytes() == exports["torch"].file.read_bytes()


def test_the_last_weights_have_their_own_figures(run, tmp_path):
    result = json.loads((run / "result.json").read_text())
    made = export(run, tmp_path / "last.safetensors", format="safetensors", weights="last", licence="cc-by-4.0")
    assert made.description["test_accuracy"] == result["last_test_accuracy"]
    assert made.description["epoch"] == result["epochs"]
    assert 'license: "cc-by-4.0"' in made.card.read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"convention": "sum-pools"}, "Explicit Euler with a time step of 0.0001 s"),
        ({"convention": "exponential", "threshold_nudge": True}, "AT its threshold, which is the next float32 above"),
    ],
)
def test_a_convention_is_in_file_card_and_vectors_and_scores_alike(run, shards, tmp_path, options, words):
    nir = pytest.importorskip("nir")
    made = export(run, tmp_path / "net.nir", format="nir", **options)
    scores_as(run, made.file, shards, "nir")
    metadata = nir.read(made.file).metadata
    for name in ("convention", "integration", "fires"):
        assert metadata[name] == made.description[name]
    text = " ".join(made.card.read_text().split())
    assert words in text
    assert f"by the convention `{options['convention']}`" in text
    answers = {name: node.observables for name, node in nir.read_data(made.vectors).nodes.items()}
    others = nir.read_data(export(run, tmp_path / "default.nir", format="nir").vectors).nodes
    for name, values in answers.items():
        for found, expected in zip(values.values(), others[name].observables.values(), strict=True):
            assert found.data == pytest.approx(expected.data, abs=1e-9), name


def test_the_verb_offers_every_convention_the_default_first():
    from spikebridge.models.nir_conventions import CONVENTIONS, DEFAULT
    from spikebridge.train.verbs.export import export as verb

    option = next(option for option in verb.params if option.name == "convention")
    assert list(option.type.choices) == list(CONVENTIONS)
    assert f"default: {DEFAULT}" in option.help


def test_export_refuses(run, exports, tmp_path):
    with pytest.raises(ExportError, match=r"net\.nir exists"):
        export(run, exports["nir"].file, format="nir")
    export(run, exports["nir"].file, format="nir", overwrite=True)
    with pytest.raises(ExportError, match="'onnx' is not known; expected nir, torch, safetensors"):
        export(run, tmp_path / "x", format="onnx")
    with pytest.raises(ExportError, match=r"choose .*net\.pt2"):
        export(run, tmp_path / "net.torch", format="torch")
    with pytest.raises(RunError, match="no run here"):
        export(tmp_path, tmp_path / "x", format="nir")
    with pytest.raises(ExportError, match="expected best or last"):
        export(run, tmp_path / "x", format="nir", weights="first")
    with pytest.raises(ExportError, match="convention 'theirs' is not known; expected whole-input, r-one"):
        export(run, tmp_path / "x", format="nir", convention="theirs")
    for options in ({"convention": "r-one"}, {"threshold_nudge": True}):
        with pytest.raises(ExportError, match="are of NIR; leave them out of safetensors"):
            export(run, tmp_path / "x", format="safetensors", **options)
    assert not list(tmp_path.iterdir())


def test_what_nir_cannot_say_leaves_no_file(shards, tmp_path):
    train(shards, tiny_recipe(epochs=1, surrogate="SigmoidGrad"), tmp_path / "run", device="cpu")
    with pytest.raises(ExportError, match="SigmoidGrad"):
        export(tmp_path / "run", tmp_path / "net.nir", format="nir")
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def arm(source, target, bomb):
    """A program whose first weight is a pickle that runs code, without a sum."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as armed:
        for info in archive.infolist():
            content = archive.read(info)
            if info.filename.endswith("/self_sha256"):
                continue
            if info.filename.endswith("weights_config.json"):
                content = content.replace(b'"use_pickle": false', b'"use_pickle": true', 1)
            armed.writestr(info, pickle.dumps(bomb) if info.filename.endswith("weight_0") else content)


def test_a_program_is_opened_only_on_trust(exports, shards, tmp_path):
    with pytest.raises(ExportError, match="--trust"):
        evaluate(exports["torch"].file, shards)
    armed, fired = tmp_path / "armed.pt2", tmp_path / "fired"
    arm(exports["torch"].file, armed, Bomb(fired))
    with pytest.raises(ExportError, match="any code"):
        evaluate(armed, shards)
    assert not fired.exists()
    with pytest.raises(ExportError, match="cannot be opened by torch"):
        evaluate(armed, shards, trust=True)
    assert fired.exists()  # the danger is real


def test_other_samples_are_refused_and_the_same_in_another_container_are_not(exports, shards, tmp_path):
    with pytest.raises(ShardMismatchError, match="other samples"):
        evaluate(exports["safetensors"].file, FakeShardSet(tmp_path, train=21))
    same = FakeShardSet(tmp_path, format="hdf5")
    assert same.id != shards.id
    found = evaluate(exports["safetensors"].file, same, device="cpu")
    assert found["accuracy"] == found["recorded"]


@pytest.mark.parametrize("format", FORMATS)
def test_damaged_files_are_refused(exports, shards, tmp_path, format):
    whole = exports[format].file.read_bytes()
    cut = tmp_path / NAMES[format]
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainError, match=str(cut)):
        evaluate(cut, shards, trust=True)


@pytest.mark.parametrize("flips", [12, pytest.param(300, marks=pytest.mark.long)])
@pytest.mark.parametrize("format", FORMATS)
def test_no_flipped_bit_is_silent(exports, tmp_path, format, flips):
    """An error, or exactly what was exported: the padding of a zip holds nothing."""
    whole, rng = exports[format].file.read_bytes(), random.Random(flips)
    path = tmp_path / NAMES[format]
    frames = torch.ones(4, 1, 2, 16, 16)
    torch.manual_seed(0)

    def read(source):
        network, described, _ = open_export(source, device=CPU, trust=True)
        with torch.no_grad(), use("torch"):
            return described, network(None, frames).event_logits.tolist()

    expected, found = read(exports[format].file), 0
    for _ in range(flips):
        bad, bit = bytearray(whole), rng.randrange(8 * len(whole))
        bad[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bad)
        try:
            assert read(path) == expected, bit
        except TrainError:
            found += 1
    assert found > 0.9 * flips


def test_files_without_a_sum_are_read_as_they_were(exports, shards, tmp_path):
    tensors, header = read_weights(exports["safetensors"].file)
    assert "self_sha256" not in header
    (tmp_path / "old").write_bytes(encode_weights(tensors, header))
    assert evaluate(tmp_path / "old", shards, device="cpu")["accuracy"] is not None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"12345678{", b"text"])
def test_other_files_are_refused(shards, tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(TrainError, match=str(tmp_path / "file")):
        evaluate(tmp_path / "file", shards, trust=True)


@pytest.mark.parametrize(
    ("change", "expected"),
    [({"threads": 0}, "threads"), ({"batch_size": "9"}, "batch_size"), ({"schema": 2}, "schema 1")],
)
def test_a_bad_description_is_refused(exports, shards, tmp_path, change, expected):
    tensors, header = read_weights(exports["safetensors"].file)
    header["spikebridge"] = json.dumps({**json.loads(header["spikebridge"]), **change})
    (tmp_path / "odd").write_bytes(encode_weights(tensors, header))
    with pytest.raises(ExportError, match=expected):
        evaluate(tmp_path / "odd", shards)


@pytest.mark.parametrize("format", ["nir", "safetensors"])
def test_the_same_run_gives_the_same_bytes(run, exports, tmp_path, format):
    again = export(run, tmp_path / NAMES[format], format=format)
    assert again.file.read_bytes() == exports[format].file.read_bytes()
    assert again.card.read_bytes() == exports[format].card.read_bytes()


def test_weights_of_a_run_are_no_export(run, shards):
    with pytest.raises(ExportError, match="no description"):
        evaluate(RunFolder(run).best, shards)
