"""What `spikebridge inspect` writes: pictures, animations and pages of one recording, and the page of a set.

Axes: T time bins, P polarity, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.base.files import write_bytes
from spikebridge.pipeline.inspection.sets import SetFacts
from spikebridge.pipeline.inspection.text import rows_of
from spikebridge.pipeline.inspection.views import One, whole_frames
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
"""How long each is shown."""
MOST_ODD = 100
"""Rows of the table of what looks wrong."""


def png_of_one(one: One, path: Path) -> None:
    """Write the picture of a recording or sample."""
    need_matplotlib()
    from spikebridge.pipeline.inspection.figures import picture_of

    write_bytes(path, picture_of(one))


def gif_of_one(one: One, path: Path) -> None:
    """Write the frames as an animation; a raw recording is cut into `GIF_BINS` frames."""
    write_bytes(path, _gif(one))


def _gif(one: One) -> bytes:
    mark = " SIMULATED" if one.simulated else ""
    if one.events is None:
        total = len(one.frames)
        return gif(event_pixels(one.frames), captions=[f"bin {t + 1} of {total}{mark}" for t in range(total)])
    frame_ms = one.events.duration_us / 1000 / GIF_BINS
    captions = [f"{(t + 1) * frame_ms:.0f} ms{mark}" for t in range(GIF_BINS)]
    return gif(event_pixels(whole_frames(one.events, GIF_BINS)), captions=captions, milliseconds=FRAME_MS)


def _slowed(one: One) -> str:
    if one.events is None:
        return ""
    return f"{FRAME_MS * GIF_BINS / max(one.events.duration_us / 1000, 1e-3):,.3g} times slower than life"


def html_of_one(one: One, path: Path) -> None:
    """Write one page with everything; it needs no network, no script and no other file."""
    need_matplotlib()
    from spikebridge.pipeline.inspection.figures import plots_of

    wrong = [(f"looks wrong: {complaint}", True) for complaint in one.facts.complaints]
    note = f"Static partner: {one.partner_note}." if one.partner_note else "No static partner is known."
    moving = image(_gif(one), description="the recording in motion", kind="gif")
    plots = [figure(image(data, description=title), title=title) for title, data in plots_of(one)]
    marks = [("SIMULATED recording", True)] if one.simulated else []
    body = [
        tags([*marks, *(wrong or [("nothing looks wrong", False)])]),
        facts(rows_of(one), wide=("per bin", "hot pixels")),
        section("Frames", _frames(one) + paragraph(note)),
        section("Events in time", figures([*plots, figure(moving, title="in motion", caption=_slowed(one))])),
    ]
    write_bytes(
        path, page(one.facts.name, _headed(one.facts.name, "\n".join(body))).encode("utf-8", "backslashreplace")
    )


def _frames(one: One) -> str:
    """The photograph, where it is known, and the frame of every time bin."""
    from spikebridge.pipeline.inspection.figures import bin_name

    pictures = event_pixels(one.frames)
    shown = [] if one.partner is None else [("the photograph", "photograph", png(one.partner))]
    for t, picture in enumerate(pictures):
        shown.append((f"{one.facts.name}, {bin_name(one, t)}", bin_name(one, t), png(picture)))
    return polarities(ON, OFF) + thumbnails(shown)


def html_of_set(
    found: SetFacts,
    cells: Sequence[tuple[str, tuple[str, NDArray[np.uint8], bool]]],
    worst: One | None,
    command: str,
    path: Path,
) -> None:
    """Write one page about a set: facts, the worst recording, all odd ones, the contact sheet, classes.

    Args:
        found: the set.
        cells: its contact sheet: a class, and a recording's name, picture [H,W,3], and whether it looks wrong.
        worst: its worst recording; None where none can be used.
        command: that shows more of it.
        path: of the page.
    """
    need_matplotlib()
    parts = list(found.classes[0])[1:] if found.classes else []
    classes = table(["class", *parts], [[e["class"], *(f"{e[part]:,}" for part in parts)] for e in found.classes])
    name, why = found.worst
    first = "Worst" if found.odd else "Nothing looks wrong; furthest from its class"
    odd = table(["recording", "what looks wrong"], [[f.name, "; ".join(f.complaints)] for f in found.odd[:MOST_ODD]])
    if len(found.odd) > MOST_ODD:
        odd += paragraph(f"And {len(found.odd) - MOST_ODD:,} more, see --json.")
    shown = [
        (name, f"{label}: {name}" + (", looks wrong" if odd else ""), png(pixels))
        for label, (name, pixels, odd) in cells
    ]
    marks = [("SIMULATED recordings", True)] if found.simulated else []
    body = [
        tags([(f"{found.kind} {found.name}", False), *marks]),
        *(paragraph(line) for line in found.about),
        section(f"{first}: {name}", paragraph(f"{why}.") + _frames(worst) + preformatted(command)) if worst else "",
        section(f"Looks wrong: {len(found.odd):,} of {found.looked:,}", odd if found.odd else paragraph("Nothing.")),
        section("Recordings of each class", paragraph("The busiest time bin of each.") + thumbnails(shown)),
        section("Classes", classes),
    ]
    write_bytes(
        path,
        page(found.name, _headed(f"{found.kind}: {found.name}", "\n".join(body))).encode("utf-8", "backslashreplace"),
    )


def _headed(title: str, html: str) -> str:
    from html import escape

    return f"<header>\n<h1>{escape(title)}</h1>\n</header>\n{html}"


def need_matplotlib() -> None:
    """Refuse to draw without it.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise SettingsError("pictures need matplotlib, which is not installed; pip install 'spikebridge[report]'")
