"""Both domains in one plane, before and after training: t-SNE of their features, by scikit-learn, lazily.

Axes: m static images or recordings, F features.

Source: van der Maaten and Hinton, "Visualizing data using t-SNE", JMLR 9, 2008.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.ui.html import figure, figures, paragraph
from spikebridge.train.report.analysis import Analysis, DomainFeatures
from spikebridge.train.report.plots.drawing import Drawing
from spikebridge.train.report.plots.points import scatter
from spikebridge.train.report.records import RunRecord

PERPLEXITY, ITERATIONS = 30.0, 500
FEWEST = 4
"""Points that a plot needs."""

Values = NDArray[np.float64]


def domains(record: RunRecord, analysis: Analysis, *, prefix: str) -> str:
    """Draw both domains before and after training, or return a sentence that says why not."""
    if analysis.after is None:
        return paragraph("No plot: the static pool is empty, or its images have other channels than the network takes.")
    if len(analysis.event_labels) < FEWEST or len(analysis.static_labels) < FEWEST:
        return paragraph("No plot: too few recordings or static images.")
    parts = []
    word = "training" if record.method == "event_only" else "transfer"
    for when, features in (("before", analysis.before), ("after", analysis.after)):
        if features is None:
            continue
        title = f"{when.capitalize()} {word}."
        points = embed(np.concatenate([features.static, features.event]))
        if points is None:
            parts.append(paragraph(f"{title} All features are equal: the layer is silent, or always active."))
            continue
        m = len(features.static)
        svg = scatter(
            Drawing(f"{prefix}-tsne-{when}", f"Features of static images and recordings in a plane. {title}"),
            {
                "static images": (points[:m], analysis.static_labels),
                "event recordings": (points[m:], analysis.event_labels),
            },
            names=record.result["classes"],
        )
        own, other = neighbours(features, analysis)
        caption = (
            f"For {own:.0f} % of the recordings the nearest static image is one of their own class; for {other:.0f} % "
            "it is nearer than every other recording."
        )
        parts.append(figure(svg, title=title, caption=caption))
    note = (
        f"Features that the alignment compares, averaged over time, of {len(analysis.static_labels)} static images of "
        f"the pool and {len(analysis.event_labels)} test recordings, by t-SNE (perplexity {PERPLEXITY:.0f}). Each plot "
        "has a plane of its own, whose axes mean nothing. The percentages come from the features themselves, by cosine."
    )
    if analysis.before is None:
        note += " The weights that training began with came from elsewhere, so there is no plot of before."
    return figures(parts) + paragraph(note, note=True)


def embed(features: NDArray[np.float32]) -> Values | None:
    """Embed features [m,F] as points [m,2], bit-identical for any number of cores; None where all are equal."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if not np.ptp(features, axis=0).any():
        return None
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    with threadpool_limits(1):
        model = TSNE(perplexity=perplexity, init="pca", random_state=0, max_iter=ITERATIONS, n_jobs=1)
        points: Values = model.fit_transform(features.astype(np.float64)).astype(np.float64)
    return points


def neighbours(features: DomainFeatures, analysis: Analysis) -> tuple[float, float]:
    """Return the per cent of recordings whose nearest static image has their class, and whose nearest is static."""
    static, event = _unit(features.static), _unit(features.event)
    across, within = event @ static.T, event @ event.T
    np.fill_diagonal(within, -np.inf)
    own = analysis.static_labels[across.argmax(1)] == analysis.event_labels
    return 100 * float(own.mean()), 100 * float((across.max(1) > within.max(1)).mean())


def _unit(features: NDArray[np.float32]) -> Values:
    values = features.astype(np.float64)
    lengths: Values = np.linalg.norm(values, axis=1, keepdims=True)
    unit: Values = values / np.maximum(lengths, 1e-30)
    return unit
