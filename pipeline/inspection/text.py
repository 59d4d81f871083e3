"""What `spikebridge inspect` says in the terminal."""

from __future__ import annotations

from spikebridge.pipeline.inspection.sets import SetFacts
from spikebridge.pipeline.inspection.views import One

SHOWN_ODD, SHOWN_CLASSES = 10, 12
"""Lines at most."""
FOR_PROGRAMS = ("events_sha256",)
"""What --json alone says."""


def text_of_one(one: One) -> str:
    """A summary for the terminal."""
    facts = one.facts
    rows = rows_of(one)
    width = max(len(name) for name, _ in rows)
    head = [one.title, *(f"  {name:{width}}  {value}" for name, value in rows)]
    wrong = [f"  looks wrong: {complaint}" for complaint in facts.complaints]
    return "\n".join([*head, *(wrong or ["  nothing looks wrong"])])


def rows_of(one: One) -> list[tuple[str, str]]:
    """Names and values of everything that is known, for people."""
    facts = one.facts
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
    for name, value in one.origin.items():
        if name == "duration_us":
            rows.append(("duration", f"{value / 1000:,.3f} ms"))
        elif value not in (None, "") and name not in FOR_PROGRAMS:
            shown = f"{value:,}" if isinstance(value, int) else str(value)
            rows.append((f"raw {name}" if name in known else name.replace("_", " "), shown))
    return rows


def text_of_set(found: SetFacts) -> str:
    """A summary for the terminal."""
    marks = " (SIMULATED recordings)" if found.simulated else ""
    lines = [f"{found.kind}: {found.name}{marks}, {len(found.classes):,} classes, {found.of:,} recordings"]
    lines += [f"  {line}" for line in found.about]
    lines += [f"  {line}" for line in _class_lines(found)]
    if found.events:
        low, median, high = found.events
        lines.append(f"  events of a recording: {low:,.6g} to {high:,.6g}, median {median:,.6g}")
    part = "" if found.looked == found.of else f" (an even sample of {found.looked:,} of {found.of:,}; see --limit)"
    worst_first = ", the worst first" if len(found.odd) > 1 else ""
    lines.append(f"  looks wrong: {len(found.odd):,} of {found.looked:,}{part}{worst_first}")
    lines += [f"    {facts.name}: {'; '.join(facts.complaints)}" for facts in found.odd[:SHOWN_ODD]]
    if len(found.odd) > SHOWN_ODD:
        lines.append(f"    and {len(found.odd) - SHOWN_ODD:,} more, see --json")
    if found.unreadable:
        lines.append(f"  cannot be used: {len(found.unreadable):,}")
        lines += [f"    {message}" for _, message in found.unreadable[:SHOWN_ODD]]
    if not found.odd and found.furthest:
        lines.append(f"  furthest from its class: {found.furthest}, {found.how_far}")
    return "\n".join(lines)


def _class_lines(found: SetFacts) -> list[str]:
    parts = list(found.classes[0])[1:] if found.classes else []
    width = max((len(entry["class"]) for entry in found.classes[:SHOWN_CLASSES]), default=0)
    lines = [
        f"{entry['class']:{width}}  " + ", ".join(f"{entry[part]:,} {part}" for part in parts)
        for entry in found.classes[:SHOWN_CLASSES]
    ]
    more = len(found.classes) - SHOWN_CLASSES
    return lines + ([f"and {more:,} classes more"] if more > 0 else [])
