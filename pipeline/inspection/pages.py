"""Files that `spikebridge inspect` writes: plots, animations and pages of one recording, and the page of a set.

Axes: T time bins, P polarity, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.base.files import write_bytes
from spikebridge.pipeline.base.installation import install_command
from spikebridge.pipeline.inspection.sets import SetSummary
from spikebridge.pipeline.inspection.text import list_facts
from spikebridge.pipeline.inspection.views import RecordingView, make_full_frames
from spikebridge.pipeline.ui.html import (
    facts,
    figure,
    figures,
    image,
    page,
    paragraph,
    polarities,
    preformatted,
    section,
    table,
    tags,
    thumbnails,
)
from spikebridge.pipeline.ui.paint import event_pixels, gif, png
from spikebridge.pipeline.ui.style import OFF, ON

GIF_BINS = 30
"""Frames of the GIF of a raw recording."""
FRAME_MS = 100
"""Duration of each."""
MOST_ODD = 100
"""Rows of the table of anomalies."""


def write_png(view: RecordingView, path: Path) -> None:
    """Write the plots of a recording or sample as one PNG."""
    require_matplotlib()
    from spikebridge.pipeline.inspection.figures import draw_recording

    write_bytes(path, draw_recording(view))


def write_gif(view: RecordingView, path: Path) -> None:
    """Write the frames as an animation; a raw recording is cut into `GIF_BINS` frames."""
    write_bytes(path, _encode_gif(view))


def _encode_gif(view: RecordingView) -> bytes:
    mark = " SIMULATED" if view.simulated else ""
    if view.events is None:
        total = len(view.frames)
        return gif(event_pixels(view.frames), captions=[f"bin {t + 1} of {total}{mark}" for t in range(total)])
    frame_ms = view.events.duration_us / 1000 / GIF_BINS
    captions = [f"{(t + 1) * frame_ms:.0f} ms{mark}" for t in range(GIF_BINS)]
    return gif(event_pixels(make_full_frames(view.events, GIF_BINS)), captions=captions, milliseconds=FRAME_MS)


def _describe_slow_motion(view: RecordingView) -> str:
    if view.events is None:
        return ""
    return f"{FRAME_MS * GIF_BINS / max(view.events.duration_us / 1000, 1e-3):,.3g} times slower than life"


def write_page(view: RecordingView, path: Path) -> None:
    """Write one page with everything; it needs no network, no script and no other file."""
    require_matplotlib()
    from spikebridge.pipeline.inspection.figures import draw_plots

    wrong = [(f"looks wrong: {anomaly}", True) for anomaly in view.facts.anomalies]
    note = f"Static partner: {view.partner_note}." if view.partner_note else "No static partner is known."
    motion = image(_encode_gif(view), description="the recording in motion", kind="gif")
    moving = figure(motion, title="in motion", caption=_describe_slow_motion(view))
    plots = [figure(image(data, description=title), title=title) for title, data in draw_plots(view)]
    marks = [("SIMULATED recording", True)] if view.simulated else []
    body = [
        tags([*marks, *(wrong or [("nothing looks wrong", False)])]),
        facts(list_facts(view), wide=("per bin", "hot pixels")),
        section("Frames", _frames(view) + paragraph(note)),
        section("Events in time", figures([*plots, moving])),
    ]
    _write_html(path, view.facts.name, view.facts.name, body)


def _frames(view: RecordingView) -> str:
    """Return the static image, where it is known, and the frame of every time bin."""
    from spikebridge.pipeline.inspection.figures import label_bin

    images = [] if view.partner is None else [("the static image", "static image", png(view.partner))]
    for t, pixels in enumerate(event_pixels(view.frames)):
        images.append((f"{view.facts.name}, {label_bin(view, t)}", label_bin(view, t), png(pixels)))
    return polarities(ON, OFF) + thumbnails(images)


def write_set_page(
    summary: SetSummary,
    cells: Sequence[tuple[str, tuple[str, NDArray[np.uint8], bool]]],
    worst: RecordingView | None,
    command: str,
    path: Path,
) -> None:
    """Write one page about a set: facts, the worst recording, all anomalies, the contact sheet, classes.

    A cell is a class, and a recording's name, pixels [H,W,3], and whether it has anomalies. `worst` is None where no
    recording can be used; `command` shows more of it.
    """
    require_matplotlib()
    splits = summary.classes[0].counts if summary.classes else {}
    rows = [[row.name, *(f"{count:,}" for count in row.counts.values())] for row in summary.classes]
    name, why = summary.worst
    first = "Worst" if summary.odd else "Nothing looks wrong; furthest from its class"
    anomalies = [[facts.name, "; ".join(facts.anomalies)] for facts in summary.odd[:MOST_ODD]]
    odd = table(["recording", "what looks wrong"], anomalies, words=(1,)) if anomalies else paragraph("Nothing.")
    if len(summary.odd) > MOST_ODD:
        odd += paragraph(f"And {len(summary.odd) - MOST_ODD:,} more, see --json.")
    images = [
        (name, f"{label}: {name}" + (", looks wrong" if odd else ""), png(pixels))
        for label, (name, pixels, odd) in cells
    ]
    marks = [("SIMULATED recordings", True)] if summary.simulated else []
    body = [
        tags([(f"{summary.kind} {summary.name}", False), *marks]),
        *(paragraph(line) for line in summary.about),
        section(f"{first}: {name}", paragraph(f"{why}.") + _frames(worst) + preformatted(command)) if worst else "",
        section(
            f"Looks wrong: {len(summary.odd):,} of {summary.inspected:,}", odd if summary.odd else paragraph("Nothing.")
        ),
        section("Recordings of each class", paragraph("The busiest time bin of each.") + thumbnails(images)),
        section("Classes", table(["class", *splits], rows)),
    ]
    _write_html(path, summary.name, f"{summary.kind}: {summary.name}", body)


def _write_html(path: Path, title: str, heading: str, sections: Sequence[str]) -> None:
    """Write a page; names may be no UTF-8."""
    html = "\n".join(sections)
    document = page(title, f"<header>\n<h1>{escape(heading)}</h1>\n</header>\n{html}")
    write_bytes(path, document.encode("utf-8", "backslashreplace"))


def require_matplotlib() -> None:
    """Refuse to draw without matplotlib.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise SettingsError(f"plots need matplotlib, which is not installed; {install_command('report')}")
