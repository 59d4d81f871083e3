"""How early, how sparse, how cheap: accuracy over time steps, spikes, and an energy estimate with its formula."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spikebridge.pipeline.ui.html import figure, figures, paragraph, table
from spikebridge.train.evaluation.energy import ACCUMULATE_PJ, MULTIPLY_ACCUMULATE_PJ, energy_nj
from spikebridge.train.report.analysis import Examination
from spikebridge.train.report.figures import Drawing
from spikebridge.train.report.points import over_steps
from spikebridge.train.report.records import RunRecord
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


FIRING = ("neurons of", "neurons", "spikes per neuron and step", "spikes")


def early_exit(record: RunRecord, seen: Examination, *, prefix: str) -> str:
    """The curve, and from which step on the accuracy is within a point of the last."""
    percent = 100 * seen.early
    drawing = Drawing(f"{prefix}-early", "Accuracy when only the first time steps count")
    svg = over_steps(drawing, {"test": [percent]}, chance=100 / len(record.result["classes"]))
    enough = next(t for t, value in enumerate(percent, 1) if value >= percent[-1] - 1)
    caption = (
        f"Scores averaged over the first t time steps, {of_all(seen)}. With {enough} of {len(percent)} steps "
        f"the accuracy is within one point of the {percent[-1]:.1f} % of all."
    )
    return figures([figure(svg, title="Early exit.", caption=caption)])


def of_all(seen: Examination) -> str:
    """Which recordings were looked at."""
    if seen.recordings == seen.available:
        return f"all {seen.available:,} test recordings"
    return f"{seen.recordings:,} of {seen.available:,} test recordings, evenly spaced"


def spikes_and_energy(seen: Examination) -> str:
    """Two tables, the totals above them, and how they were computed."""
    cost = seen.cost
    ratio = cost.dense_energy_nj / cost.energy_nj if cost.energy_nj else 0.0
    once = cost.dense_energy_nj / cost.steps
    spikes = f", with {seen.spikes:,.0f} spikes" if seen.spiking else ""
    headline = (
        f'<div class="headline"><b>{micro(cost.energy_nj)} µJ</b><span>per recording, estimated{spikes}</span></div>'
    )
    pairs = [
        (
            "this network, measured spikes" if seen.spiking else "this network, which does not spike",
            micro(cost.energy_nj),
            "1",
        ),
        (f"ANN of the same layers, {cost.steps} frames per recording", micro(cost.dense_energy_nj), f"{ratio:.2f}"),
        ("ANN of the same layers, one frame per recording", micro(once), f"{ratio / cost.steps:.2f}"),
    ]
    compared = table(("", "µJ per recording", "relative"), pairs)
    firing = [
        (layer, f"{seen.neurons[layer]:,}", f"{rate:.4f}", f"{rate * seen.neurons[layer] * cost.steps:,.0f}")
        for layer, rate in seen.rates.items()
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
        + (f"<h3>Spikes per recording</h3>{table(FIRING, firing)}" if seen.spiking else "")
        + "<h3>Operations per recording, in millions</h3>"
        + table(("layer", "accumulate", "multiply", f"ANN, {cost.steps} frames", "µJ"), operations)
        + paragraph(f"Means over {of_all(seen)}. {FORMULA}", note=True)
    )


def energies(groups: Mapping[str, Sequence[Examination]]) -> str:
    """Energy and spikes of groups of runs, mean and standard deviation."""
    rows = []
    for name, several in groups.items():
        if not several:
            continue
        rows.append(
            (
                name,
                str(len(several)),
                _spread([one.spikes for one in several], "{:,.0f}"),
                _spread([one.cost.energy_nj / 1000 for one in several], "{:,.2f}"),
                _spread([one.cost.dense_energy_nj / 1000 for one in several], "{:,.2f}"),
            )
        )
    head = ("method", "runs", "spikes per recording", "µJ per recording", "ANN of the same layers, µJ")
    return table(head, rows) if rows else ""


def _spread(values: Sequence[float], form: str) -> str:
    mean, std = mean_and_std(values)
    assert mean is not None
    return form.format(mean) + ("" if std is None else f" ± {form.format(std)}")


def micro(nanojoule: float) -> str:
    """Microjoule with three digits that matter."""
    value = nanojoule / 1000
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


def millions(count: float) -> str:
    """Millions with two decimals; a dash for none."""
    return f"{count / 1e6:,.2f}" if count else "–"
