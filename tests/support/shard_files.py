"""Shard sets that tests change: hashes made to fit again, as someone would who hides something."""

from spikebridge.pipeline.base.files import sha256_file
from spikebridge.pipeline.cards.croissant import describe_set
from spikebridge.pipeline.readers import get_reader
from spikebridge.pipeline.shards import manifest as manifests
from spikebridge.pipeline.shards.manifest import checksums


def sign(folder, *, samples=None, **changes):
    """Make hashes, sizes and the manifest fit what lies in the folder, with changes to it, and to samples of files."""
    manifest = manifests.read(folder)
    for entry in manifest["files"]:
        path = folder / entry["name"]
        entry["bytes"], entry["sha256"] = path.stat().st_size, sha256_file(path)
        entry["samples"] = (samples or {}).get(entry["name"], entry["samples"])
    manifest.update(changes)
    (folder / manifests.CHECKSUMS).write_text(checksums(manifest["files"]))
    sealed = manifests.seal(manifest)
    if (folder / manifests.CROISSANT).exists():
        facts = get_reader(manifest["settings"]["dataset"]).card
        (folder / manifests.CROISSANT).write_bytes(manifests.dump(describe_set(sealed, facts)))
    manifests.write(folder, sealed)
