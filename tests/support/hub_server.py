"""A stand-in for the Hugging Face hub, in a process of its own: as much of its HTTP protocol as the tests need.

python hub_server.py LOG    prints its port, then serves; a line per request goes to LOG: method and path

Repositories live in memory: commits of files, and objects of Git LFS by SHA-256. Whoever writes, or reads what is
private, needs the token `TOKEN`. Not there: Xet, pull requests, pages.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_tests"
LARGE = (".tar", ".h5", ".npy", ".nir", ".safetensors", ".png")
"""Endings that the hub keeps as objects of Git LFS."""


class Repository:
    """Commits of a repository, the newest last."""

    def __init__(self, private: bool) -> None:
        self.private = private
        self.commits: dict[str, dict[str, bytes]] = {}
        self.commit({})

    def commit(self, files: dict[str, bytes]) -> str:
        oid = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[oid] = files
        return oid

    def find(self, revision: str) -> str | None:
        newest = list(self.commits)[-1]
        return newest if revision == "main" else revision if revision in self.commits else None


REPOSITORIES: dict[tuple[str, str], Repository] = {}
OBJECTS: dict[str, bytes] = {}


def oid_of(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def entry_of(path: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": oid_of(data)}
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return entry


class Hub(BaseHTTPRequestHandler):
    """Requests of huggingface_hub."""

    protocol_version = "HTTP/1.1"
    log: Path

    def handle_one(self) -> None:
        with open(self.log, "a") as file:
            print(self.command, self.path, file=file)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if (self.headers.get("Transfer-Encoding") or "") == "chunked":
            body = self._read_chunks()
        path = unquote(urlsplit(self.path).path)
        trusted = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        for pattern, methods, answer in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and self.command in methods:
                return answer(self, body, trusted, **found.groupdict())
        return self.refuse(404, "no such page")

    do_GET = do_HEAD = do_POST = do_PUT = handle_one  # noqa: N815  (names that http.server looks for)

    def _read_chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, values: Any, status: int = 200) -> None:
        data = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, words: str, code: str = "") -> None:
        data = json.dumps({"error": words}).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", words)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass

    def open(self, kind: str, name: str, trusted: bool, *, write: bool = False) -> Repository | None:
        """The repository, or None after a refusal."""
        repository = REPOSITORIES.get((kind, name))
        if repository is None or (repository.private and not trusted):
            self.refuse(404 if trusted else 401, "Repository not found", "RepoNotFound")
        elif write and not trusted:
            self.refuse(403, "this token may not write")
        else:
            return repository
        return None

    def files_at(self, kind: str, name: str, revision: str, trusted: bool) -> tuple[str, dict[str, bytes]] | None:
        repository = self.open(kind, name, trusted)
        if repository is None:
            return None
        if (oid := repository.find(revision)) is None:
            self.refuse(404, "Invalid rev id", "RevisionNotFound")
            return None
        return oid, repository.commits[oid]

    def create(self, body: bytes, trusted: bool) -> None:
        asked = json.loads(body)
        kind, owner = asked.get("type") or "model", asked.get("organization") or "user"
        key = (kind, asked["name"] if "/" in asked["name"] else f"{owner}/{asked['name']}")
        if not trusted:
            return self.refuse(401, "Invalid credentials")
        if key in REPOSITORIES:
            return self.answer({"error": "You already created this repo", "url": self.page(*key)}, 409)
        REPOSITORIES[key] = Repository(asked.get("private") or asked.get("visibility") == "private")
        self.answer({"url": self.page(*key)})

    def page(self, kind: str, name: str) -> str:
        return f"http://{self.headers['Host']}/{'datasets/' if kind == 'dataset' else ''}{name}"

    def info(self, body: bytes, trusted: bool, kind: str, name: str, revision: str | None = None) -> None:
        if found := self.files_at(kind, name, revision or "main", trusted):
            oid, files = found
            private = REPOSITORIES[kind, name].private
            listed = [{"rfilename": path} for path in files]
            self.answer({"id": name, "sha": oid, "private": private, "siblings": listed, "tags": [], "downloads": 0})

    def tree(self, body: bytes, trusted: bool, kind: str, name: str, revision: str, path: str = "") -> None:
        if found := self.files_at(kind, name, revision, trusted):
            below = {p: data for p, data in found[1].items() if not path or p.startswith(f"{path}/")}
            if path and not below:
                return self.refuse(404, f"{path} does not exist", "EntryNotFound")
            self.answer([entry_of(p, data) for p, data in sorted(below.items())])

    def paths(self, body: bytes, trusted: bool, kind: str, name: str, revision: str) -> None:
        if found := self.files_at(kind, name, revision, trusted):
            asked = json.loads(body)["paths"]
            self.answer([entry_of(p, found[1][p]) for p in asked if p in found[1]])

    def resolve(self, body: bytes, trusted: bool, name: str, revision: str, path: str, kind: str = "") -> None:
        found = self.files_at("dataset" if kind else "model", name, revision, trusted)
        if found is None:
            return None
        oid, files = found
        if path not in files:
            return self.refuse(404, "Entry not found", "EntryNotFound")
        data, start, stop = files[path], 0, len(files[path])
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start, stop = int(wanted[1]), min(int(wanted[2]) + 1 if wanted[2] else len(data), len(data))
        self.send_response(206 if wanted else 200)
        self.send_header("X-Repo-Commit", oid)
        self.send_header("ETag", f'"{entry_of(path, data).get("lfs", {}).get("oid") or oid_of(data)}"')
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[start:stop])
        return None

    def preupload(self, body: bytes, trusted: bool, kind: str, name: str, revision: str) -> None:
        if repository := self.open(kind, name, trusted, write=True):
            here = repository.commits[repository.find("main") or ""]
            self.answer(
                {
                    "files": [
                        {
                            "path": one["path"],
                            "uploadMode": "lfs" if one["path"].endswith(LARGE) else "regular",
                            "shouldIgnore": False,
                            "oid": hashlib.sha256(here[one["path"]]).hexdigest()
                            if one["path"] in here and one["path"].endswith(LARGE)
                            else oid_of(here[one["path"]])
                            if one["path"] in here
                            else None,
                        }
                        for one in json.loads(body)["files"]
                    ]
                }
            )

    def batch(self, body: bytes, trusted: bool, name: str, kind: str = "") -> None:
        if self.open("dataset" if kind else "model", name, trusted, write=True):
            objects = []
            for one in json.loads(body)["objects"]:
                upload = {"href": f"http://{self.headers['Host']}/objects/{one['oid']}"}
                objects.append({**one, **({} if one["oid"] in OBJECTS else {"actions": {"upload": upload}})})
            self.answer({"transfer": "basic", "objects": objects})

    def upload(self, body: bytes, trusted: bool, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self.refuse(400, "another content")
        OBJECTS[oid] = body
        self.answer({})

    def commit(self, body: bytes, trusted: bool, kind: str, name: str, revision: str) -> None:
        repository = self.open(kind, name, trusted, write=True)
        if repository is None:
            return None
        newest = repository.find("main") or ""
        files = dict(repository.commits[newest])
        for line in body.splitlines():
            one = json.loads(line)
            value = one["value"]
            if one["key"] == "header" and value.get("parentCommit") not in (None, newest):
                return self.refuse(412, "A commit has happened since. Please refresh and try again.")
            if one["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif one["key"] == "lfsFile":
                files[value["path"]] = OBJECTS[value["oid"]]
            elif one["key"] == "deletedFile":
                del files[value["path"]]
        oid = repository.commit(files)
        return self.answer({"success": True, "commitOid": oid, "commitUrl": f"{self.page(kind, name)}/commit/{oid}"})

    def spoil(self, body: bytes, trusted: bool, name: str) -> None:
        """Change a byte of a file in every commit: what no hub should do."""
        for repository in REPOSITORIES.values():
            for files in repository.commits.values():
                if data := files.get(name):
                    files[name] = data[:-1] + bytes([data[-1] ^ 1])
        self.answer({})


NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
API = rf"/api/(?P<kind>dataset|model)s/{NAME}"
READS = ("GET", "HEAD")
ROUTES: list[tuple[str, tuple[str, ...], Any]] = [
    ("/api/repos/create", ("POST",), Hub.create),
    ("/api/validate-yaml", ("POST",), lambda hub, body, trusted: hub.answer({"errors": [], "warnings": []})),
    ("/objects/(?P<oid>[0-9a-f]{64})", ("PUT",), Hub.upload),
    ("/spoil/(?P<name>.+)", ("POST",), Hub.spoil),
    (API, READS, Hub.info),
    (rf"{API}/revision/(?P<revision>[\w.-]+)", READS, Hub.info),
    (rf"{API}/tree/(?P<revision>[\w.-]+)(?:/(?P<path>.+))?", READS, Hub.tree),
    (rf"{API}/paths-info/(?P<revision>[\w.-]+)", ("POST",), Hub.paths),
    (rf"{API}/preupload/(?P<revision>[\w.-]+)", ("POST",), Hub.preupload),
    (rf"{API}/commit/(?P<revision>[\w.-]+)", ("POST",), Hub.commit),
    (rf"/(?P<kind>datasets/)?{NAME}\.git/info/lfs/objects/batch", ("POST",), Hub.batch),
    (rf"/(?P<kind>datasets/)?{NAME}/resolve/(?P<revision>[\w.-]+)/(?P<path>.+)", READS, Hub.resolve),
]


class Server(ThreadingHTTPServer):
    """Says nothing of clients that hang up."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


if __name__ == "__main__":
    Hub.log = Path(sys.argv[1])
    Hub.log.touch()
    server = Server(("127.0.0.1", 0), Hub)
    print(server.server_port, flush=True)
    server.serve_forever()
