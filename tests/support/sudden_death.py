"""Processes that end at their n-th operation on files, as of a power switch, and what the next ones make of it.

python sudden_death.py SHARDS ADDRESS FOLDER EVERY READERS SEED

Kills pull, push and open at every so manieth operation (0: at none), and every second of several readers of one cold
cache; prints what was wrong afterwards. SHARDS is a set, ADDRESS where it is published, FOLDER where they write.
Forks, so that nothing is imported twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from spikebridge.pipeline.shards.manifest import OUTSIDE

DIED = 9
OPERATIONS = {
    "open",
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.truncate",
    "os.listdir",
    "os.scandir",
    "shutil.copyfile",
}


def die_at(number: int, folder: Path) -> None:
    """End this process, whatever it holds, at its n-th operation in a folder."""
    left = number

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in OPERATIONS and str(arguments[0]).startswith(str(folder)):
            left -= 1
            if left == 0:
                os._exit(DIED)

    sys.addaudithook(count)


def fork(work: Callable[[], object]) -> int:
    """Do something in a process of its own; returns its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def content(folder: Path) -> dict[str, str]:
    """Hash of every file, by its path, without what belongs to a cache and what no hash covers."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".lock"]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
        if path.name not in OUTSIDE and path.parent.name != "seen"
    }


def digest(shards: object) -> str:
    """Hash of all that training reads of a set."""
    parts = hashlib.sha256(shards.static_pool().images.tobytes())
    for name in ("train", "validation", "test"):
        split = shards.split(name)
        parts.update(split.read_all().tobytes() + split.labels.tobytes() + repr(split.keys).encode())
    return parts.hexdigest()


def main(shards: Path, address: str, folder: Path, every: int, readers: int, seed: int) -> dict[str, object]:
    from spikebridge.pipeline.shards.reader import ShardSet
    from spikebridge.pipeline.sharing import cache  # noqa: F401  (imported once, before the forks)
    from spikebridge.pipeline.sharing.open import open_set
    from spikebridge.pipeline.sharing.publish import pull, push

    os.environ["SPIKEBRIDGE_CACHE"] = str(folder)
    whole, set_id, right = content(shards), ShardSet(shards).id, digest(ShardSet(shards))

    def read() -> None:
        opened = open_set(address)
        assert digest(opened) == right, "another set"
        for future in opened._arriving.values():
            future.result()

    card = {"current.json": hashlib.sha256(json.dumps({"schema": 1, "id": set_id}).encode() + b"\n").hexdigest()}
    below = {f"{set_id}/{name}": value for name, value in whole.items()}
    above = {**below, **card, "README.md": whole["README.md"]}
    tries = [
        ("pull", lambda: pull(address, folder), whole),
        ("push", lambda: push(shards, str(folder)), above),
        ("open", read, below),
    ]
    found: dict[str, object] = {"readers": kill_readers(read, folder, readers, seed)} if readers else {}
    found["readers"] = [*found.get("readers", []), *sorted(content(folder).items() ^ below.items())] if readers else []
    for verb, work, expected in tries if every else ():
        found[verb] = kill_everywhere(work, folder, expected, every)
    return found


def kill_everywhere(work: Callable[[], object], folder: Path, expected: dict[str, str], every: int) -> list[str]:
    """Kill work at every n-th operation, each time in an empty folder, and do it again; returns what was wrong."""
    wrong, at = [], 1
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        code = wait(fork(lambda at=at: (die_at(at, folder), work())))
        again = wait(fork(work))
        if again or code not in (0, DIED) or content(folder) != expected:
            strange = sorted({name for name, _ in content(folder).items() ^ expected.items()})
            wrong.append(f"killed at {at}: {code}, then {again}; {strange}")
        if code != DIED:
            assert at > 20, "it hardly did anything"
            return wrong
        at += every


def kill_readers(read: Callable[[], object], folder: Path, readers: int, seed: int) -> list[str]:
    """Let several processes read at once, kill every second at a random operation and start it again."""
    rng, running, codes = random.Random(seed), set(), []
    shutil.rmtree(folder, ignore_errors=True)
    for reader in range(readers):
        at = rng.randint(1, 60) if reader % 2 == 0 else 0
        running.add(fork(lambda at=at: (die_at(at, folder), read())))
    while running:
        child, status = os.wait()
        running.remove(child)
        codes.append(os.waitstatus_to_exitcode(status))
        if codes[-1] == DIED:
            running.add(fork(read))
    codes.append(wait(fork(read)))
    assert codes.count(DIED) > 0, "nobody died"
    return [f"ended with {code}" for code in codes if code not in (0, DIED)]


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), *map(int, sys.argv[4:]))))
