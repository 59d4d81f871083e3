"""Shard sets that tests change: hashes made to fit again, as someone would who hides something."""

from pipeline import manifest as manifests
from pipeline.files import sha256_file
from pipeline.finish import checksums


def sign(folder, **changes):
    """Make hashes, sizes and the manifest fit what lies in the folder, with changes to the manifest."""
    manifest = manifests.read(folder)
    for entry in manifest["files"]:
        path = folder / entry["name"]
        entry["bytes"], entry["sha256"] = path.stat().st_size, sha256_file(path)
    manifest.update(changes)
    (folder / manifests.CHECKSUMS).write_text(checksums(manifest["files"]))
    manifests.write(folder, manifests.seal(manifest))
