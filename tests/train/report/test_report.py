"""Reports of real, tiny runs: one file that is whole, safe, complete and legible."""

import csv
import itertools
import json
import re
import shutil
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from browser import browse, chromium
from click.testing import CliRunner
from PIL import Image
from run_folders import change_result

from spikebridge.cli import main
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.formats import bin40
from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.settings import ConversionSettings
from spikebridge.pipeline.ui.paint import png, static_pixels
from spikebridge.pipeline.ui.style import ramp
from spikebridge.train.config.recipes import load_recipe, recipe_from
from spikebridge.train.errors import RunError, TrainError
from spikebridge.train.networks.build import load_network, make_network
from spikebridge.train.report import write as report
from spikebridge.train.report.analysis import DomainFeatures, _count_right, analyse
from spikebridge.train.report.plots.drawing import Drawing, collecting, house_style
from spikebridge.train.report.plots.epochs import mean_curve
from spikebridge.train.report.plots.points import dots
from spikebridge.train.report.records import Predictions, group_runs, load_run, load_runs
from spikebridge.train.report.run import changed, duration, wilson
from spikebridge.train.report.sections import gradcam as report_gradcam
from spikebridge.train.report.sections import samples as report_samples
from spikebridge.train.report.sections.domains import embed, neighbours
from spikebridge.train.report.sections.gradcam import explain_classes, similarity
from spikebridge.train.report.sections.samples import most_confidently_right, most_confidently_wrong, typical_right
from spikebridge.train.runs.folder import RunFolder
from spikebridge.train.trainer.run import train

SECTIONS = (
    *("summary", "curves", "early", "confusion", "classes", "samples", "domains", "energy", "data", "settings"),
    "reproduce",
)
NASTY = '<script>alert("1")</script>&amp;$x_1$'
SHARDS = {"dataset": "digits", "time_bins": 4, "size": 16, "protocol": "strict"}
DEFAULTS = {"reduction": "sum", "extent": "canvas", "encoding": "v"}


class Page(HTMLParser):
    """What a browser would take from the page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.ids, self.sections, self.text = [], [], [], [], []
        self.feed(text)
        self.words = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attrs = dict(attrs)
        self.links += [attrs[name] for name in ("src", "href", "xlink:href", "data", "poster") if name in attrs]
        self.ids += [attrs["id"]] if "id" in attrs else []
        if tag == "section":
            self.sections.append(attrs.get("class"))

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Two digits, a bar that stands and one that lies, 15 training and 5 test recordings each."""
    raw, rng = tmp_path_factory.mktemp("raw"), np.random.default_rng(0)
    for label in (0, 1):
        for number in range(20):
            name = f"{'Test' if number % 4 == 3 else 'Train'}/{label}/{20 * label + number + 1:05d}"
            n = 400
            along, across = rng.integers(4, 30, n), rng.integers(14, 20, n)
            x, y = (along, across) if label else (across, along)
            events = Events(np.sort(rng.integers(0, 300_000, n)), x, y, rng.integers(0, 2, n).astype(np.uint8))
            picture = np.zeros((28, 28), np.uint8)
            picture[(slice(11, 17), slice(3, 25)) if label else (slice(3, 25), slice(11, 17))] = 255 - number
            for folder, suffix in (("events", "bin"), ("static", "png")):
                path = raw / folder / f"{name}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                if suffix == "bin":
                    path.write_bytes(bin40.encode(events))
                else:
                    Image.fromarray(picture).save(path)
    settings = ConversionSettings(**SHARDS, **DEFAULTS, classes=("0", "1"))
    out = tmp_path_factory.mktemp("set") / "shards"
    convert(prepare(settings, events_root=raw / "events", static_root=raw / "static"), out)
    return ShardSet(out)


