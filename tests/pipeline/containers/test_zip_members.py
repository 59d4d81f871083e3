"""What a zip file holds, and what is said of one that is no whole one."""

import zipfile

import pytest

from spikebridge.pipeline.base.errors import LayoutError
from spikebridge.pipeline.containers.zip_members import list_members


def test_files_are_listed_and_folders_are_not(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.mkdir("folder")
        archive.writestr("folder/one", b"1")
    ((name, member),) = list_members(tmp_path / "a.zip")
    assert (name, member.size) == ("folder/one", 1)


def test_a_member_without_a_name_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("one", b"1")
        archive.filelist[0].filename = ""  # the directory is written when the file is closed
    with pytest.raises(
        LayoutError, match=r"a\.zip: no whole zip file \(a member has no name\)\. Copy or download it again"
    ):
        list(list_members(tmp_path / "a.zip"))
