"""Plugins: what a file of a user registers is found by every look-up, in every process, and bad ones are named."""

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from conftest import ROOT

from spikebridge.cli import main
from spikebridge.pipeline.base.errors import SettingsError
from spikebridge.pipeline.datasets.pairs import READERS
from spikebridge.pipeline.plugins import loading as plugins
from spikebridge.pipeline.plugins.loading import Names, add_plugin, load_plugins
from spikebridge.pipeline.readers import get_reader, list_readers

READER = """
from spikebridge.pipeline.datasets.pairs import register
from spikebridge.pipeline.readers.digits import Digits

@register
class Ciphers(Digits):
    name = "ciphers"
"""
TABLE = """
import sys, types
sys.modules["registry_of_a_plugin"] = module = types.ModuleType("registry_of_a_plugin")
module.TABLE = {"b": 1, "c": 2}
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No plugin imported, and what a test imports is forgotten."""
    monkeypatch.setenv(plugins.VARIABLE, "")
    monkeypatch.setattr(plugins, "_loaded", {})
    list_readers()
    kept = dict(READERS)
    yield
    READERS.clear()
    READERS.update(kept)
    for name in [name for name in sys.modules if name.startswith("spikebridge_plugins")]:
        del sys.modules[name]


def plugin(folder, text, name="mine.py"):
    (folder / name).write_text(text)
    return str(folder / name)


def test_a_reader_is_found_before_and_behind_the_verb(tmp_path):
    with pytest.raises(SettingsError, match="no data set is called 'ciphers'"):
        get_reader("ciphers")
    path = plugin(tmp_path, READER)
    for words in (["--plugin", path, "datasets", "ciphers"], ["datasets", "ciphers", f"--plugin={path}"]):
        done = CliRunner().invoke(main, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert "ciphers" in done.stdout
    assert list(load_plugins()) == ["mine.py"]
    assert len(load_plugins()["mine.py"]) == 12


def test_plugins_are_imported_only_where_our_names_do_not_answer(tmp_path, monkeypatch):
    names = Names(("a", "b"), "registry_of_a_plugin:TABLE")
    add_plugin(plugin(tmp_path, TABLE))
    assert "a" in names
    assert not plugins._loaded
    assert "c" in names
    assert "d" not in names
    assert (list(names), names[-1], len(names)) == (["a", "b", "c"], "c", 3)
    monkeypatch.delitem(sys.modules, "registry_of_a_plugin")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("def (", "SyntaxError"),
        ("import no_such_module", "no_such_module"),
        (READER.replace("ciphers", "digits"), "registered twice"),
    ],
)
def test_what_cannot_be_imported_is_named(tmp_path, text, words):
    path = plugin(tmp_path, text)
    done = CliRunner().invoke(main, ["datasets", "digits", "--plugin", path])
    assert done.exit_code == 1
    assert words in done.output
    assert "mine.py: cannot be used as a plugin" in click.unstyle(done.output).replace("\n", " ")


@pytest.mark.parametrize("name", ["nowhere.py", "mine.txt", "my-network.py", ""])
def test_what_is_no_python_file_is_refused(tmp_path, name):
    (tmp_path / "mine.txt").write_text("")
    (tmp_path / "my-network.py").write_text("")
    done = CliRunner().invoke(main, ["datasets", "--plugin", str(tmp_path / name) if name else ""])
    assert done.exit_code == 2
    assert "expected a plugin" in done.output


def test_an_entry_point_is_found_and_one_that_fails_is_named(tmp_path, monkeypatch):
    def install(place, entry):
        folder = tmp_path / place / "of_a_package-1.2.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: of-a-package\nVersion: 1.2\n")
        (folder / "entry_points.txt").write_text(f"[spikebridge.plugins]\n{entry}\n")
        monkeypatch.syspath_prepend(folder.parent)

    install("good", "ciphers = of_a_package")
    plugin(tmp_path / "good", READER, "of_a_package.py")
    assert get_reader("ciphers").name == "ciphers"
    assert load_plugins() == {"of_a_package": "1.2"}
    install("bad", "other = not_there")
    with pytest.raises(SettingsError, match=r"entry point other \(not_there\): cannot be used as a plugin"):
        load_plugins()
    sys.modules.pop("of_a_package")


def test_installed_packages_are_searched_once(monkeypatch):
    """A conversion asks for its reader at every recording."""
    load_plugins()
    monkeypatch.setattr(plugins, "entry_points", None)
    assert get_reader("digits").name == "digits"


@pytest.mark.long
def test_a_conversion_in_other_processes_finds_the_reader(tmp_path, digits_raw):
    words = ["--plugin", plugin(tmp_path, READER), "preprocess", "--dataset", "ciphers", "--workers", "2"]
    words += ["--events", str(digits_raw), "--static", str(digits_raw), "--out", str(tmp_path / "set")]
    done = subprocess.run([sys.executable, ROOT / "cli.py", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
