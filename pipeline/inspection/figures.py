"""Plots of one recording or sample, and the contact sheet of a set, as PNG; the only file here with matplotlib.

Axes: N events, T time bins, P polarity (0 OFF, 1 ON), H and W pixels. Times are shown in milliseconds.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.events.packing import CheckedEvents
from spikebridge.pipeline.inspection.views import RecordingView
from spikebridge.pipeline.ui.paint import event_pixels
from spikebridge.pipeline.ui.style import MATPLOTLIB, MUTED, OFF, ON, RULE

MOST_FRAMES = 10
"""Frames in a row; of more time bins, evenly chosen ones are shown."""
CLOUD_EVENTS = 8_000
"""Points in the x-y-t cloud; of more events, evenly chosen ones are drawn."""
SURFACE_SHARE = 0.2
"""Time constant of the time surface as a share of the recording's duration."""
RATE_BINS = 100
DPI = 150


class NotebookFigure(Figure):
    """A matplotlib figure that a notebook shows by itself, without pyplot and its state."""

    def _repr_png_(self) -> bytes:
        """Return the picture that IPython shows."""
        data = io.BytesIO()
        with matplotlib.rc_context(MATPLOTLIB):
            self.savefig(data, format="png")
        return data.getvalue()


def draw_recording(view: RecordingView) -> bytes:
    """Draw the frames and the static partner; below, of raw events, the x-y-t cloud, time surface and event rate."""
    with matplotlib.rc_context(MATPLOTLIB):
        return _encode_png(recording_figure(view, Figure, title=view.title))


def recording_figure(view: RecordingView, kind: type[Figure], *, title: str) -> Figure:
    """Return the figure that `draw_recording` encodes, of a class of figures."""
    bins = np.unique(np.linspace(0, len(view.frames) - 1, MOST_FRAMES).round().astype(int))
    height, width = view.frames.shape[2:]
    strip = 9.6 / (len(bins) + 1) * min(height / width, 1.5)
    with matplotlib.rc_context(MATPLOTLIB):
        figure = kind(figsize=(10, strip + 3.9), dpi=DPI)
        top = 1 - 0.42 / (strip + 3.9)
        grid = GridSpec(1, len(bins) + 1, figure, 0.02, top - strip / (strip + 3.9), 0.985, top, wspace=0.06)
        _draw_partner(figure.add_subplot(grid[0]), view)
        for cell, t, pixels in zip(range(1, len(bins) + 1), bins, event_pixels(view.frames[bins]), strict=True):
            _draw_pixels(figure.add_subplot(grid[cell]), pixels, label_bin(view, int(t)))
        bottom = top - strip / (strip + 3.9) - 0.42 / (strip + 3.9)
        below = GridSpec(
            1, 3, figure, 0.05, 0.5 / (strip + 3.9), 0.975, bottom, wspace=0.36, width_ratios=(1.3, 1, 1.1)
        )
        if view.events is not None:
            _draw_cloud(figure.add_subplot(below[0], projection="3d", computed_zorder=False), view.events)
            _draw_time_surface(figure.add_subplot(below[1]), view.events)
            _draw_rate(figure.add_subplot(below[2]), view.events)
        else:
            _draw_sum(figure.add_subplot(below[0]), view.frames)
            _draw_bins(figure.add_subplot(below[1:]), view.frames)
        _draw_heading(figure, title)
        return figure


def draw_plots(view: RecordingView) -> list[tuple[str, bytes]]:
    """Draw the plots that `draw_recording` has below the frames, each alone: (title, PNG)."""
    with matplotlib.rc_context(MATPLOTLIB):
        images = []
        plots = (_draw_cloud, _draw_time_surface, _draw_rate) if view.events is not None else (_draw_sum, _draw_bins)
        data: Any = view.frames if view.events is None else view.events
        for plot in plots:
            figure = Figure(figsize=(4.6, 3.7), dpi=DPI)
            cell = GridSpec(1, 1, figure, 0.13, 0.13, 0.95, 0.92)[0]
            options: Any = {"projection": "3d", "computed_zorder": False} if plot is _draw_cloud else {}
            axes = figure.add_subplot(cell, **options)
            plot(axes, data)
            title = axes.get_title()
            axes.set_title("")
            images.append((title, _encode_png(figure, bbox_inches="tight")))
        return images


