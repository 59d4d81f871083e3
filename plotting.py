"""Figures for notebooks: `spikebridge.plot` of a sample, a recording or a run.

Axes: T time bins, P polarity (0 OFF, 1 ON), H and W pixels.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.base.installation import install_command
from spikebridge.pipeline.events.arrays import Events
from spikebridge.pipeline.events.packing import pack
from spikebridge.pipeline.formats.tables.columns import TableOptions
from spikebridge.pipeline.inspection.facts import summarize_events, summarize_frames
from spikebridge.pipeline.inspection.views import (
    LARGEST_SENSOR,
    RecordingView,
    make_full_frames,
    view_file,
    view_sample,
)
from spikebridge.pipeline.shards.dataset import SplitFrames
from spikebridge.train.runs.folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXPECTED = (
    "expected a data set and an index, a sample (frames [T,P,H,W], or (frames, label)), events or the file of a "
    "recording, or the folder of a finished run"
)


def plot(what: Any, index: int = 0, *, time_bins: int = 10, title: str = "") -> Figure:
    """Draw a sample, a recording or a run.

    Args:
        what: a `ShardDataset` or `ShardFrames`: its sample number `index` as stored, with the static image that it
            shows. Frames [T,P,H,W] as numpy or torch has them, or (frames, label): the same without what only the set
            knows. `Events`, or the path of a recording of any format: frames, cloud in x, y and time, time surface and
            event rate. The folder of a finished run: losses and accuracies over epochs.
        index: of the sample in a data set.
        time_bins: frames that a recording is cut into.
        title: of the figure; by default the name of the file or folder.

    Returns:
        A matplotlib figure, which notebooks show and `savefig` writes.

    Raises:
        SettingsError: something else, or matplotlib is missing.
        IndexError: the data set has not so many samples.
        RecordingError: the file is not a whole recording.
        RunError: not a finished run, or a damaged one.
    """
    if find_spec("matplotlib") is None:
        raise SettingsError(f"plots need the package matplotlib, which is not installed; {install_command('report')}")
    if isinstance(what, str | os.PathLike):
        path = Path(what)
        if path.is_file():
            return _draw(view_file(path, time_bins=time_bins, table=TableOptions()), title)
        if not RunFolder(path).config.exists():
            raise SettingsError(f"{path}: neither a file nor the folder of a run; {EXPECTED}.")
        from spikebridge.pipeline.inspection.figures import NotebookFigure
        from spikebridge.train.report.plots.epochs import run_panels
        from spikebridge.train.report.records import load_run

        record = load_run(path)
        simulated = " (SIMULATED)" if record.result.get("simulated") else ""
        return run_panels(
            record, NotebookFigure, title=title or f"{record.name}: {record.method}, seed {record.seed}{simulated}"
        )
    if isinstance(what, SplitFrames):
        return _draw(view_sample(what.shards, what.keys[what.position(index)]), title)
    if isinstance(what, Events):
        events = pack(what, sensor_size=LARGEST_SENSOR, source="events")
        facts = summarize_events(events, name=title or "events", time_bins=time_bins)
        return _draw(RecordingView(facts, make_full_frames(events, time_bins), events, None, "", {}), title)
    label = ""
    if isinstance(what, tuple) and len(what) == 2:
        what, label = what[0], f"label {what[1]}"
    frames = np.asarray(what)
    if frames.ndim != 4 or frames.shape[1] not in (1, 2) or not frames.size or frames.dtype.kind not in "uif":
        raise SettingsError(f"{type(what).__name__} of shape {frames.shape}: no sample; {EXPECTED}.")
    facts = summarize_frames(frames, name=title or label or "sample")
    return _draw(RecordingView(facts, frames, None, None, "", {}), title or label)


def _draw(view: RecordingView, title: str) -> Figure:
    from spikebridge.pipeline.inspection.figures import NotebookFigure, recording_figure

    return recording_figure(view, NotebookFigure, title=title or view.title)
