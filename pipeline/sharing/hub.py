"""Repositories of the Hugging Face hub: shard sets in `hf://datasets/OWNER/NAME`, networks in `hf://OWNER/MODEL`.

A push is one commit, so readers get all of it or nothing. A read is pinned to the commit that the address names, or
that the branch `main` is at when it begins. Tokens come from where huggingface_hub looks for them (HF_TOKEN, `hf auth
login`) and stand in no address. HF_ENDPOINT names another hub.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.base.errors import PipelineError, SettingsError, ShardSetError
from spikebridge.pipeline.base.installation import install_command

SCHEME = "hf://"
_ADDRESS = re.compile(r"hf://(datasets/)?([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([\w.-]+))?/?")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Repository:
    """A repository, at a commit or at its newest."""

    kind: str
    """`dataset` or `model`."""
    name: str
    """OWNER/NAME."""
    revision: str = ""
    """Commit, tag or branch; empty for the branch `main`."""

    @property
    def path(self) -> str:
        """Return the path as the hub's file system has it, without a revision."""
        return f"datasets/{self.name}" if self.kind == "dataset" else self.name

    def at(self, commit: str) -> str:
        """Return the address of a commit."""
        return f"{SCHEME}{self.path}@{commit}"


def is_hub(address: str) -> bool:
    """Return whether an address is one of the hub's."""
    return address.startswith(SCHEME)


def is_model(address: str) -> bool:
    """Return whether an address is one of the hub's that names a repository of models.

    Raises:
        SettingsError: see `parse_address`.
    """
    return is_hub(address) and parse_address(address).kind == "model"


def parse_address(address: str) -> Repository:
    """Parse an address.

    Raises:
        SettingsError: it is something else, such as one with a token in it.
    """
    found = _ADDRESS.fullmatch(address)
    if not found:
        raise SettingsError(
            f"{SCHEME}...: expected hf://datasets/OWNER/NAME or hf://OWNER/MODEL, with @COMMIT behind it for a certain "
            "commit. Tokens belong into HF_TOKEN, or to `hf auth login`."
        )
    return Repository("dataset" if found[1] else "model", found[2], found[3] or "")


def require_hub() -> None:
    """Check that huggingface_hub is installed.

    Raises:
        SettingsError: it is not.
    """
    if find_spec("huggingface_hub") is None:
        raise SettingsError(
            f"hf addresses need the package huggingface_hub, which is not installed; {install_command('hub')}"
        )


def require_writable(repository: Repository) -> None:
    """Check that an address names a repository rather than one of its commits.

    Raises:
        SettingsError: it names a commit, tag or branch.
    """
    if repository.revision:
        raise SettingsError(
            f"{SCHEME}{repository.path}: @{repository.revision} names what is there, and a push adds to it; leave it "
            "out."
        )


def find_commit(repository: Repository) -> str:
    """Return the commit that a repository is at.

    Raises:
        ShardSetError: no such repository or revision, no access, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi

    info = _ask(
        repository,
        lambda: HfApi().repo_info(repository.name, repo_type=repository.kind, revision=repository.revision or None),
    )
    return str(info.sha)


def open_files() -> Any:
    """Return the file system of the hub; paths are `Repository.path` with a commit."""
    from huggingface_hub import HfFileSystem

    return HfFileSystem(skip_instance_cache=True)


def commit(
    repository: Repository,
    files: Mapping[str, Path | bytes],
    *,
    message: str,
    gone: Collection[str] = (),
    parent: str = "",
) -> str:
    """Write files into a repository, and delete others, in one commit; what is there alike is not sent again.

    A repository that is missing is made, private. With `parent`, the commit is refused where the branch has moved on.

    Returns:
        The new commit.

    Raises:
        ShardSetError: no access, the branch moved on, or the hub cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.utils import disable_progress_bars

    operations: list[Any] = [CommitOperationDelete(name) for name in sorted(set(gone) - set(files))]
    for name, content in files.items():
        operations.append(CommitOperationAdd(name, str(content) if isinstance(content, Path) else content))
    api = HfApi()

    def send() -> str:
        if not sys.stderr.isatty():  # as our own bars
            disable_progress_bars()
        api.create_repo(repository.name, repo_type=repository.kind, private=True, exist_ok=True)
        done = api.create_commit(
            repository.name,
            operations,
            repo_type=repository.kind,
            commit_message=message,
            parent_commit=parent or None,
        )
        return str(done.oid)

    return _ask(repository, send)


def exists(repository: Repository) -> bool:
    """Return whether there is a repository, as far as this user may know.

    Raises:
        ShardSetError: the hub cannot be reached.
    """
    from huggingface_hub import HfApi

    return bool(_ask(repository, lambda: HfApi().repo_exists(repository.name, repo_type=repository.kind)))


def _ask(repository: Repository, request: Callable[[], Result]) -> Result:
    """Return what a request gives; its errors name the repository, and no token."""
    try:
        return request()
    except PipelineError:
        raise
    except Exception as error:  # errors of HTTP, of the hub and of its files are of many kinds
        words = re.sub(r"hf_\w+", "hf_***", str(error)).strip().partition("\n")[0]
        raise ShardSetError(
            f"{SCHEME}{repository.path}: {type(error).__name__}: {show(words, most=400)}. Check the address, the "
            "network and your access (HF_TOKEN, or `hf auth login`)."
        ) from error
