"""How early, how sparse, how cheap: accuracy over time steps, spikes, and an energy estimate with its formula."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spikebridge.pipeline.ui.html import figure, figures, paragraph, table
from spikebridge.train.evaluation.energy import ACCUMULATE_PJ, MULTIPLY_ACCUMULATE_PJ, energy_nj
from spikebridge.train.report.analysis import Analysis
from spikebridge.train.report.format import mean_text
from spikebridge.train.report.plots.drawing import Drawing
from spikebridge.train.report.plots.points import over_steps
from spikebridge.train.report.records import RunRecord
from spikebridge.train.runs.result import NEUROBENCH, NeuroBench
from spikebridge.train.statistics import mean_and_std

FORMULA = (
    f"Energy = {ACCUMULATE_PJ} pJ × accumulations + {MULTIPLY_ACCUMULATE_PJ} pJ × multiply-accumulations: a 32-bit "
    "floating-point addition, and a multiplication with an addition, in 45 nm (Horowitz, “Computing's energy problem”, "
    "ISSCC 2014). Counted while the recordings ran through the network: a spike costs one accumulation for every "
    "connection of its neuron (behind a 2×2 average each of the four neurons' spikes counts); the first layer, which "
    "reads event counts, and layers whose input is not made of spikes multiply, at every time step, for every input. "
    "The ANN has the same layers and multiplies everywhere. Left out: memory traffic, neuron updates, biases, pooling, "
    "normalisation (which folds into the weights), and what a sparse first layer could save. It is an estimate for "
    "comparison, not a measurement of any chip."
)


MEANINGS = {
    "footprint": "bytes of parameters and buffers",
    "connection_sparsity": "share of weights that are 0",
    "activation_sparsity": "share of the neurons' outputs that are 0",
    "effective_macs": "multiply-accumulates per recording, zeros left out",
    "effective_acs": "accumulates per recording, zeros left out",
    "dense": "synaptic operations per recording, zeros included",
    "membrane_updates": "membrane potentials changed per recording",
    "execution_rate": "time steps per second of data, Hz",
}
"""Of the figures of NeuroBench, with their units."""
FIRING = ("neurons of", "neurons", "spikes per neuron and step", "spikes")


def early_exit(record: RunRecord, analysis: Analysis, *, prefix: str) -> str:
    """Draw the curve, and name the step from which on the accuracy is within a point of the last."""
    percent = 100 * analysis.early
    drawing = Drawing(f"{prefix}-early", "Accuracy when only the first time steps count")
    svg = over_steps(drawing, {"test": [percent]}, chance=100 / len(record.result["classes"]))
    enough = next(t for t, value in enumerate(percent, 1) if value >= percent[-1] - 1)
    caption = (
        f"Scores averaged over the first t time steps, {recordings_text(analysis)}. With {enough} of {len(percent)} "
        f"steps the accuracy is within one point of the {percent[-1]:.1f} % of all."
    )
    return figures([figure(svg, title="Early exit.", caption=caption)])


def recordings_text(analysis: Analysis) -> str:
    """Return how many recordings were analysed, in words."""
    if analysis.recordings == analysis.available:
        return f"all {analysis.available:,} test recordings"
    return f"{analysis.recordings:,} of {analysis.available:,} test recordings, evenly spaced"


def spikes_and_energy(analysis: Analysis) -> str:
    """Return two tables, the totals above them, and how they were computed."""
    cost = analysis.cost
    ratio = cost.dense_energy_nj / cost.energy_nj if cost.energy_nj else 0.0
    once = cost.dense_energy_nj / cost.steps
    spikes = f", with {analysis.spikes:,.0f} spikes" if analysis.spiking else ""
    headline = (
        f'<div class="headline"><b>{micro(cost.energy_nj)} µJ</b><span>per recording, estimated{spikes}</span></div>'
    )
    pairs = [
        (
            "this network, measured spikes" if analysis.spiking else "this network, which does not spike",
            micro(cost.energy_nj),
            "1",
        ),
        (f"ANN of the same layers, {cost.steps} frames per recording", micro(cost.dense_energy_nj), f"{ratio:.2f}"),
        ("ANN of the same layers, one frame per recording", micro(once), f"{ratio / cost.steps:.2f}"),
    ]
    compared = table(("", "µJ per recording", "relative"), pairs)
    firing = [
        (layer, f"{analysis.neurons[layer]:,}", f"{rate:.4f}", f"{rate * analysis.neurons[layer] * cost.steps:,.0f}")
        for layer, rate in analysis.rates.items()
    ]
    operations = [
        (
            layer,
            millions(cost.accumulates(layer)),
            millions(cost.multiplies(layer)),
            millions(cost.dense(layer)),
            micro(energy_nj(cost.accumulates(layer), cost.multiplies(layer))),
        )
        for layer in cost.layers
    ]
    return (
        headline
        + compared
        + (f"<h3>Spikes per recording</h3>{table(FIRING, firing)}" if analysis.spiking else "")
        + "<h3>Operations per recording, in millions</h3>"
        + table(("layer", "accumulate", "multiply", f"ANN, {cost.steps} frames", "µJ"), operations)
        + paragraph(f"Means over {recordings_text(analysis)}. {FORMULA}", note=True)
    )


def neurobench(record: RunRecord, *, formula: bool = True) -> str:
    """Return the figures of NeuroBench in result.json, and the energy estimate; empty for a run without.

    `formula` says how the estimate is made, where nothing below does.
    """
    figures, energy = record.result.get("neurobench"), record.result.get("energy_nj")
    if figures is None:
        return ""
    rows = [(name, figure_text(figures, name), MEANINGS[name]) for name in NEUROBENCH]
    if energy is not None:
        rows.append(("energy, derived", f"{micro(energy)} µJ", "estimate per recording, by the formula below"))
    text = (
        f"Names and definitions of NeuroBench {figures['version']}, counted over {figures['recordings']:,} recordings. "
        "Operations count as accumulates where all inputs of a layer are -1, 0 or 1; behind a 2×2 average they are not."
    )
    text += f" {FORMULA}" if formula else ""
    return table(("", "", "what it is"), rows, words=(2,)) + paragraph(text, note=True)


def figure_text(figures: NeuroBench | dict[str, float | None], name: str) -> str:
    """Format a figure of NeuroBench: shares with four digits, counts in full, a dash for none."""
    value = dict(figures).get(name)
    if not isinstance(value, int | float):
        return "–"
    return (
        f"{value:.4f}"
        if name.endswith("sparsity")
        else f"{value:,.1f}"
        if name == "execution_rate"
        else f"{value:,.0f}"
    )


def neurobench_of_groups(groups: Mapping[str, Sequence[RunRecord]]) -> str:
    """Return a table of NeuroBench's figures of groups of runs, their means; empty where no run has any."""
    rows = []
    for name, runs in groups.items():
        known = [figures for run in runs if (figures := run.result.get("neurobench"))]
        means = {one: mean_and_std([dict(figures)[one] for figures in known])[0] for one in NEUROBENCH}  # type: ignore[misc]
        if known:
            rows.append((name, str(len(known)), *(figure_text(means, one) for one in NEUROBENCH)))
    return table(("method", "runs", *NEUROBENCH), rows) if rows else ""


def energies(groups: Mapping[str, Sequence[Analysis]]) -> str:
    """Return a table of energy and spikes of groups of runs, mean and standard deviation."""
    rows = []
    for name, several in groups.items():
        if not several:
            continue
        rows.append(
            (
                name,
                str(len(several)),
                mean_text([one.spikes for one in several], ",.0f"),
                mean_text([one.cost.energy_nj / 1000 for one in several], ",.2f"),
                mean_text([one.cost.dense_energy_nj / 1000 for one in several], ",.2f"),
            )
        )
    head = ("method", "runs", "spikes per recording", "µJ per recording", "ANN of the same layers, µJ")
    return table(head, rows) if rows else ""


def micro(nanojoule: float) -> str:
    """Format microjoules with three digits that matter."""
    value = nanojoule / 1000
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def millions(count: float) -> str:
    """Format millions with two decimals; a dash for none."""
    return f"{count / 1e6:,.2f}" if count else "–"
