"""Shard sets travel: to folders, HTTP, S3 and SFTP servers in processes of their own, and come back byte for byte."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import fsspec
import pytest
from conftest import ROOT
from forked import Forked
from servers import serving
from sshfs import SSHFileSystem

from spikebridge.pipeline.base.errors import SettingsError, ShardSetError
from spikebridge.pipeline.checks.verify import verify
from spikebridge.pipeline.shards.manifest import OUTSIDE
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.sharing import publish as sharing
from spikebridge.pipeline.sharing.locations import is_address, masked, open_folder
from spikebridge.pipeline.sharing.open import open_set
from spikebridge.pipeline.sharing.publish import CURRENT, find_set, pull, push


def contents(folder):
    """Bytes of every file but the one that no hash covers."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name not in OUTSIDE}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    """What cannot be reached is given up at once."""
    monkeypatch.setattr("spikebridge.pipeline.sharing.locations.FIRST_PAUSE_S", 0.001)


@pytest.fixture(scope="module")
def published(shard_set, tmp_path_factory):
    """A set published into a folder."""
    place = tmp_path_factory.mktemp("published")
    push(shard_set(samples_per_shard=4), str(place))
    return place


@pytest.fixture
def http(published, tmp_path):
    with serving("http", published, tmp_path / "log") as (port, _):
        yield f"http://127.0.0.1:{port}"


def sent(log):
    """(file, start, bytes) of every answer."""
    return [(line.split()[0].rpartition("/")[2], *map(int, line.split()[1:])) for line in log.read_text().splitlines()]


def test_there_and_back_through_a_folder(shard_set, published, tmp_path):
    shards = shard_set(samples_per_shard=4)
    done = pull(str(published), tmp_path / "set", expect=ShardSet(shards).id)
    assert done["splits"] == ["train", "validation", "test"]
    assert contents(tmp_path / "set") == contents(shards)
    assert verify(tmp_path / "set").ok
    assert (published / "README.md").read_bytes() == (shards / "README.md").read_bytes()
    assert push(shards, str(published))["sent"] == 0  # nothing is sent twice


def test_damaged_sums_are_not_published(shard_set, tmp_path):
    path = shutil.copytree(shard_set(), tmp_path / "set")
    sums = path / "SHA256SUMS"
    sums.write_text(sums.read_text().replace("a", "b", 1))
    with pytest.raises(ShardSetError, match="SHA256SUMS: not what the manifest says"):
        push(path, str(tmp_path / "published"))
    assert not list(tmp_path.glob("published/*"))


def test_a_set_without_sums_is_published_with_them(shard_set, tmp_path):
    path = shutil.copytree(shard_set(), tmp_path / "set")
    (path / "SHA256SUMS").unlink()
    push(path, str(tmp_path / "published"), flat=True)
    assert contents(tmp_path / "published") == contents(shard_set())


def test_a_file_that_is_replaced_while_it_is_sent_is_no_published_set(shard_set, tmp_path, monkeypatch):
    path, real = shutil.copytree(shard_set(), tmp_path / "set"), sharing._put

    def replace(remote, source, name):
        if name == "static.h5":
            (path / name).write_bytes(b"of another set")
        real(remote, source, name)

    monkeypatch.setattr(sharing, "_put", replace)
    with pytest.raises(ShardSetError, match=r"static\.h5: changed or damaged"):
        push(path, str(tmp_path / "published"))
    assert not list(tmp_path.glob("published/*.json"))


def test_a_manifest_that_is_deleted_meanwhile_is_published(shard_set, tmp_path, monkeypatch):
    path, real = shutil.copytree(shard_set(), tmp_path / "set"), sharing.transfer_all

    def delete(*arguments):
        real(*arguments)
        (path / "manifest.json").unlink()

    monkeypatch.setattr(sharing, "transfer_all", delete)
    set_id = push(path, str(tmp_path / "published"))["id"]
    assert open_set(tmp_path / "published" / set_id).id == set_id


def test_flat_into_the_clone_of_a_hub_repository(shard_set, tmp_path):
    shards, clone = shard_set(samples_per_shard=4), tmp_path / "clone"
    (clone / ".git").mkdir(parents=True)
    card = (shards / "README.md").read_bytes()
    (clone / "README.md").write_bytes(b"x" * len(card))  # hubs begin with one
    push(shards, str(clone), flat=True)
    assert sorted(path.name for path in clone.iterdir()) == sorted([".git", *(p.name for p in Path(shards).iterdir())])
    assert (clone / "README.md").read_bytes() == card
    pull(str(clone), tmp_path / "set", expect=ShardSet(shards).id)
    assert contents(tmp_path / "set") == contents(shards)
    assert push(shards, str(clone), flat=True)["sent"] == 0
    with pytest.raises(SettingsError, match=f"holds shard set {ShardSet(shards).id}"):
        push(shard_set(samples_per_shard=5), str(clone), flat=True)


def test_flat_needs_a_place_of_its_own(shard_set, published):
    before = {path.name for path in published.iterdir()}
    with pytest.raises(SettingsError, match="push without --flat"):
        push(shard_set(samples_per_shard=4), str(published), flat=True)
    assert {path.name for path in published.iterdir()} == before


def test_a_published_folder_opens_as_it_is(shard_set, published):
    opened = open_set(str(published))
    assert opened.id == ShardSet(shard_set(samples_per_shard=4)).id
    assert opened.path == published / opened.id


def test_over_http(shard_set, http, tmp_path):
    pull(http, tmp_path / "set")
    assert contents(tmp_path / "set") == contents(shard_set(samples_per_shard=4))
    with pytest.raises(SettingsError, match="read only"):
        push(tmp_path / "set", http)


def test_a_server_without_ranges(shard_set, published, tmp_path, monkeypatch):
    monkeypatch.setattr("spikebridge.pipeline.sharing.locations.PART_BYTES", 3000)
    with serving("http", published, tmp_path / "log", "--no-ranges") as (port, _):
        pull(f"http://127.0.0.1:{port}", tmp_path / "set")
    assert contents(tmp_path / "set") == contents(shard_set(samples_per_shard=4))


def test_a_plain_folder_of_a_set_can_be_pulled(shard_set, tmp_path):
    with serving("http", shard_set(), tmp_path / "log") as (port, _):
        pull(f"http://127.0.0.1:{port}", tmp_path / "set")
    assert contents(tmp_path / "set") == contents(shard_set())


def test_a_server_that_dies_in_the_middle_costs_only_what_was_missing(shard_set, published, tmp_path, monkeypatch):
    monkeypatch.setattr("spikebridge.pipeline.sharing.locations.PART_BYTES", 700)
    half = sum(path.stat().st_size for path in shard_set(samples_per_shard=4).iterdir()) // 2
    with (
        serving("http", published, tmp_path / "log", "--die-after", half) as (port, _),
        pytest.raises(ShardSetError, match="Check the address"),
    ):
        pull(f"http://127.0.0.1:{port}", tmp_path / "set")
    kept = {path.name: path.stat().st_size for path in (tmp_path / "set").iterdir()}
    assert sum(kept.values())  # whole files and parts, as they came
    assert not (tmp_path / "set" / "manifest.json").exists()
    with pytest.raises(ShardSetError, match="expected a shard set"):
        ShardSet(tmp_path / "set")
    with serving("http", published, tmp_path / "log2") as (port, _):
        pull(f"http://127.0.0.1:{port}", tmp_path / "set")
    assert contents(tmp_path / "set") == contents(shard_set(samples_per_shard=4))
    again = {name for name, start, _ in sent(tmp_path / "log2") if start == 0}
    for name, size in kept.items():
        assert size == 0 or name.removesuffix(".partial") not in again, "what had arrived was fetched again"


@pytest.mark.parametrize("verb", ["pull", "push"])
def test_a_client_killed_in_the_middle_goes_on(shard_set, published, tmp_path, verb):
    slow = (
        "import sys, time, pathlib\nfrom spikebridge.pipeline.sharing import locations as places, publish as sharing\n"
        "stream, put = places.RemoteFolder.stream, places.RemoteFolder.put\n"
        "def late(call):\n    def wrapped(*a):\n        time.sleep(.15)\n        return call(*a)\n    return wrapped\n"
        "places.RemoteFolder.stream, places.RemoteFolder.put = late(stream), late(put)\n"
    )
    call = {
        "pull": f"sharing.pull({str(published)!r}, pathlib.Path({str(tmp_path / 'out')!r}))",
        "push": f"sharing.push(pathlib.Path({str(shard_set(samples_per_shard=4))!r}), {str(tmp_path / 'out')!r})",
    }[verb]
    process = Forked([sys.executable, "-c", slow + call], cwd=ROOT)
    deadline = time.monotonic() + 300
    while len([p for p in tmp_path.rglob("events-*") if p.is_file()]) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.rglob("manifest.json"))
    if verb == "push":
        with pytest.raises(ShardSetError, match=r"neither manifest\.json nor current\.json"):
            pull(str(tmp_path / "out"), tmp_path / "fetched")
        before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("events-*") if p.suffix != ".partial"}
        push(shard_set(samples_per_shard=4), str(tmp_path / "out"))
        after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("events-*")}
        assert all(after[name] == time for name, time in before.items())
        pull(str(tmp_path / "out"), tmp_path / "fetched")
    else:
        pull(str(published), tmp_path / "out")
    assert contents(tmp_path / ("fetched" if verb == "push" else "out")) == contents(shard_set(samples_per_shard=4))


def test_a_changed_remote_file_is_refused_by_name(published, tmp_path):
    shutil.copytree(published, tmp_path / "place")
    (victim,) = (tmp_path / "place").glob("*/events-test-00000.tar")
    data = bytearray(victim.read_bytes())
    data[1000] ^= 1
    victim.write_bytes(data)
    with pytest.raises(ShardSetError, match=r"events-test-00000\.tar: not the file that the manifest names"):
        pull(str(tmp_path / "place"), tmp_path / "set")
    assert not (tmp_path / "set" / "manifest.json").exists()
    assert not list((tmp_path / "set").glob("events-test-00000.tar*"))


def test_a_partial_file_that_does_not_fit_is_fetched_again(shard_set, published, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / sharing.PULL).write_text(json.dumps({"id": ShardSet(shard_set(samples_per_shard=4)).id}))
    (tmp_path / "set" / "static.h5.partial").write_bytes(b"something else")
    pull(str(published), tmp_path / "set")
    assert contents(tmp_path / "set") == contents(shard_set(samples_per_shard=4))


def test_a_web_page_is_no_shard_set(tmp_path):
    (tmp_path / "manifest.json").write_text("<!DOCTYPE html><p>Please log in")
    with (
        serving("http", tmp_path, tmp_path / "log") as (port, _),
        pytest.raises(ShardSetError, match=r"manifest\.json: found \(a web page\)"),
    ):
        pull(f"http://127.0.0.1:{port}", tmp_path / "set")
    with pytest.raises(ShardSetError, match="neither"):
        pull(str(tmp_path / "nothing"), tmp_path / "set")


def test_a_web_page_in_the_place_of_any_file(published, tmp_path):
    """Status 200 and a page: refused by name, and nothing of it is kept."""
    (folder,) = (path for path in published.iterdir() if path.is_dir())
    victims = [CURRENT, *(f"{folder.name}/{name}" for name in ("manifest.json", "static.h5", "events-test-00000.tar"))]
    victims.append(f"{folder.name}/events-train-00001.idx.npy")
    page = b"<!DOCTYPE html><html><head><title>Please log in</title></head></html>"
    for number, name in enumerate(victims):
        place = tmp_path / "places" / str(number)
        shutil.copytree(published, place)
        size = (place / name).stat().st_size
        (place / name).write_bytes(page.ljust(size)[: max(size, len(page))])  # of the right length where it can be
    with serving("http", tmp_path / "places", tmp_path / "log") as (port, _):
        for number, name in enumerate(victims):
            out = tmp_path / f"set{number}"
            with pytest.raises(ShardSetError, match=re.escape(name.rpartition("/")[2])):
                pull(f"http://127.0.0.1:{port}/{number}", out)
            assert not (out / "manifest.json").exists()
            assert not [path for path in out.rglob("*") if b"<html>" in path.read_bytes()]


def test_parts_of_a_set(shard_set, http, tmp_path):
    pull(http, tmp_path / "set", splits=["test"])
    shards = ShardSet(tmp_path / "set")
    whole = ShardSet(shard_set(samples_per_shard=4))
    assert shards.id == whole.id
    assert (shards.split("test").read_all() == whole.split("test").read_all()).all()
    with pytest.raises(ShardSetError, match=r"split train was not pulled, only test.*--split train"):
        shards.split("train")
    found = verify(tmp_path / "set")
    assert found.ok
    assert "train, validation is not here" in found.notes[0]
    assert not list((tmp_path / "set").glob("events-train*"))
    with pytest.raises(ShardSetError, match="only a part"):
        push(tmp_path / "set", str(tmp_path / "elsewhere"))
    pull(http, tmp_path / "set", splits=["train"])
    assert ShardSet(tmp_path / "set").present == ("train", "test")
    pull(http, tmp_path / "set")
    assert contents(tmp_path / "set") == contents(whole.path)
    with pytest.raises(SettingsError, match="no split is called tset"):
        pull(http, tmp_path / "set", splits=["tset"])


def test_folders_of_something_else_are_left_alone(shard_set, published, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(SettingsError, match=r"thesis\.txt"):
        pull(str(published), tmp_path / "full")
    with pytest.raises(SettingsError, match="already holds shard set"):
        pull(str(published), shard_set())
    with pytest.raises(ShardSetError, match="expected 0000"):
        pull(str(published), tmp_path / "set", expect="0" * 64)


@contextmanager
def s3_bucket(monkeypatch):
    """The address of an empty bucket of a server in a process of its own."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "hidden",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    with serving("s3") as (port, _):
        fsspec.get_filesystem_class("s3").clear_instance_cache()  # which knows the servers of other tests
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        import boto3

        boto3.client("s3").create_bucket(Bucket="shards")
        yield "s3://shards"


