import csv
import io
import json
import re
import signal
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from fake_shards import FakeShardSet, tiny_recipe
from interrupted import Stopper
from tqdm import tqdm

from spikebridge.train.errors import NonFiniteError, ReportError, RunStoppedError
from spikebridge.train.runs.folder import read_metrics
from spikebridge.train.runs.state import flatten_numbers
from spikebridge.train.signals import StopRequest
from spikebridge.train.trainer import finite
from spikebridge.train.trainer.finite import FiniteWatch, FiringWatch
from spikebridge.train.trainer.progress import ProgressDisplay
from spikebridge.train.trainer.run import BAR, train


class Bar:
    def __init__(self, **options):
        self.shown, self.steps = [], 0

    def update(self, n):
        self.steps += n

    def set_postfix(self, values):
        self.shown.append(values)

    def close(self):
        pass


def test_progress_shows_what_matters(tmp_path):
    bars = []

    def make(**options):
        bars.append(Bar(**options))
        return bars[-1]

    train(FakeShardSet(tmp_path / "s"), tiny_recipe(epochs=2), tmp_path / "run", device="cpu", progress=make)
    last = bars[0].shown[-1]
    assert list(last) == [
        *("validation", "left", "loss", "train", "samples/s", "firing", "replaced", "static", "event", "domain")
    ]
    assert last["left"] == "0:00"


def test_the_bar_fits_80_columns_and_keeps_what_matters():
    written = io.StringIO()
    bar = tqdm(
        *(None, "simulate_pretrain seed 123", 120_000),
        **{"file": written, "ncols": 80, "bar_format": BAR, "unit": "step", "initial": 60_000, "mininterval": 0},
    )
    display = ProgressDisplay(bar, steps=120_000, samples_per_step=64, done=60_000)
    display.set_scores("validation", 0.912, {"a": 0.1})
    display.show({"loss_total": 0.5, "train_accuracy": 0.7}, replacement=0.2)
    bar.close()
    lines = [line for line in re.split(r"[\r\n]", written.getvalue()) if line.strip()]
    assert max(map(len, lines)) <= 80
    assert "validation=0.912" in lines[-1]


def test_a_disabled_bar_costs_no_reading():
    display = ProgressDisplay(SimpleNamespace(disable=True, update=lambda n: None), steps=3, samples_per_step=1, done=0)
    display.advance()
    assert not display.is_due


def test_tensorboard_absent_is_said_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ReportError, match=r"need the package tensorboard.*spikebridge\[tensorboard\]"):
        train(FakeShardSet(tmp_path / "s"), tiny_recipe(), tmp_path / "run", device="cpu", tensorboard=True)
    assert not (tmp_path / "run").exists()


def test_tensorboard_gets_every_line(tmp_path, monkeypatch):
    written = {}

    class SummaryWriter:
        def __init__(self, folder, *, purge_step):
            assert (folder, purge_step) == (str(tmp_path / "run" / "tensorboard"), 1)

        def add_scalar(self, tag, value, step):
            written[tag, step] = value

        def flush(self):
            pass

        def close(self):
            written["closed"] = True

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(torch.utils, "tensorboard", module, raising=False)
    train(FakeShardSet(tmp_path / "s"), tiny_recipe(epochs=2), tmp_path / "run", device="cpu", tensorboard=True)
    first, second = read_metrics(tmp_path / "run")
    assert written["loss_total", 3] == first["loss_total"]
    assert written["cka/2", 6] == second["cka"][2]
    assert written["firing_rates/node1", 6] == second["firing_rates"]["node1"]
    assert written["closed"]


