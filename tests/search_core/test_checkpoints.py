"""Checkpoints in a folder; the contract is the same on every storage."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from search_core.checkpoints import Checkpoints
from search_core.storage import Folder, StorageError, StoredFile
from tests.contracts import CheckpointsContract, check_latest, name_of, state_of


class TestCheckpointsInAFolder(CheckpointsContract):
    """The contract."""

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Folder:
        return Folder(tmp_path / "trial" / "0")


def test_a_folder_that_never_was_has_none(tmp_path: Path) -> None:
    assert Checkpoints(Folder(tmp_path / "missing")).load_latest() is None
    assert not (tmp_path / "missing").exists()


def test_what_earlier_versions_wrote_is_read(tmp_path: Path) -> None:
    """A name without an accuracy."""
    checkpoints = Checkpoints(Folder(tmp_path))
    name = checkpoints.save(1, state_of(1), accuracy=0.5)
    (tmp_path / name).rename(tmp_path / name.replace(".accuracy-0.500000000", ""))
    check_latest(checkpoints, 1)
    assert checkpoints.load_best() is None


class _Unreadable(Folder):
    """A storage whose files of one epoch, or of all, cannot be read for now."""

    def __init__(self, path: Path, which: str) -> None:
        super().__init__(path)
        self._which = which

    def read(self, name: str) -> bytes:
        if name.startswith(self._which):
            raise StorageError(f"cannot read {name}: it takes a rest")
        return super().read(name)

    def list(self) -> Sequence[StoredFile]:
        return super().list()


def test_one_that_cannot_be_read_now_is_passed_over_but_not_all_of_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(Folder(tmp_path))
    for epoch in (1, 2):
        checkpoints.save(epoch, state_of(epoch))
    with caplog.at_level(logging.WARNING):
        check_latest(Checkpoints(_Unreadable(tmp_path, "epoch-000002")), 1)
    assert "takes a rest" in caplog.text
    # To start anew would give up what will be there again.
    with pytest.raises(StorageError, match="epoch-000002"):
        Checkpoints(_Unreadable(tmp_path, "epoch-")).load_latest()
    assert name_of(Folder(tmp_path), 2)


def test_keep_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Checkpoints(Folder(tmp_path), keep=0)
