"""The sections that put several runs side by side: grouped, with mean and spread over seeds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from spikebridge.pipeline.ui.html import figure, figures, paragraph, section, table
from spikebridge.train.report.analysis import Analysis
from spikebridge.train.report.format import percent, points, spread
from spikebridge.train.report.plots.drawing import Drawing
from spikebridge.train.report.plots.epochs import bundles
from spikebridge.train.report.plots.points import dots, over_steps
from spikebridge.train.report.records import RunRecord, group_runs
from spikebridge.train.report.robustness import draw_side_by_side
from spikebridge.train.report.run import ReportedRun
from spikebridge.train.report.sections.cost import energies, neurobench_of_groups
from spikebridge.train.statistics import mean_and_std

Figure = Literal["test_accuracy", "validation_accuracy", "last_test_accuracy"]
FIGURES: Mapping[str, Figure] = {
    "test": "test_accuracy",
    "validation": "validation_accuracy",
    "last epoch, test": "last_test_accuracy",
}
CURVES = (
    ("validation_accuracy", "Validation accuracy.", "accuracy in %", 100.0, (0.0, 102.0)),
    ("train_accuracy", "Training accuracy.", "accuracy in %", 100.0, (0.0, 102.0)),
    ("validation_loss", "Validation loss.", "cross entropy (nats)", 1.0, None),
)
Groups = Mapping[str, Sequence[RunRecord]]


def comparison_sections(reported: Sequence[ReportedRun]) -> str:
    """Return tables and overlaid curves of several runs."""
    groups = group_runs([run.record for run in reported])
    by_name = {run.record.name: run.analysis for run in reported}
    analyses = {name: [one for run in runs if (one := by_name[run.name])] for name, runs in groups.items()}
    energy = energies(analyses)
    if energy:
        energy = "<h3>Spikes and energy</h3>" + energy
        energy += paragraph("Estimates; the formula stands in every run's section on spikes and energy.", note=True)
    if costs := neurobench_of_groups(groups):
        energy += "<h3>Cost by NeuroBench's definitions, means over runs</h3>" + costs
    tables = _table(groups) + _differences(groups) + _notes(groups) + energy
    return "\n".join(
        (
            section("Comparison", tables, name="comparison"),
            section("Curves of all runs", _curves(groups, _early(groups, analyses)), name="overlay"),
            *_kept_evaluations(groups),
            section("Single results", _single(groups), name="runs"),
        )
    )


def _table(groups: Groups) -> str:
    rows = []
    for name, runs in groups.items():
        cells = [_mean(runs, key) for key in FIGURES.values()]
        n = sorted({str(run.result.get("samples", {}).get("train", "?")) for run in runs})
        rows.append((name, str(len(runs)), *cells, " or ".join(n)))
    return table(("method", "runs", *(f"{name} %" for name in FIGURES), "training recordings"), rows)


def _mean(runs: Sequence[RunRecord], key: Figure) -> str:
    return spread(*mean_and_std([run.result.get(key) for run in runs])) or "–"


def _differences(groups: Groups) -> str:
    """Return differences in test accuracy, seed by seed, of groups that share all their seeds."""
    rows = []
    for (first, one), (second, other) in itertools.combinations(groups.items(), 2):
        a, b = _by_seed(one), _by_seed(other)
        if set(a) != set(b) or len(a) < len(one) or len(b) < len(other):
            continue
        gains = [b[seed] - a[seed] for seed in a]
        mean, std = mean_and_std(gains)
        total = spread(mean, std, sign="+").replace("-", "−")
        rows.append((f"{second} minus {first}", total, ", ".join(map(points, gains))))
    if not rows:
        return ""
    return "<h3>Difference in test accuracy, seed by seed</h3>" + table(("", "points", "each seed"), rows)


def _by_seed(runs: Sequence[RunRecord]) -> dict[str, float]:
    return {run.seed: float(accuracy) for run in runs if (accuracy := run.result.get("test_accuracy")) is not None}


def _notes(groups: Groups) -> str:
    runs = [run for group in groups.values() for run in group]
    n = sorted({run.result.get("samples", {}).get("test", 0) for run in runs})
    notes = [
        "± is the standard deviation over runs (n − 1); a single run has none. Test: the checkpoint that each run "
        f"chose, on {' or '.join(f'{count:,}' for count in n)} samples."
    ]
    if len({run.result.get("shard_set") for run in runs}) > 1:
        notes.append("The runs used different shard sets: their test splits may differ.")
    for name, group in groups.items():
        if len({run.seed for run in group}) < len(group):
            notes.append(f"{name}: a seed occurs more than once, so the spread is not one over seeds.")
    return "".join(paragraph(note, note=True) for note in notes)


def _early(groups: Groups, analyses: Mapping[str, Sequence[Analysis]]) -> str:
    """Draw accuracy over time steps, where the networks were analysed."""
    accuracies = {name: [100 * one.early for one in several] for name, several in analyses.items() if several}
    if not accuracies:
        return ""
    chance = 100 / len(next(iter(groups.values()))[0].result["classes"])
    svg = over_steps(Drawing("all-early", "Accuracy over time steps by group"), accuracies, chance=chance)
    return figure(
        svg, title="Early exit.", caption="Test accuracy when only the first time steps are averaged. Thin: one run."
    )


def _kept_evaluations(groups: Groups) -> list[str]:
    """Return a section with what `evaluate --keep` left of the runs, side by side; none without."""
    kept = {name: [one for run in runs if (one := run.evaluation)] for name, runs in groups.items()}
    ways = [(one["split"], one["weights"], one.get("corrupt_seed", 0)) for runs in kept.values() for one in runs]
    if not ways:
        return []
    split, weights, seed = ways[0]
    alike = {
        name: [one for one in runs if (one["split"], one["weights"], one.get("corrupt_seed", 0)) == ways[0]]
        for name, runs in kept.items()
    }
    drawings = draw_side_by_side(alike, split=split, prefix="all-kept")
    panels = [figure(one.svg(), title=one.description, caption="Means over the runs of a line.") for one in drawings]
    counted = ", ".join(f"{len(runs)} of {name}" for name, runs in alike.items() if runs)
    note = f"Kept by evaluate: split {split}, {weights} weights, failures with seed {seed}; runs: {counted}."
    if others := sum(way != ways[0] for way in ways):
        note += f" {others} more are of another split, weights or seed, and in no line."
    text = figures(panels) + paragraph(note, note=True)
    return [section("Accuracy over time, and when the camera fails", text, name="all-kept")]


def _curves(groups: Groups, early: str) -> str:
    panels = [_dots(groups), early]
    for key, title, label, factor, limits in CURVES:
        curves = {
            name: [(run.epochs, factor * run.column(key)) for run in runs if np.isfinite(run.column(key)).any()]
            for name, runs in groups.items()
        }
        curves = {name: runs for name, runs in curves.items() if runs}
        if curves:
            svg = bundles(Drawing(f"all-{key.replace('_', '-')}", title), curves, label=label, limits=limits)
            panels.append(figure(svg, title=title, caption="Thin: one run. Thick: mean over the runs."))
    return figures(panel for panel in panels if panel)


def _dots(groups: Groups) -> str:
    accuracies = {}
    for name, runs in groups.items():
        values = [100 * accuracy for run in runs if (accuracy := run.result.get("test_accuracy")) is not None]
        mean, std = mean_and_std(values)
        if mean is not None:
            accuracies[name] = (values, mean, std)
    if not accuracies:
        return ""
    svg = dots(Drawing("all-test", "Test accuracy by group"), accuracies, label="test accuracy in %")
    return figure(svg, title="Test accuracy.", caption="Rings: runs. Diamond: mean ± standard deviation (n − 1).")


def _single(groups: Groups) -> str:
    rows = [
        (
            run.name,
            name,
            run.seed,
            percent(run.result.get("test_accuracy")),
            percent(run.result.get("validation_accuracy")),
            f"{run.result.get('best_epoch', '?')} of {run.result.get('epochs', '?')}",
            f"{run.result.get('training_seconds', math.nan):.0f}",
        )
        for name, runs in groups.items()
        for run in runs
    ]
    return table(("run", "method", "seed", "test", "validation", "epoch chosen", "seconds"), rows)
