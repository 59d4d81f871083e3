"""What `spikebridge inspect` writes: pictures, animations and pages of one recording, and the page of a set.

Axes: T time bins, P polarity, H and W pixels.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from pipeline.errors import SettingsError
from pipeline.files import write_bytes
from pipeline.inspection.html import facts, image, page, paragraph, section, table, tags
from pipeline.inspection.one import One, whole_frames
from pipeline.inspection.paint import event_pixels, gif
from pipeline.inspection.sets import SetFacts
from pipeline.inspection.text import rows_of

GIF_BINS = 30
"""Frames of the GIF of a raw recording."""


def png_of_one(one: One, path: Path) -> None:
    """Write the picture of a recording or sample."""
    need_matplotlib()
    from pipeline.inspection.figures import picture_of

    write_bytes(path, picture_of(one))


def gif_of_one(one: One, path: Path) -> None:
    """Write the frames as an animation; a raw recording is cut into `GIF_BINS` frames."""
    write_bytes(path, _gif(one))


def _gif(one: One) -> bytes:
    return gif(event_pixels(one.frames if one.events is None else whole_frames(one.events, GIF_BINS)))


def html_of_one(one: One, path: Path) -> None:
    """Write one page with everything; it needs no network, no script and no other file."""
    need_matplotlib()
    from pipeline.inspection.figures import picture_of

    wrong = [(f"looks wrong: {complaint}", True) for complaint in one.facts.complaints]
    note = f"Static partner: {one.partner_note}." if one.partner_note else "No static partner is known."
    moving = image(_gif(one), description="the recording in motion", kind="gif")
    body = [
        tags(wrong or [("nothing looks wrong", False)]),
        facts(rows_of(one), wide=("per bin", "hot pixels", "events sha256")),
        section("Frames, events and rate", image(picture_of(one), description="frames and plots") + paragraph(note)),
        section("In motion", f'<div class="single">{moving}</div>'),
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
        section(f"Looks wrong: {len(found.odd):,} of {found.looked:,}", odd if found.odd else paragraph("Nothing.")),
        section("Contact sheet", image(sheet, description="recordings of each class")),
        section("Classes", classes),
    ]
    write_bytes(path, page(found.name, _headed(f"{found.kind}: {found.name}", "\n".join(body))).encode())


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
