"""The samples section: the worst, the best and ordinary test recordings as images.

Axes: T time bins, P polarity (0 OFF, 1 ON), C channels, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from spikebridge.pipeline.base.installation import install_command
from spikebridge.pipeline.ui.html import image, paragraph
from spikebridge.pipeline.ui.paint import event_pixels, heat_pixels, png, static_pixels
from spikebridge.pipeline.ui.style import HEAT, OFF, ON
from spikebridge.train.networks.build import load_network, make_network
from spikebridge.train.networks.threads import same_threads
from spikebridge.train.report.records import Predictions, RunRecord
from spikebridge.train.runs.folder import RunFolder

if TYPE_CHECKING:
    from spikebridge.pipeline.shards.reader import ShardSet

RIGHT, WRONG = 4, 6
"""How many of each are shown at most."""


def samples(record: RunRecord, shards: ShardSet, *, in_depth: bool) -> str:
    """Show the worst, the best and a few ordinary test samples, or return a sentence that says why not.

    In depth, show where the network looked, too.
    """
    if record.predictions is None:
        return paragraph("No predictions: the test split is empty or predictions.csv is missing.")
    predictions = record.predictions
    right = int((predictions.predicted == predictions.labels).sum())
    wrong = len(predictions.keys) - right
    groups = {
        f"Worst: wrong with the highest confidence ({{}} of {wrong})": most_confidently_wrong(predictions),
        f"Best: right with the highest confidence, a class each ({{}} of {right})": most_confidently_right(predictions),
        f"Right, of middling confidence ({{}} of {right})": typical_right(predictions),
    }
    order = {key: position for position, key in enumerate(shards.split("test").keys)}
    known = [i for group in groups.values() for i in group if predictions.keys[i] in order]
    frames = shards.split("test").read([order[predictions.keys[i]] for i in known])  # [m,T,P,H,W]
    heats, why = _explain(record, frames, predictions.predicted[known]) if in_depth and known else (None, "")
    images = {i: (frames[row], None if heats is None else heats[row]) for row, i in enumerate(known)}
    exact = shards.manifest["pairing"]["kind"] == "exact"
    partners = dict(
        zip(known, _partners(shards, [order[predictions.keys[i]] for i in known], exact=exact), strict=True)
    )
    parts = [_legend(explained=heats is not None, exact=exact)]
    parts += [paragraph(sentence, note=True) for sentence in (_uneven(shards), why) if sentence]
    for title, positions in groups.items():
        parts.append(f"<h3>{escape(title.format(len(positions)))}</h3>")
        parts += [_sample(record, i, images.get(i), partners.get(i, "")) for i in positions]
        if not positions:
            parts.append(paragraph("There is none."))
    return "\n".join(parts)


def _uneven(shards: ShardSet) -> str:
    """Return the sentence about the grid in frames of which some cells take more pixels than others; or nothing."""
    (width, height), (H, W) = shards.manifest["sensor_size"], shards.sample_shape[2:]
    counted = shards.settings["reduction"] in ("sum", "event") and shards.settings["extent"] == "canvas"
    if not (counted and width and height) or (width % W == 0 and height % H == 0):
        return ""
    return (
        f"The {width}x{height} pixels of the sensor do not fall evenly into {W}x{H} cells: some cells take the events "
        "of more rows or columns than others. The regular grid in these images is that, and no part of the scene."
    )


def _legend(*, explained: bool, exact: bool) -> str:
    looking = (
        f'<span><span class="short"><i style="background:{HEAT}"></i>where</span> and when the network found what '
        "spoke for its prediction (Grad-CAM of the last convolution over the same frames in grey, each sample on a "
        "scale of its own).</span> "
    )
    partner = (
        "The image on the left is the one that was recorded."
        if exact
        else "The image on the left is one of the same class from the static pool, not the one that was recorded."
    )
    return (
        '<p class="note key">Events per pixel and time bin, on a square-root scale of each sample: '
        f'<span class="short"><i style="background:{ON}"></i>ON (brighter)</span> '
        f'<span class="short"><i style="background:{OFF}"></i>OFF (darker).</span> {looking if explained else ""}'
        f"Numbers are time bins. {partner} Confidence is the softmax of the scores averaged over time.</p>"
    )


def _explain(
    record: RunRecord, frames: NDArray[Any], predicted: NDArray[np.int64]
) -> tuple[NDArray[np.float32] | None, str]:
    """Compute Grad-CAM [m,T,H,W] of the predicted classes where it passes its sanity check, and say what that found.

    Returns:
        The maps, or None; and a sentence.
    """
    from spikebridge.train.report.sections.gradcam import MOST_ALIKE, available, explain_classes, similarity

    if not available():
        return None, f"Where the network looks (Grad-CAM) needs captum: {install_command('report')}."
    network, _ = load_network(RunFolder(record.path).best, device=torch.device("cpu"))
    with same_threads(int(record.result.get("threads", 1))):
        maps = explain_classes(network, frames, predicted)
        untrained = make_network(network.config, seed=int(record.result.get("seed", 0)) + 1).eval()
        alike = similarity(maps, explain_classes(untrained, frames, predicted))
    if alike is None:
        return None, "Grad-CAM is not shown: a network of random weights gives no maps here to check it by."
    check = f"rank correlation {alike:.2f} with those of the same network with random weights (Adebayo et al. 2018)"
    if abs(alike) > MOST_ALIKE:
        why = "they show the recording rather than what was learned"
        return None, f"Grad-CAM is not shown: its maps have {check}, beyond ±{MOST_ALIKE}, so {why}."
    return maps, f"Sanity check of the Grad-CAM maps: {check}; they are shown up to ±{MOST_ALIKE}."


def most_confidently_wrong(predictions: Predictions) -> list[int]:
    """Return positions of the wrong samples with the highest confidence, highest first; earlier ones win ties."""
    wrong = np.flatnonzero(predictions.predicted != predictions.labels)
    order = np.argsort(-predictions.confidence[wrong], kind="stable")
    return [int(position) for position in wrong[order][:WRONG]]


def most_confidently_right(predictions: Predictions) -> list[int]:
    """Return positions of the right samples with the highest confidence, highest first, one of a class."""
    right = np.flatnonzero(predictions.predicted == predictions.labels)
    order = right[np.argsort(-predictions.confidence[right], kind="stable")]
    firsts = np.sort(np.unique(predictions.labels[order], return_index=True)[1])
    return [int(position) for position in order[firsts][:RIGHT]]


def typical_right(predictions: Predictions) -> list[int]:
    """Return, of classes spread evenly over those with a right sample, the right one with the median confidence."""
    right = np.flatnonzero(predictions.predicted == predictions.labels)
    classes = np.unique(predictions.labels[right])
    if not len(classes):
        return []
    spread = np.unique(np.linspace(0, len(classes) - 1, RIGHT).round().astype(int))
    positions = []
    for k in classes[spread]:
        of_class = right[predictions.labels[right] == k]
        order = np.argsort(predictions.confidence[of_class], kind="stable")
        positions.append(int(of_class[order[(len(order) - 1) // 2]]))
    return positions


def _sample(
    record: RunRecord, position: int, images: tuple[NDArray[Any], NDArray[np.float32] | None] | None, partner: str
) -> str:
    predictions, classes = record.predictions, record.result["classes"]
    assert predictions is not None
    key, label, predicted = predictions.keys[position], predictions.labels[position], predictions.predicted[position]
    if images is None:
        return paragraph(f"{key}: not in the test split of this shard set.")
    verdict = "right" if label == predicted else "wrong"
    text = (
        f'<p><span class="verdict {verdict}">{"✓" if verdict == "right" else "✗"} predicted '
        f"{escape(classes[predicted])}</span>, label {escape(classes[label])}, confidence "
        f"{100 * predictions.confidence[position]:.1f} % <code>{escape(key)}</code></p>"
    )
    frames, heat = images
    rows = [_strip(event_pixels(frames), f"{key}, time bin", numbered=True)]
    if heat is not None:
        rows.append(_strip(heat_pixels(frames, heat), f"{key}, Grad-CAM of class {classes[predicted]}, time bin"))
    return f'<div class="sample">{text}<div class="strip">{partner}<div>{"".join(rows)}</div></div></div>'


def _strip(pixels: NDArray[np.uint8], description: str, *, numbered: bool = False) -> str:
    """Show frames [T,H,W,3] in a row, or in several where there are many."""
    T = len(pixels)
    figures = [
        f"<figure>{image(png(frame), description=f'{description} {t}')}"
        f"{f'<figcaption>{t}</figcaption>' if numbered else ''}</figure>"
        for t, frame in enumerate(pixels, 1)
    ]
    return f'<div class="frames" style="--wide:{_columns(T, 10)};--narrow:{_columns(T, 5)}">{"".join(figures)}</div>'


def _columns(count: int, most: int) -> int:
    """Return the columns for `count` frames in as few, evenly filled rows as `most` columns allow."""
    return -(-count // -(-count // most))


def _partners(shards: ShardSet, positions: Sequence[int], *, exact: bool) -> list[str]:
    """Return static images of test samples: the recording's own where pairs are exact, else the first of its class."""
    split, images = shards.split("test"), shards.static_images(resident=False)
    rows = {key: row for row, key in enumerate(images.keys)} if exact else {}
    own = split.static_keys(positions) if exact else [""] * len(positions)
    found = []
    for position, key in zip(positions, own, strict=True):
        label = int(split.labels[position])
        name = escape(shards.classes[label])
        first, end = (int(row) for row in images.class_offsets[label : label + 2])
        row = rows.get(key, first if end > first and not exact else None)
        if row is None:
            none = "no static image of this recording" if exact else f"no static image of class {name}"
            found.append(f"<figure><figcaption>{none}</figcaption></figure>")
            continue
        pixels = static_pixels(np.asarray(images.images[row]), encoding=str(shards.settings.get("encoding", "v")))
        description = f"static image {images.keys[row]} of class {shards.classes[label]}"
        caption = "static, its own" if exact else f"static, {name}"
        found.append(
            f"<figure>{image(png(pixels), description=description)}<figcaption>{caption}</figcaption></figure>"
        )
    return found