@contextmanager
def sftp_folder(monkeypatch, tmp_path):
    """The address of the empty folder `root` on a server in a process of its own, and the server's port."""
    (tmp_path / "root").mkdir()
    with serving("sftp", tmp_path / "root") as (port, _):
        SSHFileSystem.clear_instance_cache()
        home = tmp_path / "home" / ".ssh"
        home.mkdir(parents=True)
        (home / "config").write_text(
            f"Host shelf\n  HostName 127.0.0.1\n  Port {port}\n  User someone\n"
            f"  IdentityFile {tmp_path / 'client_key'}\n  UserKnownHostsFile {tmp_path / 'known_hosts'}\n"
        )
        monkeypatch.setenv("HOME", str(home.parent))
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        yield f"sftp://shelf{tmp_path / 'root'}", port


# every day see test_s3 and test_sftp, too
@pytest.fixture(params=["folder", *(pytest.param(name, marks=pytest.mark.long) for name in ("s3", "sftp"))])
def shared_place(request, tmp_path, monkeypatch):
    """An address that several processes write to."""
    if request.param == "folder":
        yield str(tmp_path / "place")
    elif request.param == "s3":
        with s3_bucket(monkeypatch) as address:
            yield f"{address}/place"
    else:
        with sftp_folder(monkeypatch, tmp_path) as (address, _):
            yield f"{address}/place"


