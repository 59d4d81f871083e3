"""The README tells the truth: its commands run as they stand, its make targets exist, its verbs are all there."""

import re
import sys
import warnings

import pytest
from click.testing import CliRunner
from conftest import ROOT
from documents import indented, verbs, write_own_data

from spikebridge.cli import main

README = (ROOT / "README.md").read_text()


def commands():
    return [arguments for block in indented(ROOT / "README.md") for arguments in verbs(block)]


def test_commands_run_as_they_stand(tmp_path, monkeypatch):
    write_own_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    for arguments in commands():
        # The test needs no good network.
        quick = ["--set", "epochs=1", "--set", "width=0.5"] if arguments[0] in ("train", "compare") else []
        quick += ["--seeds", "0"] if arguments[0] == "compare" else []
        with monkeypatch.context() as patch:
            if arguments[0] in ("train", "compare"):
                patch.setitem(sys.modules, "matplotlib", None)  # one report is drawn, by its own verb
            result = CliRunner().invoke(main, [*arguments, *quick], catch_exceptions=False)
        assert result.exit_code == 0, (arguments, result.output)
    for made in ("shards/manifest.json", "mine.toml", "run/result.json", "compare/compare.json", "run.html", "run.nir"):
        assert (tmp_path / made).is_file()


SNIPPETS = [block for block in indented(ROOT / "README.md") if any("import" in line for line in block.lines[:2])]


@pytest.mark.parametrize("block", SNIPPETS, ids=lambda block: block.where)
def test_the_snippets_open_a_shard_set(block, shard_set, tmp_path, monkeypatch):
    (tmp_path / "shards").symlink_to(shard_set())
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other libraries
        exec(block.text, names)
    assert names["frames"].shape == (4, 2, 12, 12)
    assert names["label"] == int(names["label"])


def test_there_is_a_snippet_for_each_way_to_open_one():
    text = "".join(block.text for block in SNIPPETS)
    assert all(name in text for name in ("ShardDataset", "ShardFrames", "webdataset.WebDataset"))


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`?make ([a-z-]+)", README))))
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_linked_files_exist():
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert link.startswith("https://") or (ROOT / link).exists(), link