@pytest.fixture(scope="module")
def runs(shards, tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for method in ("event_only", "kt"):
        for seed in (0, 1):
            settings = {"method": method, "model": "scnn", "width": 0.1, "epochs": 2, "batch_size": 13, "lr": 0.01}
            recipe = recipe_from({"shards": {**SHARDS, **DEFAULTS}, "train": {**settings, "seed": seed}})
            found[method, seed] = folder / f"{method}-seed{seed}"
            train(shards, recipe, found[method, seed], device="cpu")
    return found


@pytest.fixture(scope="module")
def written(shards, runs, tmp_path_factory):
    """The report of one run, and that of all."""
    folder = tmp_path_factory.mktemp("reports")
    one = report.write_report([runs["kt", 0]], folder / "one.html", shards=shards)
    return one, report.write_report(list(runs.values()), folder / "all.html", shards=shards)


@pytest.fixture
def old(runs, tmp_path):
    """A copy of a run that a test may damage."""
    return shutil.copytree(runs["event_only", 0], tmp_path / "old")


def opened(*run_dirs, out, shards=None):
    return checked(report.write_report(run_dirs, out / "report.html", shards=shards))


def checked(path):
    """The page in `path`, after the checks that every report passes."""
    text = path.read_text()
    page = Page(text)
    outside = [link for link in page.links if not link.startswith(("data:", "#"))]
    assert not outside
    assert not {"script", "iframe", "object"} & set(page.tags)
    assert "url(http" not in text
    assert "@import" not in text
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    return page


def test_one_run(shards, runs, written):
    page = checked(written[0])
    result = json.loads((runs["kt", 0] / "result.json").read_text())
    assert tuple(page.sections) == SECTIONS
    assert page.tags.count("svg") == 6 + 1 + 2  # over epochs, over time steps, both domains before and after
    for words in (
        "kt on digits, seed 0",
        "SIMULATED recordings",
        f"{100 * result['test_accuracy']:.1f} %",
        "10 samples",
        result["selection"],
        shards.id,
        "replacement",
        "spikes per neuron and step",
        'method = "kt"',
        f"--expect {shards.id}",
        "all 10 test recordings",
        f"within one point of the {100 * result['test_accuracy']:.1f} % of all",
        "Grad-CAM of the last convolution",
        "by t-SNE (perplexity",
        "Horowitz",
        shards.manifest["listing_sha256"],
        *(entry["sha256"] for entry in shards.manifest["files"]),
    ):
        assert words in page.words, words
    with (runs["kt", 0] / "predictions.csv").open(newline="") as file:
        _, *rows = csv.reader(file)
    shares = [np.exp(np.array(row[3:], float)) / np.exp(np.array(row[3:], float)).sum() for row in rows]
    wrong = [(share.max(), row) for share, row in zip(shares, rows, strict=True) if row[1] != row[2]]
    sure, worst = max(wrong, key=lambda pair: pair[0])  # of equal ones the first
    said = f"{worst[0]}: {worst[1]} taken for {worst[2]} with confidence {100 * sure:.1f} %. Look at it: spikebridge"
    assert page.words.index(said) < page.words.index("Confusion matrix")
    assert page.tags.count("img") >= 5  # a static image and four time bins


def test_equal_runs_give_equal_bytes(shards, runs, written, tmp_path):
    again = report.write_report([runs["kt", 0]], tmp_path / "again.html", shards=shards)
    assert again.read_bytes() == written[0].read_bytes()
    assert str(runs["kt", 0].parent) not in again.read_text()


def test_several_runs(runs, written):
    page = checked(written[1])
    assert tuple(page.sections) == ("comparison", "overlay", "runs", "details", *SECTIONS * 4)
    assert page.tags.count("details") == 4 + 2 * 2  # the runs; files and card in the first of each group
    assert page.tags.count("svg") == 5 + 2 * (4 + 1) + 2 * (6 + 1) + 2 * 2
    assert page.words.count("Shown for the first run of every group only.") == 2 * 2
    assert "kt minus event_only" in page.words
    accuracies = [json.loads((runs["kt", s] / "result.json").read_text())["test_accuracy"] for s in (0, 1)]
    assert f"{100 * np.mean(accuracies):.1f} ± {100 * np.std(accuracies, ddof=1):.1f}" in page.words


def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(runs, old, tmp_path):
    result = json.loads((old / "result.json").read_text())
    result["recipe"]["train"]["events_per_class"] = 3
    change_result(old, recipe=result["recipe"])
    page = opened(runs["event_only", 0], old, out=tmp_path)
    assert "event_only, events_per_class 3" in page.words
    assert "±" not in page.words.partition("is the standard deviation")[0].rstrip("± ")
    result["recipe"]["shards"] |= {"binning": "window", "window_us": 30_000, "time_window_us": [0, 9_000_000]}
    result["recipe"]["train"]["event_augmentation"] = "drop_events+rotate+noise"
    change_result(old, recipe=result["recipe"])
    page = opened(runs["event_only", 0], old, out=tmp_path)  # beside its rows; a warning of too little room is an error
    assert "binning window" in page.words
    assert "None" not in page.words.partition("Single results")[0]  # of the other, which leaves these out


def test_long_values_that_differ_late_are_not_averaged(runs):
    (one,) = load_runs([runs["event_only", 0]])
    same = "drop_events+rotate+jitter+noise+shift+flip+drop_time+drop_area+"
    for key, values in (
        ("event_augmentation", [same + "scale", same + "hot_pixels"]),
        ("simulation", ['profile {"sensor":[34,34]' + "," * 60, 'profile {"sensor":[34,34]' + "," * 61]),
    ):
        recipe = one.result["recipe"]
        other = [{**one.result, "recipe": {**recipe, "train": {**recipe["train"], key: value}}} for value in values]
        groups = group_runs([replace(one, result=result) for result in other])
        assert [len(group) for group in groups.values()] == [1, 1]
        assert all(len(name) < 70 for name in groups)


def test_long_names_leave_room_for_the_plot():
    name = ", ".join(["event_only", *(f"setting_{k} value" for k in range(12))])
    groups = {f"{name} {k}": ([80.0], 80.0, None) for k in range(3)}
    drawing = Drawing("long", "Long")
    assert "<svg" in dots(drawing, groups, label="test accuracy in %")
    axes = drawing.axes[0]
    assert axes.get_window_extent().width > drawing.figure.bbox.width / 3
    marks = [mark.get_window_extent() for mark in axes.get_yticklabels()]
    assert all(upper.y0 >= lower.y1 for upper, lower in itertools.pairwise(marks))
    drawing = Drawing("legend", "Legend")
    drawing.axes[0].plot([0, 1], label=name)
    drawing.legend()
    drawing.figure.draw_without_rendering()
    assert drawing.figure.legends[0].get_window_extent().x1 <= drawing.figure.bbox.x1


def test_without_the_shard_set(runs, tmp_path):
    page = opened(runs["event_only", 0], out=tmp_path)
    assert "The shard set was not given" in page.words
    assert "img" not in page.tags
    assert "coefficients per time step were not trained" in page.words


def test_with_another_shard_set(shards, old, tmp_path):
    change_result(old, shard_set="f" * 64, contents="e" * 64)
    assert "this run used shard set ffff" in opened(old, out=tmp_path, shards=shards).words


def test_names_are_text(shards, old, tmp_path):
    """Class names, keys and recipes come from files; none of them may become markup."""
    change_result(old, classes=[NASTY, "1"], recipe_name=NASTY, dataset=NASTY)
    rows = (old / "predictions.csv").read_text().splitlines()
    (old / "predictions.csv").write_text(
        "\n".join([rows[0], *(f"{NASTY.replace(chr(34), '')},1,1,0.1,0.9" for _ in rows[1:])]) + "\n"
    )
    (old / "config.toml").write_text(f"# {NASTY}\n")
    page = opened(old, out=tmp_path, shards=shards)
    assert "script" not in page.tags
    assert page.words.count('<script>alert("1")</script>') > 4


def test_runs_of_older_versions(old, tmp_path):
    lines = [{"epoch": n, "loss_total": 1.0 / n, "validation_accuracy": None} for n in (1, 2)]
    (old / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (old / "predictions.csv").unlink()
    kept = ("method", "shard_set", "classes", "test_accuracy")
    result = json.loads((old / "result.json").read_text())
    (old / "result.json").write_text(json.dumps({name: result[name] for name in kept}))
    page = opened(old, out=tmp_path)
    assert tuple(page.sections) == SECTIONS
    assert page.tags.count("svg") == 1
    (old / "metrics.jsonl").unlink()
    opened(old, old, out=tmp_path)


def test_a_run_without_a_result_says_at_the_top_how_it_stands(shards, runs, old, tmp_path):
    (old / "result.json").unlink()
    page = opened(old, out=tmp_path, shards=shards)
    assert page.sections == ["state", "curves", "data", "settings"]
    assert page.tags.count("svg") > 3
    top, _, _ = page.words.partition("Curves")
    for words in ("UNFINISHED: interrupted", "2 of 2 epochs finished", "--run RUN"):
        assert words in top, words
    assert "SIMULATED" in top or not shards.simulated
    config = old / "config.toml"
    config.write_text(config.read_text().replace('selection = "validation"', 'selection = "last"'))
    assert "Highest validation accuracy so far" in opened(old, out=tmp_path).words
    RunFolder(old).mark_diverged(epoch=2, step=4, message="step 4: the loss is not finite")
    (old / "metrics.jsonl").unlink()
    page = opened(old, out=tmp_path)
    assert "DIVERGED" in page.words
    assert "step 4: the loss is not finite" in page.words
    assert "--set lr=0.003" in page.words
    assert "holds no epochs" in page.words
    with RunFolder(old).lock():
        assert "still running" in opened(old, out=tmp_path).words
    page = opened(runs["kt", 0], old, out=tmp_path)
    assert page.sections[:4] == ["begun", "comparison", "overlay", "runs"]
    assert "1 of 2 runs without a result, in no mean" in page.words
    row = page.words.partition("highest validation so far")[2].partition("They are in no mean")[0]
    assert "DIVERGED" in row
    assert "0 of 2" in row
    again = opened(old, old, out=tmp_path)
    assert again.sections == ["begun"]
    assert "2 of 2 runs without a result" in again.words
    (old / "config.toml").write_text("epochs = ")
    with pytest.raises(RunError, match="unfinished, and damaged"):
        report.write_report([old], tmp_path / "none.html")


def test_no_test_split(old, tmp_path):
    change_result(old, test_accuracy=None, last_test_accuracy=None, confusion=None, samples={"train": 26, "test": 0})
    (old / "predictions.csv").unlink()
    assert "The test split is empty" in opened(old, out=tmp_path).words


def test_legacy_protocol_is_labelled(old, tmp_path):
    change_result(old, protocol="legacy", selection_split="test")
    assert "LEGACY protocol: checkpoint chosen on the test split" in opened(old, out=tmp_path).words


def test_many_classes_get_a_picture(old, tmp_path):
    counts = np.random.default_rng(0).integers(0, 9, (101, 101))
    np.fill_diagonal(counts, 5)
    counts[4] = 0
    counts[7, 7] = 0
    change_result(old, classes=[f"class number {k}" for k in range(101)], confusion=counts.tolist())
    (old / "predictions.csv").unlink()
    page = opened(old, out=tmp_path)
    assert page.tags.count("svg") == 5
    assert "Commonest confusions" in page.words
    weakest, _, every = page.words.partition("The 10 of 101 with the lowest recall")[2].partition("All 101 classes")
    assert weakest.partition("class number ")[2].split()[0] == "7"
    assert weakest.count("class number ") == 10
    assert every.count("class number ") == 101


def test_errors(runs, old, tmp_path, monkeypatch):
    out = tmp_path / "report.html"
    with pytest.raises(RunError, match="none given"):
        report.write_report([], out)
    with pytest.raises(RunError, match="no such file or folder; expected a run"):
        report.write_report([tmp_path / "nothing"], out)
    change_result(old)
    (old / "predictions.csv").write_text("key,label,prediction,score_0\na,unknown,1,x\n")
    with pytest.raises(RunError, match="damaged"):
        report.write_report([old], out)
    monkeypatch.setattr(report, "find_spec", lambda name: None)
    with pytest.raises(TrainError, match=re.escape('pip install "spikebridge[report]"')):
        report.write_report([runs["kt", 0]], out)
    assert not out.exists()


def test_which_samples_are_shown():
    labels = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 0, 0, 2, 0])
    confidence = np.array([0.5, 0.9, 0.7, 0.6, 0.8, 0.8])
    found = Predictions(tuple("abcdef"), labels, predicted, confidence)
    assert most_confidently_wrong(found) == [4, 5, 3]
    assert typical_right(found) == [2]
    assert most_confidently_right(found) == [1]
    none = Predictions(("a",), labels[:1], predicted[4:5], confidence[:1])
    assert typical_right(none) == []


