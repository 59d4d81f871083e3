"""What `spikebridge inspect` writes: pictures, animations and pages of one recording, and the page of a set.

Axes: T time bins, P polarity, H and W pixels.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from pipeline.errors import SettingsError
from pipeline.files import write_bytes
from pipeline.inspection.html import (
    facts,
    figure,
    figures,
    image,
    page,
    paragraph,
    polarities,
    section,
    small_pictures,
    table,
    tags,
)
from pipeline.inspection.one import One, whole_frames
from pipeline.inspection.paint import event_pixels, gif, png
from pipeline.inspection.sets import SetFacts
from pipeline.inspection.style import OFF, ON
from pipeline.inspection.text import rows_of

GIF_BINS = 30
"""Frames of the GIF of a raw recording."""
FRAME_MS = 100
"""How long each is shown."""


def png_of_one(one: One, path: Path) -> None:
    """Write the picture of a recording or sample."""
    need_matplotlib()
    from pipeline.inspection.figures import picture_of

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
    from pipeline.inspection.figures import bin_name, plots_of

    wrong = [(f"looks wrong: {complaint}", True) for complaint in one.facts.complaints]
    note = f"Static partner: {one.partner_note}." if one.partner_note else "No static partner is known."
    moving = image(_gif(one), description="the recording in motion", kind="gif")
    pictures = event_pixels(one.frames)
    frames = [
        (f"{one.facts.name}, {bin_name(one, t)}", bin_name(one, t), png(pictures[t])) for t in range(len(pictures))
    ]
    partner = [] if one.partner is None else [("the photograph", "photograph", png(one.partner))]
    plots = [figure(image(data, description=title), title=title) for title, data in plots_of(one)]
    marks = [("SIMULATED recording", True)] if one.simulated else []
    body = [
        tags([*marks, *(wrong or [("nothing looks wrong", False)])]),
        facts(rows_of(one), wide=("per bin", "hot pixels", "events sha256")),
        section("Frames", polarities(ON, OFF) + small_pictures([*partner, *frames]) + paragraph(note)),
        section("Events in time", figures([*plots, figure(moving, title="in motion", caption=_slowed(one))])),
    ]
    write_bytes(path, page(one.facts.name, _headed(one.facts.name, "\n".join(body))).encode())


def html_of_set(found: SetFacts, sheet: bytes, path: Path) -> None:
    """Write one page about a set: facts, classes, the odd ones, the contact sheet."""
    parts = list(found.classes[0])[1:] if found.classes else []
    classes = table(["class", *parts], [[e["class"], *(f"{e[part]:,}" for part in parts)] for e in found.classes])
    odd = table(["recording", "what looks wrong"], [[f.name, "; ".join(f.complaints)] for f in found.odd])
    marks = [("SIMULATED recordings", True)] if found.simulated else []
    body = [
        tags([(f"{found.kind} {found.name}", False), *marks]),
        *(paragraph(line) for line in found.about),
        section(
            f"Looks wrong: {len(found.odd):,} of {found.looked:,}", odd if found.odd else paragraph(_nothing(found))
        ),
        section("Contact sheet", image(sheet, description="recordings of each class")),
        section("Classes", classes),
    ]
    write_bytes(path, page(found.name, _headed(f"{found.kind}: {found.name}", "\n".join(body))).encode())


def _nothing(found: SetFacts) -> str:
    return f"Nothing. Furthest from its class: {found.furthest}, {found.how_far}." if found.furthest else "Nothing."


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
