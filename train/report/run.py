"""The sections about one run."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spikebridge.pipeline.ui.html import facts, paragraph, preformatted, section, table, tags
from spikebridge.train.config.recipes import brief, changed_settings, load_recipe, recipe_from
from spikebridge.train.config.shipped import RECIPES
from spikebridge.train.errors import RecipeError
from spikebridge.train.report.analysis import Analysis
from spikebridge.train.report.format import percent
from spikebridge.train.report.records import RunRecord
from spikebridge.train.report.reproduce import reproduce
from spikebridge.train.report.robustness import robustness_sections
from spikebridge.train.report.sections.camera import camera
from spikebridge.train.report.sections.confusion import confusion, per_class
from spikebridge.train.report.sections.cost import early_exit, neurobench, spikes_and_energy
from spikebridge.train.report.sections.curves import curves
from spikebridge.train.report.sections.data import data
from spikebridge.train.report.sections.domains import domains
from spikebridge.train.report.sections.samples import most_confidently_wrong, samples
from spikebridge.train.runs.environment import machine_words, origin_words, packages_words
from spikebridge.train.runs.result import Environment, RunResult
from spikebridge.train.statistics import FEW, wilson, worth_of_one

if TYPE_CHECKING:
    from spikebridge.pipeline.shards.reader import ShardSet


@dataclass(frozen=True)
class ReportedRun:
    """A run, and what its report may show besides its files."""

    record: RunRecord
    shards: ShardSet | None
    """Its shard set; None where it is not at hand."""
    analysis: Analysis | None
    """Of its network; None where that was not possible."""
    missing: str
    """Why there is no shard set or no analysis; empty where there is."""
    prefix: str
    """Letters, digits and `-`; unique in the page."""
    in_depth: bool = True
    """Whether what takes seconds, or is alike in every run, is shown: both domains, where the network looks, data."""


def run_sections(run: ReportedRun) -> str:
    """Return everything about one run, below the heading."""
    record, shards, analysis, prefix = run.record, run.shards, run.analysis, run.prefix
    because = paragraph(run.missing)
    first_only = paragraph("Shown for the first run of every group only.")
    simulated = camera(record)
    if simulated and not run.in_depth:
        simulated = first_only
    features = domains(record, analysis, prefix=prefix) if analysis and run.in_depth else ""
    return "\n".join(
        (
            section("Summary", summary(record), name="summary"),
            section("Curves", curves(record, prefix=prefix), name="curves"),
            section(
                "Accuracy over time steps",
                early_exit(record, analysis, prefix=prefix) if analysis else because,
                name="early",
            ),
            kept_evaluation(record, prefix=prefix),
            section("Confusion matrix", confusion(record, prefix=prefix), name="confusion"),
            section("Classes", per_class(record), name="classes"),
            section(
                "Test samples",
                samples(record, shards, in_depth=run.in_depth and analysis is not None)
                if shards and record.result.get("tested", True)
                else because,
                name="samples",
            ),
            section(
                "Static images and recordings in one plane",
                features or (first_only if analysis else because),
                name="domains",
            ),
            section(
                "Spikes and energy",
                neurobench(record, formula=not analysis) + (spikes_and_energy(analysis) if analysis else because),
                name="energy",
            ),
            section("The simulated camera", simulated, name="camera") if simulated else "",
            section("Data", (data(shards) if run.in_depth else first_only) if shards else because, name="data"),
            section("Settings", changed(record) + preformatted(record.config), name="settings"),
            section("Reproduce", reproduce(record, shards), name="reproduce"),
        )
    )


def kept_evaluation(record: RunRecord, *, prefix: str) -> str:
    """Return what `evaluate --keep` left: accuracy over time and under failures; empty without."""
    kept = record.evaluation
    if kept is None:
        return ""
    about = f"Kept by evaluate: {kept['samples']:,} recordings of split {kept['split']}, {kept['weights']} weights."
    return robustness_sections(dict(kept), prefix=f"{prefix}-kept", about=about)


def one_run(record: RunRecord) -> str:
    """Return the sentence that one run proves nothing, and the command that compares."""
    recipe, method = str(record.result.get("recipe_name", "RECIPE")), record.method
    methods = "event_only,kt" if method in ("event_only", "kt") else f"event_only,{method}"
    command = f"spikebridge compare --shards SHARDS --recipe {shlex.quote(recipe)} --methods {methods} --out DIR"
    why = "One run proves nothing about a method: the seed alone moves its accuracy. This compares over several seeds:"
    return paragraph(f"{why} {command}", note=True)


def changed(record: RunRecord) -> str:
    """Return the settings in which a run differs from the shipped recipe that it began with; empty for others."""
    name = str(record.result.get("recipe_name", ""))
    if name not in RECIPES.names():
        return ""
    try:
        recipe, own = load_recipe(name), recipe_from(record.result["recipe"])
    except (RecipeError, KeyError):
        return ""  # of a version whose recipes had other settings
    rows = [(key, str(brief(there)), str(brief(here))) for key, (there, here) in changed_settings(recipe, own).items()]
    if not rows:
        return paragraph(f"As in recipe {name}:")
    return table(("changed", f"recipe {name}", "this run"), rows) + paragraph("All settings:")


def labels(result: RunResult) -> str:
    """Return the data set, and what a reader must not overlook: simulated recordings, the protocol."""
    marks = [(f"data set {result.get('dataset', 'unknown')}", False)]
    if result.get("simulated"):
        marks.append(("SIMULATED recordings", True))
    if result.get("protocol") == "legacy":
        marks.append(("LEGACY protocol: checkpoint chosen on the test split, accuracies optimistic", True))
    elif result.get("protocol") == "leaky":
        marks.append(("LEAKY protocol: static images of held-out recordings in the pool, no result", True))
    elif result.get("protocol"):
        marks.append((f"protocol {result['protocol']}", False))
    return tags(marks)


def summary(record: RunRecord) -> str:
    """Return the headline and the facts that it needs to be believed."""
    result, n = record.result, record.result.get("samples", {})
    test, tested = result.get("test_accuracy"), n.get("test", 0)
    headline = f"<b>{percent(test)}</b><span>test accuracy, {tested:,} samples</span>"
    if result.get("tested") is False:
        headline = f"<b>{percent(result['validation_accuracy'])}</b><span>validation accuracy; test not scored</span>"
    if test is not None and 0 < tested < FEW:
        headline += f'<span class="note">{worth_of_one(tested, "test")}</span>'
    elif test is not None and tested:
        low, high = wilson(test, tested)
        headline += (
            f'<span class="note">95 % interval {100 * low:.1f} to {100 * high:.1f} % from n alone (Wilson)</span>'
        )
    checked = n.get("validation", 0)
    validation = percent(result.get("validation_accuracy"))
    if checked:
        validation += f", {checked:,} samples (one is {100 / checked:.1f} points)"
    train = result.get("recipe", {}).get("train", {})
    seconds = result.get("training_seconds")
    pairs = (
        ("Validation accuracy", validation),
        ("Test accuracy of the last epoch", percent(result.get("last_test_accuracy"))),
        ("Checkpoint", f"epoch {result.get('best_epoch', '?')} of {result.get('epochs', '?')}"),
        ("Training recordings", _training(result)),
        ("Static images in the pool", _count(result.get("static_images"))),
        ("Network", " ".join(str(train[k]) for k in ("model", "neuron", "surrogate") if k in train)),
        ("Set by the method", ", ".join(f"{k} = {v}" for k, v in result.get("changed_by_method", {}).items())),
        ("Parameters", _count(result.get("parameters"))),
        ("Steps", _count(result.get("steps"))),
        ("Time in training and validation", duration(seconds) if seconds is not None else ""),
        ("Seed", record.seed),
        ("Computed on", _machine(result)),
        ("Machine", _made(result, machine_words)),
        ("Made with", _made(result, origin_words)),
        ("Packages", _made(result, packages_words)),
        ("Recipe", str(result.get("recipe_name", ""))),
        ("Checkpoint chosen by", str(result.get("selection", ""))),
        ("Shard set", str(result.get("shard_set", ""))),
    )
    return f'<div class="headline">{headline}</div>' + facts(
        (("Worst sample", _worst(record)), *pairs), wide=("Worst sample", "Checkpoint chosen by", "Shard set")
    )


def _worst(record: RunRecord) -> str:
    """Return the surest mistake on the test split and the command that shows it; empty without one."""
    predictions, classes = record.predictions, record.result["classes"]
    wrong = most_confidently_wrong(predictions) if predictions else []
    if predictions is None or not wrong:
        return ""
    worst = wrong[0]
    key, label, predicted = (
        predictions.keys[worst],
        classes[predictions.labels[worst]],
        classes[predictions.predicted[worst]],
    )
    confidence = percent(float(predictions.confidence[worst]))
    command = f"spikebridge inspect SHARDS --sample {key} --html worst.html"
    return f"{key}: {label} taken for {predicted} with confidence {confidence}. Look at it: {command}"


def duration(seconds: float) -> str:
    """Format a length of time as a reader says it."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


def _training(result: RunResult) -> str:
    count = _count(result.get("samples", {}).get("train"))
    per = result.get("recipe", {}).get("train", {}).get("events_per_class")
    return f"{count} ({per} per class)" if count and per else count


def _made(result: RunResult, words: Callable[[Environment], str]) -> str:
    """Say in words what a run was made with; nothing of runs of early versions."""
    made = result.get("environment")
    return "" if made is None else words(made)


def _machine(result: RunResult) -> str:
    parts = [str(result[name]) for name in ("device",) if name in result]
    parts += [f"{result['threads']} {'thread' if result['threads'] == 1 else 'threads'}"] if "threads" in result else []
    parts += [f"torch {result['torch']}"] if "torch" in result else []
    parts += [f"neurons by {result['backend']}"] if "backend" in result else []
    return ", ".join(parts)
