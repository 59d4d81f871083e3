"""The canvas of a plot: one matplotlib figure in the style of the house, as SVG inside a page or as a file."""

from __future__ import annotations

import functools
import io
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from html import escape
from typing import Concatenate, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from spikebridge.pipeline.ui.style import CATEGORIES, FONT, INK, MATPLOTLIB, SEQUENTIAL_END

P = ParamSpec("P")
Values = NDArray[np.float64]
PANEL = (4.3, 2.7)
"""Inches; shown at about 440 pixels, so 8 points are 11 pixels there and 9 on a phone."""
NOT_WRITTEN = {
    "svg": ("Date", "Creator", "Format", "Type"),
    "pdf": ("CreationDate", "Creator", "Producer"),
    "png": ("Software",),
}
"""What matplotlib would put into files of each kind: dates and versions."""
LEGEND_LETTERS = 75
"""Letters of a legend's line in a panel, a handle counted as five."""


COLUMN = 3.5
"""Inches; the width of a column in papers of two columns."""
_collected: ContextVar[list[Drawing] | None] = ContextVar("collected", default=None)


@contextmanager
def collecting() -> Iterator[list[Drawing]]:
    """Gather the drawings that become part of a page inside the block, to be written as files, too."""
    drawings: list[Drawing] = []
    token = _collected.set(drawings)
    try:
        yield drawings
    finally:
        _collected.reset(token)


def is_collecting() -> bool:
    """Return whether drawings are gathered for files."""
    return _collected.get() is not None


def house_style() -> AbstractContextManager[None]:
    """Put the house settings in force; matplotlib reads some when an artist is made, some when it is drawn."""
    return matplotlib.rc_context(MATPLOTLIB)


class Drawing:
    """One SVG: a matplotlib figure without pyplot, and so without global state.

    Args:
        name: letters, digits and `-`; unique in the page, because identifiers inside it begin with it.
        description: what a screen reader says.
        rows: panels above each other that share the horizontal axis.
        size: inches.
    """

    def __init__(self, name: str, description: str, *, rows: int = 1, size: tuple[float, float] = PANEL) -> None:
        self.name, self.description = name, description
        with house_style():
            self.figure = Figure(figsize=size, layout="constrained")
            self.axes: list[Axes] = list(self.figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])

    def fit_column(self) -> None:
        """Make the drawing one column wide, of the same shape; type keeps its size, so that it can be read there."""
        width, height = self.figure.get_size_inches()
        self.figure.set_size_inches(COLUMN, height * COLUMN / width)
        if self.figure.legends:
            self.figure.legends[0].remove()
            self.legend(letters=int(LEGEND_LETTERS * COLUMN / PANEL[0]))

    def legend(self, *, letters: int = LEGEND_LETTERS) -> None:
        """Put names above the panels, where they hide nothing, in as many columns as fit."""
        handles, labels = self.axes[0].get_legend_handles_labels()
        if handles:
            labels = [textwrap.fill(label, letters - 5) for label in labels]
            with house_style():
                self.figure.legend(
                    handles, labels, loc="outside upper left", ncols=legend_columns(labels, letters=letters)
                )

    def file(self, kind: str) -> bytes:
        """Return the figure as a file of its own, `svg`, `pdf` or `png`, on white; equal figures give equal bytes."""
        data = io.BytesIO()
        nothing = dict.fromkeys(NOT_WRITTEN[kind])
        with house_style():
            self.figure.savefig(data, format=kind, dpi=200, facecolor="white", metadata=nothing)
        return data.getvalue()

    def svg(self) -> str:
        """Return the figure as an `<svg>` element that scales with its container."""
        if (collected := _collected.get()) is not None:
            collected.append(self)
        text = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with house_style():
            self.figure.savefig(text, format="svg", metadata=nothing)
        svg = text.getvalue()
        svg = svg[svg.index("<svg") :].strip()
        svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
        # Several figures share one document: without the prefix, equal identifiers would point into each other.
        svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{self.name}-", svg)
        svg = svg.replace("'DejaVu Sans', sans-serif", escape(FONT)).replace("'DejaVu Sans'", escape(FONT))
        svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
        svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(self.description)}"', 1)
        return re.sub(r"\n\s*", "\n", svg)


def legend_columns(labels: Sequence[str], *, letters: int = LEGEND_LETTERS) -> int:
    """Return how many names of a legend stand beside each other in a line of so many letters."""
    return max(1, min(len(labels), int(letters / (max(map(len, labels)) + 5))))


def painter(paint: Callable[Concatenate[Drawing, P], None]) -> Callable[Concatenate[Drawing, P], str]:
    """Make a function that paints an empty drawing return it as an `<svg>` element, painted in the house style."""

    @functools.wraps(paint)
    def painted(drawing: Drawing, /, *args: P.args, **options: P.kwargs) -> str:
        with house_style():
            paint(drawing, *args, **options)
        return drawing.svg()

    return painted


def sequential() -> Colormap:
    """Return viridis without its palest part."""
    whole = matplotlib.colormaps["viridis"]
    return LinearSegmentedColormap.from_list("report", whole(np.linspace(0, SEQUENTIAL_END, 64)))


def colour_bar(drawing: Drawing, ramp: Colormap, span: Normalize, label: str) -> None:
    """Add a colour bar; of time steps and layers with whole numbers."""
    bar = drawing.figure.colorbar(
        matplotlib.cm.ScalarMappable(span, ramp), ax=drawing.axes, label=label, fraction=0.05, pad=0.02
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2, labelcolor=INK)
    if label.startswith("time step") or label.startswith("layer"):
        bar.locator = MaxNLocator(integer=True, nbins=5)
        bar.update_ticks()


def colours(count: int) -> list[str]:
    """Return so many colours of categories, from the first again after the last."""
    return [CATEGORIES[k % len(CATEGORIES)] for k in range(count)]