def test_static_pictures_show_the_colour_that_was_encoded(tmp_path):
    from spikebridge.pipeline.images.colour import encode

    red = np.full((2, 2, 3), (200, 10, 10), np.uint8)
    for encoding in ("rgb", "hsv"):
        path = tmp_path / f"{encoding}.png"
        path.write_bytes(png(static_pixels(encode(red, encoding), encoding=encoding)))
        np.testing.assert_allclose(np.asarray(Image.open(path)), red, atol=3)


def test_what_is_seen_agrees_with_the_result(shards, runs):
    run, result = RunFolder(runs["kt", 0]), json.loads((runs["kt", 0] / "result.json").read_text())
    seen = analyse(run, result, shards)
    assert (seen.recordings, seen.available) == (10, 10)
    assert seen.early[-1] == result["test_accuracy"]
    assert seen.rates == pytest.approx(result["firing_rates"])
    assert list(seen.cost.layers) == ["feature.0", "feature.3", "fc1", "fc2"]
    assert seen.after.event.shape == (10, seen.neurons["node1"])
    assert seen.after.static.shape == (len(seen.static_labels), seen.neurons["node1"])
    assert len(seen.static_labels) == min(120, len(shards.static_pool()))
    first = make_network(load_network(run.best, device=torch.device("cpu"))[1]["network"], seed=0).eval()
    events = torch.from_numpy(shards.split("test").read_all()).float().transpose(0, 1)
    with torch.no_grad():
        np.testing.assert_allclose(seen.before.event, first(None, events).event_features.mean(0), atol=1e-6)
    assert not np.allclose(seen.before.event, seen.after.event)
    assert analyse(run, result | {"init": {"run": "other"}}, shards).before is None