def label_bin(view: RecordingView, t: int) -> str:
    """Return the title of a time bin's frame: its part of the recording in ms, or else its number."""
    if view.facts.duration_us is None or view.events is None:
        return f"bin {t + 1}"
    bin_ms = view.facts.duration_us / 1000 / len(view.frames)
    return f"{t * bin_ms:.0f} to {(t + 1) * bin_ms:.0f} ms"


def _draw_heading(figure: Figure, title: str) -> None:
    """Draw the title at the top left and the colours of the polarities at the right."""
    top = 1 - 0.06 / figure.get_figheight()
    figure.text(0.02, top, show(title), ha="left", va="top", fontsize=9)
    right = 0.985 - 0.5 / figure.get_figwidth()
    figure.text(right, top, "ON", ha="right", va="top", fontsize=9, color=ON, fontweight="bold")
    figure.text(0.985, top, "OFF", ha="right", va="top", fontsize=9, color=OFF, fontweight="bold")


def draw_contact_sheet(
    rows: Sequence[tuple[str, Sequence[tuple[str, NDArray[np.uint8], bool]]]], *, title: str
) -> bytes:
    """Draw classes as rows of recordings."""
    columns = max(len(cells) for _, cells in rows)
    with matplotlib.rc_context(MATPLOTLIB):
        size, head = 1.02, 0.34
        high = len(rows) * (size + 0.16) + 0.2 + head
        figure = Figure(figsize=(columns * size + 1.0, high), dpi=DPI)
        left = 0.95 / (columns * size + 1.0)
        top = 1 - (head + 0.12) / high
        grid = GridSpec(len(rows), columns, figure, left, 0.01, 0.99, top, wspace=0.05, hspace=0.19)
        _draw_heading(figure, f"{title}: busiest time bin of each")
        for row, (label, cells) in enumerate(rows):
            for column, (name, pixels, odd) in enumerate(cells):
                axes = figure.add_subplot(grid[row, column])
                _draw_pixels(axes, pixels, "")
                short = name if len(name) <= 16 else "…" + name[-15:]
                axes.set_title(show(short), fontsize=6.5, color=ON if odd else MUTED, pad=1.5)
                axes.spines[:].set(color=ON if odd else RULE, linewidth=1.6 if odd else 0.6)
                if column == 0:
                    axes.text(
                        -0.08, 0.5, show(label[:14]), transform=axes.transAxes, ha="right", va="center", fontsize=8
                    )
        return _encode_png(figure)


def _draw_pixels(axes: Axes, pixels: NDArray[np.uint8], title: str) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set(visible=True, color=RULE)
    axes.set_title(title, fontsize=7, color=MUTED, pad=2)


def _draw_partner(axes: Axes, view: RecordingView) -> None:
    if view.partner is not None:
        return _draw_pixels(axes, view.partner, "static partner")
    axes.text(0.5, 0.5, "no static\npartner\nknown", ha="center", va="center", fontsize=7, color=MUTED)
    axes.set_axis_off()


def _draw_cloud(axes: Any, events: CheckedEvents) -> None:
    """Draw events in x, y and time, on axes with three dimensions."""
    rows = np.unique(np.linspace(0, len(events) - 1, CLOUD_EVENTS).round().astype(int))
    before, parts = 0, []
    for chunk in events.columns():
        first, stop = np.searchsorted(rows, (before, before + len(chunk)))
        parts.append(chunk.part(rows[first:stop] - before))
        before += len(chunk)
    t, x, y, p = (np.concatenate(column) for column in zip(*(part.columns for part in parts), strict=True))
    t_ms = (t - events.start_us) / 1000
    for polarity, colour in ((0, OFF), (1, ON)):
        of = p == polarity
        axes.scatter(t_ms[of], x[of], -y[of], s=1.2, c=colour, linewidths=0, alpha=0.7)
    axes.set_xlabel("time (ms)", labelpad=-6, fontsize=7)
    axes.tick_params(labelsize=6, pad=-3)
    axes.set(yticks=[], zticks=[])
    axes.set_ylabel("x", labelpad=-14, fontsize=7)
    axes.set_zlabel("y", labelpad=-14, fontsize=7)
    axes.view_init(elev=18, azim=-62)
    axes.set_box_aspect((2.0, 1, 1), zoom=1.15)
    share = "" if len(rows) == len(events) else f", {len(rows):,} of {len(events):,} events"
    axes.set_title(f"events in x, y and time{share}", fontsize=8, pad=-4)


