"""Sums by which a file of a run is known to be the one that was written.

The two files of JSON that say what a run is, `checkpoint/state.json` and `result.json`, name the SHA-256 of every other
file that counts (`files`), and carry one of their own: `self_sha256` is that of the file's bytes with 64 zeros in place
of its digits. Runs of earlier schemas carry none, and nothing of theirs is compared. Exported files carry theirs in the
same manner, see `seal_file`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spikebridge.pipeline.base.files import sha256_once
from spikebridge.train.errors import RunError

SEAL = "self_sha256"
BLANK = "0" * 64


def encode_json(value: Any) -> bytes:
    """Encode JSON with one key per line; NaN is refused."""
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value with the sum that its file has when `encode_json` wrote it."""
    blank = {**value, SEAL: BLANK}
    return {**blank, SEAL: hashlib.sha256(encode_json(blank)).hexdigest()}


def require_seal(path: Path, content: bytes, value: Mapping[str, Any], *, schema: int) -> None:
    """Refuse a file that is not as it was sealed; one of an earlier schema needs no seal.

    Args:
        path: of the file, for messages.
        content: its bytes.
        value: what they say.
        schema: the first one with seals.

    Raises:
        RunError: another sum than its own, or none where there should be one.
    """
    digest, version = value.get(SEAL), value.get("schema", 1)
    if digest is None and isinstance(version, int) and version < schema:
        return
    require_digest(path, content, digest)


def require_digest(path: Path, content: bytes, digest: Any) -> None:
    """Refuse a file whose bytes do not have the SHA-256 that stands in them, with zeros in its place.

    Raises:
        RunError: they have another.
    """
    blank = content.replace(str(digest).encode(), BLANK.encode())
    if len(str(digest)) != len(BLANK) or hashlib.sha256(blank).hexdigest() != digest:
        raise RunError(f"{path}: damaged; its content has another SHA-256 than it carries")


def seal_file(content: bytes) -> bytes:
    """Return the content of a file with its SHA-256 in the place of the zeros behind `self_sha256`, of any format."""
    (place,) = re.finditer(rb"%s\W{1,8}(%s)" % (SEAL.encode(), BLANK.encode()), content)
    return content[: place.start(1)] + hashlib.sha256(content).hexdigest().encode() + content[place.end(1) :]


def require_file(path: Path, expected: str) -> None:
    """Refuse a file that has another SHA-256 than expected.

    Raises:
        RunError: changed, or it cannot be read.
    """
    try:
        found = sha256_once(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror or error})") from error
    if found != expected:
        raise RunError(f"{path}: changed since it was written (SHA-256 {found[:12]}, expected {expected[:12]})")


def sha256_start(path: Path, length: int) -> str:
    """Return the SHA-256 of a file's first `length` bytes; of an absent file that of none."""
    digest = hashlib.sha256()
    if path.exists():
        with path.open("rb") as file:
            while part := file.read(min(length, 2**20)):
                digest.update(part)
                length -= len(part)
    return digest.hexdigest()
