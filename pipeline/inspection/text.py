"""Text of `spikebridge inspect` for the terminal."""

from __future__ import annotations

from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.inspection.sets import SetSummary
from spikebridge.pipeline.inspection.views import RecordingView

SHOWN_ODD, SHOWN_CLASSES = 10, 12
"""Lines at most."""
MOST_SHOWN = 400
"""Characters of a note or message."""
FOR_PROGRAMS = ("events_sha256",)
"""Facts for --json alone."""


def format_view(view: RecordingView) -> str:
    """Format a recording or sample for the terminal."""
    facts = view.facts
    rows = list_facts(view)
    width = max(len(show(name)) for name, _ in rows)
    head = [show(view.title, most=MOST_SHOWN)]
    head += [f"  {show(name):{width}}  {show(value, most=MOST_SHOWN)}" for name, value in rows]
    wrong = [f"  looks wrong: {show(anomaly, most=MOST_SHOWN)}" for anomaly in facts.anomalies]
    return "\n".join([*head, *(wrong or ["  nothing looks wrong"])])


def list_facts(view: RecordingView) -> list[tuple[str, str]]:
    """Return names and values of everything that is known, for people."""
    facts = view.facts
    rows = [("events", f"{facts.events:,.10g}")]
    if facts.duration_us is not None:
        rows.append(("duration", f"{facts.duration_us / 1000:,.3f} ms"))
        rate, gap = facts.rate_hz or 0, facts.longest_gap_us or 0
        rows += [("rate", f"{rate / 1000:,.1f} events per ms"), ("longest gap", f"{gap / 1000:,.3f} ms")]
    if facts.on_share is not None:
        rows.append(("ON share", f"{100 * facts.on_share:.1f} %"))
    if facts.extent:
        left, top, right, bottom = facts.extent
        rows.append(("extent", f"x {left} to {right - 1}, y {top} to {bottom - 1}, {facts.active_pixels:,} pixels"))
    rows.append(("per bin", " ".join(f"{count:.4g}" for count in facts.events_per_bin)))
    if facts.hot_pixels:
        rows.append(
            ("hot pixels", ", ".join(f"x={x} y={y} ({100 * share:.0f} %)" for x, y, share in facts.hot_pixels[:5]))
        )
    known = {name for name, _ in rows}
    for name, value in view.origin.items():
        if name == "duration_us" and isinstance(value, int):
            rows.append(("duration", f"{value / 1000:,.3f} ms"))
        elif value not in (None, "") and name not in FOR_PROGRAMS:
            text = f"{value:,}" if isinstance(value, int) else str(value)
            rows.append((f"raw {name}" if name in known else name.replace("_", " "), text))
    return rows


def format_set(summary: SetSummary) -> str:
    """Format a set for the terminal."""
    marks = " (SIMULATED recordings)" if summary.simulated else ""
    lines = [
        f"{summary.kind}: {show(summary.name)}{marks}, {len(summary.classes):,} classes, {summary.total:,} recordings"
    ]
    lines += [f"  {show(line, most=MOST_SHOWN)}" for line in summary.about]
    lines += [f"  {line}" for line in _format_classes(summary)]
    if summary.events:
        low, median, high = summary.events
        lines.append(f"  events of a recording: {low:,.6g} to {high:,.6g}, median {median:,.6g}")
    part = (
        ""
        if summary.inspected == summary.total
        else f" (an even sample of {summary.inspected:,} of {summary.total:,}; see --limit)"
    )
    worst_first = ", the worst first" if len(summary.odd) > 1 else ""
    lines.append(f"  looks wrong: {len(summary.odd):,} of {summary.inspected:,}{part}{worst_first}")
    lines += [f"    {show(facts.name)}: {'; '.join(facts.anomalies)}" for facts in summary.odd[:SHOWN_ODD]]
    if len(summary.odd) > SHOWN_ODD:
        lines.append(f"    and {len(summary.odd) - SHOWN_ODD:,} more, see --json")
    if summary.unreadable:
        lines.append(f"  cannot be used: {len(summary.unreadable):,}")
        lines += [
            f"    {show(message if message.startswith(name) else f'{name}: {message}', most=MOST_SHOWN)}"
            for name, message in summary.unreadable[:SHOWN_ODD]
        ]
    if not summary.odd and summary.furthest:
        lines.append(f"  furthest from its class: {show(summary.furthest)}, {summary.how_far}")
    return "\n".join(lines)


def _format_classes(summary: SetSummary) -> list[str]:
    listed = summary.classes[:SHOWN_CLASSES]
    width = max((len(show(row.name)) for row in listed), default=0)
    lines = [
        f"{show(row.name):{width}}  " + ", ".join(f"{count:,} {split}" for split, count in row.counts.items())
        for row in listed
    ]
    more = len(summary.classes) - SHOWN_CLASSES
    return lines + ([f"and {more:,} classes more"] if more > 0 else [])
