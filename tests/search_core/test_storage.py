"""The storage in a folder, on disks that are full."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from search_core.storage import Folder, StorageError
from tests.contracts import StorageContract, names

MEBIBYTE = 2**20


class TestFolder(StorageContract):
    """The contract, on a folder that is not there yet."""

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Folder:
        return Folder(tmp_path / "deep" / "folder")


def test_a_leftover_temporary_file_is_no_file_and_swept_when_old(tmp_path: Path) -> None:
    old, young = tmp_path / "a.abc.partial", tmp_path / "a.def.partial"
    for leftover in (old, young):
        leftover.write_bytes(b"half a file")
    os.utime(old, (0, 0))
    folder = Folder(tmp_path)
    assert folder.list() == []
    folder.write("b", b"")
    assert not old.exists()
    assert young.exists()
    assert names(folder) == ["b"]


def test_files_can_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    """The API reads logs that trials have written, and may run as somebody else."""
    before = os.umask(0o027)
    try:
        Folder(tmp_path).write("a", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.parametrize("operation", ["list", "read", "write", "delete"])
def test_a_folder_that_is_none_is_a_storage_error_that_names_it(
    tmp_path: Path, operation: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    folder = Folder(tmp_path / "file" / "folder")
    arguments = {"list": (), "read": ("a",), "write": ("a", b""), "delete": ("a",)}
    with pytest.raises(StorageError, match=str(folder.path)):
        getattr(folder, operation)(*arguments[operation])


def test_a_write_that_the_system_refuses_leaves_what_was_there(tmp_path: Path) -> None:
    """Really refused, halfway: the process may write no file of more than a mebibyte."""
    code = f"""
import resource
from search_core.storage import Folder, StorageError
resource.setrlimit(resource.RLIMIT_FSIZE, ({MEBIBYTE}, {MEBIBYTE}))
folder = Folder({str(tmp_path)!r})
folder.write("a", b"small")
try:
    folder.write("a", bytes({2 * MEBIBYTE}))
except StorageError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith(f"cannot write {tmp_path / 'a'}: ")
    assert "File too large" in run.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert Folder(tmp_path).read("a") == b"small"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_leaves_what_was_there_and_is_mended_by_room(small_disk: Path) -> None:
    folder = Folder(small_disk / "trial-0")
    folder.write("a", b"small")
    (small_disk / "ballast").write_bytes(bytes(MEBIBYTE // 2))
    with pytest.raises(StorageError, match=r"cannot write .*trial-0/a: .*No space left"):
        folder.write("a", bytes(MEBIBYTE))
    assert names(folder) == ["a"]
    assert folder.read("a") == b"small"
    assert [file.name for file in folder.path.iterdir()] == ["a"]
    (small_disk / "ballast").unlink()
    folder.write("a", bytes(MEBIBYTE // 2))
    assert len(folder.read("a")) == MEBIBYTE // 2