PUBLISH = """
import os, pathlib, sys
from spikebridge.pipeline.sharing.locations import RemoteFolder
from spikebridge.pipeline.sharing.publish import push

last = sys.argv[3]
put = RemoteFolder.put

def put_or_die(self, source, name):
    if name == last:
        os._exit(9)
    put(self, source, name)

RemoteFolder.put = put_or_die
for _ in range(int(sys.argv[4])):
    push(pathlib.Path(sys.argv[1]), sys.argv[2])
"""
"""Publishes a set several times; dies before a file of some name is sent."""


def publisher(shards, address, *, dies_at="", times=1):
    command = [sys.executable, "-c", PUBLISH, str(shards), address, dies_at, str(times)]
    return Forked(command, cwd=ROOT)


def test_two_publishers_and_a_reader_never_a_mixture(shard_set, shared_place, tmp_path):
    one, other = shard_set(samples_per_shard=4), shard_set(samples_per_shard=4, seed=7)
    ids = {ShardSet(one).id, ShardSet(other).id}
    push(one, shared_place)
    assert publisher(other, shared_place, dies_at="manifest.json").wait() == 9
    assert find_set(open_folder(shared_place)).manifest["self_sha256"] == ShardSet(one).id
    writers = [publisher(shards, shared_place, times=2) for shards in (one, other)]
    reads = 0
    while any(writer.poll() is None for writer in writers) or reads < 2:
        done = pull(shared_place, tmp_path / f"read{reads}")
        assert done["id"] in ids
        assert verify(tmp_path / f"read{reads}").ok
        reads += 1
    assert [writer.returncode for writer in writers] == [0, 0]
    for last in (other, one):
        push(last, shared_place)
        assert find_set(open_folder(shared_place)).manifest["self_sha256"] == ShardSet(last).id