def test_landscape_at_the_command_line(shards, runs, tmp_path):
    arguments = [
        "landscape",
        str(runs["kt", 0]),
        "--shards",
        str(shards.path),
        "--out",
        str(tmp_path / "out"),
        "--line",
    ]
    done = CliRunner().invoke(main, [*arguments, "--points", "3", "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    assert json.loads(done.stdout) == json.loads((tmp_path / "out" / "landscape.json").read_text())
    again = CliRunner().invoke(main, [*arguments, "--points", "5"])
    assert again.exit_code == 1
    assert "points: 3 there, 5 now" in again.stderr
    assert CliRunner().invoke(main, [*arguments, "--points", "4"]).exit_code == 1


def test_accuracy_over_time_steps():
    logits = torch.tensor([[[1.0, 0], [0, 1]], [[0, 3], [0, 1]], [[9, 0], [0, 1]]])  # [T=3,B=2,K=2]
    assert _count_right(logits, torch.tensor([0, 1])).tolist() == [2, 1, 2]


def test_gradcam_is_what_its_definition_says(shards, runs):
    network, _ = load_network(RunFolder(runs["kt", 0]).best, device=torch.device("cpu"))
    frames = shards.split("test").read([0, 1, 2])
    targets = np.array([0, 1, 1])
    found = explain_classes(network, frames, targets)
    kept = []
    handle = network.feature["3"].register_forward_hook(lambda _layer, _x, out: kept.append(out))
    scores = network(None, torch.from_numpy(frames).float().transpose(0, 1)).event_logits.mean(0)
    handle.remove()
    slope = torch.autograd.grad(scores[torch.arange(3), torch.from_numpy(targets)].sum(), kept[0])[0]
    cam = (slope.mean((2, 3), keepdim=True) * kept[0]).sum(1).relu().detach().unflatten(0, (3, 4))  # [m,T,h,w]
    wanted = torch.nn.functional.interpolate(cam, size=(16, 16), mode="bilinear", align_corners=False)
    wanted = wanted / wanted.amax((1, 2, 3), keepdim=True).clamp(min=1e-30)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert found.max() == 1


def test_gradcam_is_shown_where_random_weights_give_other_maps(shards, runs, monkeypatch):
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    maps = rng.random((3, 2, 4, 4)).astype(np.float32)
    assert similarity(maps, np.exp(maps)) == pytest.approx(1)  # ranks alone
    assert similarity(maps, 1 - maps) == pytest.approx(-1)
    assert abs(similarity(maps, rng.random(maps.shape))) < 0.5
    assert similarity(maps, np.zeros_like(maps)) is None
    tied = np.stack([rng.integers(0, 5, (1, 2, 4, 4)), rng.integers(0, 3, (1, 2, 4, 4))]).astype(np.float32)
    assert similarity(*tied) == pytest.approx(spearmanr(tied[0].ravel(), tied[1].ravel()).statistic)
    record, frames = load_run(runs["kt", 0]), shards.split("test").read([0, 1])
    for alike, words in ((0.1, "rank correlation 0.10"), (0.9, "not shown: its maps have"), (None, "no maps here")):
        monkeypatch.setattr(report_gradcam, "similarity", lambda *_, alike=alike: alike)
        found, why = report_samples._explain(record, frames, np.array([0, 1]))
        assert words in why
        assert (found is not None) == (alike == 0.1)


def test_the_plane_is_the_same_every_time():
    features = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    assert np.array_equal(embed(features), embed(features))
    assert embed(np.ones((12, 5), np.float32)) is None


def test_neighbours_across_domains():
    corner, edge = np.eye(3, dtype=np.float32), np.full((1, 3), 1.0, np.float32)
    found = DomainFeatures(static=corner, event=np.concatenate([2 * corner[:2], edge]))
    seen = SimpleNamespace(static_labels=np.array([0, 1, 2]), event_labels=np.array([0, 0, 0]))
    own, nearer = neighbours(found, seen)
    assert own == pytest.approx(200 / 3)  # the first is beside its class, the third equally near to all and takes 0
    assert nearer == pytest.approx(200 / 3)


def test_without_weights_or_packages(shards, old, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(report_gradcam, "find_spec", lambda name: None)
    assert "needs captum: pip install" in opened(runs["event_only", 0], out=tmp_path, shards=shards).words
    shutil.rmtree(old / "weights")
    page = opened(old, out=tmp_path, shards=shards)
    assert "old/weights/best.safetensors: cannot be read" in page.words
    assert str(tmp_path) not in page.words
    assert tuple(page.sections) == SECTIONS


def test_figures_of_speech():
    # Wilson 1927; the values are those of statsmodels' proportion_confint(83, 100, method="wilson")
    assert wilson(0.83, 100) == pytest.approx((0.744519, 0.890905), abs=2e-4)
    assert wilson(1.0, 10)[1] == pytest.approx(1)
    assert [duration(s) for s in (10.6, 600, 9000)] == ["10.6 s", "10 min", "2 h 30 min"]
    assert ramp(0)[0] == "#ffffff"
    epochs, mean = mean_curve([(np.array([1.0, 2]), np.array([1.0, 3])), (np.array([2.0, 3]), np.array([5.0, 7]))])
    assert (epochs.tolist(), mean.tolist()) == ([2], [4])


@pytest.mark.skipif(chromium() is None, reason="no chromium on PATH; .ci/run installs it")
def test_opens_in_a_browser_and_fits_its_window(written, tmp_path):
    dom, complaints = browse(written[1], tmp_path)
    assert complaints == []
    assert "Every run in full" in dom
    # Headless windows are at least 500 pixels wide; frames may be narrower. All sections are open.
    inside = escape(written[1].read_text().replace("<details>", "<details open>"))
    frames = "".join(f'<iframe width="{width}" height="800" srcdoc="{inside}"></iframe>' for width in (390, 1280))
    script = (
        "document.title = [...document.querySelectorAll('iframe')].map(f => f.contentWindow)"
        ".map(w => w.document.documentElement.scrollWidth + ' of ' + w.innerWidth)"
    )
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(f'<title></title><style>iframe {{ border: 0 }}</style><body onload="{script}">{frames}')
    dom, complaints = browse(wrapper, tmp_path)
    assert complaints == []
    found = re.search("<title>(.*?)</title>", dom)
    assert found is not None
    measured = [tuple(map(int, pair.split(" of "))) for pair in found[1].split(",")]
    assert [inner for _, inner in measured] == [390, 1280]
    assert all(whole <= inner for whole, inner in measured), "the page scrolls sideways"


def test_a_figure_for_a_paper_is_a_column_wide_and_has_no_date():
    drawing = Drawing("one", "One")
    with house_style():
        for name in ("total", "static", "event", "domain", "validation"):
            drawing.axes[0].plot([0, 1], label=name)
    drawing.legend()
    drawing.fit_column()
    pdf = drawing.file("pdf")
    assert b"/MediaBox [ 0 0 252 " in pdf  # 3.5 inches of 72 points
    assert b"/Type3" not in pdf
    assert b"/CreationDate" not in pdf
    (legend,) = drawing.figure.legends
    drawing.figure.draw_without_rendering()
    assert legend.get_window_extent().x1 <= drawing.figure.bbox.x1
    assert {text.get_text() for text in legend.get_texts()} >= {"total", "validation"}
    with collecting() as drawings:
        drawing.svg()
    assert drawings == [drawing]


@pytest.mark.long
def test_every_plot_is_a_figure_for_a_paper(runs, tmp_path):
    options = ["--out", tmp_path / "page.html", "--figures", tmp_path / "figures"]
    words = [str(word) for word in ["report", runs["kt", 0], *options]]
    assert CliRunner().invoke(main, words, catch_exceptions=False).exit_code == 0
    page = (tmp_path / "page.html").read_text()
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert {"run-losses", "run-confusion"} <= names
    assert len(list((tmp_path / "figures").iterdir())) == 2 * len(names)
    for name in names:
        pdf = (tmp_path / "figures" / f"{name}.pdf").read_bytes()
        assert b"/MediaBox [ 0 0 252 " in pdf  # 3.5 inches of 72 points
        assert b"/Type3" not in pdf
        svg = (tmp_path / "figures" / f"{name}.svg").read_text()
        assert 'width="252pt"' in svg
    assert "#0072b2" in (tmp_path / "figures" / "run-losses.svg").read_text()  # of Okabe and Ito
    drawn = page.count('<svg role="img"')
    assert len(names) == drawn + 1  # the page shows the confusion matrix as a table
    (tmp_path / "page.html").unlink()
    refused = CliRunner().invoke(main, words)
    assert refused.exit_code == 2
    assert "--overwrite" in refused.stderr


def test_the_page_warns_of_one_run_and_names_changed_settings_first(runs, written):
    one, several = (path.read_text() for path in written)
    assert "One run proves nothing" in one
    assert "spikebridge compare --shards SHARDS" in one
    assert "One run proves nothing" not in several
    record = load_run(runs["event_only", 1])
    assert changed(record) == ""  # its recipe is no shipped one
    table = changed(replace(record, result={**record.result, "recipe_name": "digits"}))
    assert "<td>method</td><td>kt</td><td>event_only</td>" in table
    assert "<td>seed</td><td>0</td><td>1</td>" in table
    assert "<td>tet</td>" not in table
    plain = {**record.result, "recipe_name": "digits", "recipe": load_recipe("digits").tables()}
    assert "As in recipe digits" in changed(replace(record, result=plain))
