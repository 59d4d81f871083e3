"""SFTP servers that are not who they should be, stall or fail; beside `test_publish`, where one is well."""

import asyncio
import gc
from types import SimpleNamespace

import pytest
from faulty_sftp import SFTP
from sshfs import SSHFileSystem

from spikebridge.pipeline.base.errors import ShardSetError
from spikebridge.pipeline.sharing import http, locations, sftp
from spikebridge.pipeline.sharing.locations import open_folder

OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ\n"


@pytest.fixture
def server(tmp_path, monkeypatch):
    SSHFileSystem.clear_instance_cache()
    server = SFTP(tmp_path / "sftp")
    server.write_home(tmp_path / "home")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr(locations, "FIRST_PAUSE_S", 0.001)
    yield server
    SSHFileSystem.clear_instance_cache()
    gc.collect()
    server.close()


@pytest.mark.parametrize("known", ["", f"[127.0.0.1]:{{port}} {OTHER_KEY}"], ids=["none known", "another known"])
def test_a_host_whose_key_is_not_the_known_one_is_refused(server, tmp_path, known):
    server.known_hosts.write_text(known.format(port=server.port))
    with pytest.raises(ShardSetError, match=r"sftp://shelf/x: HostKeyNotVerifiable: .*known_hosts"):
        open_folder("sftp://shelf/x")


def test_what_is_sent_in_parts_comes_back_in_parts(server, tmp_path, monkeypatch):
    monkeypatch.setattr(sftp, "PART_BYTES", 1000)
    content = bytes(range(256)) * 10
    (tmp_path / "file").write_bytes(content)
    folder = open_folder(f"sftp://shelf{tmp_path}/place")
    folder.put(tmp_path / "file", "a")
    folder.put(content, "b")
    folder.put(b"", "c")
    for name in "ab":
        assert [len(part) for part in folder.stream(name, 0, 2**40)] == [1000, 1000, 560]
        assert b"".join(folder.stream(name, 5, 2005)) == content[5:2005]
    assert list(folder.stream("c", 0, 9)) == []
    assert folder.read_small("none") is None


@pytest.mark.parametrize("fault", ["stalling", "failing"])
def test_a_server_that_stalls_or_fails_is_given_up_in_bounds(server, tmp_path, monkeypatch, fault):
    monkeypatch.setattr("faulty_sftp.SHARE", 1.0)
    folder = open_folder(f"sftp://shelf{tmp_path}")
    (tmp_path / "manifest.json").write_text("{}")
    assert folder.read_small("manifest.json") == b"{}"
    monkeypatch.setattr(sftp, "STALL_S", 0.05)
    server.fault = fault
    with pytest.raises(ShardSetError, match=r"sftp://shelf/.*/manifest\.json: .*Check the address"):
        folder.read_small("manifest.json")
    with pytest.raises(Exception, match=r"^$|not well"):
        folder.put(b"text", "sent")
    assert not (tmp_path / "sent").exists()


def test_a_transfer_ends_though_its_thread_has_died(monkeypatch):
    """As for want of memory: what waits for an answer of that thread waits no longer than for a server that stalls."""
    files = SimpleNamespace(loop=asyncio.new_event_loop())  # and nobody runs it

    async def answer(*_):
        return 1

    monkeypatch.setattr(http, "_request", answer)
    for module in (http, sftp):
        monkeypatch.setattr(module, "STALL_S", 0.05)
    with pytest.raises(TimeoutError):
        sftp._call(files, answer)
    with pytest.raises(TimeoutError):
        list(http.stream(files, "http://host/x", 0, 9, shown="x"))
    files.loop.run_until_complete(asyncio.sleep(0.01))
    files.loop.close()