def test_s3(shard_set, tmp_path, monkeypatch):
    with s3_bucket(monkeypatch) as address:
        shards = shard_set(samples_per_shard=4)
        assert push(shards, f"{address}/digits/small")["sent"] > 0
        assert push(shards, f"{address}/digits/small")["sent"] == 0
        pull(f"{address}/digits/small", tmp_path / "set")
        assert contents(tmp_path / "set") == contents(shards)
        with pytest.raises(ShardSetError, match="s3://shards/nothing: neither"):
            pull(f"{address}/nothing", tmp_path / "no")


def test_sftp(shard_set, tmp_path, monkeypatch):
    with sftp_folder(monkeypatch, tmp_path) as (address, port):
        shards = shard_set(samples_per_shard=4)
        push(shards, address)
        left = [tmp_path / "root" / f"{CURRENT}.{token}.partial" for token in ("0123abcd", "89abcdef")]
        for path in left:
            path.touch()
        os.utime(left[0], (0, 0))  # without locks, what nobody has written to for a day is a dead publisher's
        assert push(shards, address)["sent"] == 0
        assert [path.exists() for path in left] == [False, True]
        left[1].unlink()
        pull(address, tmp_path / "set")
        assert contents(tmp_path / "set") == contents(shards)

        pointer, missing, done = tmp_path / "root" / CURRENT, [], Event()

        def watch():
            while not done.is_set():
                missing.extend([] if pointer.exists() else ["missing"])

        watcher = Thread(target=watch)
        watcher.start()
        for _ in range(2):
            push(shards, address)
        done.set()
        watcher.join()
        assert not missing, "readers found nothing while the pointer was replaced"
        with pytest.raises(ShardSetError, match=r"sftp://\*\*\*@127.0.0.1:\d+/x: .*Check the address") as caught:
            open_folder(f"sftp://me:secret@127.0.0.1:{port}/x")
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["s3://bucket/a{b,c}", "s3://bucket/*", "http://host/a?token=x", "https://host/../x", "s3://b/a b", "pipe:rm -rf x",
     "file:///etc", "simplecache::http://host/a", "ftp://host/a", "http:///a", "s3://b/`id`", "http://h/a::s3://b"],
)  # fmt: skip
def test_tricks_in_addresses(address):
    with pytest.raises(SettingsError, match="expected"):
        open_folder(address)


