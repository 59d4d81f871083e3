"""The section about the data: what the shard set is, and the hashes that tell it from any other."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from spikebridge.pipeline.base.files import FileEntry
from spikebridge.pipeline.shards.manifest import SPLITS
from spikebridge.pipeline.ui.html import facts, folded, paragraph, preformatted, table

if TYPE_CHECKING:
    from spikebridge.pipeline.shards.reader import ShardSet

MOST_FILES = 60
"""Files whose hashes are listed."""
PAIRING = {
    "exact": "each recording names the static image it shows; no static image of a held-out recording is in the pool",
    "class": "recordings and static images share classes only",
}


def data(shards: ShardSet) -> str:
    """Return facts of the manifest, every file with its hash, and the set's own card where it lies beside it."""
    manifest, settings = shards.manifest, shards.settings
    static, source = manifest.get("static", {}), manifest.get("events", {})
    made = "" if shards.as_stored else ", made of stored events"
    pairs = (
        ("Data set", str(settings.get("dataset", "")) + (" (SIMULATED recordings)" if shards.simulated else "")),
        ("Protocol", str(settings.get("protocol", ""))),
        ("One sample", f"{'×'.join(map(str, shards.sample_shape))} {settings.get('dtype', '')} (T, P, H, W){made}"),
        ("Static images", f"{static.get('roles', {}).get('pool', 0):,} in the pool of {static.get('images', 0):,}"),
        ("Events read", f"{source.get('events', 0):,}"),
        ("Recordings dropped", f"{manifest.get('rejected', 0):,}"),
        ("Pairing", PAIRING.get(str(manifest.get("pairing", {}).get("kind")), "")),
        ("Shard set ID", shards.id),
        ("Settings, SHA-256", str(manifest.get("settings_sha256", ""))),
        ("List of raw files, SHA-256", str(manifest.get("listing_sha256", ""))),
    )
    wide = ("Pairing", "Shard set ID", "Settings, SHA-256", "List of raw files, SHA-256")
    splits = manifest["splits"]
    rows = [
        (name, f"{split['samples']:,}", _between(split["per_class"]))
        for name in SPLITS
        if (split := splits[name])["per_class"]
    ]
    parts = [facts(pairs, wide=wide), table(("split", "recordings", "per class"), rows)]
    parts += [folded("Files and their SHA-256", _files(manifest["files"]))]
    card = shards.path / "README.md"
    if card.is_file():
        parts.append(folded("The set's own card", preformatted(_without_front_matter(card.read_text("utf-8")))))
    return "\n".join(parts)


def _files(files: list[FileEntry]) -> str:
    rows = "\n".join(
        f"<tr><td>{escape(str(file['name']))}</td><td>{file['bytes']:,}</td>"
        f'<td class="hash"><code>{escape(str(file["sha256"]))}</code></td></tr>'
        for file in files[:MOST_FILES]
    )
    more = f"{len(files) - MOST_FILES:,} more files are listed in manifest.json." if len(files) > MOST_FILES else ""
    return (
        '<div class="scroll"><table class="files"><thead><tr><th>file</th><th>bytes</th><th class="hash">SHA-256</th>'
        f"</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>" + (paragraph(more, note=True) if more else "")
    )


def _without_front_matter(text: str) -> str:
    return text.split("\n---\n", 1)[1].strip() if text.startswith("---\n") and "\n---\n" in text else text.strip()


def _between(counts: Sequence[int]) -> str:
    """Return the least and the greatest of some numbers, once where they are one."""
    least, most = min(counts), max(counts)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