def _draw_time_surface(axes: Axes, events: CheckedEvents) -> None:
    """Draw the time surface at the end of the recording: exp(-(age of the pixel's last event) / tau), sign by polarity.

    Source: Lagorce et al. 2017, "HOTS: a hierarchy of event-based time-surfaces for pattern recognition", TPAMI 39.
    """
    duration = max(events.duration_us, 1)
    tau = SURFACE_SHARE * duration
    surface = np.zeros((events.extent[1], events.extent[0]))
    for chunk in events.columns():
        age = events.start_us + events.duration_us - chunk.t
        surface[chunk.y, chunk.x] = np.where(chunk.p == 1, 1.0, -1.0) * np.exp(-age / tau)  # later events overwrite
    colours = matplotlib.colors.LinearSegmentedColormap.from_list("polarity", (OFF, "#ffffff", ON))
    surface_image = axes.imshow(surface, cmap=colours, vmin=-1, vmax=1, interpolation="nearest")
    axes.grid(visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_title(f"time surface at the end, tau = {tau / 1000:,.3g} ms", fontsize=8)
    bar = axes.figure.colorbar(surface_image, ax=axes, fraction=0.04, pad=0.03, ticks=(-1, 0, 1))
    bar.ax.set_yticklabels(("OFF", "old", "ON"), fontsize=6)
    bar.outline.set_visible(False)


def _draw_rate(axes: Axes, events: CheckedEvents) -> None:
    """Draw events per millisecond of each polarity."""
    edges = np.linspace(0, max(events.duration_us, 1) / 1000, RATE_BINS + 1)
    counts = np.zeros((2, RATE_BINS), np.int64)  # [P,bins]
    for chunk in events.columns():
        t_ms = (chunk.t - events.start_us) / 1000
        counts += np.stack([np.histogram(t_ms[chunk.p == polarity], edges)[0] for polarity in (0, 1)])
    for polarity, colour, name in ((1, ON, "ON"), (0, OFF, "OFF")):
        axes.stairs(counts[polarity] / np.diff(edges), edges, color=colour, label=name)
    axes.set(xlabel="time (ms)", ylabel="events per ms", xlim=(0, edges[-1]))
    _draw_legend(axes)
    axes.set_title("event rate", fontsize=8)


def _draw_legend(axes: Axes) -> None:
    """Draw the legend of ON and OFF above the curves."""
    axes.set_ylim(0, 1.16 * axes.dataLim.ymax or 1)
    axes.legend(fontsize=7, frameon=False, ncols=2, loc="upper right", borderaxespad=0.1)


def _draw_sum(axes: Axes, frames: NDArray[np.generic]) -> None:
    """Draw all time bins together."""
    _draw_pixels(axes, event_pixels(np.asarray(frames, np.float64).sum(0, keepdims=True))[0], "")
    axes.set_title("all time bins together", fontsize=8)


def _draw_bins(axes: Axes, frames: NDArray[np.generic]) -> None:
    """Draw events of each polarity per time bin."""
    sums = np.asarray(frames, np.float64).sum((2, 3))  # [T,P]
    numbers = np.arange(1, len(sums) + 1)
    if sums.shape[1] > 1:
        axes.bar(numbers - 0.2, sums[:, 1], 0.4, color=ON, label="ON")
        axes.bar(numbers + 0.2, sums[:, 0], 0.4, color=OFF, label="OFF")
        _draw_legend(axes)
    else:
        axes.bar(numbers, sums[:, 0], 0.6, color=ON)
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    axes.set(xlabel="time bin", ylabel="sum of the cells")
    axes.grid(visible=False, axis="x")
    axes.set_title("events per time bin", fontsize=8)


def _encode_png(figure: Figure, **more: Any) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None}, **more)
    return data.getvalue()
