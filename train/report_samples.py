"""The samples section: which test recordings are shown, and what they look like.

Axes: T time bins, P polarity (0 OFF, 1 ON), C channels, H, W pixels.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from pipeline.inspection.html import image, paragraph
from pipeline.inspection.paint import event_pixels, png, static_pixels
from pipeline.inspection.style import OFF, ON
from train.report_records import Predictions, RunRecord

if TYPE_CHECKING:
    from pipeline.shardset import ShardSet
    from pipeline.static_pool import StaticImages

RIGHT, WRONG = 4, 6
"""How many of each are shown at most."""


def samples(record: RunRecord, shards: ShardSet | None) -> str:
    """A few right and the most confidently wrong test samples, or a sentence that says why there are none."""
    wanted = str(record.result.get("shard_set", ""))
    if record.predictions is None:
        return paragraph("No predictions: the test split is empty or predictions.csv is missing.")
    if shards is None:
        return paragraph(
            f"The shard set was not given, so no recordings are shown. Make the report again with shard set {wanted}."
        )
    if shards.id != wanted:
        return paragraph(f"No recordings are shown: this run used shard set {wanted}, the one given is {shards.id}.")
    right, wrong = typical_right(record.predictions), most_confidently_wrong(record.predictions)
    right_count = int((record.predictions.predicted == record.predictions.labels).sum())
    wrong_count = len(record.predictions.keys) - right_count
    legend = (
        '<p class="note key">Events per pixel and time bin, on a square-root scale of each sample: '
        f'<span><i style="background:{ON}"></i>ON (brighter)</span> <span><i style="background:{OFF}"></i>OFF (darker)'
        "</span>. Numbers are time bins. The image on the left is one of the same class from the static pool, not the "
        "one that was recorded. Confidence is the softmax of the scores averaged over time.</p>"
    )
    pool = shards.static_pool()
    parts = [legend, f"<h3>Wrong with the highest confidence ({len(wrong)} of {wrong_count})</h3>"]
    parts += [_sample(record, shards, pool, position) for position in wrong] or [paragraph("No sample is wrong.")]
    parts += [f"<h3>Right, of middling confidence ({len(right)} of {right_count})</h3>"]
    parts += [_sample(record, shards, pool, position) for position in right] or [paragraph("No sample is right.")]
    return "\n".join(parts)


def most_confidently_wrong(predictions: Predictions) -> list[int]:
    """Positions of the wrong samples with the highest confidence, highest first; earlier samples win ties."""
    wrong = np.flatnonzero(predictions.predicted != predictions.labels)
    order = np.argsort(-predictions.confidence[wrong], kind="stable")
    return [int(position) for position in wrong[order][:WRONG]]


def typical_right(predictions: Predictions) -> list[int]:
    """Of classes spread evenly over those with a right sample, the right one with the median confidence."""
    right = np.flatnonzero(predictions.predicted == predictions.labels)
    classes = np.unique(predictions.labels[right])
    if not len(classes):
        return []
    chosen = np.unique(np.linspace(0, len(classes) - 1, RIGHT).round().astype(int))
    found = []
    for k in classes[chosen]:
        of_class = right[predictions.labels[right] == k]
        order = np.argsort(predictions.confidence[of_class], kind="stable")
        found.append(int(of_class[order[(len(order) - 1) // 2]]))
    return found


def _sample(record: RunRecord, shards: ShardSet, pool: StaticImages, position: int) -> str:
    predictions, classes = record.predictions, record.result["classes"]
    assert predictions is not None
    key, label, predicted = predictions.keys[position], predictions.labels[position], predictions.predicted[position]
    split = shards.split("test")
    if key not in split.keys:
        return paragraph(f"{key}: not in the test split of this shard set.")
    frames = split.read([split.keys.index(key)])[0]  # [T,P,H,W]
    T = len(frames)
    verdict = "right" if label == predicted else "wrong"
    text = (
        f'<p><span class="verdict {verdict}">{"✓" if verdict == "right" else "✗"} predicted '
        f"{escape(classes[predicted])}</span>, label {escape(classes[label])}, confidence "
        f"{100 * predictions.confidence[position]:.1f} % <code>{escape(key)}</code></p>"
    )
    pictures = [
        f"<figure>{image(png(picture), description=f'{key}, time bin {t}')}<figcaption>{t}</figcaption></figure>"
        for t, picture in enumerate(event_pixels(frames), 1)
    ]
    columns = f"--wide:{_columns(T, 10)};--narrow:{_columns(T, 5)}"
    strip = f'<div class="frames" style="{columns}">{"".join(pictures)}</div>'
    return (
        f'<div class="sample">{text}<div class="strip">{_partner(record, shards, pool, int(label))}{strip}</div></div>'
    )


def _columns(count: int, most: int) -> int:
    """Columns for `count` pictures in as few, evenly filled rows as `most` columns allow."""
    return -(-count // -(-count // most))


def _partner(record: RunRecord, shards: ShardSet, pool: StaticImages, label: int) -> str:
    name = record.result["classes"][label]
    first, end = (int(row) for row in pool.class_offsets[label : label + 2])
    if first == end:
        return f"<figure><figcaption>no static image of class {escape(name)}</figcaption></figure>"
    picture = static_pixels(pool.images[first], encoding=str(shards.settings.get("encoding", "v")))
    shown = image(png(picture), description=f"static image {pool.keys[first]} of class {name}")
    return f"<figure>{shown}<figcaption>static, {escape(name)}</figcaption></figure>"