def test_tensorboard_itself_reads_what_was_written(tmp_path):
    """The real package, a run that is stopped in between, and every figure once."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shards, recipe, run, stop = FakeShardSet(tmp_path / "s"), tiny_recipe(epochs=3), tmp_path / "run", StopRequest()

    class StoppingBar(Bar):
        def update(self, n):
            super().update(n)
            if self.steps == 5:
                stop.ask(signal.SIGTERM)

    with pytest.raises(RunStoppedError):
        train(shards, recipe, run, device="cpu", tensorboard=True, stop=stop, progress=StoppingBar)
    train(shards, recipe, run, device="cpu", tensorboard=True)
    accumulator = EventAccumulator(str(run / "tensorboard"))
    accumulator.Reload()
    lines = read_metrics(run)
    expected = {(name, line["step"]): value for line in lines for name, value in flatten_numbers(line).items()}
    expected = {key: value for key, value in expected.items() if key[0] not in ("epoch", "step")}
    written = {
        (tag, event.step): event.value for tag in accumulator.Tags()["scalars"] for event in accumulator.Scalars(tag)
    }
    assert sum(len(accumulator.Scalars(tag)) for tag in accumulator.Tags()["scalars"]) == len(written)
    assert written == pytest.approx(expected, rel=1e-6)


def table(run):
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_holds_the_log_digit_for_digit(tmp_path):
    train(FakeShardSet(tmp_path / "s"), tiny_recipe(epochs=3, validate_every=2), tmp_path / "run", device="cpu")
    rows, lines = table(tmp_path / "run"), read_metrics(tmp_path / "run")
    assert [{name: json.loads(cell) for name, cell in row.items() if cell} for row in rows] == [
        flatten_numbers(x) for x in lines
    ]
    assert rows[0]["firing_rates/node1"] == rows[0]["validation_loss"] == ""
    order = list(rows[0])
    assert order[:3] == ["epoch", "step", "lr"]
    assert (
        order.index("cka/3")
        < order.index("coefficients/0")
        < order.index("firing_rates/node1")
        < order.index("seconds")
    )


def test_an_interrupted_run_has_its_table_too(tmp_path):
    shards, recipe, run, stop = FakeShardSet(tmp_path / "s"), tiny_recipe(epochs=3), tmp_path / "run", StopRequest()
    with pytest.raises(RunStoppedError):  # epochs have three steps
        train(shards, recipe, run, device="cpu", stop=stop, progress=Stopper(stop, 4))
    assert [row["epoch"] for row in table(run)] == ["1"]
    train(shards, recipe, run, device="cpu")
    assert [row["epoch"] for row in table(run)] == ["1", "2", "3"]


def test_dead_and_saturated_layers_are_named_once(caplog):
    watch = FiringWatch()
    rates = {"first": 0.0, "second": 0.3, "third": 0.999}
    assert watch.warn(rates, epoch=1, step=7, where="the validation recordings") == [
        ("first", "dead"),
        ("third", "saturated"),
    ]
    assert "after step 7 (epoch 1): layer first is dead, firing rate 0 over the validation recordings" in caplog.text
    assert watch.warn(rates, epoch=2, step=14, where="x") == []
    assert watch.warn({"first": 1.0}, epoch=3, step=21, where="x") == [("first", "saturated")]


@pytest.mark.parametrize(("bias", "word"), [(-1e6, "dead"), (1e6, "saturated")])
@pytest.mark.parametrize("validation", [0, 9])
def test_a_run_with_a_dead_layer_says_so(tmp_path, monkeypatch, caplog, bias, word, validation):
    from spikebridge.train.trainer import epochs

    make = epochs.make_network

    def broken(arguments, *, seed):
        network = make(arguments, seed=seed)
        torch.nn.init.constant_(network.fc1.bias, bias)
        return network

    monkeypatch.setattr(epochs, "make_network", broken)
    train(FakeShardSet(tmp_path / "s", validation=validation), tiny_recipe(), tmp_path / "run", device="cpu")
    assert caplog.text.count(f"layer node1 is {word}") == 1
    assert "after step 3 (epoch 1)" in caplog.text
    json.loads((tmp_path / "run" / "result.json").read_text())


def test_on_a_device_the_loss_is_checked_now_and_then(monkeypatch):
    """The rule for CUDA, run on the CPU: nothing is read between two checks, and the first bad step is known."""
    network = torch.nn.Linear(1, 1)
    watch = FiniteWatch(network, torch.device("cpu"))
    watch._waits = True
    reads = []
    monkeypatch.setattr(finite, "broken_weights", lambda _: reads.append(1) or ["weight"])
    good, bad = (SimpleNamespace(total=torch.tensor(value)) for value in (1.0, float("nan")))
    for step in range(20):
        watch.check_loss(bad if step in (12, 15) else good, (None, None), step=step)
    assert not reads
    with pytest.raises(NonFiniteError, match=r"step 12: .*noticed after step 19; not finite by now: weight"):
        watch.raise_if_broken(step=19)
    for step in range(20, 49):
        watch.check_loss(good, (None, None), step=step)
    with pytest.raises(NonFiniteError, match="noticed after step 49"):
        watch.check_loss(good, (None, None), step=49)
