"""Exported networks in repositories of the hub: `hf://OWNER/MODEL`.

A folder that `export` filled, README.md and files of networks, goes there as it is, with SHA256SUMS beside it, by which
every file is checked on arrival, with the code that checks the files of shard sets.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spikebridge.pipeline.base.errors import SettingsError, ShardSetError, shorten
from spikebridge.pipeline.base.files import PARTIAL_SUFFIX, FileEntry, file_entry, write_bytes
from spikebridge.pipeline.base.foreign_json import check_json
from spikebridge.pipeline.shards.manifest import CARD, CHECKSUMS, checksums
from spikebridge.pipeline.sharing import hub
from spikebridge.pipeline.sharing.locations import open_folder
from spikebridge.pipeline.sharing.publish import transfer_all
from spikebridge.pipeline.sharing.transfer import OnBytes, fetch

ENDINGS = (".nir", ".pt2", ".safetensors")
"""Of the files that `export` writes."""


def push_network(folder: Path, address: str) -> dict[str, Any]:
    """Publish an exported network, one commit in a repository of models.

    Returns:
        address (with the commit), files and left_out, names of what else is in the folder.

    Raises:
        SettingsError: not a folder with an exported network and its card, or an address with a commit.
        ShardSetError: no access, or the hub cannot be reached.
    """
    repository = hub.parse_address(address)
    hub.require_writable(repository)
    hub.require_hub()
    names = sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    networks = [name for name in names if name.endswith(ENDINGS)]
    if not networks or CARD not in names:
        raise SettingsError(
            f"{folder}: expected a folder with {CARD} and an exported network ({', '.join(ENDINGS)}). Make one with "
            "export --out FOLDER/."
        )
    entries = [file_entry(folder / name, 0) for name in [CARD, *networks]]
    files: dict[str, Path | bytes] = {entry["name"]: folder / entry["name"] for entry in entries}
    files[CHECKSUMS] = checksums(entries).encode()
    commit = hub.commit(repository, files, message=f"Network {networks[0]}")
    left_out = sorted({path.name for path in folder.iterdir()} - {*files})
    return {"address": repository.at(commit), "files": [CARD, *networks], "left_out": left_out}


def pull_network(address: str, out: Path, *, bar: Callable[[int, str], OnBytes] | None = None) -> dict[str, Any]:
    """Fetch an exported network, or go on where an earlier call was cut off; every file is checked.

    Returns:
        out, address (with the commit) and files.

    Raises:
        SettingsError: `out` holds something else.
        ShardSetError: nothing of that kind there, or it is not what its sums say.
    """
    remote = open_folder(address)
    data = remote.read_small(CHECKSUMS)
    lines = (data or b"").decode("utf-8", "replace").splitlines()
    found = [re.fullmatch(r"([0-9a-f]{64})  (.+)", line) for line in lines]
    if not found or not all(found):
        raise ShardSetError(
            f"{remote.shown}: no {CHECKSUMS} of files; expected a network that `spikebridge push` published."
        )
    listed = [
        {"name": one[2], "sha256": one[1], "bytes": remote.size(one[2]) if "/" not in one[2] else 0, "samples": 0}
        for one in found
        if one
    ]
    ask = "Ask who published it."
    entries = check_json(listed, list[FileEntry], source=f"{remote.shown}/{CHECKSUMS}", error=ShardSetError, remedy=ask)
    known = {entry["name"] for entry in entries} | {CHECKSUMS}
    out.mkdir(parents=True, exist_ok=True)
    if others := sorted(p.name for p in out.iterdir() if p.name.removesuffix(PARTIAL_SUFFIX) not in known):
        raise SettingsError(f"{out} holds something else ({shorten(others, most=5)}). Choose another folder.")
    on_bytes = bar(sum(entry["bytes"] for entry in entries), "pull") if bar else lambda count: None
    transfer_all(entries, lambda entry, stop: fetch(remote, entry, out / entry["name"], stop=stop, on_bytes=on_bytes))
    write_bytes(out / CHECKSUMS, checksums(entries).encode())
    return {"out": str(out), "address": remote.shown, "files": sorted(known - {CHECKSUMS})}