def test_what_is_an_address_and_what_a_path(tmp_path):
    assert is_address("s3://b")
    assert not is_address("C:\\data")
    assert not is_address("data/shards:old")
    place = tmp_path / "a {b} *"
    place.mkdir()
    assert open_folder(str(place)).path == str(place)


def test_credentials_are_never_shown(tmp_path):
    for login in ("me:secret", "me:se@cret", "me:se/cret", "me:secret@cre/t"):
        assert masked(f"a message of sftp://{login}@host/x itself") == "a message of sftp://***@host/x itself"
    for address in ("sftp://me:se/cret@host/x", "sftp://me@host:secret/x"):
        with pytest.raises(SettingsError) as refused:
            open_folder(address)
        assert "se/cret" not in str(refused.value)
    with pytest.raises(ShardSetError) as caught:
        pull("http://me:secret@127.0.0.1:9/x", tmp_path / "set")
    assert "secret" not in str(caught.value)
    assert "***@127.0.0.1:9" in str(caught.value)


@pytest.mark.parametrize("name", ["../evil.tar", "/etc/passwd", "a/b.tar", "..", "events-train-00000.tar\n", ".hidden"])
def test_names_that_lead_elsewhere(shard_set, tmp_path, name):
    from spikebridge.pipeline.shards import manifest as manifests

    manifest = manifests.read(shard_set())
    manifest["files"][0]["name"] = name
    (tmp_path / "place").mkdir()
    manifests.write(tmp_path / "place", manifests.seal(manifest))
    with pytest.raises(ShardSetError, match="do not use it"):
        pull(str(tmp_path / "place"), tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    "pointer", ['{"id": "../elsewhere"}', '{"id": "/"}', '{"id": 5}', '{"id": null}', "{}", "[1]", "", "[" * 10**5]
)
def test_pointers_that_lead_elsewhere(shard_set, tmp_path, pointer):
    shutil.copytree(shard_set(), tmp_path / "elsewhere")
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / CURRENT).write_text(pointer)
    with pytest.raises(ShardSetError, match=r"not the pointer to a shard set|neither manifest\.json nor"):
        pull(str(tmp_path / "place"), tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_a_missing_package_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "spikebridge.pipeline.sharing.locations.find_spec", lambda name: None if name == "s3fs" else object()
    )
    with pytest.raises(SettingsError, match=r"package s3fs.*spikebridge\[sharing\]"):
        pull("s3://b/x", tmp_path / "set")


def test_ctrl_c_keeps_what_arrived(published, tmp_path):
    slow = (
        "import time\nfrom spikebridge import cli\n"
        "from spikebridge.pipeline.sharing import locations as places\nstream = places.RemoteFolder.stream\n"
        "places.PART_BYTES = 2000\n"
        "def late(*a):\n    for part in stream(*a):\n        time.sleep(.1)\n        yield part\n"
        "places.RemoteFolder.stream = late\n"
        f"cli.main(['pull', {str(published)!r}, {str(tmp_path / 'set')!r}])\n"
    )
    process = Forked([sys.executable, "-c", slow], cwd=ROOT, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("set/events*")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert list(tmp_path.glob("set/*"))
    pull(str(published), tmp_path / "set")
    assert verify(tmp_path / "set").ok
