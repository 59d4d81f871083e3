"""The section about the simulated camera: what it was fitted to, how alike its recordings are, and its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from spikebridge.pipeline.ui.html import facts, paragraph, tags
from spikebridge.train.calibration.calibrate import profile_tables
from spikebridge.train.config.informing import INFORMING
from spikebridge.train.config.profile import INLINE, CameraProfile, profile_named, read_profile
from spikebridge.train.errors import MethodError, RecipeError
from spikebridge.train.methods import find_method
from spikebridge.train.report.calibration import camera_tables, from_words, number_text, seen_words, told_words
from spikebridge.train.report.records import RunRecord
from spikebridge.train.runs.folder import RunFolder

Shown = TypeVar("Shown")
NO_FIT = "The profile holds no fit that this version reads: values and uncertainties are not known."


def camera(record: RunRecord) -> str:
    """Return which camera a run simulated, HTML; empty for runs that simulate none."""
    simulation = record.result.get("recipe", {}).get("train", {}).get("simulation")
    if not isinstance(simulation, str) or not _simulates(record.method):
        return ""
    path = RunFolder(record.path).camera
    if not simulation.startswith(INLINE):
        return paragraph(f"Simulation {simulation}: shipped with the program, not fitted to recordings of this set.")
    if not path.exists():
        return paragraph(f"A profile of which the run keeps no {path.name}: it stands in the file that was named.")
    try:
        profile = read_profile(path)
        if profile.profile != profile_named(simulation)[0]:
            return paragraph(f"{path.name} is of another camera than the run simulated; nothing of it is shown.")
    except RecipeError as error:  # of another version
        return paragraph(f"{path.name} cannot be read by this version: {'; '.join(error.problems)}")
    return _described(profile)


def _simulates(method: str) -> bool:
    try:
        return find_method(method).simulates
    except MethodError:  # of a plugin that is not here
        return False


def _described(profile: CameraProfile) -> str:
    """Return what a profile says of its camera; values may be missing, left out by hand or by earlier versions."""
    informing: dict[str, Any] = {name: profile.informing.get(name, {}) for name in INFORMING}
    width, height = profile.sensor
    made = {"undecided": profile.undecided, "profile": informing | profile_tables(profile)}
    seen: list[tuple[str, str]] = _if_there(lambda: seen_words(made), [])
    tables = _if_there(lambda: camera_tables(made), "") if informing["camera"] else ""
    source, fidelity = informing["source"], informing["fidelity"]
    mark = tags([("camera fitted to SIMULATED recordings", True)]) if source.get("simulated") else ""
    pairs = [
        ("sensor", f"{width}x{height} pixels, recordings of {number_text(profile.duration_us / 1000)} ms"),
        ("fitted to", _if_there(lambda: _fitted_words(source), "")),
        ("told apart", _if_there(lambda: _told(fidelity), "not asked: no recording was held out of the fit")),
        *seen,
        ("undecided", ", ".join(profile.undecided) or "nothing"),
    ]
    return (
        mark
        + facts(pairs, wide=("fitted to", "told apart", "undecided"))
        + (tables or paragraph(NO_FIT))
        + paragraph(
            "Told apart: the share of recordings that a linear classifier gets right which has to tell those that the "
            "fit did not see from simulated ones. Whether training with this camera helps, only compare says.",
            note=True,
        )
    )


def _if_there(part: Callable[[], Shown], otherwise: Shown) -> Shown:
    """Return a part of the section, or something else where a value that it shows is missing."""
    try:
        return part()
    except (KeyError, IndexError, ValueError):  # of lists that hold none, too
        return otherwise


def _fitted_words(source: dict[str, Any]) -> str:
    """Return how many recordings and static images a camera was fitted to."""
    kind = "SIMULATED recordings" if source["simulated"] else "recordings"
    words = f"{source['recordings']:,} {kind}{from_words(source.get('recordings_from', []))}, "
    words += f"of which {source['held_out']:,} held out, and {source['static_images']:,} static images"
    words += from_words([source["static_images_from"]] if "static_images_from" in source else [])
    words += f", {source['pairs']:,} recordings with their own image" if "pairs" in source else ""
    return words + (f"; training split and pool of shard set {source['shard_set']}" if "shard_set" in source else "")


def _told(fidelity: dict[str, float]) -> str:
    own = ("told_apart", "low", "high", "asked")
    accuracy, low, high, asked = (fidelity[name] for name in own)
    others = {name: share for name, share in fidelity.items() if name not in own}
    return told_words(accuracy, int(asked), (low, high), others)
