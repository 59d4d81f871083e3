"""Commands in messages work for the install at hand."""

import shlex
import subprocess
import sys

import pytest
from conftest import ROOT

from spikebridge.pipeline.base import installation
from spikebridge.pipeline.base.installation import command, install_command


@pytest.fixture(autouse=True)
def asked_anew():
    installation.is_installed.cache_clear()
    yield
    installation.is_installed.cache_clear()


def test_installed_the_console_command_and_the_package_are_named():
    assert command("verify", "my shards") == "spikebridge verify 'my shards'"
    assert install_command("report") == 'pip install "spikebridge[report]"'


@pytest.mark.parametrize("inside", [True, False])
def test_in_a_clone_that_is_not_installed_its_own_file_is_named(tmp_path, monkeypatch, inside):
    def absent(name):
        raise installation.PackageNotFoundError(name)

    monkeypatch.setattr(installation, "distribution", absent)
    monkeypatch.chdir(ROOT if inside else tmp_path)
    assert command("verify", "s") == ("python cli.py verify s" if inside else f"python {ROOT / 'cli.py'} verify s")
    assert install_command("report") == f'pip install -e "{"." if inside else ROOT}[report]"'
    _, *words = shlex.split(command("--version"))
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
