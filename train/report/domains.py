"""Both domains in one picture, before and after training: t-SNE of their features, by scikit-learn, lazily.

Axes: m static images or recordings, F features.

Source: van der Maaten and Hinton, "Visualizing data using t-SNE", JMLR 9, 2008.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.ui.html import figure, figures, paragraph
from spikebridge.train.report.analysis import Domains, Examination
from spikebridge.train.report.figures import Drawing
from spikebridge.train.report.points import scatter
from spikebridge.train.report.records import RunRecord

PERPLEXITY, ITERATIONS = 30.0, 500
FEWEST = 4
"""Points that a picture needs."""

Values = NDArray[np.float64]


def domains(record: RunRecord, seen: Examination, *, prefix: str) -> str:
    """Two pictures and what they show in numbers, or a sentence that says why there are none."""
    if seen.after is None:
        return paragraph(
            "No picture: the static pool is empty, or its images have other channels than the network takes."
        )
    if len(seen.event_labels) < FEWEST or len(seen.static_labels) < FEWEST:
        return paragraph("No picture: too few recordings or static images.")
    parts = []
    word = "training" if record.method == "event_only" else "transfer"
    for when, found in (("before", seen.before), ("after", seen.after)):
        if found is None:
            continue
        title = f"{when.capitalize()} {word}."
        points = embed(np.concatenate([found.static, found.event]))
        if points is None:
            parts.append(paragraph(f"{title} All features are equal: the layer is silent, or always active."))
            continue
        m = len(found.static)
        svg = scatter(
            Drawing(f"{prefix}-tsne-{when}", f"Features of static images and recordings in a plane. {title}"),
            {"static images": (points[:m], seen.static_labels), "event recordings": (points[m:], seen.event_labels)},
            names=record.result["classes"],
        )
        own, other = neighbours(found, seen)
        caption = (
            f"For {own:.0f} % of the recordings the nearest static image is one of their own class; for {other:.0f} % "
            "it is nearer than every other recording."
        )
        parts.append(figure(svg, title=title, caption=caption))
    note = (
        f"Features that the alignment compares, averaged over time, of {len(seen.static_labels)} static images of the "
        f"pool and {len(seen.event_labels)} test recordings, by t-SNE (perplexity {PERPLEXITY:.0f}). Each picture has "
        "a plane of its own, whose axes mean nothing. The percentages come from the features themselves, by cosine."
    )
    if seen.before is None:
        note += " The weights that training began with came from elsewhere, so there is no picture of before."
    return figures(parts) + paragraph(note, note=True)


def embed(features: NDArray[np.float32]) -> Values | None:
    """Points [m,2] of features [m,F], the same bits whatever the number of cores; None where all are equal."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if not np.ptp(features, axis=0).any():
        return None
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    with threadpool_limits(1):
        model = TSNE(perplexity=perplexity, init="pca", random_state=0, max_iter=ITERATIONS, n_jobs=1)
        points: Values = model.fit_transform(features.astype(np.float64)).astype(np.float64)
    return points


def neighbours(found: Domains, seen: Examination) -> tuple[float, float]:
    """Per cent of recordings whose nearest static image has their class, and whose nearest neighbour is static."""
    static, event = _unit(found.static), _unit(found.event)
    across, within = event @ static.T, event @ event.T
    np.fill_diagonal(within, -np.inf)
    own = seen.static_labels[across.argmax(1)] == seen.event_labels
    return 100 * float(own.mean()), 100 * float((across.max(1) > within.max(1)).mean())


def _unit(features: NDArray[np.float32]) -> Values:
    values = features.astype(np.float64)
    lengths: Values = np.linalg.norm(values, axis=1, keepdims=True)
    unit: Values = values / np.maximum(lengths, 1e-30)
    return unit
